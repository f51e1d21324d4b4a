package doctor_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

// pair is a lab with a second node, whose pod is a backend too. The network outside knows the
// service by the first.
//
//	pod1, pod2 ── cni0 [ node ] eth0 ── out ── eth0 [ second ] cni0 ── pod
type pair struct {
	*lab
	second *netns.NS
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{newLab(t, serviceAt("10.96.0.10")), netnstest.Test(t, "second")}
	pod := netnstest.Test(t, "pod3")
	must(t, p.second.Bridge("cni0"), netns.Veth(pod, "eth0", p.second, "veth1"), p.second.Enslave("veth1", "cni0"), netns.Veth(p.second, "eth0", p.out, "out2"))
	p.shell(p.second, `
ip addr add 10.244.3.1/24 dev cni0; ip addr add 198.18.0.1/24 dev eth0; ip route add default via 198.18.0.2
iptables -t nat -A POSTROUTING -s 10.244.3.0/24 ! -o cni0 -j MASQUERADE
sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1
`+strings.ReplaceAll(serviceAt("10.96.0.10"), "10.244.1.3", "10.244.3.3"))
	p.shell(pod, "ip addr add 10.244.3.3/24 dev eth0; ip route add default via 10.244.3.1")
	for _, backend := range []*netns.NS{p.pod2, pod} { // connections stay, unanswered
		p.shell(backend, "iptables -A INPUT -p tcp --dport 8080 -j DROP")
	}
	p.shell(p.out, "ip addr add 198.18.0.2/24 dev out2; ip route add 10.96.0.10/32 via 192.0.2.1; sysctl -qw net.ipv4.fib_multipath_hash_policy=1")
	for i := range 16 {
		must(t, p.out.Addr("lo", netip.PrefixFrom(client(i), 32)))
	}
	return p
}

func client(i int) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, byte(100 + i)}) }

// clients outside call the service.
func (p *pair) clients(number int) {
	p.t.Helper()
	must(p.t, p.out.Do(func() error {
		for i := range number {
			d := net.Dialer{Timeout: 10 * time.Millisecond, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(client(i), 0))}
			if conn, err := d.Dial("tcp", "10.96.0.10:80"); err == nil {
				conn.Close()
				return fmt.Errorf("%s has got an answer", client(i))
			}
		}
		return nil
	}))
}

// examine both nodes as they are.
func (p *pair) examine() doctor.Report {
	p.t.Helper()
	nodes := []doctor.Node{{Name: "a"}, {Name: "b"}}
	for i, space := range []*netns.NS{p.node, p.second} {
		var err error
		nodes[i].Host, err = capture.Live(p.t.Context(), capture.Options{Namespace: space, Connections: true})
		must(p.t, err)
	}
	return doctor.Examine(nodes...)
}

func TestSingleEntry(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.clients(7)
	if r := p.examine(); len(r.Findings) > 0 {
		t.Errorf("of a few clients:\n%s", text(&r))
	}
	p.clients(8)
	r := p.examine()
	if got := codes(&r); !slices.Equal(got, []string{"single-entry"}) || r.Findings[0].Node != "a" {
		t.Fatalf("found %v\n%s", got, text(&r))
	}
	// Reports of single nodes say the same together, and none of them alone.
	var alone []doctor.Report
	for _, e := range r.Entering {
		one := doctor.Join(doctor.Report{Entering: []doctor.Entering{e}})
		if len(one.Findings) > 0 {
			t.Errorf("of one node:\n%s", text(&one))
		}
		alone = append(alone, one)
	}
	if joined := doctor.Join(alone...); !slices.Equal(codes(&joined), []string{"single-entry"}) {
		t.Errorf("joined: %+v", joined)
	}
	// What is for the routers is done there.
	mend := r.Findings[0].Mend
	command, ok := strings.CutPrefix(mend[len(mend)-1], "# ")
	if !ok {
		t.Fatal(mend)
	}
	p.shell(p.out, command)
	p.clients(16)
	if r = p.examine(); len(r.Findings) > 0 {
		t.Errorf("after the mend there is still:\n%s", text(&r))
	}
	if len(r.Entering) != 2 || r.Entering[1].Connections == 0 || r.Entering[1].Pairs > r.Entering[1].Connections {
		t.Errorf("by each node: %+v", r.Entering)
	}
}

// TestSingleEntryOtherwise: callers that aren't outside, and what isn't known.
func TestSingleEntryOtherwise(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	p.shell(p.node, "ip route add 203.0.113.0/24 via 192.0.2.2; ip addr add 203.0.112.1/24 dev cni0")
	p.clients(10)
	if r := p.examine(); slices.Contains(codes(&r), "single-entry") {
		t.Errorf("pods of another node aren't outside:\n%s", text(&r))
	}
	p.shell(p.node, "ip addr del 203.0.112.1/24 dev cni0")
	if r := p.examine(); !slices.Contains(codes(&r), "single-entry") {
		t.Errorf("not found:\n%s", text(&r))
	}
	r := p.examine()
	none := r.Entering[1]
	r.Entering[1].Connections, r.Entering[1].Pairs = 1, 1
	r.Entering = append(r.Entering, none)
	if both := doctor.Join(doctor.Report{Entering: r.Entering}); len(both.Findings) > 0 {
		t.Errorf("found where two of three nodes have some:\n%s", text(&both))
	}
}
