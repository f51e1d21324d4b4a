package snapshot

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

const linksKind = route.Links

// network gathers what the files say of links and routing. It is read into the
// host at the end, when it is known which of several accounts count.
type network struct {
	outputs []output
	// lines of all outputs, as weighed by amount.
	lines int
	// other files: from a line on, what they hold is another node's.
	other map[string]int
}

// output of ip or bridge.
type output struct {
	kind   route.Kind
	json   bool
	text   string
	file   string
	line   int
	family packet.Family
	// whole: the layout of a snapshot says that these are the routes of all tables.
	whole bool
	// entries as key and value, to compare with other outputs; nil as long as there
	// is no other of the kind, since they cost more than the text.
	entries map[entry]string
}

// index fills in the entries.
func (o *output) index() {
	if o.entries != nil {
		return
	}
	var alone route.Network
	o.read(&alone)
	o.entries = entries(&alone, o.kind)
}

// read adds the output to a network.
func (o *output) read(n *route.Network) []route.Problem {
	if o.json {
		return n.ReadJSON(o.kind, o.text, o.line, o.family)
	}
	return n.ReadText(o.kind, o.text, o.line, o.family)
}

// mostLines bounds what is read of links and routing: a router with the whole
// Internet's routes has 1.2 million.
const mostLines = 3 << 19

// amount is how many things an output lists, at most.
func amount(text string, isJSON bool) int {
	if isJSON {
		return strings.Count(text, "{")
	}
	return strings.Count(text, "\n")
}

// add takes one output. One that repeats another is left out; one that
// contradicts another of the same file is another node's, or of another time.
func (n *network) add(b *builder, f *file, text string, line int, s *section, kind route.Kind, isJSON bool) error {
	if n.lines += amount(text, isJSON); n.lines > mostLines {
		return fmt.Errorf("%s:%d: with it, more than %d routes, links, addresses and rules in all, which no node has", f.name, line, mostLines)
	}
	o := output{kind: kind, json: isJSON, text: text, file: f.name, line: line, family: s.command.ip.Family}
	if k := known[f.base()]; f.member && k.family != 0 {
		o.family = k.family
		o.whole = f.meta && kind == route.Routes && b.missing(f) == ""
	}
	if kind == route.Addresses && !isJSON && !strings.Contains(text, " inet") && s.command.ip.Kind != route.Addresses {
		o.kind = route.Links
	}
	for i := range n.outputs {
		other := &n.outputs[i]
		if other.kind != o.kind {
			continue
		}
		o.index()
		other.index()
		common, differs := o.compare(other)
		switch {
		case differs != "":
			n.conflict(b, other, &o, differs)
			return nil
		case common > 0 && common == len(o.entries):
			return nil
		case common > 0 && common == len(other.entries):
			*other = o
			return nil
		case s.command.ip.Partial:
		case o.sharesGroup(other):
			n.conflict(b, other, &o, o.lacking(other))
			return nil
		}
	}
	if from, ok := n.other[f.name]; ok {
		b.note(f.name, o.line, "", fmt.Sprintf("left out: what is printed from line %d on seems to be another node's, or of another time", from))
		return nil
	}
	n.outputs = append(n.outputs, o)
	return nil
}

// entry of an output is about something that has one value on a node. Two whole
// outputs about one group have all its entries both.
type entry struct{ group, name string }

// compare counts the entries that two outputs have both, and names the first on
// which they differ.
func (o *output) compare(other *output) (common int, differs string) {
	for key, value := range o.entries {
		theirs, ok := other.entries[key]
		if !ok {
			continue
		}
		common++
		if theirs != value && (differs == "" || key.name < differs) {
			differs = key.name
		}
	}
	return common, differs
}

func (o *output) sharesGroup(other *output) bool {
	groups := map[string]bool{}
	for key := range o.entries {
		groups[key.group] = true
	}
	for key := range other.entries {
		if groups[key.group] {
			return true
		}
	}
	return false
}

// lacking names an entry that the other output doesn't have.
func (o *output) lacking(other *output) string {
	first := ""
	for key := range o.entries {
		if _, ok := other.entries[key]; !ok && (first == "" || key.name < first) {
			first = key.name
		}
	}
	return first
}

func (n *network) conflict(b *builder, first, second *output, about string) {
	if first.file != second.file {
		b.conflicts = append(b.conflicts, fmt.Errorf("%s:%d and %s:%d: contradictory: %s is given twice, differently: give dumps of one node and one time",
			first.file, first.line, second.file, second.line, about))
		return
	}
	if n.other == nil {
		n.other = map[string]int{}
	}
	if _, known := n.other[second.file]; !known {
		n.other[second.file] = second.line
	}
	b.note(second.file, second.line, "", fmt.Sprintf("%s is in line %d and what follows too, differently (another node's, or of another time?): what was printed first counts", about, first.line))
}

// entries of a network that two outputs of a kind must agree on.
func entries(n *route.Network, kind route.Kind) map[entry]string {
	values := map[entry][]string{}
	add := func(group, name string, value ...any) {
		key := entry{group, name}
		values[key] = append(values[key], fmt.Sprint(value...))
	}
	switch kind {
	case route.Links:
		for i := range n.Links {
			l := &n.Links[i]
			add("", "link "+l.Name, l.Index, l.MAC, l.Master)
		}
	case route.Addresses:
		for _, a := range n.Addresses {
			f := packet.Of(a.Prefix.Addr()).String()
			add(f, f+" of "+a.Interface, a.Prefix)
		}
	case route.Routes:
		for i := range n.Routes {
			r := &n.Routes[i]
			name := fmt.Sprintf("route %s table %d metric %d", r.Destination, r.Table, r.Metric)
			if r.From.IsValid() || r.TOS != 0 {
				name += fmt.Sprintf(" from %s tos %d", r.From, r.TOS)
			}
			add(fmt.Sprint(r.Family, r.Table), name, r.Type, hops(r.Nexthops))
		}
	case route.Rules:
		for i := range n.Rules {
			r := &n.Rules[i]
			add(r.Family.String(), fmt.Sprintf("%s rule %d table %d of %s %s%d %d", r.Family, r.Priority, r.Table, r.From, r.In, r.Mark, r.Action))
		}
	}
	all := map[entry]string{}
	for key, v := range values {
		slices.Sort(v)
		all[key] = strings.Join(v, " ")
	}
	return all
}

func hops(all []route.Nexthop) string {
	var b strings.Builder
	for _, h := range all {
		via := h.Via
		if via == (netip.Addr{}) {
			via = netip.IPv6Unspecified()
		}
		fmt.Fprintf(&b, "%s %s,", via, h.Interface)
	}
	return b.String()
}

// finish reads the outputs that count, links before what refers to them.
func (n *network) finish(b *builder) {
	slices.SortStableFunc(n.outputs, func(x, y output) int { return int(x.kind) - int(y.kind) })
	for i := range n.outputs {
		o := &n.outputs[i]
		var p problems
		for _, x := range o.read(&b.host.Network) {
			p.add(x.Line, x.Text, x.Why)
		}
		b.problems(o.file, p)
		if o.whole {
			known := b.host.Network.Of(o.family)
			known.Main, known.AllTables = true, true
		}
	}
	b.host.Network.Complete()
}
