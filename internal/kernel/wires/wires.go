// Package wires sends raw packets into a node in a network namespace and tells
// what became of each. Explain's replay and the tests stand on it.
//
//	set, err := wires.Open(node, spare, wires.Wire{Link: "eth0", Far: outside, FarLink: "far0"})
//	fates, err := set.Send(flows)
package wires

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/packet"
)

// Wire leads from one of a node's links to its far end.
type Wire struct {
	// Link is the node's interface that a packet comes in by: a veth, or the
	// bridge that the veth is a port of.
	Link    string
	Far     *netns.NS
	FarLink string
	// OnLink are a bridge's subnets: of two ends in one of them each knows where
	// the other is, so that the bridge passes packets between them without the
	// node's routing. The node's own addresses are not among them.
	OnLink []netip.Prefix
	// Own are the node's addresses.
	Own []netip.Addr
	// Broadcasts of the link's subnets go to every end of it.
	Broadcasts []netip.Addr
}

// bridged says whether a packet goes from end to end by the bridge alone.
func (w Wire) bridged(f packet.Flow) bool {
	return !slices.Contains(w.Own, f.Destination) && slices.ContainsFunc(w.OnLink, func(p netip.Prefix) bool {
		return p.Contains(f.Source) && p.Contains(f.Destination)
	})
}

// Set of wires sends raw packets into a node by any of its links, or from the node
// itself, and tells the fate of each: where it came out and how it looked then,
// whether the node took it for itself, which error its sender got.
//
// Nothing is waited for by the clock: see barrier.
type Set struct {
	node  *netns.NS
	wires []*wire
	// local sockets of the node, each bound to a source: routing rules see it.
	local     map[netip.Addr]*RawSender
	delivered []*delivery
	sentinel  *sentinel
	nextID    uint64
	buf       []byte
}

// wire is a Wire with its socket, for both directions.
type wire struct {
	Wire
	fd int
	// out sends to the node, across to the far end itself, broadcast to both.
	out, across, broadcast Injector
}

// Fate of a packet. All is empty where it vanished.
type Fate struct {
	// Out is the packet as it left the node by Interface, In as the node itself
	// received it (without its Interface).
	Out, In *Seen
	// Error as --reject-with names it, of a TCP reset or an ICMP error that the
	// sender got or would have got. A packet that was delivered to a port where
	// nobody listens has one too.
	Error string
	// Refused is what the system call said to the node's own program.
	Refused error
}

