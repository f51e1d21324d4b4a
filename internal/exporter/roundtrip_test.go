package exporter_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"pgregory.net/rapid"

	"github.com/unmasq/unmasq/internal/exporter"
	"github.com/unmasq/unmasq/internal/importer"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

var podCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")}

var (
	someNetworks = []string{
		"10.0.0.0/8", "10.244.0.0/16", "10.9.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "192.168.200.0/24", "192.168.200.128/25", "203.0.113.0/24", "203.0.113.7/32",
		"169.254.0.0/16", "169.254.9.0/24", "0.0.0.0/0", "::/0", "fd00::/8", "fd00:9::/32", "fe80::/10", "2001:db8::/32",
	}
	someDestinations = []string{
		"10.244.2.7", "10.9.1.1", "172.20.1.1", "192.168.1.1", "192.168.200.7", "192.168.200.200", "203.0.113.7", "203.0.113.8", "169.254.9.9", "169.254.1.1", "8.8.8.8",
		"fd00:10:244:2::7", "fd00:9::1", "fd00:8::1", "2001:db8::1", "2606:4700::1",
	}
	podSources   = []string{"10.244.1.7", "fd00:10:244:1::7"}
	otherSources = []string{"172.30.0.9", "2001:db8:30::9"}
)

// randomPolicy is about all pods mostly.
func randomPolicy(t *rapid.T) string {
	var b strings.Builder
	b.WriteString("apiVersion: unmasq.io/v1alpha1\nkind: SourcePolicy\nmetadata: {name: p}\nspec:\n  facts: {podCIDRs: [10.244.0.0/16, \"fd00:10:244::/48\"]" + rapid.SampledFrom([]string{", nodes: [192.168.1.1]", ""}).Draw(t, "facts") + "}\n  rules:\n")
	pick := func(what string, from ...string) string { return rapid.SampledFrom(from).Draw(t, what) }
	networks := func(what string) string {
		return `"` + strings.Join(rapid.SliceOfNDistinct(rapid.SampledFrom(someNetworks), 1, 3, rapid.ID[string]).Draw(t, what), `", "`) + `"`
	}
	how := pick("how", "{fullyRandom: true}", "{fullyRandom: false}", "{fullyRandom: true, ports: 1024-29999}")
	for i := range rapid.IntRange(1, 5).Draw(t, "rules") {
		from := pick("from", "pods: {}", "pods: {}", "pods: {}", "", "cidrs: [10.244.0.0/16]", "cidrs: [0.0.0.0/0, \"::/0\"], node: {}", "node: {}", "cidrs: [10.244.1.0/24]", "cidrs: [172.30.0.0/16]", "except: [10.244.3.0/24]")
		var to []string
		switch pick("to", "cidrs", "cidrs", "cidrs", "pods", "nodes", "all") {
		case "cidrs":
			to = append(to, "cidrs: ["+networks("cidrs")+"]")
		case "pods":
			to = append(to, "pods: {}")
		case "nodes":
			to = append(to, "nodes: {}")
		}
		if pick("except", "", "", "x") == "x" {
			to = append(to, "except: ["+networks("except")+"]")
		}
		if pick("ports", "", "", "", "", "", "x") == "x" {
			to = append(to, "ports: [{port: 443}]")
		}
		interfaces := pick("interfaces", "", "", "", "", "", ", outInterfaces: [eth1]")
		action := pick("action", "Keep", "Leave", "Masquerade", "Masquerade", "SNAT")
		switch action {
		case "Masquerade":
			action += ", masquerade: " + how
		case "SNAT":
			action += ", snat: {addresses: [192.0.2.7], fullyRandom: true}"
		}
		fmt.Fprintf(&b, "  - {name: r%d, from: {%s}, to: {%s}%s, action: %s}\n", i+1, from, strings.Join(to, ", "), interfaces, action)
	}
	return b.String()
}

// TestRoundTrip: what is exported without a loss is, imported again, the same for all
// pods' packets, and for all packets where the component asks for no source. With
// losses it translates nothing that the policy doesn't, unless a loss says so.
func TestRoundTrip(t *testing.T) {
	exact, lossy, wider := map[string]int{}, 0, 0
	rapid.Check(t, func(t *rapid.T) {
		document := randomPolicy(t)
		loaded, err := policy.Load([]policy.Source{{Name: "policy", Content: []byte(document)}}, policy.Options{})
		if err != nil {
			t.Fatalf("%v\n%s", err, document)
		}
		for _, kind := range exporter.Kinds() {
			out := kind.Export(loaded, exporter.Options{})
			again := imported(t, kind.Name, out.Text)
			widens := slices.ContainsFunc(out.Losses, func(l exporter.Loss) bool { return l.Wider })
			switch {
			case len(out.Losses) == 0:
				exact[kind.Name]++
			case widens && (kind.Name == "calico" || slices.ContainsFunc(out.Losses, func(l exporter.Loss) bool { return l.Wider && l.Rule != "" })):
				wider++ // link-local, interfaces, nodes
				continue
			case widens: // of others than pods
				wider++
			default:
				lossy++
			}
			anybody := (kind.Name == "ip-masq-agent" || kind.Name == "aws-vpc-cni") && !widens
			if problem := compare(loaded, again, anybody, len(out.Losses) == 0); problem != "" {
				t.Fatalf("%s: %s\n%s\n%s\nlosses: %v", kind.Name, problem, document, out.Text, out.Losses)
			}
		}
	})
	t.Logf("checked: exact %v, with losses %d, wider %d", exact, lossy, wider)
	if len(exact) < len(exporter.Kinds()) || lossy == 0 {
		t.Error("too few of them tell anything")
	}
}

