// Package importer_test compares, by packets, what components do with a node's
// packets and what the policy does that is imported from their settings: two nodes
// alike, on one the component's own rules, on the other unmasq's, the same flows
// through both. Where they differ the test says that it is meant, and why.
package importer_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/agent"
	"github.com/unmasq/unmasq/internal/importer"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/kernel/wires"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/snapshot"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// comparison of a component's rules with its import.
type comparison struct {
	kind  string
	files []importer.File
	opts  importer.Options
	// way is the name of the document to apply, where the import gives several ways;
	// "": those that aren't commented out.
	way string
	// facts are lines below spec.facts that a cluster would say, or the node's file:
	// "localPodCIDRs: [10.244.1.0/24]". Those that the import states are left out.
	facts []string

	node layout
	// peer writes the component's rules; ours, nil for nothing, what it writes still
	// when it has been told to translate no more.
	peer, ours func(*testing.T, *node)
	flows      []flow
	// meant are the differences that there have to be.
	meant []difference
}

// difference that is meant, with why. It must occur.
type difference struct {
	why string
	// is says whether this is one, by the flow and what became of it.
	is func(f flow, peer, ours string) bool
}

// flow is a packet sent, with the name of the row that it is one of.
type flow struct {
	packet.Flow
	row string
	// chance: its fate is drawn by lot, so that it is sent many times.
	chance bool
}

func (f flow) String() string {
	from := f.InInterface
	if f.Local {
		from = "the node"
	}
	return fmt.Sprintf("%s: %s → %s protocol %d from %s", f.row, netip.AddrPortFrom(f.Source, f.SourcePort), netip.AddrPortFrom(f.Destination, f.DestinationPort), f.Protocol, from)
}

// run compares, and then puts the policy in force beside the component's own rules.
func (c *comparison) run(t *testing.T) {
	t.Helper()
	theirs, mine := newNode(t, c.node), newNode(t, c.node)
	c.peer(t, theirs)
	if c.ours != nil {
		c.ours(t, mine)
	}
	loaded := c.load(t)
	mine.apply(t, loaded)
	want, got := theirs.fates(t, c.flows), mine.fates(t, c.flows)
	meant, wrong := c.compare(t, want, got)
	translated := 0
	for i, f := range c.flows {
		if strings.Contains(want[i], " to ") && !f.kept(want[i]) {
			translated++
		}
	}
	theirs.apply(t, loaded)
	c.beside(t, want, got, theirs.fates(t, c.flows))
	t.Logf("checked: %d flows, %d of them translated by %s; %d meant differences; %d wrong; all of them again with both on one node", len(c.flows), translated, c.kind, meant, wrong)
	if len(c.flows) == 0 {
		t.Error("no flows")
	}
}

// compare what became of flows with the component and with its import.
func (c *comparison) compare(t *testing.T, want, got []string) (meant, wrong int) {
	t.Helper()
	occurred := make([]int, len(c.meant))
	for i, f := range c.flows {
		if want[i] == got[i] {
			continue
		}
		n := slices.IndexFunc(c.meant, func(d difference) bool { return d.is(f, want[i], got[i]) })
		if n >= 0 {
			occurred[n]++
			meant++
		} else if wrong++; wrong <= mostShown {
			t.Errorf("%s\n\t%s: %s\n\tits import: %s", f, c.kind, want[i], got[i])
		}
	}
	for i, d := range c.meant {
		if occurred[i] == 0 {
			t.Errorf("this difference isn't there (any more): %s", d.why)
		}
	}
	return meant, wrong
}

const mostShown = 12

// beside: with both on one node, what becomes of a flow is what the one or the other
// does with it. The policy outranks the component, and what it leaves is the component's.
func (c *comparison) beside(t *testing.T, want, got, both []string) {
	t.Helper()
	shown := 0
	for i, f := range c.flows {
		either := append(strings.Split(want[i], or), strings.Split(got[i], or)...)
		for _, fate := range strings.Split(both[i], or) {
			if slices.Contains(either, fate) {
				continue
			}
			if shown++; shown <= mostShown {
				t.Errorf("%s\n\t%s: %s\n\tits import: %s\n\tboth on one node: %s", f, c.kind, want[i], got[i], both[i])
			}
		}
	}
}

// or stands between fates that chance decides about.
const or = " or "

// load imports the files and loads what is printed, with the facts of the cluster.
func (c *comparison) load(t *testing.T) *policy.Loaded {
	t.Helper()
	kind, ok := importer.Named(c.kind)
	if !ok {
		t.Fatalf("no kind %q", c.kind)
	}
	result, err := importer.Run(kind, c.files, c.opts)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range result.Documents {
		if c.way != "" {
			d.Off = d.Name != c.way
		}
	}
	var text bytes.Buffer
	if err := result.WriteYAML(&text); err != nil {
		t.Fatal(err)
	}
	facts := "apiVersion: unmasq.io/v1alpha1\nkind: SourcePolicy\nmetadata: {name: facts-of-the-cluster}\nspec:\n  facts:\n"
	for _, line := range c.facts {
		name, _, _ := strings.Cut(line, ":")
		if !bytes.Contains(text.Bytes(), []byte("\n    "+name+":")) {
			facts += "    " + line + "\n"
		}
	}
	sources := []policy.Source{{Name: "imported", Content: text.Bytes()}}
	if strings.Contains(facts, "\n    ") {
		sources = append(sources, policy.Source{Name: "facts", Content: []byte(facts)})
	}
	loaded, err := policy.Load(sources, policy.Options{NodeLabels: map[string]string{}})
	if err != nil {
		t.Fatalf("%v\n%s", err, text.Bytes())
	}
	return loaded
}

