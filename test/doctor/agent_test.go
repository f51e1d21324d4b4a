package doctor_test

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
)

// agentLessons are about ip-masq-agent, by the rules that it writes itself.
var agentLessons = []lesson{
	{
		code: "pods-not-listed", name: "an office's network alone",
		provoke: noIPv4, before: listing("192.0.2.0/24"),
		with: []string{"clients-hidden"},
		alike: map[string]string{
			"the pods are listed":   noIPv4 + masqAgent("192.0.2.0/24", "10.244.0.0/16"),
			"another's rule":        noIPv4 + "ip route add 10.244.2.0/24 via 192.0.2.2; iptables -t nat -A POSTROUTING -s 10.244.1.0/24 -j MASQUERADE",
			"other nodes', kept":    noIPv4 + masqAgent("10.244.0.0/16") + "ip route add 10.244.2.0/24 via 192.0.2.2",
			"a policy keeps them":   noIPv4 + masqAgent("192.0.2.0/24") + applied(`{name: pods, from: {cidrs: [10.244.1.0/24]}, to: {cidrs: [10.244.0.0/16]}, action: Keep}`),
			"bridged past iptables": noIPv4 + masqAgent("192.0.2.0/24") + "sysctl -qw net.bridge.bridge-nf-call-iptables=0",
		},
		call: &call{from: pod1, to: pod2, address: "10.244.1.3:80", before: "10.244.1.1", after: "10.244.1.2"},
	},
	{
		code: "pods-not-listed", name: "this node's pods alone",
		provoke: noIPv4 + "ip route add 10.244.2.0/24 via 192.0.2.2", before: listing("10.244.1.0/24"),
		call: &call{from: pod1, to: out, address: "10.244.2.2:80", before: "192.0.2.1", after: "10.244.1.2"},
	},
	{
		code: "pods-not-listed", name: "each pod has a route",
		provoke: noIPv4 + routed, before: listing("192.0.2.0/24"),
		with:  []string{"clients-hidden"},
		alike: map[string]string{"they are listed": noIPv4 + routed + masqAgent("10.244.1.0/24")},
		call:  &call{from: pod1, to: pod2, address: "10.244.1.3:80", before: "192.0.2.1", after: "10.244.1.2"},
	},
	{
		code: "pods-not-listed", name: "the agent's list is changed",
		provoke: noIPv4, before: listing("192.0.2.0/24"),
		with: []string{"clients-hidden"},
		mended: func(l *lab) {
			l.shell(l.node, "unmasq clear")
			listing("192.0.2.0/24", "10.244.0.0/16")(l)
		},
		call: &call{from: pod1, to: pod2, address: "10.244.1.3:80", before: "10.244.1.1", after: "10.244.1.2"},
	},
}

// leftLessons are about what components would have taken away themselves.
var leftLessons = []lesson{
	{
		code: "leftover-rules", name: "flannel in both modes",
		provoke: noIPv4 + flannel + filterFlannel + flannelTable,
		with:    []string{"two-masqueraders", "exemption-overridden"},
		alike: map[string]string{
			"in its iptables mode":            noRules + flannel + filterFlannel,
			"in its nftables mode":            noRules + flannelTable,
			"each family in its own":          noRules + flannel + flannelTable6,
			"the other one's table is empty":  noRules + flannel + "nft add table ip flannel-ipv4; nft add chain ip flannel-ipv4 postrtg",
			"a chain without a jump":          noRules + flannelTable + "iptables -t nat -N FLANNEL-POSTRTG; iptables -t nat -A FLANNEL-POSTRTG -j RETURN",
			"somebody else's empty chain":     "iptables -t nat -N OWN; iptables -t nat -A POSTROUTING -j OWN",
			"docker's chain, which is empty":  "iptables -t nat -N DOCKER; iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER",
			"kubelet's chain, without a jump": "iptables -t nat -N KUBE-KUBELET-CANARY; iptables -t mangle -N KUBE-POSTROUTING",
		},
		call: &call{from: pod1, to: out, address: "203.0.113.9:80", before: "192.0.2.1", after: "192.0.2.1"},
	},
	{
		code: "leftover-rules", name: "flannel before it had a chain",
		provoke: noIPv4 + oldFlannel + flannel,
		alike:   map[string]string{"an old flannel": noIPv4 + oldFlannel},
		with:    []string{"never-matches"},
		call:    &call{from: pod1, to: out, address: "203.0.113.9:80", before: "192.0.2.1", after: "192.0.2.1"},
	},
	{
		code: "leftover-rules", name: "a jump to nothing",
		provoke: "iptables -t nat -N FLANNEL-POSTRTG; iptables -t nat -A POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG",
		call:    &call{from: pod1, to: out, address: "203.0.113.9:80", before: "192.0.2.1", after: "192.0.2.1"},
	},
	{
		code: "leftover-rules", name: "a pod's chain without its rules",
		provoke: `iptables -t nat -N CNI-984a7a017355168c0114296b; iptables -t nat -A POSTROUTING -s 10.244.1.9/32 -m comment --comment 'name: "podnet" id: "pod-1"' -j CNI-984a7a017355168c0114296b`,
	},
	{
		code: "leftover-rules", name: "ip-masq-agent's first form",
		provoke: noIPv4 + "iptables -t nat -N IP-MASQ-AGENT; iptables -t nat -A POSTROUTING -m comment --comment 'ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain' -j IP-MASQ-AGENT\n",
		before:  listing("10.0.0.0/8"),
		alike:   map[string]string{"one jump": noIPv4 + masqAgent("10.0.0.0/8")},
		call:    &call{from: pod1, to: out, address: "203.0.113.9:80", before: "192.0.2.1", after: "192.0.2.1"},
	},
	{
		code: "leftover-rules", name: "docker's bridge is gone, of both variants",
		provoke: noIPv4 + docker + "iptables -t nat -A POSTROUTING -s 172.18.0.0/16 ! -o br-0123456789ab -j MASQUERADE\n" +
			"iptables-legacy -t nat -N DOCKER; iptables-legacy -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER; iptables-legacy -t nat -A DOCKER -i cni0 -j RETURN\n" +
			"iptables-legacy -t nat -A POSTROUTING -s 172.19.0.0/16 ! -o br-ba9876543210 -j MASQUERADE",
		with: []string{"two-iptables-variants"},
	},
}

