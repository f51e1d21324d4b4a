// Package offload_test sends packets through a flowtable, where the kernel has them,
// and looks what of doctor's claims about it is true. Debian's kernels have them:
//
//	go run ./hack/kernels ./test/offload
package offload_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/sim"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

const fast = `
table ip fast {
	flowtable f {
		hook ingress priority filter
		devices = { cni0, eth0 }
	}
	chain forward {
		type filter hook forward priority filter
		meta l4proto tcp counter flow add @f
	}
	chain out {
		type nat hook postrouting priority srcnat
		ip saddr 10.244.1.0/24 masquerade
	}
}
`

// block is what a person writes later.
const block = "add table ip own; add chain ip own forward { type filter hook forward priority 10; }; add rule ip own forward ip daddr 203.0.113.9 counter drop"

// node forwards for a pod; the world beyond is out.
type node struct {
	t              *testing.T
	pod, host, out *netns.NS
	server         net.Listener
}

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, pod: netnstest.Test(t, "pod"), host: netnstest.Test(t, "node"), out: netnstest.Test(t, "out")}
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	must(t, n.host.Bridge("cni0"), netns.Veth(n.pod, "eth0", n.host, "veth1"), n.host.Enslave("veth1", "cni0"), netns.Veth(n.host, "eth0", n.out, "eth0"),
		n.pod.Addr("eth0", p("10.244.1.2/24")), n.host.Addr("cni0", p("10.244.1.1/24")), n.host.Addr("eth0", p("192.0.2.1/24")),
		n.out.Addr("eth0", p("192.0.2.2/24")), n.out.Addr("lo", p("203.0.113.9/32")),
		n.pod.Route(p("0.0.0.0/0"), a("10.244.1.1"), ""), n.host.Route(p("0.0.0.0/0"), a("192.0.2.2"), ""),
		n.host.Sysctl("net.ipv4.ip_forward", "1"))
	must(t, n.out.Do(func() (err error) {
		n.server, err = net.Listen("tcp", "203.0.113.9:80")
		return err
	}))
	t.Cleanup(func() { n.server.Close() })
	go n.serve()
	return n
}

