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
	t.headline(a)
	seen := map[string]bool{}
	for i := range a.Outcomes {
		t.details(a, &a.Outcomes[i], i, seen)
	}
	t.dependencies(a)
	if len(a.Warnings) > 0 {
		t.section("warnings")
		for _, text := range a.Warnings {
			t.line("  %s", text)
		}
	}
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
		return
	}
	t.line("%s", t.bold(fmt.Sprintf("%s to %s: %d outcomes", t.address(a.Flow.Source, a.Flow.SourcePort), t.address(a.Flow.Destination, a.Flow.DestinationPort), len(a.Outcomes))))
	tab := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	for i := range a.Outcomes {
		o := &a.Outcomes[i]
		share := "depends"
		if o.Probability != nil {
			share = fmt.Sprintf("%.3g %%", 100**o.Probability)
		}
		fmt.Fprintf(tab, "%d\t%s\t%s\n", i+1, share, t.sentence(a, o))
	}
	tab.Flush()
}

// sentence says what one outcome is.
func (t writer) sentence(a *Answer, o *Outcome) string {
	for o.Next != nil && len(o.Next.Outcomes) == 1 {
		o = &o.Next.Outcomes[0] // what the last node does
	}
	by := ""
	if d := o.DecidedBy; d != nil && d.Owner != "" && d.Owner != "unknown" {
		by = ", by " + d.Owner
	}
	protocol := ""
	if o.Protocol != "" && o.Protocol != a.Flow.Protocol {
		protocol = o.Protocol + ": "
	}
	peer := t.address(o.Destination, o.DestinationPort)
	if o.ToNode {
		peer += " on the node itself"
	}
	switch o.Verdict {
	case "dropped":
		return protocol + "dropped" + by + t.dropped(o)
	case "rejected":
		return protocol + "rejected" + with(o.RejectWith) + by + t.dropped(o)
	case "unknown":
		return protocol + "it can't be said whether the packet gets to " + peer
	}
	source := t.address(a.Flow.Source, nil)
	switch {
	case o.SourceKind == "unknown":
		return protocol + "it can't be said as whom " + peer + " sees " + source
	case o.Source == nil:
		return protocol + peer + " sees an address of the node, not " + source + " (" + o.SourceKind + by + "); which one, the dump doesn't tell"
	case *o.Source == a.Flow.Source:
		return protocol + peer + " sees " + source + " itself (" + o.SourceKind + ")"
	}
	return protocol + peer + " sees " + t.address(*o.Source, nil) + ", not " + source + " (" + o.SourceKind + by + portWords(o) + ")"
}

func with(reject string) string {
	if reject == "" {
		return ""
	}
	return " with " + reject
}

func (t writer) dropped(o *Outcome) string {
	if d := o.DecidedBy; d != nil && d.Kind == "route" {
		return ": " + d.Rule
	}
	return ""
}

func portWords(o *Outcome) string {
	switch p := o.SourcePort.(type) {
	case [2]uint16:
		return fmt.Sprintf(", port %d-%d", p[0], p[1])
	case uint16:
		return fmt.Sprintf(", port %d", p)
	}
	return ""
}

// details of one outcome: its way and what decided. What an earlier outcome has
// said isn't repeated.
func (t writer) details(a *Answer, o *Outcome, i int, seen map[string]bool) {
	title := "path"
	if len(a.Outcomes) > 1 {
		title = fmt.Sprintf("path of outcome %d", i+1)
	}
	if len(o.Steps) > 0 && (i == 0 || t.Verbose || len(a.Outcomes) <= 4) {
		t.section(title)
		t.steps(o.Steps)
	}
	if d := o.DecidedBy; d != nil && !seen[d.Chain+d.Rule] {
		seen[d.Chain+d.Rule] = true
		t.decider(d)
	}
	if e := o.Encapsulated; e != nil {
		inner := Answer{Flow: e.Flow, Outcomes: e.Outcomes}
		t.section("in tunnel " + e.Interface)
		for j := range e.Outcomes {
			t.line("  outer packet: %s", t.sentence(&inner, &e.Outcomes[j]))
		}
	}
	if n := o.Next; n != nil {
		t.section("on node " + n.Node)
		next := Answer{Flow: n.Flow, Outcomes: n.Outcomes}
		for j := range n.Outcomes {
			t.line("  %s", t.sentence(&next, &n.Outcomes[j]))
			t.details(&next, &n.Outcomes[j], j, seen)
		}
	}
}

