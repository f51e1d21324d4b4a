package ipset_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// question is a rule: a set asked with sides.
type question struct {
	set   string
	sides []bool
}

func (q question) String() string {
	var sides []string
	for _, source := range q.sides {
		sides = append(sides, map[bool]string{true: "src", false: "dst"}[source])
	}
	return q.set + " " + strings.Join(sides, ",")
}

// questions asks a set with every combination of sides, of as many as it has
// dimensions, one fewer and one more.
func questions(name, typeName string) []question {
	dimensions := strings.Count(typeName, ",") + 1
	var all []question
	for n := max(1, dimensions-1); n <= dimensions+1; n++ {
		for bits := range 1 << n {
			q := question{set: name}
			for i := range n {
				q.sides = append(q.sides, bits>>i&1 == 1)
			}
			if n == dimensions || bits%3 == 0 {
				all = append(all, q)
			}
		}
	}
	return all
}

// made is what a namespace holds: sets of every type that the kernel has.
type made struct {
	questions []question
	// lacking are types and options that the kernel doesn't have.
	lacking []string
	types   map[string]bool
}

// makeSets fills the namespace with random sets of both families.
func makeSets(t *testing.T, ns *netns.NS, m *maker, each int) made {
	t.Helper()
	all := made{types: map[string]bool{}}
	var names []string
	for _, typeName := range setTypes {
		for i := range 2 * each {
			m.family = packet.Families[i%2]
			options := m.options(typeName, i/2)
			name := fmt.Sprintf("%s-%d", strings.NewReplacer(":", "-", ",", "-").Replace(typeName), i)
			if strings.HasPrefix(typeName, "bitmap:ip") && i%2 == 1 {
				continue
			}
			create := append([]string{"create", name, typeName}, strings.Fields(options)...)
			if _, err := ns.Run("", "ipset", create...); err != nil {
				if !strings.Contains(err.Error(), "not supported") && !strings.Contains(err.Error(), "required by") {
					t.Fatal(err)
				}
				all.lacking = append(all.lacking, typeName+" "+options)
				continue
			}
			var lines []string
			for _, e := range m.elements(typeName, i/2, names) {
				lines = append(lines, "add "+name+" "+e)
			}
			restore(t, ns, lines)
			all.types[typeName] = true
			all.questions = append(all.questions, questions(name, typeName)...)
			if typeName != "list:set" {
				names = append(names, name)
			}
		}
	}
	return all
}

// restore adds elements, but for those that the kernel refuses.
func restore(t *testing.T, ns *netns.NS, lines []string) {
	t.Helper()
	for len(lines) > 0 {
		_, err := ns.Run(strings.Join(lines, "\n")+"\n", "ipset", "-exist", "restore")
		if err == nil {
			return
		}
		_, said, _ := strings.Cut(err.Error(), "Error in line ")
		number, _, _ := strings.Cut(said, ":")
		n, convErr := strconv.Atoi(number)
		if convErr != nil || !strings.Contains(said, "Null-valued") && !strings.Contains(lines[n-1], " 0.0.0.") && !strings.Contains(lines[n-1], " ::") {
			t.Fatalf("%v\n%s", err, strings.Join(lines, "\n"))
		}
		lines = slices.Delete(lines, n-1, n)
	}
}

// rules has one rule for each question.
func rules(chain string, all []question) string {
	var b strings.Builder
	b.WriteString("*raw\n")
	for _, q := range all {
		fmt.Fprintf(&b, "-A %s -m set --match-set %s\n", chain, q)
	}
	fmt.Fprintf(&b, "-A %s -j DROP\nCOMMIT\n", chain)
	return b.String()
}

// readBack reads the namespace's sets, as saved, as listed, and without members.
func readBack(t *testing.T, ns *netns.NS) (texts []string, models []ipset.Sets) {
	t.Helper()
	for _, args := range [][]string{{"save"}, {"list"}, {"list", "-t"}} {
		text, err := ns.Run("", "ipset", args...)
		if err != nil {
			t.Fatal(err)
		}
		sets, problems := ipset.Read(text, 1)
		for _, p := range problems {
			t.Errorf("ipset %s, line %d: %s: %s", args, p.Line, p.Text, p.Why)
		}
		texts, models = append(texts, text), append(models, sets)
	}
	return texts, models
}

// tally of comparisons.
type tally struct{ checked, yes, unknown int }

