package doctor_test

import (
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/snapshot"
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

// TestOtherTunnels: nodes joined by tunnels that not every kernel has, as files tell of them.
func TestOtherTunnels(t *testing.T) {
	const (
		node = `default via 192.0.2.1 dev eth0
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.11
10.244.1.0/24 dev cni0 proto kernel scope link src 10.244.1.1
`
		links = `1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 state UNKNOWN
2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 state UP
    link/ether 02:00:00:00:00:02 brd ff:ff:ff:ff:ff:ff
    inet 192.0.2.11/24 brd 192.0.2.255 scope global eth0
3: cni0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 state UP
    link/ether 02:00:00:00:00:03 brd ff:ff:ff:ff:ff:ff
    bridge forward_delay 1500
    inet 10.244.1.1/24 brd 10.244.1.255 scope global cni0
4: vetha@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 master cni0 state UP
    link/ether 02:00:00:00:00:04 brd ff:ff:ff:ff:ff:ff
    veth
`
		table = `table inet unmasq {
	chain postrouting {
		type nat hook postrouting priority -199; policy accept;
		ip saddr 10.244.0.0/16 ip daddr TO goto rule-ip/own/nodes
	}
	chain rule-ip/own/nodes {
		snat ip to ip saddr
	}
}
`
	)
	wireguard := map[string]string{
		"links.txt":       links + "5: flannel-wg: <POINTOPOINT,NOARP,UP,LOWER_UP> mtu 1420 state UNKNOWN\n    link/none\n    wireguard\n    inet 10.244.1.0/32 scope global flannel-wg\n",
		"routes.txt":      "10.244.0.0/16 dev flannel-wg scope link\n",
		"snapshot/wg.txt": "fwmark flannel-wg off\nendpoints flannel-wg peer-1 192.0.2.12:51820\nallowed-ips flannel-wg peer-1 10.244.2.0/24\nendpoints flannel-wg peer-2 192.0.2.13:51820\nallowed-ips flannel-wg peer-2 10.244.3.0/24\n",
	}
	ipip := map[string]string{
		"links.txt":  links + "5: tunl0@NONE: <NOARP,UP,LOWER_UP> mtu 1480 state UNKNOWN\n    link/ipip 0.0.0.0 brd 0.0.0.0\n    ipip any remote any local any ttl inherit nopmtudisc\n    inet 10.244.1.0/32 scope global tunl0\n",
		"routes.txt": "10.244.2.0/24 via 192.0.2.12 dev tunl0 proto bird onlink\n10.244.3.0/24 via 192.0.2.13 dev tunl0 proto bird onlink\n",
	}
	calico := map[string]string{
		"links.txt":  strings.ReplaceAll(ipip["links.txt"], " master cni0", "") + "6: califed@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1480 state UP\n    link/ether ee:ee:ee:ee:ee:ee brd ff:ff:ff:ff:ff:ff\n    veth\n",
		"routes.txt": ipip["routes.txt"] + "blackhole 10.244.9.0/26 proto bird\n10.244.9.7 dev vetha scope link\n10.244.9.8 dev califed scope link\n",
	}
	for _, c := range []struct {
		name  string
		files map[string]string
		kept  string
		nodes []string
	}{
		{"IPIP", ipip, "192.0.2.0/24", []string{"192.0.2.12/32", "192.0.2.13/32"}},
		{"IPIP, one node", ipip, "192.0.2.13", []string{"192.0.2.13/32"}},
		{"IPIP, pods alone", ipip, "10.244.0.0/16", nil},
		{"IPIP, pods with a route each", calico, "192.0.2.0/24", []string{"192.0.2.12/32", "192.0.2.13/32"}},
		{"WireGuard", wireguard, "192.0.2.0/24", []string{"192.0.2.12/32", "192.0.2.13/32"}},
		{"WireGuard, one node", wireguard, "192.0.2.13", []string{"192.0.2.13/32"}},
		{"WireGuard, pods alone", wireguard, "10.244.0.0/16", nil},
	} {
		dir := t.TempDir()
		for name, text := range c.files {
			if name == "routes.txt" {
				text = node + text
			}
			write(t, dir, name, text)
		}
		write(t, dir, "nft.txt", strings.ReplaceAll(table, "TO", c.kept))
		paths, err := filepath.Glob(dir + "/*")
		must(t, err)
		host, err := snapshot.Read(paths, nil)
		must(t, err)
		r := doctor.Examine(doctor.Node{Host: host})
		var nodes []string
		for _, f := range r.Findings {
			if f.Code == "tunnel-bypassed" {
				if nodes != nil {
					t.Errorf("%s: found more than once", c.name)
				}
				nodes = toPrefixes.FindAllString(strings.SplitAfter(f.Mend[0], " to: ")[1], -1)
			}
		}
		if !slices.Equal(nodes, c.nodes) {
			t.Errorf("%s: to be masqueraded: %v; expected %v\n%s", c.name, nodes, c.nodes, text(&r))
		}
	}
}

var toPrefixes = regexp.MustCompile(`[0-9.]+/[0-9]+`)
