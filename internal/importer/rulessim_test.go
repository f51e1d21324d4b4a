package importer_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/unmasq/unmasq/internal/importer"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// The node that random rules stand on.
var nodeFiles = map[string]string{
	"ip-addr.txt": `1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default
    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
    inet 127.0.0.1/8 scope host lo
2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group default
    link/ether 02:00:00:00:00:02 brd ff:ff:ff:ff:ff:ff
    inet 192.0.2.10/24 brd 192.0.2.255 scope global eth0
3: cni0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group default
    link/ether 02:00:00:00:00:03 brd ff:ff:ff:ff:ff:ff
    inet 10.244.1.1/24 brd 10.244.1.255 scope global cni0
4: docker0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group default
    link/ether 02:00:00:00:00:04 brd ff:ff:ff:ff:ff:ff
    inet 172.17.0.1/16 brd 172.17.255.255 scope global docker0
5: eth1: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP group default
    link/ether 02:00:00:00:00:05 brd ff:ff:ff:ff:ff:ff
    inet 198.51.100.10/24 brd 198.51.100.255 scope global eth1
`,
	"ip-route.txt": `default via 192.0.2.1 dev eth0 table main
10.244.1.0/24 dev cni0 proto kernel scope link src 10.244.1.1 table main
10.244.0.0/16 via 192.0.2.20 dev eth0 table main
172.17.0.0/16 dev docker0 proto kernel scope link src 172.17.0.1 table main
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.10 table main
198.51.100.0/24 dev eth1 proto kernel scope link src 198.51.100.10 table main
203.0.113.0/24 via 198.51.100.1 dev eth1 table main
local 127.0.0.0/8 dev lo table local proto kernel scope host src 127.0.0.1
local 192.0.2.10 dev eth0 table local proto kernel scope host src 192.0.2.10
local 10.244.1.1 dev cni0 table local proto kernel scope host src 10.244.1.1
local 172.17.0.1 dev docker0 table local proto kernel scope host src 172.17.0.1
local 198.51.100.10 dev eth1 table local proto kernel scope host src 198.51.100.10
`,
	"ip-rule.txt": `0:	from all lookup local
32766:	from all lookup main
32767:	from all lookup default
`,

	"ipset.txt": `create pods hash:net family inet hashsize 1024 maxelem 65536
add pods 10.244.0.0/16
add pods 10.244.9.0/24 nomatch
create nodes hash:ip family inet hashsize 1024 maxelem 65536
add nodes 192.0.2.20
add nodes 203.0.113.7
create six hash:net family inet6 hashsize 1024 maxelem 65536
add six 2001:db8::/32
create web hash:ip,port family inet hashsize 1024 maxelem 65536
add web 203.0.113.7,tcp:80
`,
}

// sources of packets, with the interface that they come in by; the node's own without.
var sources = map[string]string{
	"10.244.1.7": "cni0", "10.244.1.200": "cni0", "10.244.2.9": "eth0", "10.244.9.9": "eth0", "172.17.0.3": "docker0", "192.0.2.77": "eth0", "203.0.113.50": "eth1",
	"192.0.2.10": "", "10.244.1.1": "", "172.17.0.1": "", "198.51.100.10": "",
}

var (
	destinations = []string{"10.244.1.9", "10.244.2.7", "10.244.9.1", "172.17.0.9", "192.0.2.20", "192.0.2.99", "203.0.113.7", "198.51.100.77", "8.8.8.8", "169.254.9.9", "192.168.7.7"}
	networks     = []string{
		"10.0.0.0/8", "10.244.0.0/16", "10.244.1.0/24", "10.244.1.7/32", "172.17.0.0/16", "192.0.2.0/24", "192.0.2.10/32", "203.0.113.0/24", "169.254.0.0/16", "224.0.0.0/4", "192.168.0.0/16", "8.0.0.0/7",
	}
)

