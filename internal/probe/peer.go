package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/unmasq/unmasq/internal/packet"
)

// Protocols of calls, as they are printed.
const (
	TCP  = "tcp"
	UDP  = "udp"
	ICMP = "icmp"
)

// Port is where peers answer by convention.
const Port = 7007

// answerPrefix and nameWord make a peer's answer: "you are 192.0.2.7:40000 says web\n".
const (
	answerPrefix = "you are "
	nameWord     = " says "
)

// ErrNoPeer answers in other words than a peer's.
var ErrNoPeer = errors.New("it isn't a peer's")

// requestPrefix starts every datagram that is answered, so that no peer answers an
// answer.
const requestPrefix = "unmasq "

// formatAnswer is the line with which a peer answers; name may be empty.
func formatAnswer(seen netip.AddrPort, name string) string {
	line := answerPrefix + netip.AddrPortFrom(seen.Addr().Unmap(), seen.Port()).String()
	if name != "" {
		line += nameWord + name
	}
	return line + "\n"
}

// parseAnswer reads such a line.
func parseAnswer(line string) (seen netip.AddrPort, name string, err error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), answerPrefix)
	if !ok {
		return netip.AddrPort{}, "", fmt.Errorf("answer %q: %w: want %q and an address with port", line, ErrNoPeer, answerPrefix)
	}
	rest, name, _ = strings.Cut(rest, nameWord)
	if seen, err = netip.ParseAddrPort(rest); err != nil {
		return netip.AddrPort{}, "", fmt.Errorf("answer %q: %w: %w", line, ErrNoPeer, err)
	}
	return seen, name, nil
}

// Arrival identifies a call at the peer that it reaches: of UDP and ICMP by the
// text it carries, of TCP by its source port.
type Arrival string

func textArrival(protocol, text string) Arrival { return Arrival(protocol + "/" + text) }

func portArrival(f packet.Family, port uint16) Arrival {
	return Arrival(fmt.Sprintf("tcp/%v/%d", f, port))
}

// PeerOptions say what a peer does.
type PeerOptions struct {
	// Port of TCP and UDP; 0: a free one.
	Port uint16
	// Name that it answers with, beside what it sees; it may be empty.
	Name string
	// Answers: it answers by TCP and UDP.
	Answers bool
	// Records what arrives, answered or not, of ICMP too; it takes CAP_NET_RAW.
	Records bool
}

// Peer answers and records in one namespace: that in which Open was called. Its
// goroutines run outside, sockets keep their namespace.
type Peer struct {
	options PeerOptions
	mu      sync.Mutex
	seen    map[Arrival]netip.AddrPort
	closers []io.Closer
	done    sync.WaitGroup
}

// Open opens a peer's sockets; call it inside the peer's namespace. A family that the
// kernel doesn't have is left out.
func Open(ctx context.Context, o PeerOptions) (*Peer, error) {
	const attempts = 16 // a port that is free by TCP may be taken by UDP, or in the other family
	for i := 0; ; i++ {
		p := &Peer{options: o, seen: map[Arrival]netip.AddrPort{}}
		err := p.open(ctx)
		if err == nil {
			return p, nil
		}
		p.Close()
		if o.Port != 0 || i == attempts || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, err
		}
	}
}