const (
	filterFlannel = `iptables -N FLANNEL-FWD; iptables -A FORWARD -m comment --comment 'flanneld forward' -j FLANNEL-FWD
iptables -A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT; iptables -A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment 'flanneld forward' -j ACCEPT
`
	flannelTable = `nft -f - <<'END'
table ip flannel-ipv4 {
	chain postrtg {
		type nat hook postrouting priority srcnat;
		meta mark 0x00004000 return
		ip saddr 10.244.1.0/24 ip daddr 10.244.0.0/16 return
		ip saddr 10.244.0.0/16 ip daddr 10.244.1.0/24 return
		ip saddr != 10.244.1.0/24 ip daddr 10.244.0.0/16 return
		ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
		ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random
	}
}
END
`
	flannelTable6 = `nft -f - <<'END'
table ip6 flannel-ipv6 {
	chain postrtg {
		type nat hook postrouting priority srcnat;
		ip6 saddr fd00:10:244:1::/64 ip6 daddr fd00:10:244::/48 return
		ip6 saddr fd00:10:244::/48 ip6 daddr != ff00::/8 masquerade fully-random
	}
}
END
`
	oldFlannel = `iptables -t nat -A POSTROUTING -s 10.244.0.0/16 -d 10.244.0.0/16 -j RETURN
iptables -t nat -A POSTROUTING -s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
iptables -t nat -A POSTROUTING ! -s 10.244.0.0/16 -d 10.244.1.0/24 -j RETURN
iptables -t nat -A POSTROUTING ! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE
`
)

// routed takes the bridge away: each pod is on a link of its own, and asks the node for
// all addresses, as calico has it.
const routed = `ip link set veth1 nomaster; ip link set veth2 nomaster; ip link del cni0
sysctl -qw net.ipv4.conf.veth1.proxy_arp=1 net.ipv4.conf.veth2.proxy_arp=1 net.ipv4.neigh.veth1.proxy_delay=0 net.ipv4.neigh.veth2.proxy_delay=0
ip route add 10.244.1.2/32 dev veth1; ip route add 10.244.1.3/32 dev veth2
`

// listing runs ip-masq-agent with such a list, or changes it.
func listing(list ...string) func(*lab) {
	return func(l *lab) {
		l.t.Helper()
		node := foreign.Node{IPv4: foreign.Addresses{ClusterPods: netip.MustParsePrefix("10.244.0.0/16"), LocalPods: netip.MustParsePrefix("10.244.1.0/24")}}
		for _, n := range list {
			node.IPv4.NonMasquerade = append(node.IPv4.NonMasquerade, netip.MustParsePrefix(n))
		}
		must(l.t, foreign.Run(l.t.Context(), foreign.In(l.node), foreign.IPMasqAgent().Write(node, foreign.NFT, packet.IPv4Family)))
	}
}
