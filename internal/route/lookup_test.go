package route_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// network reads texts of several kinds; a heading names each: "routes:".
func network(t *testing.T, text string) *route.Network {
	t.Helper()
	n := &route.Network{}
	sections := map[string]string{}
	name := ""
	for line := range strings.Lines(text) {
		trimmed := strings.TrimSpace(line)
		if heading, ok := strings.CutSuffix(trimmed, ":"); ok && kinds[strings.TrimSuffix(heading, "6")] != 0 {
			name = heading
			sections[name] = ""
			continue
		}
		sections[name] += strings.TrimLeft(line, "\t") // tabs belong to the test
	}
	for name, section := range sections {
		kind, is6 := strings.CutSuffix(name, "6")
		family := packet.Family(0)
		if is6 {
			family = packet.IPv6Family
		}
		if kinds[kind] != 0 {
			n.ReadText(kinds[kind], section, 1, family)
		}
	}
	n.Complete()
	return n
}

const node = `
	addresses:
	1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 group default
	    inet 127.0.0.1/8 scope host lo
	    inet6 ::1/128 scope host
	2: eth0: <BROADCAST,UP,LOWER_UP> mtu 1500 group default
	    inet 192.168.5.138/24 brd 192.168.5.255 scope global eth0
	    inet 192.168.5.200/24 scope global secondary eth0
	    inet 10.0.0.5/16 scope global eth0
	    inet6 2001:db8::7/64 scope global
	    inet6 2001:db8::70/64 scope global temporary dynamic
	    inet6 fe80::7/64 scope link
	3: tun0: <POINTOPOINT,UP,LOWER_UP> mtu 1500 group default
	4: red: <NOARP,MASTER,UP,LOWER_UP> mtu 1500 group default
	    vrf table 10
	5: eth1: <BROADCAST,UP,LOWER_UP> mtu 1500 master red group 7
	    inet 172.16.0.1/24 scope global eth1
	routes:
	default via 192.168.5.1 dev eth0
	192.168.5.0/24 dev eth0 proto kernel scope link src 192.168.5.138
	10.9.0.0/16 nexthop via 192.168.5.3 dev eth0 weight 3 nexthop dev tun0 weight 1
	10.8.0.0/16 nhid 77
	10.7.0.0/16 nexthop via 192.168.5.3 dev eth0 weight 1 dead nexthop dev tun0 weight 1
	blackhole 10.6.0.0/16
	routes6:
	2001:db8::/64 dev eth0 proto kernel metric 256 pref medium
	default via fe80::1 dev eth0 metric 1024 pref medium
`

