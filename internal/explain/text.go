package explain

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
)

// TextOptions of the answer for people.
type TextOptions struct {
	// Verbose shows every rule that was looked at, not only those that mattered.
	Verbose bool
	// Bold is used for what decides: terminals only.
	Bold  bool
	Names Names
}

type writer struct {
	io.Writer
	TextOptions
}

// Text writes the answer for people: who is seen as whom, the way there, what
// decided, how to change it, what it depends on.
func (a *Answer) Text(w io.Writer, o TextOptions) {
	t := writer{w, o}
	a = t.joined(a)
	t.headline(a)
	seen := map[string]bool{}
	for i := range a.Outcomes[:shown(a.Outcomes)] {
		t.details(a, &a.Outcomes[i], i, "", seen)
	}
	t.dependencies(a)
	t.replay(a.Replay)
	t.warnings(a.Warnings)
}

// mostOutcomes are listed, mostPaths of them with their way.
const (
	mostOutcomes = 20
	mostPaths    = 4
)

func shown(outcomes []Outcome) int { return min(len(outcomes), mostOutcomes) }

func (t writer) warnings(all []string) {
	if len(all) == 0 {
		return
	}
	t.section("warnings")
	for _, text := range all {
		t.line("  %s", text)
	}
}

// table aligns the columns of its rows.
func (t writer) table(fill func(row func(cells ...string))) {
	tab := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	fill(func(cells ...string) {
		for len(cells) > 1 && cells[len(cells)-1] == "" {
			cells = cells[:len(cells)-1] // no blanks at the end of a line
		}
		fmt.Fprintln(tab, strings.Join(cells, "\t"))
	})
	tab.Flush()
}

func (t writer) line(format string, args ...any) { fmt.Fprintf(t, format+"\n", args...) }

func (t writer) section(name string) { fmt.Fprintf(t, "\n%s\n", t.bold(name)) }

func (t writer) bold(s string) string {
	if t.Bold {
		return "\x1b[1m" + s + "\x1b[0m"
	}
	return s
}

// address with its name and port.
func (t writer) address(a netip.Addr, port any) string {
	text := a.String()
	switch p := port.(type) {
	case *int:
		if p != nil {
			text = netip.AddrPortFrom(a, uint16(*p)).String()
		}
	case uint16:
		text = netip.AddrPortFrom(a, p).String()
	}
	if name := t.Names.Of(a); name != "" {
		text += " (" + name + ")"
	}
	return text
}

func (t writer) headline(a *Answer) {
	if len(a.Outcomes) == 1 {
		t.line("%s", t.bold(t.sentence(a, &a.Outcomes[0])))
		if when := a.Outcomes[0].conditions(); when != nil {
			t.line("if %s", strings.Join(when, ", "))
		}
		return
	}
	t.line("%s", t.bold(fmt.Sprintf("%s to %s: %d outcomes", t.address(a.Flow.Source, a.Flow.SourcePort), t.address(a.Flow.Destination, a.Flow.DestinationPort), len(a.Outcomes))))
	t.table(func(row func(...string)) {
		for i, sentence := range t.sentences(a) {
			row(fmt.Sprint(i+1), a.Outcomes[i].share(), sentence)
			if when := a.Outcomes[i].conditions(); when != nil {
				row("", "", "if "+strings.Join(when, ", "))
			}
		}
	})
	if more := len(a.Outcomes) - shown(a.Outcomes); more > 0 {
		t.line("… and %d more (-o json has all)", more)
	}
}

// sentences of the outcomes shown. Where some read the same, they say by which
// interface.
func (t writer) sentences(a *Answer) []string {
	all := make([]string, shown(a.Outcomes))
	for i := range all {
		all[i] = t.sentence(a, &a.Outcomes[i])
	}
	same := map[string]int{}
	for _, s := range all {
		same[s]++
	}
	for i := range all {
		if out := a.Outcomes[i].OutInterface; same[all[i]] > 1 && out != "" {
			all[i] += ", out by " + out
		}
	}
	return all
}

// share of the packets that fare so.
func (o *Outcome) share() string {
	if o.Probability == nil {
		return "depends"
	}
	return fmt.Sprintf("%.3g %%", 100**o.Probability)
}

// end is the packet on the last node that it is followed to, and the outcome
// on the way that gave it its source.
func (o *Outcome) end() (last, changed *Outcome) {
	for changed = o; ; o = &o.Next.Outcomes[0] {
		if o.SourceKind != "kept" {
			changed = o
		}
		if o.Next == nil || len(o.Next.Outcomes) != 1 {
			return o, changed
		}
	}
}

// sentence says what one outcome is.
func (t writer) sentence(a *Answer, o *Outcome) string {
	last, changed := o.end()
	text := t.seen(a, last, changed)
	if o.Protocol != "" && o.Protocol != a.Flow.Protocol {
		text = o.Protocol + ": " + text
	}
	if n := last.Next; n != nil {
		text += fmt.Sprintf("; %d outcomes on node %s", len(n.Outcomes), n.Node)
	}
	return text
}

