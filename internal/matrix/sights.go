package matrix

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/sim"
)

// mostOutcomes of a question are looked at: one for each backend, and what is open.
const mostOutcomes = 4096

// journey is one way that a connection's first packet takes, over all nodes.
type journey struct {
	w *world
	q sim.Question
	// share of the connections; 0 where it depends on something.
	share     float64
	verdict   Verdict
	by        *By
	dependsOn []string
	// holders are the nodes that translated something, in their order, whose connection tracking the
	// answer must meet.
	holders []holder
	// node that it has come to, which has it as flow.
	node     string
	source   netip.Addr
	to       netip.Addr
	unknowns bool
}

// sights are what comes about of a question, likeliest first. Of [Hairpin] only what
// comes back to its source.
func (w *world) sights(q sim.Question, c *Column) []Sight {
	outcomes := w.explain.Outcomes(q, sim.Options{}, mostOutcomes, func(*sim.Outcome) bool { return false })
	j := journey{w: w, q: q, share: 1, verdict: Kept, node: q.At, source: q.Source, to: q.Destination}
	var all []Sight
	for i := range outcomes {
		if c.Role == Hairpin && outcomes[i].Destination != q.Source {
			continue
		}
		all = append(all, j.on(&outcomes[i])...)
	}
	if c.Role == Hairpin {
		wholly(all)
	}
	return joined(all)
}

// wholly makes the shares those of the sights among themselves.
func wholly(all []Sight) {
	sum := 0.0
	for _, s := range all {
		if s.Share == nil {
			return
		}
		sum += *s.Share
	}
	for i := range all {
		share := *all[i].Share / sum
		all[i].Share = &share
	}
}

// on goes on with an outcome of the node that the packet is at.
func (j journey) on(o *explain.Outcome) []Sight {
	if o.Probability == nil {
		j.share = 0
	} else {
		j.share *= *o.Probability
	}
	j.dependsOn = slices.Clone(j.dependsOn)
	for _, d := range o.DependsOn {
		if text := d.What + ": " + d.Why; !slices.Contains(j.dependsOn, text) {
			j.dependsOn = append(j.dependsOn, text)
		}
	}
	if o.Verdict != "accepted" {
		return []Sight{j.stopped(o)}
	}
	j.translate(o)
	if e := o.Encapsulated; e != nil && allStopped(e.Outcomes) {
		s := j.stopped(&e.Outcomes[0])
		s.Why = "the outer packet of " + e.Interface + ": " + s.Why
		return []Sight{s}
	}
	if o.Next == nil {
		return []Sight{j.arrived(o)}
	}
	var all []Sight
	for i := range o.Next.Outcomes {
		next := j
		next.node = o.Next.Node
		all = append(all, next.on(&o.Next.Outcomes[i])...)
	}
	return all
}

// translate takes over what the node did to the packet.
func (j *journey) translate(o *explain.Outcome) {
	changed := o.Destination != j.to
	j.to = o.Destination
	switch o.SourceKind {
	case "masqueraded", "snat":
		changed = true
		j.verdict, j.by = Verdict(o.SourceKind), j.decidedBy(o.DecidedBy)
	case "pinned":
		if j.verdict == Kept {
			j.verdict, j.by = Pinned, j.decidedBy(o.DecidedBy)
		}
	case "unknown":
		j.unknowns = true
	}
	before := j.source
	j.source = netip.Addr{}
	if o.Source != nil {
		j.source = *o.Source
	}
	if changed && !slices.ContainsFunc(j.holders, func(h holder) bool { return h.node == j.node }) {
		j.holders = append(slices.Clone(j.holders), holder{j.node, before})
	}
}

func allStopped(outcomes []explain.Outcome) bool {
	return len(outcomes) > 0 && !slices.ContainsFunc(outcomes, func(o explain.Outcome) bool { return o.Verdict != "dropped" && o.Verdict != "rejected" })
}

