package doctor_test

import (
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/others/otherstest"
)

// otherLessons are about what stands beside the rules.
var otherLessons = []lesson{
	{
		code: "ipsec-translated", name: "masquerade",
		provoke: encrypted,
		alike: map[string]string{
			"exempted":         encrypted + "iptables -t nat -I POSTROUTING -m policy --dir out --pol ipsec -j ACCEPT",
			"of other sources": "ip xfrm policy add src 172.20.0.0/16 dst 203.0.113.0/24 dir out tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel",
			"spared":           noIPv4 + encrypted + "iptables -t nat -A POSTROUTING -s 10.244.1.0/24 ! -d 203.0.113.0/24 -j MASQUERADE",
			"of the node":      "ip xfrm policy add src 192.0.2.1/32 dst 203.0.113.0/24 dir out tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel",
			"a policy to pass": "ip xfrm policy add src 10.244.1.0/24 dst 203.0.113.0/24 dir out",
		},
	},
	{
		code: "ports-taken", name: "a narrow range",
		provoke: narrow,
		before:  func(l *lab) { l.flows(9, 1) },
		alike:   map[string]string{"no connections": narrow},
	},
	{
		code: "replies-lost", name: "a routed ClusterIP",
		provoke: remoteService,
		before: func(l *lab) {
			l.shell(l.out, "ip route add 10.96.0.10/32 via 192.0.2.1 src 203.0.113.9")
			l.check(&call{from: pod1, to: out, address: "10.96.0.10:80@8080"}, "198.51.100.1", "from a pod")
			l.check(&call{from: out, to: out, address: "10.96.0.10:80@8080"}, lost, "from outside")
		},
		alike: map[string]string{"nobody calls": remoteService},
		call:  &call{from: out, to: out, address: "10.96.0.10:80@8080", before: lost, after: "198.51.100.1"},
	},
	{
		code: "networks-overlap", name: "a bridge in the uplink's subnet",
		provoke: known + "ip addr add 198.51.100.62/26 dev cni0",
		alike: map[string]string{
			"elsewhere":           known + "ip addr add 198.51.100.254/26 dev cni0",
			"a route to the host": known + "ip addr add 198.51.100.62/26 dev cni0; ip route add 198.51.100.2/32 dev eth1",
			"nobody is there":     "ip addr add 198.51.100.62/26 dev cni0",
		},
		call: &call{from: node, to: out, address: "198.51.100.2:80", before: lost, after: "198.51.100.1"},
	},
	{
		code: "tunnel-blocked", name: "icmp-host-prohibited",
		provoke: vxlan + "iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -A INPUT -p tcp --dport 22 -j ACCEPT; iptables -A INPUT -j REJECT --reject-with icmp-host-prohibited",
		alike: map[string]string{
			"let in":              vxlan + "iptables -A INPUT -p udp --dport 8472 -j ACCEPT; iptables -A INPUT -j REJECT --reject-with icmp-host-prohibited",
			"peers are let in":    vxlan + "iptables -P INPUT DROP; iptables -A INPUT -s 198.51.100.0/24 -j ACCEPT",
			"a peer is shut out":  vxlan + "iptables -A INPUT -s 198.51.100.2 -j DROP",
			"there is no tunnel":  "iptables -P INPUT DROP",
			"the tunnel has none": `ip link add flannel.1 type vxlan id 1 local 198.51.100.1 dev eth1 dstport 8472 nolearning; ip link set flannel.1 up; iptables -P INPUT DROP`,
		},
	},
	{
		code: "tunnel-blocked", name: "nftables",
		provoke: vxlan + `nft add table inet host; nft add chain inet host input '{ type filter hook input priority filter; policy drop; }'; nft add rule inet host input iif lo accept`,
	},
	{
		code: "tunnel-translated", name: "all that leaves",
		provoke: vxlan + "iptables -t nat -A POSTROUTING -o eth1 -j SNAT --to-source 192.0.2.1",
		alike: map[string]string{
			"to the same address": vxlan + "iptables -t nat -A POSTROUTING -o eth1 -j MASQUERADE",
			"pods alone":          vxlan,
			"spared":              vxlan + "iptables -t nat -A POSTROUTING -o eth1 -p udp --dport 8472 -j ACCEPT; iptables -t nat -A POSTROUTING -o eth1 -j SNAT --to-source 192.0.2.1",
		},
	},
	{
		code: "bypassed-by-ebpf", name: "Cilium in place of kube-proxy", root: true,
		provoke: applied(`{name: all, from: {cidrs: [10.244.1.0/24]}, action: Masquerade}`),
		before: func(l *lab) {
			l.detach = otherstest.TC(l.t, l.node, "eth0", otherstest.Egress, "cil_to_netdev-eth0")
		},
		mended: func(l *lab) { l.detach() },
		alike:  map[string]string{"no programs": applied(`{name: all, from: {cidrs: [10.244.1.0/24]}, action: Masquerade}`)},
	},
}

