package ipset_test

import (
	"fmt"
	"math/rand/v2"
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
func makeSets(t *testing.T, ns *netns.NS, m *maker, types []string, each int) made {
	t.Helper()
	all := made{types: map[string]bool{}}
	var names []string
	for _, typeName := range types {
		for i := range 2 * each {
			m.family = packet.Families[i%2]
			options := m.options(typeName, i/2)
			name := fmt.Sprintf("%s-%d", strings.NewReplacer(":", "-", ",", "-").Replace(typeName), i)
			if strings.HasPrefix(typeName, "bitmap:ip") && i%2 == 1 {
				continue
			}
			create := append([]string{"create", name, typeName}, strings.Fields(options)...)
			if _, err := ns.Run("", "ipset", create...); err != nil {
				if !strings.Contains(err.Error(), "not supported") && !strings.Contains(err.Error(), "kernel is behind") {
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

// rules has one rule for each question, between one that keeps others' packets
// away and one that every probe matches.
func rules(chain string, length int, all []question) string {
	var b strings.Builder
	b.WriteString("*raw\n")
	fmt.Fprintf(&b, "-A %s -m length ! --length %d -j ACCEPT\n", chain, length)
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

// session is a namespace with sets, and a wire into it.
type session struct {
	*maker
	ns   *netns.NS
	made made
	// enter is the bridge port by which all packets come, where there is one; the
	// bridge is eth1.
	enter string
	// peers of interfaces.
	peers map[string]string
	// saved, listed and terse are what ipset prints, blacked what is left of it
	// where somebody blacked out elements.
	saved, listed, terse, blacked ipset.Sets
	exact, vague                  tally
}

func newSession(t *testing.T, seed uint64, types []string) *session {
	t.Helper()
	s := &session{maker: &maker{Rand: rand.New(rand.NewPCG(seed, 7))}, ns: netnstest.Test(t, "sets"), peers: map[string]string{}}
	// Without an address no interface says anything of its own accord.
	if err := s.ns.Sysctl("net.ipv6.conf.default.addr_gen_mode", "1"); err != nil {
		t.Fatal(err)
	}
	s.made = makeSets(t, s.ns, s.maker, types, 5)
	texts, models := readBack(t, s.ns)
	s.saved, s.listed, s.terse = models[0], models[1], models[2]
	s.blacked, _ = ipset.Read(damaged(texts[0], s.maker), 1)
	return s
}

// wire makes interfaces to send packets into.
func (s *session) wire(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		s.peers[name] = "p-" + name
		if err := netns.Veth(s.ns, name, s.ns, s.peers[name]); err != nil {
			t.Fatal(err)
		}
	}
}

// ask sends packets of a family, and compares every rule's answer.
func (s *session) ask(t *testing.T, f packet.Family, hook int, packets int) {
	t.Helper()
	// iptables refuses sets of the other family, but not lists of such.
	asked := slices.DeleteFunc(slices.Clone(s.made.questions), func(q question) bool {
		own := s.saved[q.set].Family
		return own != 0 && own != f
	})
	chain := map[int]string{preroutingHook: "PREROUTING", outputHook: "OUTPUT"}[hook]
	program := map[packet.Family]string{packet.IPv4Family: "iptables-legacy-restore", packet.IPv6Family: "ip6tables-legacy-restore"}[f]
	length := map[packet.Family]int{packet.IPv4Family: 20, packet.IPv6Family: 40}[f] + payload
	if _, err := s.ns.Run(rules(chain, length, asked), program); err != nil {
		t.Fatal(err)
	}
	w := newWire(t, s.ns, f, hook, s.peers)
	s.family = f
	for range packets {
		p := s.packet(hook)
		w.enter = p.InInterface
		if s.enter != "" {
			w.enter, p.InInterface = s.enter, "eth1"
		}
		for i, kernel := range w.probe(t, p) {
			s.compare(t, asked[i], p, kernel)
		}
	}
}

func (s *session) compare(t *testing.T, q question, p ipset.Packet, kernel bool) {
	t.Helper()
	// Cards' addresses aren't asked; nor can the hash of physdev elements be known.
	open := strings.Contains(q.set, "mac") || strings.HasPrefix(q.set, "hash-net-iface") || strings.HasPrefix(q.set, "list-set")
	s.exact.compare(t, s.saved, q, p, kernel, open)
	s.exact.compare(t, s.listed, q, p, kernel, open)
	s.vague.compare(t, s.terse, q, p, kernel, true)
	s.vague.compare(t, s.blacked, q, p, kernel, true)
	for _, v := range vaguer(p) {
		s.vague.compare(t, s.saved, q, v, kernel, true)
	}
}

func (s *session) report(t *testing.T) {
	t.Helper()
	lacking := slices.Clone(s.made.lacking)
	slices.Sort(lacking)
	t.Logf("not in this kernel: %q", slices.Compact(lacking))
	t.Logf("checked: %d answers (%d yes, %d unknown), and %d (%d unknown) with something missing, of %d types",
		s.exact.checked, s.exact.yes, s.exact.unknown, s.vague.checked, s.vague.unknown, len(s.made.types))
}

// TestKernel makes random sets and asks the kernel about packets at their
// borders, by rules in the raw table.
func TestKernel(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			s := newSession(t, seed, setTypes)
			if len(s.made.types) < 10 {
				t.Errorf("only types %v", s.made.types)
			}
			s.wire(t, interfaces...)
			for _, f := range packet.Families {
				s.ask(t, f, preroutingHook, 300)
			}
			s.report(t)
		})
	}
}

// TestKernelOutput asks for what a packet has on its way out: a mark and an
// outgoing interface.
func TestKernelOutput(t *testing.T) {
	s := newSession(t, 9, []string{"hash:net,iface", "hash:ip,mark", "hash:ip", "list:set"})
	s.wire(t, interfaces...)
	for i, name := range interfaces {
		for _, family := range []string{"-4", "-6"} {
			if _, err := s.ns.Run("", "ip", family, "route", "add", "default", "dev", name, "metric", fmt.Sprint(100+i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, f := range packet.Families {
		s.ask(t, f, outputHook, 300)
	}
	s.report(t)
}

// TestKernelBridge sends packets through a bridge, whose name is that of the
// incoming interface; elements with physdev never match.
func TestKernelBridge(t *testing.T) {
	s := newSession(t, 11, []string{"hash:net,iface", "list:set"})
	s.wire(t, "eth0")
	if err := s.ns.Bridge("eth1"); err != nil {
		t.Fatal(err)
	}
	if err := s.ns.Enslave("eth0", "eth1"); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"iptables", "ip6tables"} {
		if err := s.ns.Sysctl("net.bridge.bridge-nf-call-"+f, "1"); err != nil {
			t.Fatal(err)
		}
	}
	s.enter = "eth0"
	for _, f := range packet.Families {
		s.ask(t, f, preroutingHook, 300)
	}
	s.report(t)
}
