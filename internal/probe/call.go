package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unmasq/unmasq/internal/packet"
)

// resend of UDP and ICMP; TCP does it itself.
const resend = 300 * time.Millisecond

// Caller makes calls, each with a source port and a text of its own, so that no
// call finds the conntrack entry of an earlier one.
type Caller struct{ next atomic.Uint32 }

// NewCaller starts at a random port: the entries of an earlier process live on
// for up to two minutes.
func NewCaller() *Caller {
	c := &Caller{}
	c.next.Store(rand.Uint32N(40000))
	return c
}

// port is in 20000–59999.
func (c *Caller) port() uint16 { return uint16(20000 + c.next.Add(1)%40000) }

// Outcome of a call, as the caller knows it.
type Outcome struct {
	// Source is the caller's own address and port; of ICMP the port is 0.
	Source netip.AddrPort
	// Key by which the peer has recorded it.
	Key Arrival
	// Replied: there was a peer's answer. Connected: by TCP there was one of the kernel.
	Replied, Connected bool
	// Told is what the peer says that it saw, and Name who it says that it is; Told is
	// invalid for ICMP, and where somebody answers who is no peer.
	Told netip.AddrPort
	Name string
	// Err says why there was no answer, where that showed at once: refused,
	// unreachable, not permitted; nil after a silence.
	Err error
}

// Refused: somebody said no.
func (o *Outcome) Refused() bool { return errors.Is(o.Err, syscall.ECONNREFUSED) }

// Call makes one call, until ctx ends: bound it. The zero from leaves the source to
// the kernel; the target's port counts for nothing by ICMP. Silence, and what networks
// say of packets that they don't take, are outcomes and no errors.
func (c *Caller) Call(ctx context.Context, protocol string, from netip.Addr, to netip.AddrPort) (Outcome, error) {
	const attempts = 64 // of ports that somebody else has
	for i := 0; ; i++ {
		o, err := c.call(ctx, protocol, from, to)
		if i == attempts || !errors.Is(err, syscall.EADDRINUSE) {
			return o, err
		}
	}
}

func (c *Caller) call(ctx context.Context, protocol string, from netip.Addr, to netip.AddrPort) (Outcome, error) {
	f := packet.Of(to.Addr())
	if !from.IsValid() {
		from = anyAddress(f)
	}
	switch protocol {
	case TCP:
		return c.tcp(ctx, f, netip.AddrPortFrom(from, c.port()), to)
	case UDP:
		return c.udp(ctx, netip.AddrPortFrom(from, c.port()), to)
	case ICMP:
		return c.icmp(ctx, f, from, to.Addr())
	}
	return Outcome{}, fmt.Errorf("protocol %q: want %s, %s or %s", protocol, TCP, UDP, ICMP)
}

// tcp connects and reads what the peer answers.
func (c *Caller) tcp(ctx context.Context, f packet.Family, source, to netip.AddrPort) (Outcome, error) {
	o := Outcome{Source: source, Key: portArrival(f, source.Port())}
	dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(source), FallbackDelay: -1}
	conn, err := dialer.DialContext(ctx, TCP, to.String())
	if err != nil {
		return o.silent(err)
	}
	defer conn.Close() //nolint:errcheck // only read from
	o.Connected = true
	o.localAddr(conn)
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetReadDeadline(deadline) //nolint:errcheck // fails on a closed connection only
	}
	answer, err := io.ReadAll(io.LimitReader(conn, 256))
	if err != nil {
		return o.silent(err)
	}
	o.Told, o.Name, err = parseAnswer(string(answer))
	o.Replied = err == nil
	return o, err
}

// localAddr is the source that the kernel chose.
func (o *Outcome) localAddr(conn net.Conn) {
	if local, err := netip.ParseAddrPort(conn.LocalAddr().String()); err == nil {
		o.Source = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	}
}

// silent turns the errors of a peer that doesn't answer, or whom no packet reaches,
// into an outcome.
func (o Outcome) silent(err error) (Outcome, error) {
	if unlessSilent(err) != nil {
		return o, err
	}
	if e, ok := errors.AsType[net.Error](err); !ok || !e.Timeout() {
		o.Err = err
	}
	return o, nil
}

// unlessSilent is nil for such errors.
func unlessSilent(err error) error {
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return nil
	}
	for _, expected := range []error{syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ECONNRESET, syscall.EACCES, syscall.EPERM} {
		if errors.Is(err, expected) {
			return nil
		}
	}
	return err
}

// text that a call carries, so that the peer's record of it can be found.
func (c *Caller) text(port uint16) string {
	return fmt.Sprintf("%scall %d of %x", requestPrefix, port, rand.Uint64())
}

// udp sends a text and waits for the peer's answer.
func (c *Caller) udp(ctx context.Context, source, to netip.AddrPort) (Outcome, error) {
	text := c.text(source.Port())
	o := Outcome{Source: source, Key: textArrival(UDP, text)}
	dialer := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(source)}
	conn, err := dialer.DialContext(ctx, UDP, to.String())
	if err != nil {
		return o.silent(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered
	o.localAddr(conn)
	answer, err := o.exchange(ctx, conn, []byte(text), func([]byte) bool { return true })
	if err != nil || !o.Replied {
		return o, err
	}
	o.Told, o.Name, err = parseAnswer(string(answer))
	return o, err
}

// icmp sends an echo request and waits for the kernel's reply.
func (c *Caller) icmp(ctx context.Context, f packet.Family, from, to netip.Addr) (Outcome, error) {
	id := c.port()
	text := c.text(id)
	o := Outcome{Source: netip.AddrPortFrom(from, 0), Key: textArrival(ICMP, text)}
	dialer := net.Dialer{LocalAddr: &net.IPAddr{IP: from.AsSlice()}}
	conn, err := dialer.DialContext(ctx, rawNetwork(ICMP, f), to.String())
	if err != nil {
		return o.silent(err)
	}
	defer conn.Close() //nolint:errcheck // nothing is buffered
	_, err = o.exchange(ctx, conn, echoRequest(f, id, text), func(b []byte) bool {
		reply, got, ok := parseEcho(f, stripIPv4(f, b))
		return ok && reply && got == text
	})
	return o, err
}

// exchange sends a request, again and again, until something is received that
// wanted says yes to, or ctx ends. Of refusals the last one is told.
func (o *Outcome) exchange(ctx context.Context, conn net.Conn, request []byte, wanted func([]byte) bool) ([]byte, error) {
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		_, err := conn.Write(request)
		if err := o.note(err); err != nil {
			return nil, err
		}
		conn.SetReadDeadline(time.Now().Add(resend)) //nolint:errcheck // fails on a closed connection only
		for {
			n, err := conn.Read(buf)
			if err == nil && wanted(buf[:n]) {
				o.Replied, o.Err = true, nil
				return buf[:n], nil
			}
			if err == nil {
				continue
			}
			if err := o.note(err); err != nil {
				return nil, err
			}
			break
		}
		if o.Err != nil {
			pause(ctx, resend) // an answer of that kind comes at once, each time
		}
	}
	return nil, nil
}

// note a refusal; other errors are returned.
func (o *Outcome) note(err error) error {
	if err == nil {
		return nil
	}
	noted, err := o.silent(err)
	if noted.Err != nil {
		o.Err = noted.Err
	}
	return err
}

func pause(ctx context.Context, long time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(long):
	}
}
