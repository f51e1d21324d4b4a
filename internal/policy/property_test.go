package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/unmasq/unmasq/internal/packet"
)

// The generators draw from few values, so that rules and flows often meet.

var (
	somePrefixes = []string{"0.0.0.0/0", "10.0.0.0/8", "10.244.0.0/16", "10.244.1.0/24", "10.244.1.7/32", "192.0.2.0/24",
		"::/0", "fd00::/8", "fd00:244::/56", "2001:db8::/32"}
	someAddresses = []string{"10.1.1.1", "10.244.1.7", "10.244.1.8", "10.244.9.9", "192.0.2.1", "192.168.5.139", "127.0.0.1", "224.0.0.1",
		"fd00::1", "fd00:244:0:1::7", "2001:db8::1", "fe80::1"}
)

func drawPrefixes(t *rapid.T, label string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range rapid.SliceOfN(rapid.SampledFrom(somePrefixes), 0, 2).Draw(t, label) {
		out = append(out, netip.MustParsePrefix(text))
	}
	return out
}

func drawRule(t *rapid.T, i int) Rule {
	r := Rule{Document: "p", Name: fmt.Sprintf("rule-%d", i+1), Number: i + 1,
		Action:                    rapid.SampledFrom([]Action{Keep, Masquerade, SNAT, Leave}).Draw(t, "action"),
		OverrideServiceMasquerade: rapid.Bool().Draw(t, "override"),
		OutInterfaces:             rapid.SampledFrom([][]string{nil, nil, {"eth0"}, {"eth*", "wg0"}}).Draw(t, "interfaces"),
		From: From{PodCIDRs: rapid.Bool().Draw(t, "pods"), Node: rapid.Bool().Draw(t, "node"),
			CIDRs: drawPrefixes(t, "from"), Except: drawPrefixes(t, "from except")},
		To: To{PodCIDRs: rapid.Bool().Draw(t, "to pods"), Nodes: rapid.Bool().Draw(t, "to nodes"),
			CIDRs: drawPrefixes(t, "to"), Except: drawPrefixes(t, "to except"),
			Ports: rapid.SampledFrom([][]PortMatch{nil, nil, {{packet.TCP, PortRange{80, 90}}},
				{{packet.TCP, PortRange{0, 65535}}, {packet.UDP, PortRange{53, 53}}}}).Draw(t, "ports")},
	}
	r.From.Forwarded = !r.From.PodCIDRs && !r.From.Node && r.From.CIDRs == nil
	if rapid.Bool().Draw(t, "services") {
		r.To.Services = &Services{Names: rapid.SampledFrom([][]string{nil, {"shop/web"}, {"shop/web", "shop/four"}}).Draw(t, "names"),
			Backends: rapid.SampledFrom([]Backends{AnyBackends, LocalBackends, RemoteBackends}).Draw(t, "backends"),
			Via:      rapid.SampledFrom([]Via{AnyWay, ViaClusterIP, ViaNodePort}).Draw(t, "via")}
	}
	r.To.Everywhere = !r.To.PodCIDRs && !r.To.Nodes && r.To.CIDRs == nil && r.To.Services == nil
	if r.Action == SNAT {
		for _, text := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"192.0.2.7", "192.0.2.8", "2001:db8::7"}), 1, 3, rapid.ID).Draw(t, "addresses") {
			r.Addresses = append(r.Addresses, netip.MustParseAddr(text))
		}
	}
	return r
}

func drawFlow(t *rapid.T) packet.Flow {
	source := netip.MustParseAddr(rapid.SampledFrom(someAddresses).Draw(t, "source"))
	destination := rapid.Custom(func(t *rapid.T) netip.Addr {
		return netip.MustParseAddr(rapid.SampledFrom(someAddresses).Draw(t, "address"))
	}).Filter(func(a netip.Addr) bool { return a.Is4() == source.Is4() }).Draw(t, "destination")
	f := packet.Flow{Source: source, Destination: destination,
		Protocol:     rapid.SampledFrom([]uint8{packet.TCP, packet.UDP, packet.ICMP}).Draw(t, "protocol"),
		OutInterface: rapid.SampledFrom([]string{"eth0", "eth1", "wg0", "lo"}).Draw(t, "interface"),
		Local:        rapid.Bool().Draw(t, "local"),
		Mark:         rapid.SampledFrom([]uint32{0, 0, 0x4000, 0x2000}).Draw(t, "mark"),
	}
	if to := rapid.SampledFrom([]string{"", "10.96.0.80:80", "10.96.0.4:80", "192.168.5.138:30080"}).Draw(t, "made to"); to != "" && source.Is4() {
		asked := netip.MustParseAddrPort(to)
		f.OriginalDestination, f.OriginalPort = asked.Addr(), asked.Port()
	}
	if f.HasPorts() {
		f.SourcePort, f.DestinationPort = 40000, rapid.SampledFrom([]uint16{53, 80, 443, 4789}).Draw(t, "port")
	}
	return f
}

