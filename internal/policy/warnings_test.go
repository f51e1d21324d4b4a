package policy

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestWarnings(t *testing.T) {
	allStated := Stated{
		PodCIDRs: StatedValue[[]netip.Prefix]{Set: true},
		Nodes:    StatedValue[[]netip.Addr]{Set: true},
	}
	addNodes := func(f *Facts) { f.Nodes = append(f.Nodes, netip.MustParseAddr("2001:db8::1")) }
	for _, c := range []struct {
		name   string
		rules  []string
		facts  func(*Facts)
		stated Stated
		want   []string
	}{
		{name: "nothing to say", rules: []string{"{from: {pods: {}}, to: {pods: {}}, action: Keep}", everything}, stated: allStated},
		{name: "pods without podCIDRs in a family",
			rules:  []string{"{name: a, from: {pods: {}}, action: Keep}", "{name: b, to: {pods: {}}, action: Keep}", everything},
			facts:  func(f *Facts) { f.PodCIDRs = f.PodCIDRs[:1] },
			stated: allStated,
			want:   []string{"pods matches nothing in IPv6 in rules p/a, p/b: no podCIDRs of that family are known"}},
		{name: "nodes without addresses in a family",
			rules: []string{"{name: a, to: {nodes: {}}, action: Keep}"}, stated: allStated,
			want: []string{"nodes matches nothing in IPv6 in rule p/a: no nodes of that family are known"}},
		{name: "only discovered", rules: []string{"{name: a, to: {pods: {}, nodes: {}}, action: Keep}"}, facts: addNodes,
			want: []string{
				"to.pods in rule p/a means this host's alone: other hosts' are not known; state spec.facts.podCIDRs",
				"to.nodes in rule p/a means this host's alone: other hosts' are not known; state spec.facts.nodes"}},
		{name: "many rules", rules: []string{"{to: {pods: {}, cidrs: [10.0.0.0/8]}, action: Keep}", "{to: {pods: {}, cidrs: [11.0.0.0/8]}, action: Keep}",
			"{to: {pods: {}, cidrs: [12.0.0.0/8]}, action: Keep}", "{to: {pods: {}, cidrs: [13.0.0.0/8]}, action: Keep}"},
			want: []string{"to.pods in rules p/rule-1, p/rule-2, p/rule-3 and 1 more means this host's alone: other hosts' are not known; state spec.facts.podCIDRs"}},
		{name: "another host's address", rules: []string{"{name: a, action: SNAT, snat: {addresses: [192.168.5.138, 192.0.2.7-192.0.2.9]}}"},
			want: []string{"rule p/a: SNAT to 192.0.2.7 and 2 more, which this node doesn't have: replies reach it only where the network routes them here"}},
		{name: "own address", rules: []string{"{name: a, action: SNAT, snat: {addresses: [192.168.5.138]}}"}},
		{name: "addresses not known", rules: []string{"{name: a, action: SNAT, snat: {addresses: [192.0.2.7]}}"}, facts: func(f *Facts) { f.NodeAddresses = nil }},
		{name: "key of no namespace",
			rules: []string{"{name: a, from: {pods: {namespaceSelector: {matchLabels: {taem: web}}}}, action: Keep}",
				"{name: b, from: {pods: {namespaceSelector: {matchExpressions: [{key: other, operator: NotIn, values: [x]}, {key: team, operator: Exists}]}}}, action: Keep}"},
			facts: func(f *Facts) { f.PodsKnown = true },
			want:  []string{`rule p/a: no pod here is in a namespace with the label "taem" that its namespaceSelector asks for`}},
		{name: "addresses of services",
			rules: []string{"{name: a, to: {cidrs: [10.0.0.0/8, 10.96.0.0/16, 10.97.0.1/32]}, action: Keep}", "{name: b, to: {cidrs: [192.0.2.0/24]}, action: Keep}"},
			facts: func(f *Facts) { f.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")} },
			want:  []string{"rule p/a: to.cidrs 10.96.0.0/16 and 10.97.0.1/32 can never match: addresses of services are gone when a rule sees a packet, after DNAT"}},
		{name: "never reached", rules: []string{everything, "{name: late, to: {cidrs: [10.0.0.0/8]}, action: Keep}"},
			want: []string{"rule p/late is never reached: rule p/all comes first and matches all that it does"}},
		{name: "reached by the node's own", rules: []string{everything, "{name: late, from: {node: {}}, action: Keep}"}},
		{name: "reached with a mark", rules: []string{everything, "{name: late, action: Keep, overrideServiceMasquerade: true}"}},
		{name: "reached in the other family", rules: []string{"{action: SNAT, snat: {addresses: [192.168.5.138]}}", "{name: late, action: Keep}"}},
		{name: "reached by the excepted", rules: []string{"{from: {except: [10.0.0.0/8]}, action: Keep}", "{name: late, from: {cidrs: [10.0.0.0/16]}, action: Keep}"}},
		{name: "the same twice", rules: []string{"{name: a, from: {pods: {podSelector: {matchLabels: {app: x}}}}, to: {ports: [{port: 80, endPort: 90}]}, outInterfaces: [eth0], action: Keep}",
			"{name: b, from: {pods: {podSelector: {matchLabels: {app: x}}}}, to: {ports: [{port: 85}]}, outInterfaces: [eth0], action: Leave}"},
			want: []string{"rule p/b is never reached: rule p/a comes first and matches all that it does"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			facts := testFacts()
			if c.facts != nil {
				c.facts(facts)
			}
			if diff := cmp.Diff(c.want, Warnings(loadRules(t, c.rules...), facts, c.stated)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