func TestLookup(t *testing.T) {
	const rules = `
	rules:
	0: from all lookup local
	`
	const rest = `
	32766: from all lookup main
	32767: from all lookup default
	`
	port := route.Query{SourcePort: -1, DestinationPort: -1}
	for _, tt := range []struct {
		name, rules string
		q           route.Query
		from, to    string
		want        string
	}{
		{"gateway", "", port, "", "8.8.8.8", "unicast eth0 via 192.168.5.1 source 192.168.5.138"},
		{"own", "", port, "", "10.0.0.5", "local eth0 source 10.0.0.5"},
		{"own secondary", "", port, "", "192.168.5.200", "local eth0 source 192.168.5.138"},
		{"subnet broadcast", "", port, "", "10.0.255.255", "broadcast eth0 source 10.0.0.5"},
		{"several next hops", "", port, "", "10.9.1.1", "unicast eth0 via 192.168.5.3, tun0 source 192.168.5.138"},
		{"object", "", port, "", "10.8.1.1", "unknown: route 10.8.0.0/16 nhid 77: no next hop is given"},
		{"dead", "", port, "", "10.7.1.1", "unicast tun0 source 192.168.5.138"},
		{"blackhole", "", port, "", "10.6.1.1", "blackhole"},
		{"IPv6", "", port, "", "2001:db8:1::1", "unicast eth0 via fe80::1"},
		{"rule that is open and matters", rules + "100: from all dport 80 lookup 50" + rest, port, "", "8.8.8.8",
			"unknown: routing table 50 wasn't given (rule 100: from all dport 80 lookup 50)"},
		{"rule that is open, both ways known", rules + "100: from all dport 80 blackhole" + rest, port, "", "8.8.8.8",
			"unknown: rule 100: from all dport 80 blackhole: the destination port isn't known"},
		{"rule that is open and doesn't matter", rules + "100: from all ipproto tcp dport 80 lookup main" + rest, port, "", "8.8.8.8",
			"unicast eth0 via 192.168.5.1 source 192.168.5.138"},
		{"rule that another condition settles", rules + "100: from 1.2.3.4 uidrange 5-6 lookup 50" + rest, port, "", "8.8.8.8",
			"unicast eth0 via 192.168.5.1 source 192.168.5.138"},
		{"not, settled", rules + "100: not from 1.2.3.4 uidrange 5-6 prohibit" + rest, port, "", "8.8.8.8", "prohibit"},
		{"forwarded counts as root's", rules + "100: from all uidrange 0-0 unreachable" + rest, route.Query{InInterface: "eth1"}, "1.1.1.1", "8.8.8.8", "unreachable"},
		{"not understood", rules + "100: from all frobnicate lookup main" + rest, port, "", "8.8.8.8",
			"unknown: rule 100: from all frobnicate lookup main: not understood: frobnicate lookup main"},
		{"unknown in-interface", rules + "100: from all iif eth1 prohibit" + rest, route.Query{InUnknown: true}, "1.1.1.1", "8.8.8.8",
			"unknown: rule 100: from all iif eth1 prohibit: the interface that the packet comes in by isn't known"},
		{"goto", rules + "100: from all goto 200\n150: from all prohibit\n200: from all nop" + rest, port, "", "10.6.0.1", "blackhole"},
		{"goto backwards does nothing", rules + "100: from all goto 50" + rest, port, "", "10.6.0.1", "blackhole"},
		{"suppressed", rules + "100: from all lookup main suppress_prefixlength 0\n101: from all prohibit", port, "", "8.8.8.8", "prohibit"},
		{"suppressed group", rules + "100: from all lookup main suppress_ifgroup default\n101: from all prohibit", port, "", "8.8.8.8", "prohibit"},
		{"VRF", rules + "100: from all lookup [l3mdev-table]" + rest, route.Query{InInterface: "eth1"}, "172.16.0.9", "8.8.8.8",
			"unknown: routing table 10 wasn't given (rule 100: from all lookup [l3mdev-table])"},
		{"no VRF", rules + "100: from all lookup [l3mdev-table]" + rest, route.Query{InInterface: "tun0"}, "172.16.0.9", "8.8.8.8", "unicast eth0 via 192.168.5.1"},
		{"no rules at all", "rules:\n# ip rule", port, "", "8.8.8.8", "not found"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := network(t, node+tt.rules)
			q := tt.q
			q.Destination = netip.MustParseAddr(tt.to)
			if tt.from != "" {
				q.Source = netip.MustParseAddr(tt.from)
			}
			if got := result(n.Lookup(q)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// result in words.
func result(r route.Result) string {
	switch {
	case !r.Known:
		return "unknown: " + r.Why
	case !r.Found:
		return "not found"
	}
	out := r.Type.String()
	for i, h := range r.Nexthops {
		if i > 0 {
			out += ","
		}
		out += " " + h.Interface
		if h.Via.IsValid() {
			out += " via " + h.Via.String()
		}
	}
	if r.Source.IsValid() {
		out += " source " + r.Source.String()
	}
	return out
}

func TestMissing(t *testing.T) {
	for _, tt := range []struct{ name, text, want4, want6 string }{
		{"nothing", "", "routing rules, addresses", "routing rules, addresses"},
		{"routes", "routes:\ndefault via 10.0.0.1 dev eth0", "routing rules, addresses", "routing rules, addresses"},
		{"addresses", node, "routing rules", "routing rules"},
		{"rules", node + "rules:\n0: from all lookup local\n32766: from all lookup main\n32767: from all lookup default", "", "routing rules"},
		{"whole", "routes:\nlocal 10.0.0.1 dev eth0 table local proto kernel scope host src 10.0.0.1", "routing rules", "routing rules, addresses"},
		{"a lost route", "routes:\ndefault via 10.0.0.1 dev eth0\nxx.1.2.0/24 via 10.0.0.1 dev eth0",
			"routing rules, addresses, the route of line 2 (not understood)", "routing rules, addresses"},
		{"a lost address", "addresses:\n1: eth0: <UP>\n    inet xx.1.2.0/24 scope global eth0", "routing rules, the address of line 2 (not understood)", "routing rules"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := network(t, tt.text)
			if got := strings.Join(n.Missing(packet.IPv4Family), ", "); got != tt.want4 {
				t.Errorf("IPv4: %q, want %q", got, tt.want4)
			}
			if got := strings.Join(n.Missing(packet.IPv6Family), ", "); got != tt.want6 {
				t.Errorf("IPv6: %q, want %q", got, tt.want6)
			}
		})
	}
}

func TestMasqueradeAddress(t *testing.T) {
	n := network(t, node)
	for _, tt := range []struct {
		out, hop, destination, want string
		known                       bool
	}{
		{"eth0", "192.168.5.1", "8.8.8.8", "192.168.5.138", true},
		{"eth0", "10.0.3.1", "8.8.8.8", "10.0.0.5", true},
		{"eth0", "172.31.0.1", "8.8.8.8", "192.168.5.138", true},
		{"eth0", "fe80::1", "10.0.9.9", "10.0.0.5", true},
		{"tun0", "10.9.0.1", "10.9.0.1", "192.168.5.138", true},
		{"eth1", "10.9.0.1", "10.9.0.1", "172.16.0.1", true},
		{"red", "10.9.0.1", "10.9.0.1", "172.16.0.1", true},
		{"eth0", "fe80::1", "2606::1", "2001:db8::70", false}, // or 2001:db8::7, as use_tempaddr says
		{"eth0", "fe80::9", "fe80::9", "fe80::7", true},
		{"tun0", "fe80::9", "fe80::9", "invalid IP", true},
	} {
		a, ok, known := n.MasqueradeAddress(tt.out, netip.MustParseAddr(tt.hop), netip.MustParseAddr(tt.destination))
		if a.String() != tt.want || ok != a.IsValid() || known != tt.known {
			t.Errorf("%s via %s to %s: %s, %v, %v, want %s, %v", tt.out, tt.hop, tt.destination, a, ok, known, tt.want, tt.known)
		}
	}
	routesOnly := network(t, "routes:\n192.168.5.0/24 dev eth0 proto kernel scope link src 192.168.5.138")
	if a, ok, known := routesOnly.MasqueradeAddress("eth0", netip.MustParseAddr("192.168.5.1"), netip.MustParseAddr("8.8.8.8")); known || !ok || a.String() != "192.168.5.138" {
		t.Errorf("without addresses: %s, %v, %v; want a guess", a, ok, known)
	}
}

func TestIsLocalWithoutAddresses(t *testing.T) {
	n := network(t, "routes:\n172.31.0.0/20 dev ens5 proto kernel scope link src 172.0.1.10")
	for address, want := range map[string][2]bool{
		"172.0.1.10": {true, true}, "127.3.3.3": {true, true}, "::1": {true, true}, "172.0.1.11": {false, false},
	} {
		local, known := n.IsLocal(netip.MustParseAddr(address))
		if got := [2]bool{local, known}; got != want {
			t.Errorf("%s: local and known %v, want %v", address, got, want)
		}
	}
}

func TestInterfaceFor(t *testing.T) {
	n := network(t, node)
	for address, want := range map[string]string{"8.8.8.8": "eth0", "10.9.0.1": "?", "10.7.0.1": "tun0", "10.0.0.5": "", "10.6.0.1": "", "10.8.0.1": "?"} {
		got, known := n.InterfaceFor(netip.MustParseAddr(address))
		if !known {
			got = "?"
		}
		if got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

func TestParseCommand(t *testing.T) {
	for line, want := range map[string]route.Command{
		"# ip r s t 101": {Kind: route.Routes, Table: "101"},
		"root@node:~# ip -6 route show table all": {Kind: route.Routes, Family: packet.IPv6Family, Table: "all"},
		"[core@node ~]$ sudo ip -d link":          {Kind: route.Links},
		"## ip netns exec cni-1 ip a":             {Kind: route.Addresses, Namespace: "cni-1"},
		"$ ip -n blue -4 rule list":               {Kind: route.Rules, Family: packet.IPv4Family, Namespace: "blue"},
		"> /sbin/ip neigh show dev eth0":          {Kind: route.Neighbors, Partial: true},
		"# bridge fdb show":                       {Kind: route.FDB},
		"# ip route | grep default":               {Kind: route.Routes, Partial: true},
		"# ip route get 8.8.8.8":                  {},
		"ip route list  # the node's":             {Kind: route.Routes},
		"#ip rule":                                {Kind: route.Rules},
		"$ route -n":                              {Kind: route.Routes, Family: packet.IPv4Family},
		"# ip netns exec cni-1 arp -n":            {Namespace: "cni-1"},
	} {
		got, ok := route.ParseCommand(line)
		if !ok || got != want {
			t.Errorf("%s: %+v, %v, want %+v", line, got, ok, want)
		}
	}
	for _, line := range []string{
		"", "default via 10.0.0.1 dev eth0", "# ip route of a Calico node with an IP-in-IP tunnel", "# the ip addresses", "# bridge networks", "ip", "# route to there",
	} {
		if got, ok := route.ParseCommand(line); ok {
			t.Errorf("%q was taken for a command: %+v", line, got)
		}
	}
}

// TestJSONProblems: what is broken is told with its line.
func TestJSONProblems(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "line 10: not valid JSON from here: expected a list of objects, found nothing"},
		{"no list", `{"dst":"default"}`, "line 10: not valid JSON from here: expected a list of objects"},
		{"cut off", "[{\"dst\":\"10.0.0.0/8\",\"dev\":\"eth0\",\"flags\":[]},\n{\"dst\":\"10.1.0.0/16\",", "line 11: not valid JSON from here: unexpected EOF"},
		{"no destination", "[\n\n{\"gateway\":\"10.0.0.1\",\"dev\":\"eth0\",\"flags\":[]}]", `line 12: expected a destination, not "via"`},
		{"an unknown word", `[{"dst":"10.0.0.0/8","dev":"eth0","flags":[],"colour":"red"}]`, "line 10: not understood: colour red"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := &route.Network{}
			problems := n.ReadJSON(route.Routes, tt.text, 10, 0)
			if len(problems) == 0 {
				t.Fatal("no problem")
			}
			if got := fmt.Sprintf("line %d: %s", problems[0].Line, problems[0].Why); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
			if strings.Contains(tt.want, "JSON") && n.IPv4.Main {
				t.Error("a part was taken for the whole table")
			}
		})
	}
}