func (t writer) steps(steps []Step) {
	tab := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	for _, s := range steps {
		place := s.Chain
		if s.Table != "" {
			place = s.Table + " " + s.Chain
		}
		effect := s.Effect
		if s.Because != "" {
			effect += ": " + s.Because
		}
		fmt.Fprintf(tab, "  %s\t%s\t%s\t%s\n", s.Hook, place, s.Owner, effect)
		if t.Verbose && s.Rule != "" {
			tab.Flush()
			fmt.Fprintf(t, "      %s\n", s.Rule)
		}
	}
	tab.Flush()
}

func (t writer) decider(d *Decider) {
	t.section("decided by")
	t.line("  %s", d.Rule)
	if d.Kind != "rule" {
		return
	}
	tab := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	place := fmt.Sprintf("%s %s, chain %s", d.Variant, d.Table, d.Chain)
	if d.Index > 0 {
		place += fmt.Sprintf(", rule %d", d.Index)
	}
	if d.File != "" && d.Line > 0 {
		place += fmt.Sprintf(" (%s:%d)", d.File, d.Line)
	}
	fmt.Fprintf(tab, "  where\t%s\n", strings.TrimSpace(place))
	fmt.Fprintf(tab, "  owner\t%s\n", ownerWords(d))
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
	tab.Flush()
	if d.Policy != "" {
		t.section("or keep the source with unmasq, whatever " + d.Owner + " writes: unmasq apply -f - <<EOF")
		fmt.Fprint(t, d.Policy)
		t.line("EOF")
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

// dependencies lists what the answer depends on, once each, with the outcomes.
func (t writer) dependencies(a *Answer) {
	var all []Dependency
	of := map[Dependency][]string{}
	for i := range a.Outcomes {
		for _, d := range a.Outcomes[i].DependsOn {
			if !slices.Contains(all, d) {
				all = append(all, d)
			}
			of[d] = append(of[d], fmt.Sprint(i+1))
		}
	}
	if len(all) == 0 {
		return
	}
	t.section("depends on")
	tab := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	for _, d := range all {
		which := ""
		if len(a.Outcomes) > 1 && len(of[d]) < len(a.Outcomes) {
			which = " (outcome " + strings.Join(of[d], ", ") + ")"
		}
		fmt.Fprintf(tab, "  %s\t%s%s\n", d.What, d.Why, which)
	}
	tab.Flush()
}

// Text writes the ranges for people.
func (r *Ranges) Text(w io.Writer, o TextOptions) {
	t := writer{w, o}
	what := "packets from " + t.address(r.Flow.Source, nil) + " to " + r.Network
	if r.Rule != "" {
		what += " that meet rule " + r.Rule
	}
	if len(r.Ranges) == 0 {
		t.line("%s", t.bold("no "+what))
		return
	}
	t.line("%s", t.bold(what))
	tab := tabwriter.NewWriter(t, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tab, "DESTINATIONS\tSEES\tHOW\tBY")
	for i := range r.Ranges {
		span := r.Ranges[i].From.String()
		if r.Ranges[i].To != r.Ranges[i].From {
			span += "-" + r.Ranges[i].To.String()
		}
		if c := r.Ranges[i].CIDRs; len(c) == 1 {
			span = strings.TrimSuffix(strings.TrimSuffix(c[0], "/32"), "/128")
		}
		for j := range r.Ranges[i].Outcomes {
			o := &r.Ranges[i].Outcomes[j]
			fmt.Fprintf(tab, "%s\t%s\t%s\t%s\n", span, t.sees(o), o.how(), o.by())
			span = ""
		}
	}
	tab.Flush()
}

func (t writer) sees(o *Outcome) string {
	switch {
	case o.Verdict != "accepted":
		return "-"
	case o.Source == nil:
		return "?"
	}
	return t.address(*o.Source, nil)
}

func (o *Outcome) how() string {
	how := o.Verdict
	if o.Verdict == "accepted" {
		how = o.SourceKind
		if o.ToNode {
			how += ", on the node itself"
		}
	}
	if o.Probability == nil {
		return how + ", depends"
	}
	if *o.Probability < 1 {
		return fmt.Sprintf("%s, %.3g %%", how, 100**o.Probability)
	}
	return how
}

func (o *Outcome) by() string {
	d := o.DecidedBy
	switch {
	case d == nil:
		return ""
	case d.Kind != "rule":
		return d.Rule
	case d.Index == 0:
		return d.Chain + " policy"
	}
	return fmt.Sprintf("%s:%d (%s)", d.Chain, d.Index, d.Owner)
}