func (p *Peer) open(ctx context.Context) error {
	var opens []func(context.Context, packet.Family) error
	if p.options.Answers {
		opens = append(opens, p.answerTCP, p.answerUDP)
	}
	if p.options.Records {
		opens = append(opens, p.recordTCP, p.recordUDP, p.recordICMP)
	}
	for _, f := range packet.Families {
		for _, open := range opens {
			err := open(ctx, f)
			if errors.Is(err, syscall.EAFNOSUPPORT) && f == packet.IPv6Family {
				break
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// Port that it answers at.
func (p *Peer) Port() uint16 { return p.options.Port }

// Arrived returns what the peer saw of a call; ok is false if nothing came.
func (p *Peer) Arrived(key Arrival) (seen netip.AddrPort, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen, ok = p.seen[key]
	return seen, ok
}

func (p *Peer) record(key Arrival, seen netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[key] = netip.AddrPortFrom(seen.Addr().Unmap().WithZone(""), seen.Port())
}

// Close closes the sockets and waits for the goroutines.
func (p *Peer) Close() {
	for _, c := range p.closers {
		c.Close() //nolint:errcheck // nothing is buffered
	}
	p.done.Wait()
}

func (p *Peer) serve(c io.Closer, loop func()) {
	p.closers = append(p.closers, c)
	p.done.Go(loop)
}

// network spells a network of package net: tcp and IPv6 are "tcp6".
func network(protocol string, f packet.Family) string {
	return fmt.Sprintf("%s%d", protocol, f)
}

// rawNetwork spells a network of raw packets: "ip4:icmp", "ip6:ipv6-icmp", "ip6:tcp".
func rawNetwork(protocol string, f packet.Family) string {
	if protocol == ICMP && f == packet.IPv6Family {
		protocol = "ipv6-icmp"
	}
	return fmt.Sprintf("ip%d:%s", f, protocol)
}

func anyAddress(f packet.Family) netip.Addr { return f.Everywhere().Addr() }

func (p *Peer) listenAt(f packet.Family) string {
	return netip.AddrPortFrom(anyAddress(f), p.options.Port).String()
}

func (p *Peer) answerTCP(ctx context.Context, f packet.Family) error {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(ctx, network(TCP, f), p.listenAt(f))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	if at, ok := l.Addr().(*net.TCPAddr); ok {
		p.options.Port = at.AddrPort().Port()
	}
	p.serve(l, func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.done.Go(func() { p.answerConn(conn) })
		}
	})
	return nil
}

// answerConn tells a caller who it is.
func (p *Peer) answerConn(conn net.Conn) {
	defer conn.Close()                                //nolint:errcheck // the answer's error is enough
	conn.SetDeadline(time.Now().Add(2 * time.Second)) //nolint:errcheck // fails on a closed connection only
	seen, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return
	}
	io.WriteString(conn, formatAnswer(seen, p.options.Name)) //nolint:errcheck // the caller notices
}

func (p *Peer) recordTCP(ctx context.Context, f packet.Family) error {
	return p.recordRaw(ctx, TCP, f, func(from netip.Addr, b []byte) {
		if port, ok := parseSYN(b, p.options.Port); ok {
			p.record(portArrival(f, port), netip.AddrPortFrom(from, port))
		}
	})
}

func (p *Peer) recordUDP(ctx context.Context, f packet.Family) error {
	return p.recordRaw(ctx, UDP, f, func(from netip.Addr, b []byte) {
		if port, text, ok := parseUDP(b, p.options.Port); ok {
			p.record(textArrival(UDP, text), netip.AddrPortFrom(from, port))
		}
	})
}

func (p *Peer) recordICMP(ctx context.Context, f packet.Family) error {
	return p.recordRaw(ctx, ICMP, f, func(from netip.Addr, b []byte) {
		if reply, text, ok := parseEcho(f, b); ok && !reply {
			p.record(textArrival(ICMP, text), netip.AddrPortFrom(from, 0))
		}
	})
}

// recordRaw hands every packet of a protocol that reaches the namespace to note.
func (p *Peer) recordRaw(ctx context.Context, protocol string, f packet.Family, note func(netip.Addr, []byte)) error {
	var config net.ListenConfig
	conn, err := config.ListenPacket(ctx, rawNetwork(protocol, f), anyAddress(f).String())
	if err != nil {
		return fmt.Errorf("open a raw socket: %w", err)
	}
	p.serve(conn, func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if ip, ok := from.(*net.IPAddr); ok {
				addr, _ := netip.AddrFromSlice(ip.IP)
				note(addr.Unmap(), buf[:n])
			}
		}
	})
	return nil
}
