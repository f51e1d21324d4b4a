package policy

import "testing"

func TestDescribe(t *testing.T) {
	for _, c := range []struct{ rule, from, to string }{
		{"{action: Keep}", "anywhere", "everywhere"},
		{"{from: {pods: {}}, to: {pods: {}, nodes: {}}, action: Keep}", "pods", "pods + nodes"},
		{"{from: {pods: {}, cidrs: [10.0.0.0/8, 11.0.0.0/8], except: [10.0.0.0/16]}, action: Keep}", "pods + 2 CIDRs except 10.0.0.0/16", "everywhere"},
		{"{from: {node: {}}, to: {cidrs: [10.0.0.0/8]}, action: Keep}", "this node", "10.0.0.0/8"},
		{"{from: {cidrs: [10.0.0.0/8, 11.0.0.0/8, 12.0.0.0/8]}, to: {cidrs: [10.0.0.0/8, 11.0.0.0/8]}, action: Keep}", "10.0.0.0/8 and 2 more", "10.0.0.0/8 and 11.0.0.0/8"},
		{"{to: {ports: [{port: 443, endPort: 445}]}, outInterfaces: [eth0], action: Keep}", "anywhere", "everywhere tcp/443-445 via eth0"},
		{"{to: {ports: [{port: 53}, {port: 53, protocol: UDP}, {protocol: SCTP}]}, outInterfaces: [eth0, wg+], action: Keep}", "anywhere", "everywhere tcp/53 and 2 more via eth0 and wg*"},
		{"{from: {pods: {podSelector: {matchLabels: {app: web}}}}, action: Keep}", "pods app=web", "everywhere"},
		{"{from: {pods: {namespaceSelector: {matchLabels: {team: a}}}}, action: Keep}", "this node's pods in namespaces team=a", "everywhere"},
		{"{from: {pods: {podSelector: {matchExpressions: [{key: example.com/quite-a-long-name, operator: In, values: [one, two, three, four, five]}]}}}, action: Keep}",
			"pods example.com/quite-a-long-name in (five,four,one,thre...", "everywhere"},
		{"{to: {cidrs: ['2001:db8:aaaa:bbbb:cccc::/80', '2001:db8:aaaa:bbbb:dddd::/80'], except: ['2001:db8:aaaa:bbbb:cccc::/96', '2001:db8::/96']}, outInterfaces: [a, b], action: Keep}",
			"anywhere", "2 CIDRs except 2 CIDRs via 2 interfaces"},
	} {
		from, to := Describe(&loadRules(t, c.rule).Rules[0])
		if from != c.from || to != c.to {
			t.Errorf("%s:\n got %q, %q\nwant %q, %q", c.rule, from, to, c.from, c.to)
		}
		if len(from) > 60 || len(to) > 60 {
			t.Errorf("%s: longer than 60 bytes: %q, %q", c.rule, from, to)
		}
	}
}
