package policy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
)

// loadRules makes a policy of the lines of spec.rules, each a rule in flow style.
func loadRules(t *testing.T, rules ...string) *Policy {
	t.Helper()
	text := "apiVersion: unmasq.io/v1alpha1\nkind: SourcePolicy\nmetadata: {name: p}\nspec:\n  facts: {pods: []}\n  rules:\n"
	for _, r := range rules {
		text += "  - " + r + "\n"
	}
	loaded, err := Load([]Source{{Name: "test.yaml", Content: []byte(text)}}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &loaded.Policy
}

// flowOf reads "tcp SRC:PORT DST:PORT", ports and protocol as they apply.
func flowOf(t *testing.T, text string) packet.Flow {
	t.Helper()
	words := strings.Fields(text)
	numbers := map[string]uint8{"icmp": packet.ICMP, "icmpv6": packet.ICMPv6, "tcp": packet.TCP, "udp": packet.UDP,
		"sctp": packet.SCTP, "ipip": packet.IPIP, "gre": packet.GRE, "esp": packet.ESP}
	f := packet.Flow{Protocol: numbers[words[0]], InInterface: "pod0", OutInterface: "eth0"}
	if !f.HasPorts() {
		f.Source, f.Destination = netip.MustParseAddr(words[1]), netip.MustParseAddr(words[2])
		return f
	}
	source, destination := netip.MustParseAddrPort(words[1]), netip.MustParseAddrPort(words[2])
	f.Source, f.SourcePort = source.Addr(), source.Port()
	f.Destination, f.DestinationPort = destination.Addr(), destination.Port()
	return f
}

func (d Decision) String() string {
	s := string(d.Action)
	if d.Address.IsValid() {
		s += " to " + d.Address.String()
	}
	if d.Rule != nil {
		s += " by " + d.Rule.Name
	}
	if d.Guard != "" {
		s += " guard " + string(d.Guard)
	}
	if d.ClearServiceMark {
		s += ", mark cleared"
	}
	return s
}

func testFacts() *Facts {
	return &Facts{
		PodCIDRs:      []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/56")},
		LocalPodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:244:0:1::/64")},
		NodeAddresses: []netip.Addr{netip.MustParseAddr("192.168.5.138")},
		Nodes:         []netip.Addr{netip.MustParseAddr("192.168.5.138"), netip.MustParseAddr("192.168.5.139")},
		ServiceMark:   DefaultServiceMark, HostPortMark: DefaultHostPortMark,
		Broadcasts:  []netip.Addr{netip.MustParseAddr("192.168.5.255")},
		TunnelPorts: []uint16{7777},
		Pods: []Pod{
			{Namespace: "web", Name: "front", Labels: map[string]string{"app": "front"},
				NamespaceLabels: map[string]string{"team": "net"}, Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.7"), netip.MustParseAddr("fd00:244:0:1::7")}},
			{Namespace: "db", Name: "store", Labels: map[string]string{"app": "store"},
				NamespaceLabels: map[string]string{"team": "data"}, Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.8")}},
		},
	}
}

const everything = "{name: all, action: Masquerade}"

func TestGuards(t *testing.T) {
	override := "{name: over, action: Masquerade, overrideServiceMasquerade: true}"
	overrideNode := "{name: over-node, from: {node: {}}, action: Masquerade, overrideServiceMasquerade: true}"
	node := "{name: node, from: {node: {}}, action: Masquerade}"
	for _, c := range []struct {
		name, flow string
		change     func(*packet.Flow, *Facts)
		rules      []string
		want       string
	}{
		{name: "none", flow: "tcp 10.244.1.7:1 192.0.2.1:443", want: "Masquerade by all"},
		{name: "loopback", flow: "tcp 10.244.1.7:1 192.168.5.138:80", change: out("lo"), want: "Leave guard loopback"},
		{name: "loopback before broadcast", flow: "udp 10.244.1.7:1 224.0.0.1:80", change: out("lo"), want: "Leave guard loopback"},
		{name: "not loopback", flow: "tcp 10.244.1.7:1 192.168.5.138:80", change: out("lo0"), want: "Masquerade by all"},
		{name: "multicast", flow: "udp 10.244.1.7:1 239.255.255.255:80", want: "Leave guard broadcast"},
		{name: "above multicast", flow: "udp 10.244.1.7:1 240.0.0.1:80", want: "Masquerade by all"},
		{name: "broadcast", flow: "udp 10.244.1.7:1 255.255.255.255:80", want: "Leave guard broadcast"},
		{name: "subnet's broadcast", flow: "udp 10.244.1.7:1 192.168.5.255:80", want: "Leave guard broadcast"},
		{name: "multicast IPv6", flow: "udp [fd00:244::7]:1 [ff02::1]:80", want: "Leave guard broadcast"},
		{name: "broadcast before link-local", flow: "udp 127.0.0.1:1 224.0.0.1:80", want: "Leave guard broadcast"},
		{name: "localhost", flow: "tcp 127.255.0.1:1 10.244.1.7:80", want: "Leave guard link-local"},
		{name: "link-local", flow: "tcp [fe80::1]:1 [fd00:244::7]:80", want: "Leave guard link-local"},
		{name: "link-local's last", flow: "tcp [febf:ffff::1]:1 [fd00:244::7]:80", want: "Leave guard link-local"},
		{name: "IPv4 link-local is for pods too", flow: "tcp 169.254.1.1:1 192.0.2.1:80", want: "Masquerade by all"},
		{name: "link-local before hairpin", flow: "tcp 127.0.0.1:1 10.244.1.7:80", change: dnat("10.96.0.1"), want: "Leave guard link-local"},

		{name: "hairpin, pods not known", flow: "tcp 10.244.1.7:1 10.244.1.8:80", change: dnat("10.96.0.1"), want: "Leave guard hairpin"},
		{name: "hairpin IPv6", flow: "tcp [fd00:244:0:1::7]:1 [fd00:244:0:1::8]:80", change: dnat("fd00::1"), want: "Leave guard hairpin"},
		{name: "no DNAT", flow: "tcp 10.244.1.7:1 10.244.1.8:80", want: "Masquerade by all"},
		{name: "to another node's pod", flow: "tcp 10.244.1.7:1 10.244.2.8:80", change: dnat("10.96.0.1"), want: "Masquerade by all"},
		{name: "hairpin, pods known", flow: "tcp 10.244.1.7:1 10.244.1.7:80", change: both(dnat("10.96.0.1"), podsKnown), want: "Leave guard hairpin"},
		{name: "another pod, pods known", flow: "tcp 10.244.1.7:1 10.244.1.8:80", change: both(dnat("10.96.0.1"), podsKnown), want: "Masquerade by all"},
		{name: "not a pod, pods known", flow: "tcp 10.244.1.9:1 10.244.1.9:80", change: both(dnat("10.96.0.1"), podsKnown), want: "Masquerade by all"},
		{name: "hairpin isn't overridden", flow: "tcp 10.244.1.7:1 10.244.1.8:80", change: both(dnat("10.96.0.1"), mark(0x4000)), rules: []string{override}, want: "Leave guard hairpin"},

		{name: "ipsec", flow: "tcp 10.244.1.7:1 192.0.2.1:443", change: func(f *packet.Flow, _ *Facts) { f.IPsec = true }, rules: []string{override}, want: "Leave guard ipsec"},

		{name: "tunnel protocol", flow: "gre 192.168.5.138 192.0.2.1", change: local, rules: []string{node}, want: "Leave guard tunnel"},
		{name: "ESP", flow: "esp 192.168.5.138 192.0.2.1", change: local, rules: []string{node}, want: "Leave guard tunnel"},
		{name: "forwarded tunnel", flow: "gre 10.244.1.7 192.0.2.1", want: "Masquerade by all"},
		{name: "vxlan", flow: "udp 192.168.5.138:4000 192.168.5.139:8472", change: local, rules: []string{node}, want: "Leave guard tunnel"},
		{name: "from a tunnel's port", flow: "udp 192.168.5.138:51820 192.168.5.139:9", change: local, rules: []string{node}, want: "Leave guard tunnel"},
		{name: "own tunnel port", flow: "udp 192.168.5.138:4000 192.168.5.139:7777", change: local, rules: []string{node}, want: "Leave guard tunnel"},
		{name: "TCP to a tunnel's port", flow: "tcp 192.168.5.138:4000 192.168.5.139:4500", change: local, rules: []string{node}, want: "Masquerade by node"},
		{name: "forwarded to a tunnel's port", flow: "udp 10.244.1.7:4000 192.168.5.139:4500", want: "Masquerade by all"},
		{name: "tunnel before mark", flow: "udp 192.168.5.138:4000 192.168.5.139:8472", change: both(local, mark(0x4000)), rules: []string{overrideNode}, want: "Leave guard tunnel"},

		{name: "service mark", flow: "tcp 10.244.1.7:1 10.244.2.8:80", change: mark(0x4000), want: "Leave guard service-mark"},
		{name: "service mark among others", flow: "tcp 10.244.1.7:1 10.244.2.8:80", change: mark(0xc001), want: "Leave guard service-mark"},
		{name: "hostPort mark", flow: "tcp 10.244.1.7:1 10.244.2.8:80", change: mark(0x2000), want: "Leave guard host-port-mark"},
		{name: "both marks", flow: "tcp 10.244.1.7:1 10.244.2.8:80", change: mark(0x6000), want: "Leave guard service-mark"},
		{name: "other mark", flow: "tcp 10.244.1.7:1 10.244.2.8:80", change: mark(0x8000), want: "Masquerade by all"},
		{name: "stated mark", flow: "tcp 10.244.1.7:1 10.244.2.8:80", change: both(mark(0x4000), func(_ *packet.Flow, f *Facts) { f.ServiceMark = Mark{0x10, 0x30} }), want: "Masquerade by all"},
		{name: "no mark known", flow: "tcp 10.244.1.7:1 10.244.2.8:80", change: func(_ *packet.Flow, f *Facts) { f.ServiceMark = Mark{} }, want: "Masquerade by all"},
		{name: "overridden", flow: "tcp 10.244.1.7:1 10.244.2.8:80", change: mark(0x4000), rules: []string{everything, override}, want: "Masquerade by over, mark cleared"},
		{name: "hostPort overridden", flow: "tcp 10.244.1.7:1 10.244.2.8:80", change: mark(0x2000), rules: []string{everything, override}, want: "Masquerade by over, mark cleared"},
		{name: "override without mark clears too", flow: "tcp 10.244.1.7:1 10.244.2.8:80", rules: []string{override}, want: "Masquerade by over, mark cleared"},
		{name: "override that doesn't match", flow: "tcp 10.244.1.7:1 10.244.2.8:80", change: mark(0x4000),
			rules: []string{"{from: {cidrs: [10.1.0.0/16]}, action: Keep, overrideServiceMasquerade: true}", everything}, want: "Leave guard service-mark"},
		{name: "local, marked", flow: "tcp 192.168.5.138:1 10.244.2.8:80", change: both(local, mark(0x4000)), rules: []string{override, node, overrideNode}, want: "Masquerade by over-node, mark cleared"},
	} {
		t.Run(c.name, func(t *testing.T) {
			facts, flow := testFacts(), flowOf(t, c.flow)
			if c.change != nil {
				c.change(&flow, facts)
			}
			if c.rules == nil {
				c.rules = []string{everything}
			}
			if got := Decide(loadRules(t, c.rules...), facts, flow).String(); got != c.want {
				t.Errorf("%s through %s: got %s, want %s", c.flow, c.rules, got, c.want)
			}
		})
	}
}

func out(name string) func(*packet.Flow, *Facts) {
	return func(f *packet.Flow, _ *Facts) { f.OutInterface = name }
}

func dnat(original string) func(*packet.Flow, *Facts) {
	return func(f *packet.Flow, _ *Facts) { f.OriginalDestination = netip.MustParseAddr(original) }
}

func mark(m uint32) func(*packet.Flow, *Facts) { return func(f *packet.Flow, _ *Facts) { f.Mark = m } }
func local(f *packet.Flow, _ *Facts)           { f.Local, f.InInterface = true, "" }
func podsKnown(_ *packet.Flow, f *Facts)       { f.PodsKnown = true }

func both(a, b func(*packet.Flow, *Facts)) func(*packet.Flow, *Facts) {
	return func(f *packet.Flow, facts *Facts) { a(f, facts); b(f, facts) }
}

func TestMeaning(t *testing.T) {
	const pods4, pods6 = "tcp 10.244.1.7:1 192.0.2.1:443", "tcp [fd00:244:0:1::7]:1 [2001:db8::1]:443"
	for _, c := range []struct {
		name, rule, flow string
		local            bool
		matches          bool
	}{
		{"from absent: forwarded", "{}", pods4, false, true},
		{"from absent: not the node's own", "{}", "tcp 192.168.5.138:1 192.0.2.1:443", true, false},
		{"from {}: forwarded", "{from: {}}", pods4, false, true},
		{"from {}: not the node's own", "{from: {}}", "tcp 192.168.5.138:1 192.0.2.1:443", true, false},
		{"only except: forwarded", "{from: {except: [10.1.0.0/16]}}", pods4, false, true},
		{"only except: excepted", "{from: {except: [10.244.0.0/16]}}", pods4, false, false},
		{"only except: not the node's own", "{from: {except: [10.1.0.0/16]}}", "tcp 192.168.5.138:1 192.0.2.1:443", true, false},
		{"node: its own", "{from: {node: {}}}", "tcp 192.168.5.138:1 192.0.2.1:443", true, true},
		{"node: not forwarded", "{from: {node: {}}}", "tcp 192.168.5.138:1 192.0.2.1:443", false, false},
		{"node: excepted", "{from: {node: {}, except: [192.168.5.0/24]}}", "tcp 192.168.5.138:1 192.0.2.1:443", true, false},
		{"node or cidrs: forwarded", "{from: {node: {}, cidrs: [10.0.0.0/8]}}", pods4, false, true},
		{"cidrs: not the node's own", "{from: {cidrs: [0.0.0.0/0]}}", "tcp 192.168.5.138:1 192.0.2.1:443", true, false},
		{"pods", "{from: {pods: {}}}", pods4, false, true},
		{"pods of another node", "{from: {pods: {}}}", "tcp 10.244.9.7:1 192.0.2.1:443", false, true},
		{"pods IPv6", "{from: {pods: {}}}", pods6, false, true},
		{"no pod", "{from: {pods: {}}}", "tcp 10.9.0.1:1 192.0.2.1:443", false, false},
		{"pod as the node's own", "{from: {pods: {}}}", pods4, true, false},
		{"pods or cidrs", "{from: {pods: {}, cidrs: [10.9.0.0/16]}}", "tcp 10.9.0.1:1 192.0.2.1:443", false, true},
		{"pods except", "{from: {pods: {}, except: [10.244.1.0/29]}}", pods4, false, false},
		{"selected pod", "{from: {pods: {podSelector: {matchLabels: {app: front}}}}}", pods4, false, true},
		{"selected pod IPv6", "{from: {pods: {podSelector: {matchLabels: {app: front}}}}}", pods6, false, true},
		{"selected pod, excepted", "{from: {pods: {podSelector: {matchLabels: {app: front}}}, except: [10.244.1.7/32]}}", pods4, false, false},
		{"pod not selected", "{from: {pods: {podSelector: {matchLabels: {app: store}}}}}", pods4, false, false},
		{"namespace selected", "{from: {pods: {namespaceSelector: {matchLabels: {team: data}}}}}", "tcp 10.244.1.8:1 192.0.2.1:443", false, true},
		{"one selector of two", "{from: {pods: {podSelector: {matchLabels: {app: front}}, namespaceSelector: {matchLabels: {team: data}}}}}", pods4, false, false},
		{"empty selector: this node's pods", "{from: {pods: {podSelector: {}}}}", "tcp 10.244.9.7:1 192.0.2.1:443", false, false},

		{"to {}", "{to: {}}", pods4, false, true},
		{"to cidrs", "{to: {cidrs: [192.0.2.0/24]}}", pods4, false, true},
		{"to other cidrs", "{to: {cidrs: [192.0.3.0/24]}}", pods4, false, false},
		{"to other family", "{to: {cidrs: ['::/0']}}", pods4, false, false},
		{"to cidrs except", "{to: {cidrs: [192.0.2.0/24], except: [192.0.2.1/32]}}", pods4, false, false},
		{"to everywhere except", "{to: {except: [192.0.2.2/32]}}", pods4, false, true},
		{"to everywhere, excepted", "{to: {except: [192.0.2.0/24]}}", pods4, false, false},
		{"to pods", "{to: {pods: {}}}", "tcp 10.9.0.1:1 10.244.3.1:443", false, true},
		{"to nodes", "{to: {nodes: {}}}", "tcp 10.9.0.1:1 192.168.5.139:443", false, true},
		{"to no node", "{to: {nodes: {}}}", "tcp 10.9.0.1:1 192.168.5.140:443", false, false},
		{"to nodes or pods", "{to: {nodes: {}, pods: {}}}", "tcp 10.9.0.1:1 10.244.3.1:443", false, true},
		{"to nodes except", "{to: {nodes: {}, except: [192.168.5.139/32]}}", "tcp 10.9.0.1:1 192.168.5.139:443", false, false},

		{"port", "{to: {ports: [{port: 443}]}}", pods4, false, true},
		{"other port", "{to: {ports: [{port: 444}]}}", pods4, false, false},
		{"port of another protocol", "{to: {ports: [{port: 443, protocol: UDP}]}}", pods4, false, false},
		{"port range, first", "{to: {ports: [{port: 443, endPort: 445}]}}", pods4, false, true},
		{"port range, last", "{to: {ports: [{port: 440, endPort: 443}]}}", pods4, false, true},
		{"port range, before", "{to: {ports: [{port: 444, endPort: 445}]}}", pods4, false, false},
		{"all ports of TCP", "{to: {ports: [{}]}}", pods4, false, true},
		{"all ports of SCTP", "{to: {ports: [{protocol: SCTP}]}}", "sctp 10.244.1.7:1 192.0.2.1:1", false, true},
		{"ports don't match ICMP", "{to: {ports: [{}, {protocol: UDP}]}}", "icmp 10.244.1.7 192.0.2.1", false, false},
		{"source port says nothing", "{to: {ports: [{port: 1}]}}", pods4, false, false},
		{"place and port", "{to: {cidrs: [192.0.3.0/24], ports: [{port: 443}]}}", pods4, false, false},

		{"interface", "{outInterfaces: [eth0]}", pods4, false, true},
		{"other interface", "{outInterfaces: [eth1, eth]}", pods4, false, false},
		{"wildcard +", "{outInterfaces: [et+]}", pods4, false, true},
		{"wildcard *", "{outInterfaces: ['eth0*']}", pods4, false, true},
		{"other wildcard", "{outInterfaces: ['eth00*']}", pods4, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rule := strings.TrimSuffix(c.rule, "}") + ", action: Keep}"
			rule = strings.Replace(rule, "{, ", "{", 1)
			flow := flowOf(t, c.flow)
			flow.Local = c.local
			want := "Leave"
			if c.matches {
				want = "Keep by rule-1"
			}
			if got := Decide(loadRules(t, rule), testFacts(), flow).String(); got != want {
				t.Errorf("%s through %s: got %s, want %s", c.flow, rule, got, want)
			}
		})
	}
}

func TestFirstMatchDecides(t *testing.T) {
	p := loadRules(t,
		"{name: six, action: SNAT, snat: {addresses: ['2001:db8::7']}}",
		"{name: ten, to: {cidrs: [10.0.0.0/8]}, action: Keep}",
		"{name: leave, to: {cidrs: [10.0.0.0/8, 192.0.2.0/24]}, action: Leave}",
		"{name: snat, action: SNAT, snat: {addresses: [192.0.2.7]}}",
	)
	for flow, want := range map[string]string{
		"tcp [fd00::1]:1 [2001:db8::1]:443": "SNAT to 2001:db8::7 by six",
		"tcp 10.244.1.7:1 10.1.1.1:443":     "Keep by ten",
		"icmp 10.244.1.7 192.0.2.1":         "Leave by leave",
		"udp 10.244.1.7:1 198.51.100.1:53":  "SNAT to 192.0.2.7 by snat",
	} {
		if got := Decide(p, testFacts(), flowOf(t, flow)).String(); got != want {
			t.Errorf("%s: got %s, want %s", flow, got, want)
		}
	}
}

func TestFamilyWithoutFactsMatchesNothing(t *testing.T) {
	facts := &Facts{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}
	p := loadRules(t, "{from: {pods: {}}, to: {cidrs: ['::/0', 0.0.0.0/0]}, action: Keep}")
	for flow, want := range map[string]Action{"icmpv6 fd00:244::7 2001:db8::1": Leave, "icmp 10.244.1.7 192.0.2.1": Keep} {
		if got := Decide(p, facts, flowOf(t, flow)); got.Action != want || (got.Rule == nil) != (want == Leave) {
			t.Errorf("%s: got %s, want %s", flow, got, want)
		}
	}
}

func TestASourceKeepsItsAddress(t *testing.T) {
	p := loadRules(t, "{action: SNAT, snat: {addresses: [192.0.2.1-192.0.2.4, '2001:db8::7']}}")
	used := map[netip.Addr]int{}
	for i := range 1000 {
		source := fmt.Sprintf("10.0.%d.%d", i/250, i%250)
		first := Decide(p, testFacts(), flowOf(t, "tcp "+source+":1 192.0.2.9:80")).Address
		if again := Decide(p, testFacts(), flowOf(t, "udp "+source+":7 198.51.100.1:53")).Address; again != first {
			t.Fatalf("%s got %s, then %s", source, first, again)
		}
		used[first]++
	}
	for a, n := range used {
		if !a.Is4() || n < 150 {
			t.Errorf("%s: %d of 1000 sources, want about 250 each of four", a, n)
		}
	}
	if len(used) != 4 {
		t.Errorf("used %v, want four addresses", used)
	}
}
