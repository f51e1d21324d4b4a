package lab

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/unmasq/unmasq/internal/packet"
)

// PeerPort is the TCP and UDP port at which every pod and outside peer answers
// with the address and port that it sees.
const PeerPort = 7007

// answerPrefix starts a peer's answer: "you are 192.0.2.7:40000\n".
const answerPrefix = "you are "

// formatAnswer is the line with which a peer answers.
func formatAnswer(seen netip.AddrPort) string {
	return answerPrefix + netip.AddrPortFrom(seen.Addr().Unmap(), seen.Port()).String() + "\n"
}

// parseAnswer reads such a line.
func parseAnswer(line string) (netip.AddrPort, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(line), answerPrefix)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("answer %q: want %q and an address with port", line, answerPrefix)
	}
	seen, err := netip.ParseAddrPort(rest)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("answer %q: %w", line, err)
	}
	return seen, nil
}

// arrival identifies a call at the peer that it reaches: of UDP and ICMP by the
// text it carries, of TCP by its source port.
type arrival string

func textArrival(protocol, text string) arrival { return arrival(protocol + "/" + text) }

func portArrival(f packet.Family, port uint16) arrival {
	return arrival(fmt.Sprintf("tcp/%v/%d", f, port))
}

// Peer answers and records in one namespace. Its sockets were opened inside it;
// its goroutines run outside, sockets keep their namespace.
type Peer struct {
	mu      sync.Mutex
	seen    map[arrival]netip.AddrPort
	closers []io.Closer
	done    sync.WaitGroup
}

// arrived returns what the peer saw of a call; ok is false if nothing came.
func (p *Peer) arrived(key arrival) (netip.AddrPort, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen, ok := p.seen[key]
	return seen, ok
}

func (p *Peer) record(key arrival, seen netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.seen[key] = netip.AddrPortFrom(seen.Addr().Unmap().WithZone(""), seen.Port())
}

// openPeer opens a peer's sockets; call it inside the peer's namespace. Where
// answers is false it only records, beside a peer of another process that answers.
func openPeer(ctx context.Context, answers bool) (*Peer, error) {
	p := &Peer{seen: map[arrival]netip.AddrPort{}}
	for _, f := range packet.Families {
		opens := []func(context.Context, packet.Family) error{p.recordTCP, p.recordUDP, p.recordICMP}
		if answers {
			opens = append(opens, p.answerTCP, p.answerUDP)
		}
		for _, open := range opens {
			if err := open(ctx, f); err != nil {
				p.Close()
				return nil, err
			}
		}
	}
	return p, nil
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

func (p *Peer) answerTCP(ctx context.Context, f packet.Family) error {
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	l, err := config.Listen(ctx, network(TCP, f), netip.AddrPortFrom(anyAddress(f), PeerPort).String())
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	p.serve(l, func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answerConn(conn)
		}
	})
	return nil
}

// answerConn tells a caller who it is. The caller closes first, so that the
// peer's port isn't held by TIME_WAIT.
func answerConn(conn net.Conn) {
	defer conn.Close()                                //nolint:errcheck // the answer's error is enough
	conn.SetDeadline(time.Now().Add(2 * time.Second)) //nolint:errcheck // fails on a closed connection only
	seen, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return
	}
	io.WriteString(conn, formatAnswer(seen)) //nolint:errcheck // the caller notices
}

func (p *Peer) answerUDP(ctx context.Context, f packet.Family) error {
	var config net.ListenConfig
	conn, err := config.ListenPacket(ctx, network(UDP, f), netip.AddrPortFrom(anyAddress(f), PeerPort).String())
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	udp := conn.(*net.UDPConn)
	p.serve(udp, func() {
		buf := make([]byte, 2048)
		for {
			_, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			// Without a route back to the caller this fails.
			udp.WriteToUDPAddrPort([]byte(formatAnswer(from)), from) //nolint:errcheck // see above
		}
	})
	return nil
}

func (p *Peer) recordTCP(ctx context.Context, f packet.Family) error {
	return p.recordRaw(ctx, TCP, f, func(from netip.Addr, b []byte) {
		if port, ok := parseSYN(b); ok {
			p.record(portArrival(f, port), netip.AddrPortFrom(from, port))
		}
	})
}

func (p *Peer) recordUDP(ctx context.Context, f packet.Family) error {
	return p.recordRaw(ctx, UDP, f, func(from netip.Addr, b []byte) {
		if port, text, ok := parseUDP(b); ok {
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