// seen says whom the peer sees; o is the packet at its end, changed where it got
// its source.
func (t writer) seen(a *Answer, o, changed *Outcome) string {
	source, peer := t.address(a.Flow.Source, nil), t.address(o.Destination, o.DestinationPort)
	if o.ToNode {
		peer += " on the node itself"
	}
	how := changed.SourceKind + by(changed)
	if changed.SourceKind != "kept" {
		how += portWords(o)
	}
	if changed.unread() {
		how += ", as far as can be told"
	}
	switch {
	case o.Verdict == "dropped":
		return peer + " sees nothing of " + source + ": dropped" + stopper(o)
	case o.Verdict == "rejected":
		return peer + " sees nothing of " + source + ": rejected" + with(o.RejectWith) + stopper(o)
	case o.Verdict == "unknown":
		return "it can't be said whether the packet gets to " + peer
	case o.SourceKind == "unknown":
		return "it can't be said as whom " + peer + " sees " + source
	case o.Source == nil:
		return peer + " sees an address of the node, not " + source + " (" + how + "); which one, the dump doesn't tell"
	case *o.Source == a.Flow.Source:
		return peer + " sees " + source + " itself (" + how + ")"
	}
	return peer + " sees " + t.address(*o.Source, nil) + ", not " + source + " (" + how + ")"
}

// by names the owner of what decided, where it is known.
func by(o *Outcome) string {
	switch d := o.DecidedBy; {
	case d == nil:
	case d.Kind == "conntrack":
		return ", by a connection that is known already"
	case d.Owner != "" && d.Owner != "unknown":
		return ", by " + d.Owner
	}
	return ""
}

// stopper is what ended the packet.
func stopper(o *Outcome) string {
	d := o.DecidedBy
	switch {
	case d == nil:
		return ""
	case d.Kind != "rule":
		return " (" + d.Rule + ")"
	case d.Index == 0:
		return " by the policy of chain " + d.Chain
	}
	text := fmt.Sprintf(" by rule %d of chain %s", d.Index, d.Chain)
	if d.Owner != "" && d.Owner != "unknown" {
		text += ", of " + d.Owner
	}
	return text
}

func with(reject string) string {
	if reject == "" {
		return ""
	}
	return " with " + reject
}

func portWords(o *Outcome) string {
	switch p := o.SourcePort.(type) {
	case [2]uint16:
		if p == [2]uint16{1024, 65535} {
			return "" // any that is free
		}
		return fmt.Sprintf(", port %d-%d", p[0], p[1])
	case uint16:
		return fmt.Sprintf(", port %d", p)
	}
	return ""
}

// details of one outcome: its way and what decided. What an earlier outcome has
// said isn't repeated. where is " on node NAME", or empty for the first node.
func (t writer) details(a *Answer, o *Outcome, i int, where string, seen map[string]bool) {
	if alike := pathsLike(a, o); len(o.Steps) > 0 && (alike[0] == i+1 || t.Verbose) && (i == 0 || t.Verbose || len(a.Outcomes) <= mostPaths) {
		t.section(pathTitle(a, i, alike) + where + o.interfaces())
		t.steps(o.Steps)
	}
	if d := o.DecidedBy; d != nil && !seen[d.key()+where] {
		seen[d.key()+where] = true
		title := decidedOutcomes(a, d) + where
		if o.SourceKind == "unknown" && o.Verdict == "accepted" {
			title += ", of the rules that are read"
		}
		t.section(title)
		t.decider(d)
	}
	if e := o.Encapsulated; e != nil {
		t.encapsulated(e, where, seen)
	}
	if n := o.Next; n != nil {
		next, where := t.joined(&Answer{Flow: n.Flow, Outcomes: n.Outcomes}), " on node "+n.Node
		if len(next.Outcomes) > 1 {
			t.section(strings.TrimSpace(where))
			t.headline(next)
		}
		for j := range next.Outcomes[:shown(next.Outcomes)] {
			t.details(next, &next.Outcomes[j], j, where, seen)
		}
	}
}

// pathsLike are the numbers of the outcomes shown whose way differs from this
// one's in nothing but the backend.
func pathsLike(a *Answer, o *Outcome) []int {
	var numbers []int
	for i := range a.Outcomes[:shown(a.Outcomes)] {
		p := &a.Outcomes[i]
		interfaces := p.InInterface == o.InInterface && p.OutInterface == o.OutInterface
		if p == o || interfaces && p.DecidedBy.key() == o.DecidedBy.key() && slices.EqualFunc(p.Steps, o.Steps, sameStep) {
			numbers = append(numbers, i+1)
		}
	}
	return numbers
}

// sameStep but for the names of chains: each backend has one of its own.
func sameStep(p, q Step) bool {
	verb := func(s Step) string { word, _, _ := strings.Cut(s.Effect, " "); return word }
	return p.Hook == q.Hook && p.Table == q.Table && p.Owner == q.Owner && verb(p) == verb(q) && p.Because == q.Because
}

// interfaces that the packet passes, as far as they are known.
func (o *Outcome) interfaces() string {
	var all []string
	if o.InInterface != "" {
		all = append(all, "in by "+o.InInterface)
	}
	if o.OutInterface != "" {
		all = append(all, "out by "+o.OutInterface)
	}
	if all == nil {
		return ""
	}
	return ": " + strings.Join(all, ", ")
}

