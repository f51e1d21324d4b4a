package lab

import (
	"fmt"
	"net/netip"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
)

// kubeRouter: dual stack pods that nobody asked to masquerade, behind a gateway
// that translates only what it is directly connected to.
func kubeRouter() Scenario {
	pods, nas, internet := Call{From: "pod1", To: "pod2"}, Call{From: "pod1", To: "nas"}, Call{From: "pod1", To: "internet"}
	expect := func(atNAS Sight, atInternet Expect) map[Call]Expect {
		return map[Call]Expect{pods: Both(Itself), nas: Both(atNAS), internet: atInternet}
	}
	narrowed := expect(Itself, Expect{IPv4: "gateway", IPv6: Itself})
	return Scenario{
		Name:     "kube-router",
		Policies: policiesOf("kube-router"),
		Summary:  "kube-router's pod egress on, off and narrowed, behind a gateway that translates its own networks only",
		Story: "With --enable-pod-egress (the default) kube-router masquerades pods in both families. Routes to the pods are\n" +
			"known on the LAN (BGP) and, for IPv6, on the internet. The gateway masquerades its directly connected IPv4\n" +
			"networks only, so a pod's own IPv4 address gets no answer from the internet.",
		Spaces: kubeRouterSpaces(),
		Forms:  []Form{{About: "one rule on the ipsets kube-router-pod-subnets and kube-router-node-ips", Rules: kubeRouterRules()}},
		Calls:  []Call{pods, nas, internet},
		Stages: []Stage{
			{Title: "before: pod egress on, kube-router's rule alone", Expect: expect("node1", Expect{IPv4: "gateway", IPv6: "node1"})},
			{Title: "after, pod egress off: every pod keeps its address", Policy: "policy.yaml",
				Expect: expect(Itself, Expect{IPv4: NoReply, IPv6: Itself})},
			{Title: "after, pod egress narrowed: only to where the gateway needs it", Policy: "narrowed.yaml", Expect: narrowed},
			{Title: "after kube-router restarts and syncs its rule", Policy: "narrowed.yaml", Step: restartPeers, Expect: narrowed},
		},
	}
}

func kubeRouterRules() []Rules {
	family := func(local string, subnets []netip.Prefix, nodes ...netip.Addr) foreign.Addresses {
		return foreign.Addresses{LocalPods: prefix(local), PodSubnets: subnets, Nodes: nodes}
	}
	node := func(local4, local6 string) foreign.Node {
		return foreign.Node{Bridge: "kube-bridge",
			IPv4: family(local4, prefixes("10.42.1.0/24", "10.42.2.0/24"),
				netip.MustParseAddr("192.168.1.11"), netip.MustParseAddr("192.168.1.12")),
			IPv6: family(local6, prefixes("2001:db8:42:1::/64", "2001:db8:42:2::/64"),
				netip.MustParseAddr("2001:db8:1::11"), netip.MustParseAddr("2001:db8:1::12"))}
	}
	return []Rules{
		{On: "gateway", Component: gatewayNAT("192.168.1.0/24", "wan"), Context: true},
		{On: "node1", Component: foreign.KubeRouter(), Node: node("10.42.1.0/24", "2001:db8:42:1::/64")},
		{On: "node2", Component: foreign.KubeRouter(), Node: node("10.42.2.0/24", "2001:db8:42:2::/64")},
	}
}

// gatewayNAT is what a home or office gateway does: it masquerades one directly
// connected IPv4 network, and no IPv6.
func gatewayNAT(network, out string) foreign.Component {
	write := func(_ foreign.Node, v foreign.Variant, f packet.Family) []foreign.Step {
		if f != packet.IPv4Family {
			return nil
		}
		return []foreign.Step{{
			Program: fmt.Sprintf("iptables-%s", v),
			Args:    []string{"--wait", "-t", "nat", "-A", "POSTROUTING", "-s", network, "-o", out, "-j", "MASQUERADE"},
		}}
	}
	return foreign.Component{Name: "gateway", Write: write}
}

func kubeRouterSpaces() []Space {
	const lan4, lan6 = "192.168.1.1/24", "2001:db8:1::1/64"
	toPods1 := []Route{via("10.42.1.0/24", "192.168.1.11"), via("2001:db8:42:1::/64", "2001:db8:1::11")}
	toPods2 := []Route{via("10.42.2.0/24", "192.168.1.12"), via("2001:db8:42:2::/64", "2001:db8:1::12")}
	toPods := append(append([]Route{}, toPods1...), toPods2...)
	node := func(name, address4, address6, bridge4, bridge6 string, routes []Route) Space {
		return Space{Name: name, Role: Host,
			Bridges: []Bridge{{"kube-bridge", prefixes(bridge4, bridge6)}},
			Ports:   []Port{{"eth0", "gateway", "lan", prefixes(address4, address6)}},
			Routes:  append(routes, defaultVia(lan4, lan6)...)}
	}
	return []Space{
		{Name: "gateway", Role: Router,
			Bridges: []Bridge{
				{"lan", prefixes(lan4, lan6)},
				{"wan", prefixes("203.0.113.1/24", "2001:db8:203::1/64")}},
			Routes: toPods},
		node("node1", "192.168.1.11/24", "2001:db8:1::11/64", "10.42.1.1/24", "2001:db8:42:1::1/64", toPods2),
		node("node2", "192.168.1.12/24", "2001:db8:1::12/64", "10.42.2.1/24", "2001:db8:42:2::1/64", toPods1),
		pod("pod1", "node1", "kube-bridge", "10.42.1.5/24", "2001:db8:42:1::5/64"),
		pod("pod2", "node2", "kube-bridge", "10.42.2.5/24", "2001:db8:42:2::5/64"),
		{Name: "nas", Role: Outside,
			Ports:  []Port{{"eth0", "gateway", "lan", prefixes("192.168.1.50/24", "2001:db8:1::50/64")}},
			Routes: append(append([]Route{}, toPods...), defaultVia(lan4, lan6)...)},
		// The internet routes the site's IPv6 networks, and of IPv4 only the gateway's address.
		{Name: "internet", Role: Outside,
			Ports:  []Port{{"eth0", "gateway", "wan", prefixes("203.0.113.10/24", "2001:db8:203::10/64")}},
			Routes: []Route{via("2001:db8:1::/64", "2001:db8:203::1"), via("2001:db8:42::/48", "2001:db8:203::1")}},
	}
}
