package explain_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// interfaces of a node that routes everything by eth0.
const interfaces = `
2: eth0: <BROADCAST,UP,LOWER_UP> mtu 1500 state UP
    inet 192.0.2.11/24 brd 192.0.2.255 scope global eth0
default via 192.0.2.1 dev eth0
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.11
`

func hostOf(t *testing.T, texts ...string) *snapshot.Host {
	t.Helper()
	var paths []string
	for i, text := range texts {
		path := filepath.Join(t.TempDir(), fmt.Sprintf("%d.txt", i))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	host, err := snapshot.Read(paths, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range host.Notes {
		t.Logf("%s:%d: %s: %s", n.File, n.Line, n.Why, n.Text)
	}
	return host
}

// postrouting is a table with the rules in a NAT chain.
func postrouting(rules string) string {
	return "table ip t {\n" + sets + "	chain post {\n		type nat hook postrouting priority srcnat; policy accept;\n" + rules + "\n	}\n	chain one {\n		masquerade\n	}\n}\n"
}

const sets = `	set pods {
		type ipv4_addr
		flags interval
		elements = { 10.244.0.2-10.244.0.5, 10.244.0.8/30, 198.51.100.4, 198.51.100.16/28 }
	}
	map targets {
		type ipv4_addr : interval ipv4_addr
		flags interval
		elements = { 10.244.0.0/29 : 192.0.2.20-192.0.2.27, 10.244.0.8/29 : 192.0.2.30 }
	}
	map chains {
		type ipv4_addr . inet_service : verdict
		flags interval
		elements = { 198.51.100.0/27 . 400-500 : jump one, 198.51.100.40 . 443 : drop }
	}
`

// TestNativeRangesAgreeWithSingleAnswers: as for iptables, whatever tells
// addresses apart in nftables.
func TestNativeRangesAgreeWithSingleAnswers(t *testing.T) {
	for name, rules := range map[string]string{
		"networks":             "ip saddr 10.244.0.0/30 ip daddr != 198.51.100.8/29 masquerade",
		"order":                "ip daddr > 198.51.100.9 ip saddr <= 10.244.0.3 masquerade",
		"sets":                 "ip saddr @pods masquerade\nip daddr != @pods ip daddr != { 198.51.100.1, 198.51.100.3-198.51.100.5 } snat to 192.0.2.9",
		"map of pools":         "snat ip to ip saddr map @targets",
		"pool":                 "snat to 192.0.2.20-192.0.2.27",
		"persistent":           "snat to 192.0.2.20-192.0.2.27 persistent",
		"prefix":               "snat ip prefix to ip saddr map { 10.244.0.0/29 : 192.0.2.64/29, 10.244.0.8/29 : 192.0.2.80/29 }",
		"destinations' prefix": "dnat ip prefix to ip daddr map { 198.51.100.0/26 : 192.0.2.0/26 }",
		"verdict map":          "ip daddr . th dport vmap @chains",
		"numgen":               "numgen random mod 4 vmap { 0 : jump one, 1 : drop }",
		"hash":                 "jhash ip saddr . ip daddr mod 2 vmap { 0 : jump one, 1 : drop }",
		"hash with seed":       "jhash ip saddr mod 3 seed 0xdeadbeef vmap { 0 : jump one, 1 : drop }",
		"marks":                "meta mark set ip saddr map { 10.244.0.0-10.244.0.6 : 0x1, 10.244.0.7 : 0x2 }\nmeta mark 0x1 masquerade",
		"fib":                  "fib daddr type local masquerade\nfib saddr type unicast ip saddr 10.244.0.9 masquerade",
	} {
		table := postrouting(rules)
		if name == "destinations' prefix" { // 192.0.2.11 is the node's own
			table = strings.Replace(table, "hook postrouting priority srcnat", "hook prerouting priority dstnat", 1)
		}
		e := explain.New(explain.Node{Host: hostOf(t, table, interfaces)})
		for _, sources := range []bool{false, true} {
			for _, other := range []string{"0", "3", "9"} {
				t.Run(fmt.Sprintf("%s/sources=%t/%s", name, sources, other), func(t *testing.T) { agreeNative(t, e, sources, other, strings.HasSuffix(name, "prefix")) })
			}
		}
	}
}

// agreeNative asks about a network, with one address at the other end. Where a
// rule moves addresses to another network, each has one of its own.
func agreeNative(t *testing.T, e *explain.Explainer, sources bool, other string, moves bool) {
	inside, elsewhere := netip.MustParsePrefix("10.244.0.0/28"), netip.MustParsePrefix("198.51.100.0/26")
	q := explain.Asked{Question: sim.Question{
		Source: netip.MustParseAddr("10.244.0." + other), Destination: netip.MustParseAddr("198.51.100." + other), InInterface: "eth0",
		Protocol: packet.TCP, SourcePort: 40000, DestinationPort: 443,
	}}
	asked := elsewhere
	if sources {
		q.Sources, asked = inside, inside
	} else {
		q.Destinations = elsewhere
	}
	all, err := e.Ranges(q, "")
	if err != nil {
		t.Fatal(err)
	}
	for a := asked.Addr(); asked.Contains(a); a = a.Next() {
		i := slices.IndexFunc(all.Ranges, func(r explain.Range) bool { return !a.Less(r.From) && !r.To.Less(a) })
		if i < 0 {
			t.Fatalf("no range has %s", a)
		}
		single := q.Question
		if sources {
			single.Source = a
		} else {
			single.Destination = a
		}
		r, alone := all.Ranges[i], e.Explain(single, sim.Options{}).Outcomes
		if r.Outcomes = slices.Clone(r.Outcomes); moves {
			for j := range r.Outcomes {
				r.Outcomes[j].Source = nil
			}
			for j := range alone { // moved by as much
				if !sources && alone[j].Destination != a && r.Outcomes[j].Destination != r.From {
					alone[j].Destination, r.Outcomes[j].Destination = a, r.From
				}
			}
		}
		fares(t, &r, alone, a, sources)
	}
}

// Masks and raw bits tell addresses apart in ways that ranges don't show.
func TestNativeRangesRefuseMasks(t *testing.T) {
	for _, rule := range []string{"ip daddr & 0.0.0.255 == 0.0.0.7 masquerade", "@nh,128,32 0xc6336407 masquerade"} {
		e := explain.New(explain.Node{Host: hostOf(t, postrouting(rule), interfaces)})
		q := explain.Asked{Question: sim.Question{Source: netip.MustParseAddr("10.244.0.1"), Protocol: packet.TCP, SourcePort: 40000, DestinationPort: 443}}
		q.Destinations = netip.MustParsePrefix("198.51.100.0/26")
		if all, err := e.Ranges(q, ""); err == nil || !strings.Contains(err.Error(), "table ip t compares addresses under a mask") {
			t.Errorf("%s: %d ranges, %v", rule, len(all.Ranges), err)
		}
	}
}

func TestNativeWhy(t *testing.T) {
	for rule, want := range map[string][]string{
		"ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 counter masquerade": {
			"ip saddr 10.244.0.0/16: the source is 10.244.0.3", "ip daddr != 224.0.0.0/4: the destination is 198.51.100.7",
		},
		`iifname "eth*" oifname "eth0" masquerade`:       {`iifname "eth*": it came in by eth0`, `oifname "eth0": it leaves by eth0`},
		"meta l4proto tcp tcp dport 443 masquerade":      {"meta l4proto tcp: it is tcp", "tcp dport 443: the destination port is 443"},
		"ip saddr @pods tcp sport 1024-65535 masquerade": {"ip saddr @pods: element 10.244.0.2-10.244.0.5, the source is 10.244.0.3", "tcp sport 1024-65535: the source port is 40000"},
		"ip daddr != @pods masquerade":                   {"ip daddr != @pods: the destination is 198.51.100.7"},
		"ip daddr . th dport { 198.51.100.7 . 443, 198.51.100.8 . 80 } masquerade": {
			"ip daddr . th dport { 198.51.100.7 . 443, 198.51.100.8 . 80 }: element 198.51.100.7 . 443",
		},
		"tcp dport { 1, 2, 3, 4, 443 } masquerade":           {"tcp dport { … 5 elements }: element 443"},
		"snat ip to ip saddr map @targets":                   {"ip saddr map @targets: element 10.244.0.0/29, the source is 10.244.0.3"},
		"ct state new ct direction original masquerade":      {"ct state new: it is the first packet of a connection", "ct direction original: a connection's first packet goes the original way"},
		"ct original ip daddr 198.51.100.7 masquerade":       {"ct original ip daddr 198.51.100.7: it was sent to 198.51.100.7"},
		"fib daddr type unicast masquerade":                  {"fib daddr type unicast: the destination is 198.51.100.7"},
		"meta mark & 0x00000001 == 0x00000001 masquerade":    {"meta mark & 0x00000001 == 0x00000001: rules before, or the question, have marked it so"},
		"numgen random mod 1 == 0 masquerade":                {"numgen random mod 1 0: one chance in 1"},
		"meta nfproto ipv4 ip protocol tcp masquerade":       {"meta nfproto ipv4: it is ipv4", "ip protocol tcp: it is tcp"},
		"limit rate 5/second masquerade":                     {"limit rate 5/second: taken as holding; it depends on what was before"},
		"ct status dnat,confirmed meta skuid 0-9 masquerade": nil,
	} {
		e := explain.New(explain.Node{Host: hostOf(t, postrouting(rule), interfaces)})
		a := e.Explain(sim.Question{
			Source: netip.MustParseAddr("10.244.0.3"), Destination: netip.MustParseAddr("198.51.100.7"), InInterface: "eth0", Mark: 1,
			Protocol: packet.TCP, SourcePort: 40000, DestinationPort: 443,
		}, sim.Options{})
		var got []string
		for i := range a.Outcomes {
			if d := a.Outcomes[i].DecidedBy; d != nil {
				got = d.Why
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", rule, diff)
		}
	}
}

// What nft didn't list is told from what it can't list.
func TestNativeDependsOn(t *testing.T) {
	table := postrouting("masquerade")
	other := "table inet o {\n\tchain c {\n\t}\n}\n"
	for _, c := range []struct {
		name, want string
		texts      []string
	}{
		{"one table", "not in the dump, taken as empty: all other tables of nftables and iptables", []string{table}},
		{"two dumps of one table", "not in the dump, taken as empty: all other tables of nftables and iptables", []string{table, other}},
		{"a ruleset", "not in the dump, taken as empty: the tables of iptables-legacy", []string{table + other}},
		{"a save too", "", []string{table + other, "*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"}},
	} {
		e := explain.New(explain.Node{Host: hostOf(t, append(c.texts, interfaces)...)})
		a := e.Explain(sim.Question{Source: netip.MustParseAddr("10.244.0.3"), Destination: netip.MustParseAddr("198.51.100.7"), InInterface: "eth0", Protocol: packet.TCP, SourcePort: 40000, DestinationPort: 443}, sim.Options{})
		got := ""
		for _, d := range a.Outcomes[0].DependsOn {
			if d.What == "rules" {
				got += d.Why
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestNativeWarnings(t *testing.T) {
	xt := "# Warning: table ip nat is managed by iptables-nft, do not touch!\ntable ip nat {\n\tchain POSTROUTING {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t\txt match \"comment\" counter packets 0 bytes 0 xt target \"MASQUERADE\"\n\t}\n}\n"
	dormant := "table ip d {\n\tflags dormant\n\tchain c {\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\t\tmasquerade\n\t}\n}\n"
	a := explain.New(explain.Node{Host: hostOf(t, xt+dormant, interfaces)}).Explain(sim.Question{
		Source: netip.MustParseAddr("10.244.0.3"), Destination: netip.MustParseAddr("198.51.100.7"), InInterface: "eth0", Protocol: packet.TCP, SourcePort: 40000, DestinationPort: 443,
	}, sim.Options{})
	all := strings.Join(a.Warnings, "\n")
	for _, want := range []string{"table ip d is dormant: none of its chains is asked", "table ip nat is written by iptables-nft; give iptables-save too"} {
		if !strings.Contains(all, want) {
			t.Errorf("no warning %q in\n%s", want, all)
		}
	}
	for i := range a.Outcomes {
		if d := a.Outcomes[i].DecidedBy; d != nil && (d.Chain == "c" || d.Variant != "iptables-nft") {
			t.Errorf("decided by %+v", d)
		}
	}
}

func TestNativeRuleByHandle(t *testing.T) {
	table := strings.ReplaceAll(postrouting("ip saddr 10.244.0.0/30 counter packets 5 bytes 300 masquerade # handle 7"), "\t\tmasquerade\n", "\t\tmasquerade # handle 9\n")
	e := explain.New(explain.Node{Host: hostOf(t, table, interfaces)})
	for rule, want := range map[string]string{
		"handle 7":           "post:1",
		"t post handle 7":    "post:1",
		"ip t post handle 7": "post:1",
		"ip saddr 10.244.0.0/30 counter packets 9 bytes 540 masquerade # handle 7": "post:1",
		"ip saddr 10.244.0.0/30 counter packets 9 bytes 540 masquerade":            "post:1",
		"one:1": "one:1", "t:one:1": "one:1", "ip t:one:1": "one:1", "one handle 9": "one:1",
		"handle 8": "no such IPv4 rule", "u post handle 7": "no such IPv4 rule", "masquerade": "one:1",
	} {
		q := explain.Asked{Question: sim.Question{Source: netip.MustParseAddr("10.244.0.1"), Protocol: packet.TCP, SourcePort: 40000, DestinationPort: 443}}
		q.Destinations = netip.MustParsePrefix("198.51.100.0/26")
		all, err := e.Ranges(q, rule)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = fmt.Sprintf("%s:%d", all.Rule.Chain, all.Rule.Index)
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s, want %s", rule, got, want)
		}
	}
}