func pathTitle(a *Answer, i int, alike []int) string {
	title := "path"
	if len(a.Outcomes) > 1 {
		title = fmt.Sprintf("path of outcome %d", i+1)
	}
	if len(alike) > 1 && alike[0] == i+1 {
		title += ", like that of " + outcomeNumbers(alike[1:])
	}
	return title
}

// encapsulated says as whom the outer packet is seen, once for each tunnel.
func (t writer) encapsulated(e *Encapsulated, where string, seen map[string]bool) {
	outer := t.joined(&Answer{Flow: e.Flow, Outcomes: e.Outcomes})
	key := fmt.Sprint("tunnel ", e.Interface, e.Flow.Destination, where)
	if seen[key] {
		return
	}
	seen[key] = true
	t.section("in tunnel " + e.Interface + where)
	for _, sentence := range t.sentences(outer) {
		t.line("  outer packet: %s", sentence)
	}
	for j := range outer.Outcomes[:shown(outer.Outcomes)] {
		if outer.Outcomes[j].DecidedBy != nil {
			t.details(outer, &outer.Outcomes[j], j, " of the outer packet"+where, seen)
		}
	}
}

// steps are one a line; the rules beneath them where all are asked for.
func (t writer) steps(steps []Step) {
	var b strings.Builder
	writer{&b, t.TextOptions}.table(func(row func(...string)) {
		for _, s := range steps {
			effect := s.Effect
			if s.Because != "" {
				effect += ": " + s.Because
			}
			row("  "+s.Hook, strings.TrimSpace(s.Table+" "+s.Chain), s.Owner, effect)
		}
	})
	i := 0
	for line := range strings.Lines(b.String()) {
		fmt.Fprint(t, line)
		if t.Verbose && steps[i].Rule != "" {
			text := steps[i].Rule
			if found := steps[i].Elements; found != nil {
				text += ": element " + strings.Join(found, ", ")
			}
			t.line("      %s", text)
		}
		i++
	}
}

// decidedOutcomes is the heading above what decided some of the outcomes.
func decidedOutcomes(a *Answer, d *Decider) string {
	if len(a.Outcomes) == 1 {
		return "decided by"
	}
	var numbers []int
	for i := range a.Outcomes {
		if by := a.Outcomes[i].DecidedBy; by != nil && by.key() == d.key() {
			numbers = append(numbers, i+1)
		}
	}
	return outcomeNumbers(numbers) + " decided by"
}

func (t writer) decider(d *Decider) {
	t.line("  %s", d.Rule)
	tab := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	if d.Kind == "rule" {
		place(tab, d)
	}
	advice(tab, d)
	tab.Flush()
	if d.Policy != "" {
		t.section("or keep the source with unmasq, whatever rules there are (replies must then find their way to it): unmasq apply -f - <<EOF")
		fmt.Fprint(t, d.Policy)
		t.line("EOF")
	}
}

// place is where the rule stands, and whose it is.
func place(tab io.Writer, d *Decider) {
	place := fmt.Sprintf("%s %s, chain %s", d.Variant, d.Table, d.Chain)
	if d.native() {
		place = fmt.Sprintf("%s %s %s, chain %s", d.Variant, d.Family, d.Table, d.Chain)
	}
	if d.Index > 0 {
		place += fmt.Sprintf(", rule %d", d.Index)
	}
	if d.Handle > 0 {
		place += fmt.Sprintf(", handle %d", d.Handle)
	}
	if d.File != "" && d.Line > 0 {
		place += fmt.Sprintf(" (%s:%d)", d.File, d.Line)
	}
	fmt.Fprintf(tab, "  where\t%s\n", strings.TrimSpace(place))
	fmt.Fprintf(tab, "  owner\t%s\n", ownerWords(d))
}

// advice is why it decided, and how to change that.
func advice(tab io.Writer, d *Decider) {
	for i, why := range d.Why {
		fmt.Fprintf(tab, "  %s\t%s\n", first(i, "why"), why)
	}
	if d.MarkedBy != "" {
		fmt.Fprintf(tab, "  marked by\t%s\n", d.MarkedBy)
	}
	if d.Because != "" {
		fmt.Fprintf(tab, "  because\t%s\n", d.Because)
	}
	if d.Setting != "" {
		fmt.Fprintf(tab, "  setting\t%s\n", d.Setting)
	}
	for i, change := range d.Change {
		fmt.Fprintf(tab, "  %s\t%s\n", first(i, "change"), change)
	}
	if d.Trap != "" {
		fmt.Fprintf(tab, "  but\t%s\n", d.Trap)
	}
}

func first(i int, word string) string {
	if i == 0 {
		return word
	}
	return ""
}

func ownerWords(d *Decider) string {
	name := d.Owner
	if name == "unknown" {
		name = "unknown: a person or a script"
	}
	if d.OwnerVersion != "" {
		name += " (" + d.OwnerVersion + ")"
	}
	return name
}