// randomRules is a nat table with chains that jump to later ones.
func randomRules(t *rapid.T) string {
	chains := []string{"POSTROUTING", "ONE", "TWO", "THREE"}
	var b strings.Builder
	b.WriteString("*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:ONE - [0:0]\n:TWO - [0:0]\n:THREE - [0:0]\n")
	for i, c := range chains {
		for range rapid.IntRange(1, 5).Draw(t, "rules") {
			b.WriteString("-A " + c + randomMatches(t) + randomTarget(t, chains[i+1:]) + "\n")
		}
	}
	return b.String() + "COMMIT\n"
}

func randomMatches(t *rapid.T) string {
	var b strings.Builder
	not := func() string { return rapid.SampledFrom([]string{"", "", " !"}).Draw(t, "not") }
	some := func(of int, what string) bool { return rapid.IntRange(1, of).Draw(t, what) == 1 }
	if some(2, "source") {
		b.WriteString(not() + " -s " + rapid.SampledFrom(networks).Draw(t, "network"))
	}
	if some(2, "destination") {
		b.WriteString(not() + " -d " + rapid.SampledFrom(networks).Draw(t, "network"))
	}
	if some(4, "out") {
		b.WriteString(not() + " -o " + rapid.SampledFrom([]string{"eth0", "eth1", "eth+", "cni0", "docker0", "lo"}).Draw(t, "interface"))
	}
	b.WriteString(rapid.SampledFrom([]string{
		"", "", "", "", "", "", "", "", "", "", "", "", " -p tcp", " ! -p udp", " -p tcp -m tcp --dport 80", " -p udp -m udp ! --dport 1000:2000", " -p tcp -m multiport --dports 22,80,443",
		" -p icmp", " -p tcp -m tcp --sport 99",
	}).Draw(t, "protocol"))
	b.WriteString(rapid.SampledFrom([]string{
		"", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", "", " -m mark --mark 0x4000/0x4000", " -m mark ! --mark 0x4000/0x4000", " -m mark --mark 0x1/0x1", " -m mark ! --mark 0x1/0x1",
		" -m addrtype ! --dst-type LOCAL", " -m addrtype --src-type LOCAL", " -m addrtype ! --src-type LOCAL", " -m set --match-set pods src", " -m set ! --match-set pods dst",
		" -m set --match-set nodes dst", " -m set ! --match-set nodes dst", " -m set --match-set six dst", " -m set ! --match-set six src", " -m set --match-set web dst,dst",
		" -m set --match-set missing src", " -m statistic --mode random --probability 0.50000000000", " -m conntrack --ctstate NEW", " -m conntrack --ctstate RELATED,ESTABLISHED",
		" -m iprange --src-range 10.244.1.5-10.244.1.9", " -m owner --uid-owner 1000", " -m limit --limit 5/sec",
		" -m comment --comment \"said by somebody\"",
	}).Draw(t, "match"))
	return b.String()
}

func randomTarget(t *rapid.T, later []string) string {
	targets := []string{
		" -j RETURN", " -j RETURN", " -j ACCEPT", " -j MASQUERADE", " -j MASQUERADE --random-fully", " -j SNAT --to-source 192.0.2.33", " -j SNAT --to-source 192.0.2.40-192.0.2.43",
		" -j MARK --set-xmark 0x1/0x1", " -j MARK --set-xmark 0x0/0xffffffff", "",
	}
	for _, c := range later {
		targets = append(targets, " -j "+c, " -j "+c, " -g "+c)
	}
	return rapid.SampledFrom(targets).Draw(t, "target")
}