// apply installs a policy as `unmasq apply` does.
func (n *node) apply(t *testing.T, loaded *policy.Loaded) {
	t.Helper()
	n.must(t, n.ns.Do(func() error {
		features, err := nft.Probe()
		if err != nil {
			return err
		}
		want, err := agent.Compile(loaded, t.TempDir(), features)
		if err != nil {
			return err
		}
		for _, w := range want.Warnings {
			t.Logf("warning: %s", w)
		}
		table, err := nft.Open(slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		t.Cleanup(func() { table.Close() })
		return table.Start(want.Table)
	}))
}

// fates sends flows and says of each what became of it: by which link it left, with
// which source and to which destination, or that the node itself got it. Of those
// that chance decides, all that was seen.
func (n *node) fates(t *testing.T, flows []flow) []string {
	t.Helper()
	const repeats = 96 // of four ends that are as likely, one is missed in one of 10¹¹ flows
	var sent []packet.Flow
	var of []int
	for i, f := range flows {
		times := 1
		if f.chance {
			times = repeats
		}
		for range times {
			one := f.Flow
			if one.SourcePort != 0 {
				one.SourcePort = 20000 + uint16(len(sent)%20000)
			}
			sent, of = append(sent, one), append(of, i)
		}
	}
	seen := make([][]string, len(flows))
	for from := 0; from < len(sent); {
		k := wires.Apart(sent[from:])
		n.must(t, wires.Forget(n.ns))
		fates, err := n.wires.Send(sent[from : from+k])
		n.must(t, err)
		for i, fate := range fates {
			text := told(fate)
			if at := of[from+i]; !slices.Contains(seen[at], text) {
				seen[at] = append(seen[at], text)
			}
		}
		from += k
	}
	out := make([]string, len(flows))
	for i, texts := range seen {
		slices.Sort(texts)
		out[i] = strings.Join(texts, or)
	}
	return out
}

func told(f wires.Fate) string {
	switch {
	case f.Out != nil:
		return fmt.Sprintf("%s %s to %s", f.Out.Interface, f.Out.Source, f.Out.Destination)
	case f.In != nil:
		return fmt.Sprintf("the node got it: %s to %s", f.In.Source, f.In.Destination)
	case f.Refused != nil:
		return "refused: " + f.Refused.Error()
	case f.Error != "":
		return "error " + f.Error
	}
	return "nothing"
}

// dump is what a real program wrote on a node of the usual layout, loaded into
// another: test/judge/testdata/dumps, made by hack/dumps. Lines that without says are
// left out.
func dump(name string, without ...func(line string) bool) func(*testing.T, *node) {
	return recorded("../judge/testdata/dumps/"+name+".txt", without...)
}

// recorded is such a file; the iptables variant is in its name.
func recorded(path string, without ...func(line string) bool) func(*testing.T, *node) {
	name := strings.TrimSuffix(filepath.Base(path), ".txt")
	return func(t *testing.T, n *node) {
		t.Helper()
		a, err := txtar.ParseFile(path)
		n.must(t, err)
		variant := name[strings.LastIndex(name, "-")+1:]
		slices.SortStableFunc(a.Files, func(a, b txtar.File) int { return strings.Compare(rank(a.Name), rank(b.Name)) })
		for _, f := range a.Files {
			var kept strings.Builder
			for line := range strings.Lines(string(f.Data)) {
				if !slices.ContainsFunc(without, func(drop func(string) bool) bool { return drop(line) }) {
					kept.WriteString(line)
				}
			}
			n.load(t, f.Name, kept.String(), variant)
		}
	}
}

// rank sorts sets before the rules that name them.
func rank(name string) string {
	if name == snapshot.FileIPSet {
		return "0"
	}
	return "1"
}

// load one file of a dump; what describes the node is none.
func (n *node) load(t *testing.T, name, text, variant string) {
	t.Helper()
	switch {
	case name == snapshot.FileIPSet:
		n.run(t, text, "ipset", "restore")
	case name == "ruleset.nft":
		n.run(t, text, "nft", "-f", "-")
	case strings.HasSuffix(name, "-save.txt"):
		if variant == "nftables" { // what stands beside nft's own tables
			variant = "nft"
		}
		n.must(t, wires.AddAccounting(n.ns, text))
		program, _, _ := strings.Cut(name, "-")
		n.run(t, text, program+"-"+variant+"-restore")
	}
}

// rulesText loads rules written by hand: lines of iptables-save for both families.
func rulesText(variant, v4, v6 string) func(*testing.T, *node) {
	return func(t *testing.T, n *node) {
		t.Helper()
		n.run(t, v4, "iptables-"+variant+"-restore")
		n.run(t, v6, "ip6tables-"+variant+"-restore")
	}
}

func text(name, content string) importer.File {
	return importer.File{Name: name, Data: []byte(content)}
}

func replaced(text, old, new string) string { return strings.ReplaceAll(text, old, new) }

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, p := range texts {
		all = append(all, netip.MustParsePrefix(p))
	}
	return all
}
