package explain

import (
	"fmt"
	"io"
	"net/netip"
	"strings"
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
		what += " that meet rule " + r.Rule.Rule
	}
	if len(r.Ranges) == 0 {
		t.line("%s", t.bold("no "+what))
		return
	}
	t.line("%s", t.bold(what))
	t.table(func(row func(...string)) {
		row(strings.ToUpper(r.Side)+"S", "SEES", "HOW", "BY")
		for i := range r.Ranges {
			span := r.Ranges[i].span()
			for j := range r.Ranges[i].Outcomes {
				o := &r.Ranges[i].Outcomes[j]
				row(span, t.sees(o), o.how(r.Ranges[i].From), o.by())
				span = ""
			}
		}
	})
	t.warnings(r.Warnings)
}

func (r *Range) span() string {
	switch {
	case r.From == r.To:
		return r.From.String()
	case len(r.CIDRs) == 1:
		return r.CIDRs[0]
	}
	return r.From.String() + "-" + r.To.String()
}

func (t writer) sees(o *Outcome) string {
	last, changed := o.end()
	switch {
	case last.Verdict != "accepted":
		return "-"
	case len(changed.SourceRange) == 2:
		return fmt.Sprintf("one of %s-%s", changed.SourceRange[0], changed.SourceRange[1])
	case last.Source == nil:
		return "?"
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