const (
	encrypted     = "ip xfrm policy add src 10.244.1.0/24 dst 203.0.113.0/24 dir out tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel\n"
	remoteService = "iptables -t nat -A PREROUTING -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 198.51.100.2:8080\n"
	// the host outside that the node knows at eth1.
	known = "ip neigh replace 198.51.100.2 lladdr 02:00:00:00:01:02 dev eth1 nud reachable\n"
	vxlan = `ip link add flannel.1 type vxlan id 1 local 198.51.100.1 dev eth1 dstport 8472 nolearning
ip addr add 10.244.1.0/32 dev flannel.1; ip link set flannel.1 up; ip route add 10.245.3.0/24 via 10.245.3.0 dev flannel.1 onlink
ip neigh replace 10.245.3.0 lladdr 02:00:00:00:00:03 dev flannel.1 nud permanent; bridge fdb append 02:00:00:00:00:03 dev flannel.1 dst 198.51.100.2
iptables -t nat -I POSTROUTING -s 10.244.1.0/24 -d 10.245.0.0/16 -j ACCEPT
`
	narrow = noIPv4 + "iptables -t nat -A POSTROUTING -s 10.244.1.0/24 -p udp -o eth0 -j MASQUERADE --to-ports 2000-2009; iptables -t nat -A POSTROUTING -s 10.244.1.0/24 -o eth0 -j MASQUERADE"
)

// flows sends so many UDP packets from pod1 to each of so many ports outside.
func (l *lab) flows(sources, ports int) {
	l.t.Helper()
	must(l.t, l.pod1.Do(func() error {
		for i := range sources * ports {
			conn, err := net.Dial("udp", fmt.Sprintf("203.0.113.9:%d", 5000+i%ports))
			if err != nil {
				return err
			}
			defer conn.Close()
			if _, err := conn.Write([]byte("x")); err != nil {
				return err
			}
		}
		return nil
	}))
}

// TestRepliesLostOfTheDead: where nobody gets an answer from the backend, the way back
// isn't to blame.
func TestRepliesLostOfTheDead(t *testing.T) {
	t.Parallel()
	l := newLab(t, "iptables -t nat -A PREROUTING -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 198.51.100.77:8080")
	l.shell(l.node, "ip neigh replace 198.51.100.77 lladdr 02:00:00:00:00:77 dev eth1 nud permanent")
	l.shell(l.out, "ip route add 10.96.0.10/32 via 192.0.2.1 src 203.0.113.9")
	for _, from := range []func(*lab) *netns.NS{pod1, out} {
		l.check(&call{from: from, to: out, address: "10.96.0.10:80@8080"}, lost, "of a dead backend")
	}
	r := l.examine()
	if slices.Contains(codes(&r), "replies-lost") {
		t.Errorf("found where it isn't:\n%s", text(&r))
	}
}
