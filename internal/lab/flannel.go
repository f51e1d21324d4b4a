package lab

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/foreign"
)

// flannel: pods that an office network must see, behind flannel's masquerade in
// each of the forms that flannel has had.
func flannel() Scenario {
	pods, back := Call{From: "pod1", To: "pod2"}, Call{From: "pod2", To: "pod1"}
	office, internet := Call{From: "pod1", To: "office"}, Call{From: "pod1", To: "internet"}
	expect := func(atOffice Sight) map[Call]Expect {
		return map[Call]Expect{pods: Both(Itself), back: Both(Itself), office: Both(atOffice), internet: Both("node1")}
	}
	return Scenario{
		Name:     "flannel",
		Policies: policiesOf("flannel"),
		Summary:  "flannel (old, iptables, nftables): the office network sees pods, the internet sees the node",
		Story: "Flannel masquerades all that leaves the cluster, before anyone's list of exceptions (ip-masq-agent's, in two of\n" +
			"the forms) is asked. 192.168.200.253 must see 172.16.4.11, by ping too; the internet must see the node.",
		Spaces: flannelSpaces(),
		Forms:  flannelForms(),
		Calls:  []Call{pods, back, office, internet},
		Stages: []Stage{
			{Title: "before: flannel's rules alone", Expect: expect("node1")},
			{Title: "after: unmasq with this policy", Policy: "policy.yaml", Expect: expect(Itself)},
			{Title: "after flannel restarts and writes its rules anew", Policy: "policy.yaml",
				Step: restartPeers, Expect: expect(Itself)},
		},
	}
}

func flannelForms() []Form {
	old := []Rules{}
	for _, node := range []string{"node1", "node2"} {
		old = append(old,
			Rules{On: node, Component: foreign.Docker(), Context: true,
				Node: foreign.Node{Bridge: "docker0", IPv4: foreign.Addresses{LocalPods: prefix("172.17.0.0/16")}}},
			Rules{On: node, Component: foreign.KubeProxy(), Context: true},
			Rules{On: node, Component: foreign.FlannelOld(), Node: flannelNode(node)},
			Rules{On: node, Component: foreign.IPMasqAgent(), Node: flannelNode(node)})
	}
	both := func(components ...foreign.Component) []Rules {
		var rules []Rules
		for _, node := range []string{"node1", "node2"} {
			for _, c := range components {
				rules = append(rules, Rules{On: node, Component: c, Node: flannelNode(node)})
			}
		}
		return rules
	}
	return []Form{
		{Name: "old", About: "flannel's four rules in POSTROUTING, ip-masq-agent's chain after them", Rules: old},
		{Name: "iptables", About: "the chain FLANNEL-POSTRTG, ip-masq-agent's chain after it",
			Rules: both(foreign.Flannel(), foreign.IPMasqAgent())},
		{Name: "nftables", About: "the tables flannel-ipv4 and flannel-ipv6", Rules: both(foreign.FlannelNFTables())},
	}
}

func flannelNode(name string) foreign.Node {
	local := map[string][2]string{
		"node1": {"172.16.4.0/24", "fd00:172:16:4::/64"},
		"node2": {"172.16.2.0/24", "fd00:172:16:2::/64"},
	}[name]
	address := func(cluster, local, office string) foreign.Addresses {
		return foreign.Addresses{ClusterPods: prefix(cluster), LocalPods: prefix(local),
			NonMasquerade: []netip.Prefix{prefix(cluster), prefix(office)}}
	}
	return foreign.Node{
		Bridge: "cni0",
		IPv4:   address("172.16.0.0/16", local[0], "192.168.200.0/24"),
		IPv6:   address("fd00:172:16::/48", local[1], "fd00:192:168:200::/64"),
	}
}

func flannelSpaces() []Space {
	const lan4, lan6 = "192.168.100.1/24", "fd00:192:168:100::1/64"
	const office4, office6 = "192.168.200.1/24", "fd00:192:168:200::1/64"
	toPods1 := []Route{via("172.16.4.0/24", "192.168.100.4"), via("fd00:172:16:4::/64", "fd00:192:168:100::4")}
	toPods2 := []Route{via("172.16.2.0/24", "192.168.100.2"), via("fd00:172:16:2::/64", "fd00:192:168:100::2")}
	node := func(name, address4, address6, bridge4, bridge6 string, routes []Route) Space {
		return Space{Name: name, Role: Host,
			Bridges: []Bridge{{"cni0", prefixes(bridge4, bridge6)}},
			Ports:   []Port{{"eth0", "router", "lan", prefixes(address4, address6)}},
			Routes:  append(routes, defaultVia(lan4, lan6)...)}
	}
	return []Space{
		{Name: "router", Role: Router,
			Bridges: []Bridge{
				{"lan", prefixes(lan4, lan6)},
				{"office", prefixes(office4, office6)},
				{"wan", prefixes("198.51.100.1/24", "2001:db8:100::1/64")}},
			Routes: append(append([]Route{}, toPods1...), toPods2...)},
		node("node1", "192.168.100.4/24", "fd00:192:168:100::4/64", "172.16.4.1/24", "fd00:172:16:4::1/64", toPods2),
		node("node2", "192.168.100.2/24", "fd00:192:168:100::2/64", "172.16.2.1/24", "fd00:172:16:2::1/64", toPods1),
		pod("pod1", "node1", "cni0", "172.16.4.11/24", "fd00:172:16:4::11/64"),
		pod("pod2", "node2", "cni0", "172.16.2.9/24", "fd00:172:16:2::9/64"),
		{Name: "office", Role: Outside,
			Ports:  []Port{{"eth0", "router", "office", prefixes("192.168.200.253/24", "fd00:192:168:200::253/64")}},
			Routes: defaultVia(office4, office6)},
		// The internet knows the nodes only: what isn't translated gets no answer.
		{Name: "internet", Role: Outside,
			Ports:  []Port{{"eth0", "router", "wan", prefixes("198.51.100.10/24", "2001:db8:100::10/64")}},
			Routes: []Route{via("192.168.100.0/24", "198.51.100.1"), via("fd00:192:168:100::/64", "2001:db8:100::1")}},
	}
}