// test is one of testing or of rapid.
type test interface {
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// imported is the policy that an export means; nil where the component does nothing.
func imported(t test, kind string, text []byte) *policy.Loaded {
	k, ok := importer.Named(kind)
	if !ok {
		t.Fatalf("no kind %q", kind)
	}
	if len(text) == 0 {
		return &policy.Loaded{}
	}
	files := []importer.File{{Name: "exported.yaml", Data: text}}
	if kind == "ip-masq-agent" { // its flags stand in a comment
		line, _, _ := strings.Cut(string(text), "\n")
		_, flags, _ := strings.Cut(line, ": ")
		files = append(files, importer.File{Name: "command", Data: []byte("ip-masq-agent " + flags)})
	}
	result, err := importer.Run(k, files, importer.Options{PodCIDRs: podCIDRs, VPCCIDRs: podCIDRs[:1]})
	if err != nil {
		t.Fatalf("%s: %v\n%s", kind, err, text)
	}
	var again bytes.Buffer
	if err := result.WriteYAML(&again); err != nil {
		t.Fatal(err)
	}
	loaded, err := policy.Load([]policy.Source{{Name: "imported", Content: again.Bytes()}}, policy.Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, again.Bytes())
	}
	return loaded
}

// compare flows: of pods, and of anybody.
func compare(p, again *policy.Loaded, anybody, exact bool) string {
	facts := &policy.Facts{PodCIDRs: podCIDRs, Nodes: []netip.Addr{netip.MustParseAddr("192.168.1.1")}, ServiceMark: policy.DefaultServiceMark, HostPortMark: policy.DefaultHostPortMark}
	sources := slices.Clone(podSources)
	if anybody {
		sources = append(sources, otherSources...)
	}
	for _, s := range sources {
		for _, d := range someDestinations {
			for _, out := range []string{"eth0", "eth1"} {
				f := packet.Flow{Source: netip.MustParseAddr(s), Destination: netip.MustParseAddr(d), Protocol: packet.TCP, SourcePort: 40000, DestinationPort: 443, InInterface: "cni0", OutInterface: out}
				if f.Source.Is4() != f.Destination.Is4() || slices.Contains(otherSources, s) && slices.ContainsFunc(podCIDRs, func(p netip.Prefix) bool { return p.Contains(f.Destination) }) {
					continue
				}
				want, got := policy.Decide(&p.Policy, facts, f), policy.Decide(&again.Policy, facts, f)
				if !translates(want) && translates(got) || exact && (translates(want) != translates(got) || want.Address != got.Address) {
					return fmt.Sprintf("%s → %s out %s: %s %s, imported again %s %s", s, d, out, want.Action, want.Address, got.Action, got.Address)
				}
			}
		}
	}
	return ""
}

func translates(d policy.Decision) bool {
	return d.Action == policy.Masquerade || d.Action == policy.SNAT
}

// TestOwnSettings: settings that are imported, and exported as the same component's, lose
// nothing, and mean what they meant.
func TestOwnSettings(t *testing.T) {
	for _, name := range []string{"ip-masq-agent-configmap", "ip-masq-agent-file", "calico-pools", "calico-address", "calico-none", "cilium-off"} {
		t.Run(name, func(t *testing.T) {
			a, err := txtar.ParseFile("../importer/testdata/" + name + ".txtar")
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == "stdout" })
			loaded, err := policy.Load([]policy.Source{{Name: name, Content: a.Files[i].Data}}, known)
			if err != nil {
				t.Fatal(err)
			}
			for _, kind := range exporter.Kinds() {
				if !strings.HasPrefix(name, kind.Name) {
					continue
				}
				out := kind.Export(loaded, exporter.Options{PodCIDRs: podCIDRs})
				if len(out.Losses) > 0 {
					t.Errorf("%v\n%s", out.Losses, out.Text)
				}
				if problem := compare(loaded, imported(t, kind.Name, out.Text), kind.Name == "ip-masq-agent", true); problem != "" {
					t.Error(problem)
				}
			}
		})
	}
}
