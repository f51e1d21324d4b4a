package doctor_test

import (
	"slices"
	"strings"
)

// tunnelLessons are about policies where a tunnel joins the nodes.
var tunnelLessons = []lesson{
	{
		code: "tunnel-bypassed", name: "a network with nodes",
		provoke: vxlan + applied(keptNodes),
		alike: map[string]string{
			"nodes are left out":       vxlan + applied(`{name: office, from: {cidrs: [10.244.1.0/24]}, to: {cidrs: [198.51.100.0/24], except: [198.51.100.2/32]}, action: Keep}`),
			"nodes are masqueraded":    vxlan + applied(`{name: nodes, from: {cidrs: [10.244.1.0/24]}, to: {cidrs: [198.51.100.2/32]}, action: Masquerade}, `+keptNodes),
			"pods alone are kept":      vxlan + applied(`{name: pods, from: {cidrs: [10.244.1.0/24]}, to: {cidrs: [10.245.0.0/16]}, action: Keep}`),
			"other sources are":        vxlan + applied(`{name: office, from: {cidrs: [172.20.0.0/16]}, to: {cidrs: [198.51.100.0/24]}, action: Keep}`),
			"routes without a tunnel":  "ip route add 10.245.3.0/24 via 198.51.100.2\n" + applied(keptNodes+`, {name: pods, from: {cidrs: [10.244.1.0/24]}, to: {cidrs: [10.245.0.0/16]}, action: Keep}`),
			"nodes are behind it, too": vxlan + "ip route add 198.51.100.2/32 via 10.245.3.0 dev flannel.1 onlink\n" + applied(keptNodes),
			"no policy":                vxlan + "iptables -t nat -I POSTROUTING -s 10.244.1.0/24 -d 198.51.100.0/24 -j ACCEPT",
		},
		before: func(l *lab) {
			l.shell(l.out, "sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.out1.rp_filter=1")
		},
		mended: func(l *lab) { l.addAsked(keptNodes) },
		call:   &call{from: pod1, to: out, address: "198.51.100.2:80", before: lost, after: "198.51.100.1"},
	},
}

const keptNodes = `{name: office, from: {cidrs: [10.244.1.0/24]}, to: {cidrs: [198.51.100.0/24]}, action: Keep}`

// addAsked puts what the mends have asked to add to a policy before its rules, as a person
// does.
func (l *lab) addAsked(rules string) {
	l.t.Helper()
	var asked []string
	for _, f := range l.found {
		for line := range strings.Lines(strings.Join(f.Mend, "\n")) {
			if rule, ok := strings.CutPrefix(strings.TrimSpace(line), "#   - "); ok && !slices.Contains(asked, rule) {
				asked = append(asked, rule)
			}
		}
	}
	if asked == nil {
		l.t.Fatal("nothing is asked for")
	}
	l.shell(l.node, applied(strings.Join(append(asked, rules), ", ")))
}
