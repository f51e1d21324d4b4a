package lab

import (
	"github.com/unmasq/unmasq/internal/foreign"
)

// docker: two hosts whose pods hide from each other behind docker's rule.
func docker() Scenario {
	between, outside := Call{From: "pod1", To: "pod2"}, Call{From: "pod1", To: "outside"}
	back, outside2 := Call{From: "pod2", To: "pod1"}, Call{From: "pod2", To: "outside"}
	expect := func(pods1, pods2 Sight) map[Call]Expect {
		return map[Call]Expect{between: Both(pods1), back: Both(pods2), outside: Both("host1"), outside2: Both("host2")}
	}
	return Scenario{
		Name:     "docker",
		Policies: policiesOf("docker"),
		Summary:  "two docker hosts: pods see each other's own addresses, the outside sees the host",
		Story: "Docker masquerades all that leaves docker0's subnet, other hosts' pods included: 172.5.138.2 and 172.5.139.2\n" +
			"see each other's hosts. Deleting the rule by hand lasts until docker restarts.",
		Spaces: dockerSpaces(),
		Forms: []Form{{
			About: "-s SUBNET ! -o docker0 -j MASQUERADE, at the top of POSTROUTING",
			Rules: []Rules{
				{On: "host1", Component: foreign.KubeProxy(), Context: true},
				{On: "host1", Component: foreign.Docker(), Node: dockerNode("172.5.138.0/24", "fd00:172:5:138::/64")},
				{On: "host2", Component: foreign.KubeProxy(), Context: true},
				{On: "host2", Component: foreign.Docker(), Node: dockerNode("172.5.139.0/24", "fd00:172:5:139::/64")},
			},
		}},
		Calls: []Call{between, back, outside, outside2},
		Stages: []Stage{
			{Title: "before: docker's rule alone", Expect: expect("host1", "host2")},
			{Title: "after: unmasq with this policy", Policy: "policy.yaml", Expect: expect(Itself, Itself)},
			{Title: "after docker restarts: its rule comes back, at the top", Policy: "policy.yaml",
				Step: restartPeers, Expect: expect(Itself, Itself)},
		},
	}
}

func dockerNode(subnet4, subnet6 string) foreign.Node {
	return foreign.Node{
		Bridge: "docker0",
		IPv4:   foreign.Addresses{LocalPods: prefix(subnet4)},
		IPv6:   foreign.Addresses{LocalPods: prefix(subnet6)},
	}
}

func dockerSpaces() []Space {
	const lan4, lan6 = "192.168.5.1/24", "fd00:192:168:5::1/64"
	host := func(name, address4, address6, bridge4, bridge6 string, routes ...Route) Space {
		return Space{Name: name, Role: Host,
			Bridges: []Bridge{{"docker0", prefixes(bridge4, bridge6)}},
			Ports:   []Port{{"eth0", "router", "lan", prefixes(address4, address6)}},
			Routes:  append(routes, defaultVia(lan4, lan6)...)}
	}
	return []Space{
		{Name: "router", Role: Router, Bridges: []Bridge{
			{"lan", prefixes(lan4, lan6)},
			{"wan", prefixes("198.51.100.1/24", "2001:db8:100::1/64")}}},
		host("host1", "192.168.5.138/24", "fd00:192:168:5::138/64", "172.5.138.1/24", "fd00:172:5:138::1/64",
			via("172.5.139.0/24", "192.168.5.139"), via("fd00:172:5:139::/64", "fd00:192:168:5::139")),
		host("host2", "192.168.5.139/24", "fd00:192:168:5::139/64", "172.5.139.1/24", "fd00:172:5:139::1/64",
			via("172.5.138.0/24", "192.168.5.138"), via("fd00:172:5:138::/64", "fd00:192:168:5::138")),
		pod("pod1", "host1", "docker0", "172.5.138.2/24", "fd00:172:5:138::2/64"),
		pod("pod2", "host2", "docker0", "172.5.139.2/24", "fd00:172:5:139::2/64"),
		// The outside knows no pod: what isn't translated gets no answer.
		{Name: "outside", Role: Outside,
			Ports:  []Port{{"eth0", "router", "wan", prefixes("198.51.100.10/24", "2001:db8:100::10/64")}},
			Routes: []Route{via("192.168.5.0/24", "198.51.100.1"), via("fd00:192:168:5::/64", "2001:db8:100::1")}},
	}
}
