package lab

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/foreign"
)

// cniBridge: one host with the CNI bridge plugin's ipMasq.
func cniBridge() Scenario {
	pods, database, internet := Call{From: "pod1", To: "pod2"}, Call{From: "pod1", To: "database"}, Call{From: "pod1", To: "internet"}
	expect := func(atDatabase Sight) map[Call]Expect {
		return map[Call]Expect{pods: Both(Itself), database: Both(atDatabase), internet: Both("node")}
	}
	family := func(subnet, pod1, pod2 string) foreign.Addresses {
		return foreign.Addresses{LocalPods: prefix(subnet),
			Pods: []netip.Addr{netip.MustParseAddr(pod1), netip.MustParseAddr(pod2)}}
	}
	node := foreign.Node{Bridge: "cni0",
		IPv4: family("10.88.0.0/24", "10.88.0.5", "10.88.0.6"),
		IPv6: family("fd00:10:88::/64", "fd00:10:88::5", "fd00:10:88::6")}
	return Scenario{
		Name:     "cni-bridge",
		Policies: policiesOf("cni-bridge"),
		Summary:  "CNI bridge plugin with ipMasq (iptables, nftables): the database sees pods, the internet sees the node",
		Story: "With ipMasq the bridge plugin masquerades each pod to everywhere but its own subnet. A database on the LAN,\n" +
			"which has a route to the pods and grants access by address, sees the node for all of them.",
		Spaces: cniBridgeSpaces(),
		Forms: []Form{
			{Name: "iptables", About: "a chain CNI-… for each pod",
				Rules: []Rules{{On: "node", Component: foreign.CNIBridge(), Node: node}}},
			{Name: "nftables", About: "the table inet cni_plugins_masquerade",
				Rules: []Rules{{On: "node", Component: foreign.CNIBridgeNFTables(), Node: node}}},
		},
		Calls: []Call{pods, database, internet},
		Stages: []Stage{
			{Title: "before: the plugin's rules alone", Expect: expect("node")},
			{Title: "after: unmasq with this policy", Policy: "policy.yaml", Expect: expect(Itself)},
			{Title: "after the pods restart: the plugin writes their rules anew", Policy: "policy.yaml",
				Step: restartPeers, Expect: expect(Itself)},
		},
	}
}

func cniBridgeSpaces() []Space {
	const lan4, lan6 = "192.168.7.1/24", "fd00:192:168:7::1/64"
	toPods := []Route{via("10.88.0.0/24", "192.168.7.10"), via("fd00:10:88::/64", "fd00:192:168:7::10")}
	return []Space{
		{Name: "router", Role: Router, Bridges: []Bridge{
			{"lan", prefixes(lan4, lan6)},
			{"wan", prefixes("198.51.100.1/24", "2001:db8:100::1/64")}}},
		{Name: "node", Role: Host,
			Bridges: []Bridge{{"cni0", prefixes("10.88.0.1/24", "fd00:10:88::1/64")}},
			Ports:   []Port{{"eth0", "router", "lan", prefixes("192.168.7.10/24", "fd00:192:168:7::10/64")}},
			Routes:  defaultVia(lan4, lan6)},
		pod("pod1", "node", "cni0", "10.88.0.5/24", "fd00:10:88::5/64"),
		pod("pod2", "node", "cni0", "10.88.0.6/24", "fd00:10:88::6/64"),
		{Name: "database", Role: Outside,
			Ports:  []Port{{"eth0", "router", "lan", prefixes("192.168.7.50/24", "fd00:192:168:7::50/64")}},
			Routes: toPods},
		// The internet knows the node only: what isn't translated gets no answer.
		{Name: "internet", Role: Outside,
			Ports:  []Port{{"eth0", "router", "wan", prefixes("198.51.100.10/24", "2001:db8:100::10/64")}},
			Routes: []Route{via("192.168.7.0/24", "198.51.100.1"), via("fd00:192:168:7::/64", "2001:db8:100::1")}},
	}
}