// randomNative is a table of nftables with two chains at the hook, and chains that jump
// to later ones.
func randomNative(t *rapid.T) string {
	chains := []string{"leaving", "late", "one", "two"}
	var b strings.Builder
	b.WriteString("table ip ours {\n\tset pods {\n\t\ttype ipv4_addr\n\t\tflags interval\n\t\telements = { 10.244.0.0/16, 172.17.0.3 }\n\t}\n")
	for i, c := range chains {
		b.WriteString("\n\tchain " + c + " {\n")
		if priority := []string{"srcnat - 10", "srcnat + 10", "", ""}[i]; priority != "" {
			b.WriteString("\t\ttype nat hook postrouting priority " + priority + "; policy accept;\n")
		}
		for range rapid.IntRange(1, 4).Draw(t, "rules") {
			b.WriteString("\t\t" + randomNativeRule(t, chains[max(i+1, 2):]) + "\n")
		}
		b.WriteString("\t}\n")
	}
	return b.String() + "}\n"
}

func randomNativeRule(t *rapid.T, later []string) string {
	var words []string
	add := func(of int, what string, choices ...string) {
		if rapid.IntRange(1, of).Draw(t, what) == 1 {
			words = append(words, rapid.SampledFrom(choices).Draw(t, what))
		}
	}
	network := rapid.SampledFrom(networks)
	add(2, "source", "ip saddr "+network.Draw(t, "network"), "ip saddr != "+network.Draw(t, "network"), "ip saddr @pods", "ip saddr != @pods", "ip saddr { 10.244.1.7, 172.17.0.0/16 }")
	add(2, "destination", "ip daddr "+network.Draw(t, "network"), "ip daddr != "+network.Draw(t, "network"), "ip daddr != { 10.0.0.0/8, 203.0.113.7 }", "ip daddr 203.0.113.1-203.0.113.9")
	add(4, "interface", `oifname "eth0"`, `oifname != "eth1"`, `oifname { "eth1", "docker0" }`, `oifname != { "eth1", "cni0" }`, `oifname "eth*"`, `oif "eth0"`)
	add(4, "protocol", "tcp dport 80", "tcp dport != 80", "tcp dport { 22, 80, 1000-2000 }", "udp dport 53", "meta l4proto tcp", "meta l4proto != udp", "meta l4proto icmp", "tcp sport 99")
	add(4, "more", "meta mark 0x1", "meta mark & 0x1 == 0x1", "meta mark & 0x1 != 0x1", "meta mark & 0x4000 == 0x4000", "fib daddr type local", "fib daddr type != local", "fib saddr type local",
		"ct state new", "ct state established,related", `iifname "cni0"`, "meta skuid 1000", "ip6 saddr fd00::/8", "limit rate 5/second", "numgen random mod 2 0")
	add(5, "counter", "counter packets 1 bytes 60")
	verdicts := []string{"return", "return", "accept", "masquerade", "masquerade fully-random", "snat to 192.0.2.33", "snat to ip saddr", "meta mark set 0x1", "meta mark set meta mark & 0xfffffffe", "meta mark set meta mark | 0x1", ""}
	for _, c := range later {
		verdicts = append(verdicts, "jump "+c, "goto "+c)
	}
	if len(later) > 0 {
		verdicts = append(verdicts, fmt.Sprintf(`oifname vmap { "eth0" : jump %s, "cni0" : accept }`, later[0]))
	}
	return strings.Join(append(words, rapid.SampledFrom(verdicts).Draw(t, "verdict")), " ")
}

// TestRulesAreTheirImport: for every flow the imported policy decides what the rules
// do, unless there is a warning about a rule that the flow meets; and it never
// translates what the rules don't, warned or not.
func TestRulesAreTheirImport(t *testing.T) {
	var n compared
	rapid.Check(t, func(t *rapid.T) {
		files := map[string][]byte{}
		which := rapid.SampledFrom([]string{"iptables", "nftables", "both"}).Draw(t, "which")
		if which != "nftables" {
			files["iptables-save.txt"] = []byte(randomRules(t))
		}
		if which != "iptables" {
			files["nft.txt"] = []byte(randomNative(t))
		}
		for name, text := range nodeFiles {
			files[name] = []byte(text)
		}
		host, err := snapshot.FromFiles(files)
		if err != nil {
			t.Fatal(err)
		}
		result, err := importer.FromHost(host, importer.Options{}, rapid.Bool().Draw(t, "owners"))
		if err != nil {
			if strings.Contains(err.Error(), "branch too much") {
				return
			}
			t.Fatal(err)
		}
		if len(host.Notes) > 0 {
			t.Fatalf("not read: %v", host.Notes)
		}
		n.rules(t, host, result)
	})
	t.Logf("checked: %d flows, %d of them translated; of %d the fate depends on a rule with a warning", n.flows, n.translated, n.warned)
	if n.translated < n.flows/20 || n.warned > n.flows*2/3 {
		t.Error("too few of them tell anything")
	}
}