// stopped is a packet that doesn't arrive.
func (j *journey) stopped(o *explain.Outcome) Sight {
	s := j.sight(Lost)
	s.Source, s.As, s.By = netip.Addr{}, "", j.decidedBy(o.DecidedBy)
	switch o.Verdict {
	case "dropped":
		s.Why = "dropped on " + j.node
	case "rejected":
		s.Verdict, s.Why = Refused, "refused on "+j.node
	default:
		s.Verdict, s.Why = Unknown, "what isn't known could drop it on "+j.node
	}
	if d := o.DecidedBy; d != nil && d.Kind == "route" {
		s.Why += ": " + d.Rule
	}
	return s
}

// arrived is a packet that came to the server; whether the answer comes back is asked.
func (j *journey) arrived(o *explain.Outcome) Sight {
	s := j.sight(j.verdict)
	s.At = netip.AddrPortFrom(o.Destination, uint16(max(destinationPort(o), 0)))
	s.AtName = j.w.called(o.Destination, netip.Addr{})
	if j.unknowns {
		s.Verdict, s.Why = Unknown, "what isn't known could translate it"
		return s
	}
	if why, lost := j.answerLost(o); lost {
		s.Verdict, s.Why = Lost, why
	} else if why != "" {
		s.DependsOn = append(s.DependsOn, why)
	}
	return s
}

func destinationPort(o *explain.Outcome) int {
	if o.DestinationPort == nil {
		return 0
	}
	return *o.DestinationPort
}

func (j *journey) sight(v Verdict) Sight {
	s := Sight{Verdict: v, Source: j.source, By: j.by, DependsOn: j.dependsOn, As: j.w.called(j.source, j.q.Source)}
	if j.share > 0 {
		share := j.share
		s.Share = &share
	}
	return s
}

// decidedBy as a matrix tells it.
func (j *journey) decidedBy(d *explain.Decider) *By {
	if d == nil {
		return nil
	}
	by := &By{Node: j.node, Owner: d.Owner, Rule: d.Rule, File: d.File, Line: d.Line, Because: d.Because}
	switch {
	case d.Kind != "rule":
		by.Place = d.Kind
	case d.Handle != 0:
		by.Place = fmt.Sprintf("nft %s %s %s handle %d", d.Family, d.Table, d.Chain, d.Handle)
	case d.Variant == "nftables":
		by.Place = fmt.Sprintf("nft %s %s %s rule %d", d.Family, d.Table, d.Chain, d.Index)
	case d.Index == 0:
		by.Place = fmt.Sprintf("%s %s policy", d.Table, d.Chain)
	default:
		by.Place = fmt.Sprintf("%s %s rule %d", d.Table, d.Chain, d.Index)
	}
	if by.Owner == owner.Unknown {
		by.Owner = ""
	}
	return by
}

// joined are the sights as a person tells them apart: those that read the same are
// one, with the sum of their shares.
func joined(all []Sight) []Sight {
	var out []Sight
	at := map[string]int{}
	for _, s := range all {
		key := s.key()
		i, known := at[key]
		if !known {
			at[key] = len(out)
			out = append(out, s)
			continue
		}
		out[i].join(&s)
	}
	slices.SortStableFunc(out, func(a, b Sight) int { return cmp.Compare(b.share(), a.share()) })
	return out
}

// key tells sights apart.
func (s *Sight) key() string {
	by, as := "", s.As
	if s.By != nil {
		by = s.By.Node + s.By.Place
	}
	if as == "" {
		as = s.Source.String()
	}
	return fmt.Sprint(s.Verdict, as, by, s.Why, strings.Join(s.DependsOn, "\n"))
}

func (s *Sight) join(o *Sight) {
	if s.At != o.At {
		s.At, s.AtName = netip.AddrPort{}, ""
	}
	if s.Share == nil || o.Share == nil {
		s.Share = nil
		return
	}
	sum := *s.Share + *o.Share
	s.Share = &sum
}

// share to sort by.
func (s *Sight) share() float64 {
	if s.Share == nil {
		return 0
	}
	return *s.Share
}
