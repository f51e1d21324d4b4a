package importer_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/rig"
)

// layout of a node: links, each a wire whose far end the test holds and which asks
// for no neighbour, and commands of `ip`, without the word ip.
type layout struct {
	links, ip []string
}

// usual is the node of most dumps: two uplinks, pods behind cni0, 10.244.1.0/24 here,
// 10.244.2.0/24 behind the other node, 192.168.5.11.
func usual() layout {
	return layout{
		links: []string{"eth0", "eth1", "cni0"},
		ip: []string{
			"addr add 192.168.5.10/24 dev eth0", "addr add fd00:192:168:5::10/64 dev eth0 nodad",
			"addr add 172.31.0.10/24 dev eth1", "addr add fd00:172:31::10/64 dev eth1 nodad",
			"addr add 10.244.1.1/24 dev cni0", "addr add fd00:10:244:1::1/64 dev cni0 nodad",
			"route add default via 192.168.5.1 dev eth0", "route add default via fd00:192:168:5::1 dev eth0",
			"route add 10.244.2.0/24 via 192.168.5.11 dev eth0", "route add fd00:10:244:2::/64 via fd00:192:168:5::11 dev eth0",
		},
	}
}

// usualFacts are what a cluster says of the usual node.
func usualFacts() []string {
	return []string{
		`podCIDRs: [10.244.0.0/16, "fd00:10:244::/48"]`,
		`localPodCIDRs: [10.244.1.0/24, "fd00:10:244:1::/64"]`,
		`nodes: [192.168.5.10, 192.168.5.11, "fd00:192:168:5::10", "fd00:192:168:5::11"]`,
		`serviceCIDRs: [10.96.0.0/16, "fd00:96::/112"]`,
	}
}

// node in a namespace.
type node struct {
	ns    *netns.NS
	wires *rig.Wires
}

func newNode(t *testing.T, l layout) *node {
	t.Helper()
	n := &node{ns: netnstest.Test(t, "node")}
	far := netnstest.Test(t, "far")
	for key, value := range map[string]string{
		"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1", "net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.default.rp_filter": "0",
		"net.ipv6.conf.all.accept_dad": "0", "net.ipv6.conf.default.accept_dad": "0",
	} {
		n.must(t, n.ns.Sysctl(key, value))
	}
	var ends []rig.Wire
	for i, link := range l.links {
		end := fmt.Sprintf("far%d", i)
		n.must(t, netns.Veth(n.ns, link, far, end))
		n.run(t, "", "ip", "link", "set", link, "arp", "off")
		ends = append(ends, rig.Wire{Link: link, Far: far, FarLink: end})
	}
	n.must(t, n.ns.Up("lo"))
	n.run(t, strings.Join(l.ip, "\n")+"\n", "ip", "-batch", "-")
	n.must(t, n.settle(l))
	n.wires = rig.Open(t, n.ns, ends...)
	return n
}

// settle waits for the routes to the node's own IPv6 addresses, which the kernel adds a
// little later than those.
func (n *node) settle(l layout) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		routes, err := n.ns.Run("", "ip", "-6", "route", "show", "table", "local")
		if err != nil {
			return err
		}
		missing := false
		for _, a := range l.own(packet.IPv6Family) {
			missing = missing || !strings.Contains(routes, "local "+a.String()+" ")
		}
		if !missing {
			return nil
		}
		if time.Now().After(deadline) {
			return errors.New("the node's own addresses aren't there")
		}
	}
}

// own addresses of the node in a family, by order of commands.
func (l layout) own(f packet.Family) (all []netip.Addr) {
	for _, command := range l.ip {
		words := strings.Fields(command)
		if words[0] == "addr" {
			if a := netip.MustParsePrefix(words[2]).Addr(); packet.Of(a) == f {
				all = append(all, a)
			}
		}
	}
	return all
}

func (n *node) must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (n *node) run(t *testing.T, stdin, program string, args ...string) string {
	t.Helper()
	out, err := n.ns.Run(stdin, program, args...)
	n.must(t, err)
	return out
}