// compared counts flows.
type compared struct{ flows, translated, warned int }

func (n *compared) rules(t *rapid.T, host *snapshot.Host, result *importer.Result) {
	var text bytes.Buffer
	if err := result.WriteYAML(&text); err != nil {
		t.Fatal(err)
	}
	loaded, err := &policy.Loaded{}, error(nil)
	if len(result.Documents) > 0 {
		loaded, err = policy.Load([]policy.Source{{Name: "imported", Content: text.Bytes()}}, policy.Options{})
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, text.Bytes())
	}
	warned := map[string]bool{}
	for _, w := range result.Warnings {
		warned[w.Setting] = true
	}
	node := sim.New(host)
	for source, in := range sources {
		for _, destination := range destinations {
			for _, protocol := range []uint8{packet.TCP, packet.UDP, packet.ICMP} {
				q := sim.Question{
					Source: netip.MustParseAddr(source), Destination: netip.MustParseAddr(destination), Protocol: protocol, SourcePort: 40000,
					DestinationPort: []int{80, 1500, 53}[len(destination)%3], InInterface: in, Local: in == "",
				}
				if problem := n.one(node, loaded, q, warned); problem != "" {
					t.Fatalf("%+v: %s\n%s", q, problem, text.Bytes())
				}
			}
		}
	}
}

// one flow; "" where policy and rules agree.
func (n *compared) one(node *sim.Node, loaded *policy.Loaded, q sim.Question, warned map[string]bool) string {
	outcomes := node.Run(q, sim.Options{Trace: true})
	out := outcomes[0].OutInterface
	flow := packet.Flow{
		Source: q.Source, Destination: q.Destination, Protocol: q.Protocol, SourcePort: uint16(q.SourcePort), DestinationPort: uint16(q.DestinationPort),
		InInterface: q.InInterface, OutInterface: out, Local: q.Local,
	}
	d := policy.Decide(&loaded.Policy, &policy.Facts{ServiceMark: policy.DefaultServiceMark, HostPortMark: policy.DefaultHostPortMark}, flow)
	if d.Guard != "" {
		return ""
	}
	meets, translated := false, false
	for _, o := range outcomes {
		translated = translated || o.SourceKind != sim.Kept
		meets = meets || slices.ContainsFunc(o.Steps, func(s sim.Step) bool { return s.At.Rule != nil && warned[s.At.Rule.Text] })
	}
	if (d.Action == policy.Masquerade || d.Action == policy.SNAT) && !translated {
		return fmt.Sprintf("%s by %s, though no rule translates it", d.Action, d.Rule.Name)
	}
	if n.flows++; meets {
		n.warned++
		return ""
	}
	if translated {
		n.translated++
	}
	if len(outcomes) != 1 {
		return fmt.Sprintf("%d outcomes, and no warning", len(outcomes))
	}
	o := outcomes[0]
	same := false
	switch d.Action {
	case policy.Masquerade:
		same = o.SourceKind == sim.Masqueraded
	case policy.SNAT:
		same = o.SourceKind == sim.SNATed && o.Source == d.Address
	default:
		same = o.SourceKind == sim.Kept || o.Source == q.Source
	}
	if !same {
		name := "none"
		if d.Rule != nil {
			name = d.Rule.Name
		}
		return fmt.Sprintf("%s by rule %s, the rules: %s %s", d.Action, name, o.SourceKind, o.Source)
	}
	return ""
}
