package explain

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"
)

// Text writes the ranges for people.
func (r *Ranges) Text(w io.Writer, o TextOptions) {
	t := writer{w, o}
	source, destination := t.address(r.Flow.Source, nil), t.address(r.Flow.Destination, nil)
	if r.Side == "source" {
		source = r.Network
	} else {
		destination = r.Network
	}
	what := "packets from " + source + " to " + destination
	if r.Rule != nil {
		what += " that meet rule "
		if r.Rule.native() { // its text doesn't name the chain
			what += fmt.Sprintf("%d of chain %s: ", r.Rule.Index, r.Rule.Chain)
		}
		what += r.Rule.Rule
	}
	if len(r.Ranges) == 0 {
		what = "no " + what
	}
	t.line("%s", t.bold(what))
	if len(r.Ranges) > 0 {
		t.table(func(row func(...string)) {
			row(strings.ToUpper(r.Side)+"S", "SEES", "HOW", "BY")
			t.ranges(r, row)
		})
	}
	t.rangeDependencies(r)
	t.warnings(r.Warnings)
}

// ranges writes a row for each outcome. Neighbours that fare alike but for the
// interface or next hop are one.
func (t writer) ranges(r *Ranges, row func(...string)) {
	for i := 0; i < len(r.Ranges); {
		rows := t.outcomes(r, &r.Ranges[i])
		span, j := r.Ranges[i].span(), i+1
		for j < len(r.Ranges) && r.Ranges[j].From == r.Ranges[j-1].To.Next() && slices.EqualFunc(rows, t.outcomes(r, &r.Ranges[j]), slices.Equal) {
			span = spanText(r.Ranges[i].From, r.Ranges[j].To)
			j++
		}
		for _, cells := range rows {
			row(append([]string{span}, cells...)...)
			span = ""
		}
		i = j
	}
}

// outcomes of a range, in cells.
func (t writer) outcomes(all *Ranges, r *Range) [][]string {
	own, to := netip.Addr{}, r.From
	if all.Side == "source" {
		own, to = r.From, all.Flow.Destination
	}
	rows := make([][]string, len(r.Outcomes))
	for i := range r.Outcomes {
		o := &r.Outcomes[i]
		rows[i] = []string{t.sees(o, own), o.how(to), o.by()}
	}
	return rows
}

func (t writer) rangeDependencies(r *Ranges) {
	var all []Dependency
	for i := range r.Ranges {
		for j := range r.Ranges[i].Outcomes {
			for _, d := range r.Ranges[i].Outcomes[j].dependencies("") {
				if !slices.Contains(all, d) {
					all = append(all, d)
				}
			}
		}
	}
	if len(all) == 0 {
		return
	}
	t.section("depends on")
	t.table(func(row func(...string)) {
		for _, d := range all[:min(len(all), mostOutcomes)] {
			row("  "+d.What, d.Why)
		}
	})
	if more := len(all) - mostOutcomes; more > 0 {
		t.line("  … and %d more (-o json has all)", more)
	}
}

func (r *Range) span() string { return spanText(r.From, r.To) }

func spanText(from, to netip.Addr) string {
	if from == to {
		return from.String()
	}
	if p, ok := netipx.IPRangeFrom(from, to).Prefix(); ok {
		return p.String()
	}
	return from.String() + "-" + to.String()
}

// sees is the address that the peer sees; own is the packet's, where that differs
// within the range.
func (t writer) sees(o *Outcome, own netip.Addr) string {
	last, changed := o.end()
	switch {
	case last.Verdict != "accepted":
		return "-"
	case len(changed.SourceRange) == 2:
		return fmt.Sprintf("one of %s-%s", changed.SourceRange[0], changed.SourceRange[1])
	case last.Source == nil:
		return "?"
	case own.IsValid() && *last.Source == own:
		return "the source itself"
	}
	return t.address(*last.Source, nil)
}

// how the packet to a destination fares.
func (o *Outcome) how(to netip.Addr) string {
	last, changed := o.end()
	how := last.Verdict
	if last.Verdict == "accepted" {
		how = changed.SourceKind
		if last.ToNode {
			how += ", on the node itself"
		} else if last.Destination != to {
			how += ", at " + last.peer()
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

func (o *Outcome) peer() string {
	if o.DestinationPort == nil {
		return o.Destination.String()
	}
	return netip.AddrPortFrom(o.Destination, uint16(*o.DestinationPort)).String()
}

func (o *Outcome) by() string {
	last, changed := o.end()
	if last.Verdict != "accepted" {
		changed = last
	}
	d := changed.DecidedBy
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
