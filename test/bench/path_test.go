// Package bench measures what unmasq costs, each number beside its baseline in
// the same run: machines are noisy, so only ratios and medians are worth telling.
//
//	make bench
package bench

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// path is a node that forwards from one interface to another: pods → node → outside.
type path struct {
	name            string
	pods, node, out *netns.NS
	socket          int // in pods, sends frames to node
	frame           []byte
	next            uint32 // numbers flows
	targets         []netip.Addr
	port            uint16 // of the targets
}

const (
	podsLink, nodeIn = "pod0", "in0"
	nodeOut, outLink = "eth0", "out0"
	burst            = 32 // frames a system call, below every queue's length
)

func newPath(b testing.TB, name string, targets []netip.Addr) *path {
	b.Helper()
	p := &path{name: name, targets: targets,
		pods: netnstest.Test(b, "pods"), node: netnstest.Test(b, "node"), out: netnstest.Test(b, "out")}
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	must(netns.Veth(p.pods, podsLink, p.node, nodeIn))
	must(netns.Veth(p.node, nodeOut, p.out, outLink))
	must(p.node.Addr(nodeIn, netip.MustParsePrefix("10.244.0.1/16")))
	must(p.node.Addr(nodeOut, netip.MustParsePrefix("192.0.2.1/24")))
	must(p.node.Route(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.0.2.2"), nodeOut))
	for key, value := range map[string]string{
		"net.ipv4.ip_forward": "1", "net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.in0.rp_filter": "0",
	} {
		must(p.node.Sysctl(key, value))
	}
	mac := hardware(b, p.out, outLink)
	if _, err := p.node.Run("", "ip", "neigh", "replace", "192.0.2.2", "lladdr", mac.String(), "dev", nodeOut, "nud", "permanent"); err != nil {
		b.Fatal(err)
	}
	p.frame = udpFrame(hardware(b, p.node, nodeIn), hardware(b, p.pods, podsLink))
	must(p.pods.Do(func() (err error) {
		p.socket, err = packetSocket(podsLink)
		return err
	}))
	b.Cleanup(func() { unix.Close(p.socket) })
	return p
}

func hardware(b testing.TB, ns *netns.NS, link string) net.HardwareAddr {
	b.Helper()
	var mac net.HardwareAddr
	err := ns.Do(func() error {
		i, err := net.InterfaceByName(link)
		if err == nil {
			mac = i.HardwareAddr
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return mac
}

func packetSocket(link string) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	i, err := net.InterfaceByName(link)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return -1, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index})
}

// udpFrame is a UDP packet without checksum, which IPv4 allows.
func udpFrame(to, from net.HardwareAddr) []byte {
	f := append(append(append([]byte{}, to...), from...), 0x08, 0x00)
	f = append(f, 0x45, 0, 0, 32, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0)
	f = append(f, make([]byte, 8)...)                     // addresses
	return append(f, 0, 0, 0, 0, 0, 12, 0, 0, 1, 2, 3, 4) // ports, length, no checksum, payload
}

// write makes frame the packet of flow i: another source port and pod each time.
func (p *path) write(frame []byte, i uint32) {
	ip := frame[14:]
	target := p.targets[int(i*2654435761>>8)%len(p.targets)].As4()
	copy(ip[12:16], []byte{10, 244, byte(i >> 16), 2 + byte(i>>14&3)})
	copy(ip[16:20], target[:])
	binary.BigEndian.PutUint16(ip[20:], uint16(1024+i&0x3fff))
	binary.BigEndian.PutUint16(ip[22:], p.port)
	ip[10], ip[11] = 0, 0
	var sum uint32
	for j := 0; j < 20; j += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[j:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
}

type mmsg struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// send pushes n new flows through the node and returns the time that one took.
// A veth hands a packet on within the sender's system call, so this is the whole
// path: routing, connection tracking, the rules, and the way out.
func (p *path) send(n int) (time.Duration, error) {
	frames := make([][]byte, burst)
	iov := make([]unix.Iovec, burst)
	msgs := make([]mmsg, burst)
	for i := range frames {
		frames[i] = append([]byte(nil), p.frame...)
		iov[i] = unix.Iovec{Base: &frames[i][0], Len: uint64(len(frames[i]))}
		msgs[i].hdr.Iov, msgs[i].hdr.Iovlen = &iov[i], 1
	}
	before, err := p.arrived()
	if err != nil {
		return 0, err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var cpus unix.CPUSet
	cpus.Set(runtime.NumCPU() - 1)
	if err := unix.SchedSetaffinity(0, &cpus); err != nil {
		return 0, err
	}
	var spent time.Duration
	for sent := 0; sent < n; sent += burst {
		for i := range frames {
			p.next++
			p.write(frames[i], p.next)
		}
		start := time.Now()
		got, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(p.socket), uintptr(unsafe.Pointer(&msgs[0])), burst, 0, 0, 0)
		spent += time.Since(start)
		if errno != 0 || got != burst {
			return 0, fmt.Errorf("sendmmsg sent %d of %d: %w", got, burst, errno)
		}
	}
	after, err := p.arrived()
	if err != nil {
		return 0, err
	}
	if missing := int64(n) - int64(after-before); missing > int64(n/100) {
		return 0, fmt.Errorf("%s: %d of %d packets did not arrive", p.name, missing, n)
	}
	return spent / time.Duration(n), nil
}

// arrived counts the packets that came out.
func (p *path) arrived() (n uint64, err error) {
	err = p.out.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/dev")
		if err != nil {
			return err
		}
		for _, line := range strings.Split(string(text), "\n") {
			if name, rest, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == outLink {
				n, err = strconv.ParseUint(strings.Fields(rest)[1], 10, 64)
				return err
			}
		}
		return fmt.Errorf("no counters of %s", outLink)
	})
	return n, err
}

// forget deletes the node's connection tracking entries.
func (p *path) forget(b testing.TB) {
	b.Helper()
	if err := p.node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
		b.Fatal(err)
	}
}
