package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unmasq/unmasq/internal/packet"
)

// Protocols of the calls, as they are printed.
const (
	TCP  = "tcp"
	UDP  = "udp"
	ICMP = "icmp"
)

// protocols in the order of output.
var protocols = [...]string{TCP, UDP, ICMP}

const (
	// patience with a call that must be answered; it covers neighbour discovery
	// and a busy machine.
	patience = 5 * time.Second
	// silence is how long a call is waited for that must get no answer.
	silence = 800 * time.Millisecond
	// resend of UDP and ICMP; TCP does it itself.
	resend = 300 * time.Millisecond
	// atOnce bounds the calls under way.
	atOnce = 16
)

// Sighting is one call and what became of it.
type Sighting struct {
	Call
	Family   packet.Family
	Protocol string
	// Source is the caller's own address and port (0 for ICMP).
	Source netip.AddrPort
	// Target is the address that was called.
	Target netip.Addr
	// Seen is what the peer saw; invalid where nothing arrived.
	Seen netip.AddrPort
	// Replied: the caller got the peer's answer.
	Replied bool
	// Sight is Seen in words.
	Sight Sight
	// Expected in this stage; "" where nothing is.
	Expected Sight
	// Note says why there was no reply, as far as it shows.
	Note string
}

// OK says whether the call was seen as expected.
func (s *Sighting) OK() bool { return s.Expected == "" || s.Sight == s.Expected }

// Caller makes calls, each with a source port and a text of its own, so that no
// call finds the conntrack entry of an earlier one.
type Caller struct {
	// Patience with a call of which nothing is expected.
	Patience time.Duration
	next     atomic.Uint32
}

// newCaller starts at a random port: the entries of an earlier process live on
// for up to two minutes.
func newCaller() *Caller {
	c := &Caller{Patience: patience}
	c.next.Store(rand.Uint32N(40000))
	return c
}

// wait is how long a call is waited for.
func (c *Caller) wait(expected Sight) time.Duration {
	switch expected {
	case NoReply:
		return silence
	case "":
		return c.Patience
	}
	return patience
}

// port is in 20000–59999.
func (c *Caller) port() uint16 { return uint16(20000 + c.next.Add(1)%40000) }

// outcome of a call, as the caller knows it.
type outcome struct {
	source  netip.AddrPort
	key     arrival
	replied bool
	// told is what the peer answered; invalid for ICMP.
	told netip.AddrPort
}

// measure makes every call of the stage in both families and all protocols.
func (w *World) measure(ctx context.Context, c *Caller, peers map[string]*Peer, expect map[Call]Expect) ([]Sighting, error) {
	var all []Sighting
	for _, call := range w.Scenario.Calls {
		for _, f := range packet.Families {
			for _, protocol := range protocols {
				all = append(all, Sighting{Call: call, Family: f, Protocol: protocol, Expected: expect[call].Of(f)})
			}
		}
	}
	errs := make([]error, len(all))
	var group sync.WaitGroup
	tokens := make(chan struct{}, atOnce)
	for i := range all {
		group.Go(func() {
			tokens <- struct{}{}
			defer func() { <-tokens }()
			errs[i] = w.call(ctx, c, peers[all[i].To], &all[i])
		})
	}
	group.Wait()
	return all, errors.Join(errs...)
}

// call makes one call and fills in what became of it.
func (w *World) call(ctx context.Context, c *Caller, peer *Peer, s *Sighting) error {
	from, err := w.Scenario.space(s.From)
	if err != nil {
		return err
	}
	to, err := w.Scenario.space(s.To)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.wait(s.Expected))
	defer cancel()
	s.Target = to.address(s.Family)
	dial := map[string]func(context.Context, netip.Addr, netip.Addr) (outcome, error){
		TCP: c.tcp, UDP: c.udp, ICMP: c.icmp,
	}[s.Protocol]
	var o outcome
	err = w.NS(s.From).Do(func() (err error) {
		o, err = dial(ctx, from.address(s.Family), s.Target)
		return err
	})
	if err != nil {
		return fmt.Errorf("%s from %s to %s: %w", s.Protocol, s.From, s.To, err)
	}
	return w.fill(peer, s, o)
}

// fill compares what the caller was told with what the peer recorded.
func (w *World) fill(peer *Peer, s *Sighting, o outcome) error {
	seen, arrived := peer.arrived(o.key)
	// The peer's kernel replies to an echo, whatever our recorder is doing.
	echoed := o.replied && !o.told.IsValid()
	for end := time.Now().Add(patience); echoed && !arrived && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
		seen, arrived = peer.arrived(o.key)
	}
	s.Source, s.Replied, s.Seen = o.source, o.replied, seen
	if o.told.IsValid() {
		s.Seen = o.told
	}
	if arrived && o.told.IsValid() && seen != o.told {
		return fmt.Errorf("%s from %s to %s: the peer answered %v and recorded %v", s.Protocol, s.From, s.To, o.told, seen)
	}
	s.Sight = w.sight(s)
	if !s.Replied {
		s.Note = w.whyNoReply(s)
	}
	return nil
}

