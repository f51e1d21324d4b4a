package ipset_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/packet"
)

// wire sends packets into a namespace and counts which rules of the raw table's
// first chain matched each.
type wire struct {
	ns     *netns.NS
	family packet.Family
	// control reads counters, inject sends by a peer's name, output from inside.
	control, output int
	inject          map[string]port
	// hook whose chain is counted; enter is the interface that packets are put into.
	hook   int
	enter  string
	before []uint64
}

type port struct {
	fd int
	to net.HardwareAddr
}

const (
	preroutingHook = 0
	outputHook     = 3
)

// newWire opens sockets: peers are the other ends of the interfaces.
func newWire(t *testing.T, ns *netns.NS, f packet.Family, hook int, peers map[string]string) *wire {
	t.Helper()
	w := &wire{ns: ns, family: f, hook: hook, inject: map[string]port{}}
	domain := unix.AF_INET
	if f == packet.IPv6Family {
		domain = unix.AF_INET6
	}
	err := ns.Do(func() (err error) {
		if w.control, err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return err
		}
		if w.output, err = unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return err
		}
		for name, peer := range peers {
			if w.inject[name], err = openPort(name, peer); err != nil {
				return err
			}
		}
		return nil
	})
	t.Cleanup(w.close)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func openPort(name, peer string) (port, error) {
	to, err := net.InterfaceByName(name)
	if err != nil {
		return port{}, err
	}
	from, err := net.InterfaceByName(peer)
	if err != nil {
		return port{}, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return port{}, err
	}
	return port{fd, to.HardwareAddr}, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: from.Index})
}

func (w *wire) close() {
	unix.Close(w.control)
	unix.Close(w.output)
	for _, p := range w.inject {
		unix.Close(p.fd)
	}
}

// probe sends a packet and says for each rule of the chain but the first and
// the last whether it matched. The last rule matches every probe.
func (w *wire) probe(t *testing.T, p ipset.Packet) []bool {
	t.Helper()
	var err error
	if w.before == nil {
		if w.before, err = w.counters(); err != nil {
			t.Fatal(err)
		}
	}
	if err = w.send(p); err != nil {
		t.Fatalf("send %+v: %v", p, err)
	}
	last := len(w.before) - 1
	for deadline := time.Now().Add(5 * time.Second); ; {
		after, err := w.counters()
		if err != nil {
			t.Fatal(err)
		}
		if after[last] > w.before[last] {
			matched := make([]bool, last-1)
			for i := range matched {
				matched[i] = after[i+1] > w.before[i+1]
			}
			w.before = after
			return matched
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v never came to the chain", p)
		}
	}
}

func (w *wire) send(p ipset.Packet) error {
	b := frame(p)
	if w.hook == preroutingHook {
		kind := []byte{0x08, 0x00}
		if w.family == packet.IPv6Family {
			kind = []byte{0x86, 0xdd}
		}
		to := w.inject[w.enter]
		head := append(append(append([]byte{}, to.to...), 2, 0, 0, 0, 0, 9), kind...)
		_, err := unix.Write(to.fd, append(head, b...))
		return err
	}
	err := unix.SetsockoptString(w.output, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, p.OutInterface)
	if err != nil {
		return fmt.Errorf("bind to %s: %w", p.OutInterface, err)
	}
	if err = unix.SetsockoptInt(w.output, unix.SOL_SOCKET, unix.SO_MARK, int(p.Mark)); err != nil {
		return err
	}
	// The last rule drops the packet, which is EPERM here.
	if w.family == packet.IPv4Family {
		err = unix.Sendto(w.output, b, 0, &unix.SockaddrInet4{Addr: p.Destination.As4()})
	} else {
		err = unix.Sendto(w.output, b, 0, &unix.SockaddrInet6{Addr: p.Destination.As16()})
	}
	if errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}

// payload is longer than a TCP header; by it the rules know probes.
const payload = 37

// frame is an IP packet of the protocol.
func frame(p ipset.Packet) []byte {
	var b []byte
	if p.Source.Is4() {
		b = []byte{0x45, 0, 0, 20 + payload, 0, 0, 0, 0, 64, p.Protocol, 0, 0}
	} else {
		b = []byte{0x60, 0, 0, 0, 0, payload, p.Protocol, 64}
	}
	b = append(append(b, p.Source.AsSlice()...), p.Destination.AsSlice()...)
	if p.Source.Is4() {
		sum := uint32(0)
		for i := 0; i < 20; i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
	}
	head := len(b)
	b = append(b, make([]byte, payload)...)
	binary.BigEndian.PutUint16(b[head:], uint16(p.SourcePort)) // or ICMP's type and code
	if p.Protocol != packet.ICMP && p.Protocol != packet.ICMPv6 {
		binary.BigEndian.PutUint16(b[head+2:], uint16(p.DestinationPort))
	}
	return b
}

// counters of the chain's rules, read as iptables does (struct ipt_getinfo,
// ipt_get_entries, ipt_entry of linux/netfilter_ipv4/ip_tables.h).
func (w *wire) counters() ([]uint64, error) {
	const getInfo, getEntries = 64, 65
	level, nextOffset, counter := unix.SOL_IP, 90, 96
	if w.family == packet.IPv6Family {
		level, nextOffset, counter = unix.SOL_IPV6, 142, 152
	}
	info := make([]byte, 84)
	copy(info, "raw")
	if err := getsockopt(w.control, level, getInfo, info); err != nil {
		return nil, err
	}
	at := binary.NativeEndian.Uint32(info[36+4*w.hook:])
	policy := binary.NativeEndian.Uint32(info[56+4*w.hook:])
	size := binary.NativeEndian.Uint32(info[80:])
	const head = 40
	entries := make([]byte, head+size)
	copy(entries, "raw")
	binary.NativeEndian.PutUint32(entries[32:], size)
	if err := getsockopt(w.control, level, getEntries, entries); err != nil {
		return nil, err
	}
	var counts []uint64
	for entries = entries[head:]; at < policy; {
		e := entries[at:]
		counts = append(counts, binary.NativeEndian.Uint64(e[counter:]))
		at += uint32(binary.NativeEndian.Uint16(e[nextOffset:]))
	}
	return counts, nil
}

func getsockopt(fd, level, option int, b []byte) error {
	size := uint32(len(b))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&b[0])), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return fmt.Errorf("getsockopt %d: %w", option, errno)
	}
	return nil
}

// addressBorders are the first and last address of a prefix and their neighbours.
func addressBorders(p netip.Prefix) []netip.Addr {
	first := p.Masked().Addr()
	last := first.AsSlice()
	for i := p.Bits(); i < len(last)*8; i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	borders := []netip.Addr{first, end}
	for _, a := range []netip.Addr{first.Prev(), end.Next()} {
		if a.IsValid() {
			borders = append(borders, a)
		}
	}
	return borders
}