// Open opens the far ends of a node's links. The node's namespace must not limit
// its ICMP errors; Open sees to that. The namespace spare gets two links, s0 and s1.
func Open(node, spare *netns.NS, wires ...Wire) (*Set, error) {
	w := &Set{node: node, local: map[netip.Addr]*RawSender{}, buf: make([]byte, 4096)}
	err := errors.Join(w.openWires(node, wires), unlimitedErrors(node))
	if err == nil {
		w.delivered, err = openDeliveries(node)
	}
	if err == nil {
		w.sentinel, err = newSentinel(spare)
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

func (w *Set) openWires(node *netns.NS, wires []Wire) error {
	for _, x := range wires {
		to, err := MAC(node, x.Link)
		if err != nil {
			return err
		}
		from, err := MAC(x.Far, x.FarLink)
		if err != nil {
			return err
		}
		fd := -1
		if err := x.Far.Do(func() (err error) { fd, err = PacketSocket(x.FarLink, unix.ETH_P_ALL); return err }); err != nil {
			return err
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, ReceiveBuffer)
		_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
		w.wires = append(w.wires, &wire{Wire: x, fd: fd, out: Injector{fd: fd, to: to, from: from}, across: Injector{fd: fd, to: from, from: from},
			broadcast: Injector{fd: fd, to: net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, from: from}})
	}
	return nil
}

// unlimitedErrors: by default a host sends few ICMP errors a second. No type of
// them is limited any more.
func unlimitedErrors(node *netns.NS) error {
	return errors.Join(
		node.Sysctl("net.ipv4.icmp_ratemask", "0"),
		node.Sysctl("net.ipv6.icmp.ratemask", "\n"),
	)
}

// Close closes all sockets.
func (w *Set) Close() {
	for _, x := range w.wires {
		unix.Close(x.fd)
	}
	for _, d := range w.delivered {
		unix.Close(d.fd)
	}
	for _, s := range w.local {
		s.Close()
	}
	if w.sentinel != nil {
		w.sentinel.close()
	}
}

// mostAtOnce: a link's queue must hold them.
const mostAtOnce = 100

// Apart is how many of the first flows can be sent at once and not come in each
// other's way, whatever is made of their addresses: their protocols or source
// ports differ.
func Apart(flows []packet.Flow) int {
	type source struct {
		protocol uint8
		port     uint16
	}
	taken := map[source]bool{}
	for i, f := range flows {
		k := source{f.Protocol, f.SourcePort}
		if taken[k] || i == mostAtOnce {
			return i
		}
		taken[k] = true
	}
	return len(flows)
}

// Send sends the first packet of each flow: where it is Local from the node
// itself, else into its InInterface. They must be [Apart].
func (w *Set) Send(flows []packet.Flow) ([]Fate, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	free, err := pin()
	if err != nil {
		return nil, err
	}
	defer free()
	c := &collection{first: w.nextID, flows: flows, fates: make([]Fate, len(flows))}
	w.nextID += uint64(len(flows))
	for i, f := range flows {
		if err := w.sendOne(f, c.first+uint64(i), &c.fates[i]); err != nil {
			return nil, err
		}
	}
	if err := w.sentinel.barrier(); err != nil {
		return nil, err
	}
	w.collect(c)
	return c.fates, nil
}

func (w *Set) sendOne(f packet.Flow, id uint64, fate *Fate) error {
	if f.Local {
		s, err := w.from(f.Source)
		if err == nil {
			fate.Refused = s.Send(f, id)
		}
		return err
	}
	for _, x := range w.wires {
		switch {
		case x.Link == f.InInterface && slices.Contains(x.Broadcasts, f.Destination):
			return x.broadcast.Send([]packet.Flow{f}, id)
		case x.Link == f.InInterface && x.bridged(f):
			return x.across.Send([]packet.Flow{f}, id)
		case x.Link == f.InInterface:
			return x.out.Send([]packet.Flow{f}, id)
		}
	}
	return fmt.Errorf("no wire leads to %q", f.InInterface)
}

// from returns the node's socket that sends from one of its addresses.
func (w *Set) from(a netip.Addr) (*RawSender, error) {
	if s := w.local[a]; s != nil {
		return s, nil
	}
	s, err := NewRawSender(w.node)
	if err != nil {
		return nil, err
	}
	w.local[a] = s
	if a.Is4() {
		err = unix.Bind(s.fd4, &unix.SockaddrInet4{Addr: a.As4()})
	} else {
		err = unix.Bind(s.fd6, &unix.SockaddrInet6{Addr: a.As16()})
	}
	if err != nil {
		return nil, fmt.Errorf("send from %s: %w", a, err)
	}
	return s, nil
}

// collect reads all that waits in the sockets.
func (w *Set) collect(c *collection) {
	for _, x := range w.wires {
		for {
			n, _, err := unix.Recvfrom(x.fd, w.buf, unix.MSG_DONTWAIT)
			if err != nil {
				break
			}
			c.left(x.Link, w.buf[:n])
		}
	}
	for _, d := range w.delivered {
		for d.next(w.buf, c.arrived) {
		}
	}
}

// pin keeps this thread on one processor, and returns what undoes that.
func pin() (free func(), err error) {
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return nil, fmt.Errorf("processors: %w", err)
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if before.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return nil, fmt.Errorf("keep to one processor: %w", err)
	}
	return func() { _ = unix.SchedSetaffinity(0, &before) }, nil
}

// wait is how long a packet may take through the node.
const wait = 2 * time.Second

// sentinel is a pair of links of its own.
type sentinel struct {
	send, receive int
	frame         []byte
}

// hops is how many links a packet and what it causes may cross, one after the
// other: in, out, the error back, with some to spare.
const hops = 8

func newSentinel(ns *netns.NS) (*sentinel, error) {
	if err := netns.Veth(ns, "s0", ns, "s1"); err != nil {
		return nil, err
	}
	to, err := MAC(ns, "s1")
	if err != nil {
		return nil, err
	}
	s := &sentinel{send: -1, receive: -1, frame: append(append([]byte(to), make([]byte, 6)...), 0x88, 0xb5)}
	s.frame = append(s.frame, make([]byte, 46)...)
	return s, ns.Do(func() (err error) {
		if s.send, err = PacketSocket("s0", 0); err == nil {
			s.receive, err = PacketSocket("s1", localExperimental)
		}
		return err
	})
}

// localExperimental is IEEE's EtherType for what one likes.
const localExperimental = 0x88b5

// barrier returns when every packet sent before, from this processor, has had
// its fate. A link hands what it receives to a queue of the processor
// (net/core/dev.c, enqueue_to_backlog), first in first out: when a frame sent
// now has come through, what was queued before has been worked off, and what
// that sent on over a link is queued. Once more for each link on the way.
func (s *sentinel) barrier() error {
	var buf [64]byte
	for range hops {
		if _, err := unix.Write(s.send, s.frame); err != nil {
			return fmt.Errorf("send a sentinel: %w", err)
		}
		poll := []unix.PollFd{{Fd: int32(s.receive), Events: unix.POLLIN}}
		for {
			n, err := unix.Poll(poll, int(wait/time.Millisecond))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n == 0 {
				return fmt.Errorf("the sentinel didn't come back in %v: %v", wait, err)
			}
			break
		}
		if _, err := unix.Read(s.receive, buf[:]); err != nil {
			return fmt.Errorf("receive a sentinel: %w", err)
		}
	}
	return nil
}

func (s *sentinel) close() {
	unix.Close(s.send)
	unix.Close(s.receive)
}

// delivery is a raw socket in the node, which gets every packet of a protocol
// that has passed the input hook.
type delivery struct {
	fd       int
	protocol uint8
	v6       bool
}

func openDeliveries(node *netns.NS) (all []*delivery, err error) {
	err = node.Do(func() error {
		for _, protocol := range []uint8{packet.TCP, packet.UDP, packet.ICMP, packet.ICMPv6, packet.SCTP, packet.GRE} {
			for _, v6 := range []bool{false, true} {
				d := &delivery{protocol: protocol, v6: v6}
				if err := d.open(); err != nil {
					return err
				}
				all = append(all, d)
			}
		}
		return nil
	})
	return all, err
}

func (d *delivery) open() (err error) {
	domain := unix.AF_INET
	if d.v6 {
		domain = unix.AF_INET6
	}
	if d.fd, err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(d.protocol)); err != nil {
		return fmt.Errorf("raw socket for protocol %d: %w", d.protocol, err)
	}
	_ = unix.SetsockoptInt(d.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, ReceiveBuffer)
	if d.v6 {
		return unix.SetsockoptInt(d.fd, unix.SOL_IPV6, unix.IPV6_RECVPKTINFO, 1)
	}
	return nil
}

// next reads one packet and gives it on as an IP packet; false where none waits.
func (d *delivery) next(buf []byte, got func(ip []byte)) bool {
	var control [128]byte
	const header = 40 // an IPv6 socket leaves it out
	n, cn, _, from, err := unix.Recvmsg(d.fd, buf[header:], control[:], unix.MSG_DONTWAIT)
	if err != nil {
		return false
	}
	if !d.v6 {
		got(buf[header : header+n])
		return true
	}
	messages, err := unix.ParseSocketControlMessage(control[:cn])
	if err != nil {
		return true
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_PKTINFO {
			f := packet.Flow{Protocol: d.protocol, Destination: netip.AddrFrom16([16]byte(m.Data)),
				Source: netip.AddrFrom16(from.(*unix.SockaddrInet6).Addr)}
			appendHeader(buf[:0], f, n)
			got(buf[:header+n])
		}
	}
	return true
}