// compare asks the models what the kernel has answered. Unknown is right only
// where a model is allowed not to know.
func (n *tally) compare(t *testing.T, sets ipset.Sets, q question, p ipset.Packet, kernel bool, mayNotKnow bool) {
	t.Helper()
	n.checked++
	got, why := sets[q.set].Contains(sets, p, q.sides)
	switch {
	case got == ipset.Unknown:
		n.unknown++
		if !mayNotKnow || why == "" {
			t.Errorf("%s: unknown (%q) for %+v", q, why, p)
		}
	case (got == ipset.Yes) != kernel:
		t.Errorf("%s: the kernel says %v for %+v", q, kernel, p)
	case kernel:
		n.yes++
	}
	if t.Failed() {
		t.Fatalf("the set, family %v, type %s: %s", sets[q.set].Family, sets[q.set].Type, sets[q.set].Options.Text)
	}
}

// vaguer packets lack something that p has.
func vaguer(p ipset.Packet) []ipset.Packet {
	a, b, c, d, e := p, p, p, p, p
	a.SourcePort = -1
	b.SourcePort, b.DestinationPort = -1, -1
	c.Protocol = 0
	d.InInterface, d.OutInterface, d.NoIn, d.NoOut = "", "", false, false
	e.Protocol, e.SourcePort, e.InInterface, e.NoOut = 0, -1, "", false
	return []ipset.Packet{a, b, c, d, e}
}

// damaged is the text without some of its elements' meaning, as of a dump in
// which somebody blacked out addresses.
func damaged(text string, m *maker) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, "add ") && m.IntN(8) == 0 {
			words := strings.Fields(line)
			words[2] = "xx." + words[2][1:]
			lines[i] = strings.Join(words, " ")
		}
	}
	return strings.Join(lines, "\n")
}

// TestKernel makes random sets and asks the kernel about packets at their
// borders, by rules in the raw table.
func TestKernel(t *testing.T) {
	var n, vague tally
	var lacking []string
	types := map[string]bool{}
	for seed := range uint64(2) {
		m := &maker{Rand: rand.New(rand.NewPCG(seed, 7))}
		ns := netnstest.Test(t, "sets")
		peers := map[string]string{}
		for _, name := range interfaces {
			peers[name] = "p-" + name
			if err := netns.Veth(ns, name, ns, peers[name]); err != nil {
				t.Fatal(err)
			}
		}
		all := makeSets(t, ns, m, 5)
		lacking = append(lacking, all.lacking...)
		for typeName := range all.types {
			types[typeName] = true
		}
		texts, models := readBack(t, ns)
		blacked, _ := ipset.Read(damaged(texts[0], m), 1)
		for _, f := range packet.Families {
			program := map[packet.Family]string{packet.IPv4Family: "iptables-legacy-restore", packet.IPv6Family: "ip6tables-legacy-restore"}[f]
			// iptables refuses sets of the other family, but not lists of such.
			asked := slices.DeleteFunc(slices.Clone(all.questions), func(q question) bool {
				own := models[0][q.set].Family
				return own != 0 && own != f
			})
			if _, err := ns.Run(rules("PREROUTING", asked), program); err != nil {
				t.Fatal(err)
			}
			w := newWire(t, ns, f, preroutingHook, peers)
			m.family = f
			for range 300 {
				p := m.packet()
				p.Mark = 0 // no mark outlives the wire
				for i, kernel := range w.probe(t, p) {
					q := asked[i]
					mac := strings.Contains(q.set, "mac") || strings.HasPrefix(q.set, "list-set")
					hash := strings.HasPrefix(q.set, "hash-net-iface") || strings.HasPrefix(q.set, "list-set")
					n.compare(t, models[0], q, p, kernel, mac || hash)
					n.compare(t, models[1], q, p, kernel, mac || hash)
					vague.compare(t, models[2], q, p, kernel, true)
					vague.compare(t, blacked, q, p, kernel, true)
					for _, v := range vaguer(p) {
						vague.compare(t, models[0], q, v, kernel, true)
					}
				}
			}
		}
	}
	slices.Sort(lacking)
	if len(types) < 10 {
		t.Errorf("only types %v", types)
	}
	if os.Getenv("CI") != "" || testing.Verbose() {
		t.Logf("not in this kernel: %v", slices.Compact(lacking))
	}
	t.Logf("checked: %d answers (%d yes, %d unknown), and %d (%d unknown) with something missing, of %d types",
		n.checked, n.yes, n.unknown, vague.checked, vague.unknown, len(types))
}