// sight puts what the peer saw into words.
func (w *World) sight(s *Sighting) Sight {
	switch owner := w.owner[s.Seen.Addr()]; {
	case !s.Replied:
		return NoReply
	case owner == s.From:
		return Itself
	case owner == "":
		return Stranger
	default:
		return Sight(owner)
	}
}

// whyNoReply tells what the peer recorded, and whether its namespace has a route back.
func (w *World) whyNoReply(s *Sighting) string {
	if !s.Seen.IsValid() {
		return "nothing was seen at " + s.To
	}
	note := fmt.Sprintf("it reached %s as %s", s.To, s.Seen.Addr())
	err := w.NS(s.To).Do(func() error {
		conn, err := net.Dial(network(UDP, s.Family), s.Seen.String())
		if err == nil {
			conn.Close() //nolint:errcheck // nothing was sent
		}
		return err
	})
	if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) {
		note += ", and there is no route back to that"
		if gateway := w.between(s); gateway != "" {
			note += fmt.Sprintf(" (%s didn't translate it)", gateway)
		}
	}
	return note
}

// between names the router that the peer is plugged into, if it has NAT rules of its own.
func (w *World) between(s *Sighting) string {
	to, err := w.Scenario.space(s.To)
	if err != nil {
		return ""
	}
	for _, p := range to.Ports {
		for _, r := range w.Form.Rules {
			if r.On == p.Space {
				return p.Space
			}
		}
	}
	return ""
}

// tcp connects and reads what the peer answers.
func (c *Caller) tcp(ctx context.Context, from, to netip.Addr) (outcome, error) {
	source := netip.AddrPortFrom(from, c.port())
	o := outcome{source: source, key: portArrival(packet.Of(from), source.Port())}
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(source)}
	conn, err := dialer.DialContext(ctx, TCP, netip.AddrPortFrom(to, PeerPort).String())
	if err != nil {
		return o, unlessSilent(err)
	}
	defer conn.Close() //nolint:errcheck // only read from
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetReadDeadline(deadline) //nolint:errcheck // fails on a closed connection only
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 256))
	if err != nil {
		return o, unlessSilent(err)
	}
	o.told, err = parseAnswer(string(answer))
	o.replied = err == nil
	return o, err
}

// unlessSilent turns the errors of a peer that doesn't answer, or whom no packet
// reaches, into none: they are an outcome.
func unlessSilent(err error) error {
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return nil
	}
	for _, expected := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ECONNRESET, syscall.EACCES} {
		if errors.Is(err, expected) {
			return nil
		}
	}
	return err
}

// text that a call carries, so that the peer's record of it can be found.
func (c *Caller) text(port uint16) string {
	return fmt.Sprintf("unmasq lab call %d of %x", port, rand.Uint64())
}

// udp sends a text and waits for the peer's answer.
func (c *Caller) udp(ctx context.Context, from, to netip.Addr) (outcome, error) {
	source := netip.AddrPortFrom(from, c.port())
	text := c.text(source.Port())
	o := outcome{source: source, key: textArrival(UDP, text)}
	dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(source)}
	conn, err := dialer.DialContext(ctx, UDP, netip.AddrPortFrom(to, PeerPort).String())
	if err != nil {
		return o, unlessSilent(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered
	var answer []byte
	answer, o.replied, err = exchange(ctx, conn, []byte(text), func([]byte) bool { return true })
	if err != nil || !o.replied {
		return o, err
	}
	o.told, err = parseAnswer(string(answer))
	return o, err
}

// icmp sends an echo request and waits for the kernel's reply.
func (c *Caller) icmp(ctx context.Context, from, to netip.Addr) (outcome, error) {
	f, id := packet.Of(from), c.port()
	text := c.text(id)
	o := outcome{source: netip.AddrPortFrom(from, 0), key: textArrival(ICMP, text)}
	dialer := net.Dialer{LocalAddr: &net.IPAddr{IP: from.AsSlice()}}
	conn, err := dialer.DialContext(ctx, rawNetwork(ICMP, f), to.String())
	if err != nil {
		return o, unlessSilent(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered
	_, o.replied, err = exchange(ctx, conn, echoRequest(f, id, text), func(b []byte) bool {
		reply, got, ok := parseEcho(f, stripIPv4(f, b))
		return ok && reply && got == text
	})
	return o, err
}

// exchange sends a request, again and again, until something is received that
// wanted says yes to, or ctx ends.
func exchange(ctx context.Context, conn net.Conn, request []byte, wanted func([]byte) bool) ([]byte, bool, error) {
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		if _, err := conn.Write(request); err != nil && unlessSilent(err) != nil {
			return nil, false, err
		}
		conn.SetReadDeadline(time.Now().Add(resend)) //nolint:errcheck // fails on a closed connection only
		for {
			n, err := conn.Read(buf)
			if err == nil && wanted(buf[:n]) {
				return buf[:n], true, nil
			}
			if err == nil {
				continue
			}
			if unlessSilent(err) != nil {
				return nil, false, err
			}
			break
		}
	}
	return nil, false, nil
}