// serve says who is seen, and then echoes.
func (n *node) serve() {
	for {
		peer, err := n.server.Accept()
		if err != nil {
			return
		}
		go func() {
			defer peer.Close()
			host, _, _ := net.SplitHostPort(peer.RemoteAddr().String())
			_, _ = io.WriteString(peer, host+"\n")
			_, _ = io.Copy(peer, peer)
		}()
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// patience for an answer, and for silence.
const patience, silence = 20 * time.Second, time.Second

func (n *node) dial(patience time.Duration) (conn net.Conn, err error) {
	err = n.pod.Do(func() error {
		conn, err = net.DialTimeout("tcp", "203.0.113.9:80", patience)
		return err
	})
	return conn, err
}

// firstPackets are in no flowtable: a rule ends for them at flow add, in the kernel as
// in the simulator.
func (n *node) firstPackets() {
	n.t.Helper()
	must(n.t, n.nft("add rule ip fast forward meta l4proto udp flow add @f counter drop"))
	var server net.PacketConn
	must(n.t, n.out.Do(func() (err error) {
		server, err = net.ListenPacket("udp4", "203.0.113.9:53")
		return err
	}))
	defer server.Close()
	must(n.t, n.pod.Do(func() error {
		conn, err := net.Dial("udp4", "203.0.113.9:53")
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = io.WriteString(conn, "word")
		return err
	}))
	_ = server.SetReadDeadline(time.Now().Add(patience))
	if _, _, err := server.ReadFrom(make([]byte, 8)); err != nil {
		n.t.Errorf("the first packet didn't pass: %v", err)
	}
	host, err := capture.Live(context.Background(), capture.Options{Namespace: n.host})
	must(n.t, err)
	a := netip.MustParseAddr
	for _, o := range sim.New(host).Run(sim.Question{
		Source: a("10.244.1.2"), Destination: a("203.0.113.9"), Protocol: unix.IPPROTO_UDP, SourcePort: 1000, DestinationPort: 53, InInterface: "cni0",
	}, sim.Options{}) {
		if o.Verdict != sim.Accepted || o.SourceKind != sim.Masqueraded {
			n.t.Errorf("the simulator says %s, %s: %+v", o.Verdict, o.SourceKind, o.DependsOn)
		}
	}
	must(n.t, n.nft("flush chain ip fast forward; add rule ip fast forward meta l4proto tcp counter flow add @f"))
}

// fast makes the flowtable. Where the kernel has none nothing must be found.
func (n *node) fast() bool {
	n.t.Helper()
	err := n.nft(fast)
	if err == nil {
		return true
	}
	if !strings.Contains(err.Error(), "No such file or directory") && !strings.Contains(err.Error(), "not supported") {
		n.t.Fatal(err)
	}
	n.t.Logf("this kernel has no flowtables: %v", err)
	if r := n.examine(); found(&r) >= 0 {
		n.t.Errorf("found where there is none: %+v", r.Findings)
	}
	return false
}

// connected is a connection that is seen as the node, and in the flowtable by now.
func (n *node) connected() net.Conn {
	n.t.Helper()
	conn, err := n.dial(patience)
	must(n.t, err)
	n.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	who := make([]byte, len("192.0.2.1\n"))
	if _, err := io.ReadFull(conn, who); err != nil || string(who) != "192.0.2.1\n" {
		n.t.Fatalf("seen as %q: %v", who, err)
	}
	for range 5 {
		if !echoes(conn, patience) {
			n.t.Fatal("no echo through the flowtable")
		}
	}
	return conn
}

// forget a connection, as conntrack -D does.
func (n *node) forget(conn net.Conn) {
	n.t.Helper()
	_, port, _ := net.SplitHostPort(conn.LocalAddr().String())
	number, err := strconv.ParseUint(port, 10, 16)
	filter := &netlink.ConntrackFilter{}
	must(n.t, err, filter.AddProtocol(unix.IPPROTO_TCP), filter.AddPort(netlink.ConntrackOrigSrcPort, uint16(number)))
	must(n.t, n.host.Do(func() error {
		deleted, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, filter)
		if err == nil && deleted != 1 {
			err = fmt.Errorf("%d entries deleted", deleted)
		}
		return err
	}))
}

// echoes says whether a word comes back.
func echoes(conn net.Conn, patience time.Duration) bool {
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, "word\n"); err != nil {
		return false
	}
	answer := make([]byte, 5)
	_, err := io.ReadFull(conn, answer)
	return err == nil && string(answer) == "word\n"
}

func (n *node) nft(script string) error {
	_, err := n.host.Run(script, "nft", "-f", "-")
	return err
}

func (n *node) examine() doctor.Report {
	n.t.Helper()
	host, err := capture.Live(context.Background(), capture.Options{Namespace: n.host})
	must(n.t, err)
	return doctor.Examine(doctor.Node{Host: host})
}

func found(r *doctor.Report) int {
	return slices.IndexFunc(r.Findings, func(f doctor.Finding) bool { return f.Code == "offloaded" })
}

// TestOffloaded: an established connection goes on past a rule that drops its packets,
// with the address that it had; a new one doesn't. After the mend the rule holds.
func TestOffloaded(t *testing.T) {
	n := newNode(t)
	if !n.fast() {
		return
	}
	n.firstPackets()
	conn, other := n.connected(), n.connected()
	if r := n.examine(); found(&r) >= 0 {
		t.Errorf("found though no rule is bypassed: %+v", r.Findings[found(&r)])
	}
	must(t, n.nft(block))
	if !echoes(conn, patience) || !echoes(other, patience) {
		t.Error("established connections met the rule")
	}
	if _, err := n.dial(silence); err == nil {
		t.Error("a new connection passed the rule")
	}
	n.forget(other)
	for echoes(other, silence) { // for about a second
	}
	if !echoes(conn, patience) {
		t.Error("the other connection met the rule as well")
	}
	r := n.examine()
	i := found(&r)
	if i < 0 {
		t.Fatalf("not found: %+v", r.Findings)
	}
	out, err := n.host.Run(strings.Join(r.Findings[i].Mend, "\n"), "sh", "-e")
	must(t, err)
	if r = n.examine(); found(&r) >= 0 {
		t.Errorf("after the mend (%s) there is still: %+v", out, r.Findings)
	}
	if echoes(conn, silence) {
		t.Error("after the mend the connection goes on past the rule")
	}
}