// What a rule warned of as unreachable could match, the rule before it decides.
func TestACoveredRuleNeverDecides(t *testing.T) {
	covered := 0
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{Rules: []Rule{drawRule(t, 0), drawRule(t, 1)}}
		first, second := &p.Rules[0], &p.Rules[1]
		for _, same := range []func(){ // two rules drawn apart are hardly ever alike
			func() { second.From = first.From },
			func() { second.From.Except = append(second.From.Except, first.From.Except...) },
			func() { second.To = first.To },
			func() { second.To.Ports, second.OutInterfaces = first.To.Ports, first.OutInterfaces },
			func() { second.OverrideServiceMasquerade = first.OverrideServiceMasquerade },
		} {
			if rapid.Bool().Draw(t, "same") {
				same()
			}
		}
		if !first.covers(second) {
			return
		}
		covered++
		for range 20 {
			flow := drawFlow(t)
			if d := Decide(&p, serviceFacts(), flow); d.Rule == second {
				t.Fatalf("%+v is decided by %s", flow, d)
			}
		}
	})
	t.Logf("%d covered rules looked at", covered)
	if covered == 0 {
		t.Error("no rule was covered: the property was not looked at")
	}
}

// A guard that isn't overridable wins whatever the rules are; a rule added at the
// end changes nothing for flows that were decided before.
func TestGuardsAndOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p Policy
		for i := range rapid.IntRange(1, 5).Draw(t, "rules") {
			p.Rules = append(p.Rules, drawRule(t, i))
		}
		shorter := Policy{Rules: p.Rules[:len(p.Rules)-1]}
		flow, facts := drawFlow(t), serviceFacts()
		guard, overridable := guardOf(facts, flow)
		longer, before := Decide(&p, facts, flow), Decide(&shorter, facts, flow)
		if guard != "" && !overridable && (longer.Action != Leave || longer.Guard != guard) {
			t.Fatalf("guard %s, and yet %s", guard, longer)
		}
		if guard != "" && longer.Rule != nil && !longer.Rule.OverrideServiceMasquerade {
			t.Fatalf("guard %s, and yet %s", guard, longer)
		}
		if before.Rule != nil && before.Rule != longer.Rule {
			t.Fatalf("a rule at the end changed %s to %s", before, longer)
		}
	})
}

// The order in which documents are given says nothing, in one file or in several.
func TestOrderOfDocumentsSaysNothing(t *testing.T) {
	documents := []string{
		"{apiVersion: unmasq.io/v1alpha1, kind: SourcePolicy, metadata: {name: a}, spec: {rules: [{action: Keep}, {action: Leave}]}}",
		"{apiVersion: unmasq.io/v1alpha1, kind: SourcePolicy, metadata: {name: b}, spec: {order: 7, rules: [{name: x, action: Leave}]}}",
		"{apiVersion: unmasq.io/v1alpha1, kind: SourcePolicy, metadata: {name: c}, spec: {facts: {podCIDRs: [10.0.0.0/8], pods: []}}}",
		"{apiVersion: unmasq.io/v1alpha1, kind: SourcePolicy, metadata: {name: d}, spec: {order: 100, rules: [{action: Masquerade}]}}",
		"{apiVersion: unmasq.io/v1alpha1, kind: SourcePolicy, metadata: {name: e}, spec: {rules: [{from: {pods: {podSelector: {}}}, action: Keep}]}}",
	}
	load := func(t interface{ Fatal(...any) }, sources []Source) *Loaded {
		loaded, err := Load(sources, Options{})
		if err != nil {
			t.Fatal(err)
		}
		loaded.Stated.PodCIDRs.Origin, loaded.Stated.Pods.Origin = "", ""
		return loaded
	}
	separate := func(order []string) []Source {
		var out []Source
		for i, d := range order {
			out = append(out, Source{Name: fmt.Sprintf("%d.yaml", i), Content: []byte(d)})
		}
		return out
	}
	want := load(t, separate(documents))
	rapid.Check(t, func(t *rapid.T) {
		order := rapid.Permutation(slices.Clone(documents)).Draw(t, "order")
		cut := rapid.IntRange(0, len(order)).Draw(t, "cut")
		together := ""
		for _, d := range order[:cut] {
			together += "---\n" + d + "\n"
		}
		sources := separate(order[cut:])
		if cut > 0 {
			sources = append(sources, Source{Name: "together.yaml", Content: []byte(together)})
		}
		compareSelectors := cmp.Comparer(func(a, b *PodSelector) bool {
			return (a == nil) == (b == nil) && (a == nil || a.String() == b.String())
		})
		if diff := cmp.Diff(want, load(t, sources), compareSelectors, cmpopts.EquateComparable(netip.Prefix{}, netip.Addr{})); diff != "" {
			t.Fatalf("-in order +shuffled:\n%s", diff)
		}
	})
}
