package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
)

// generalise makes what is true of one address true of all that fare alike:
// addresses that a hash picks, and sentences that name the one.
func (a *asker) generalise(o *sim.Outcome, address netip.Addr) {
	o.DependsOn = slices.Clone(o.DependsOn)
	for i := range o.DependsOn {
		d := &o.DependsOn[i]
		d.Why, d.If = replaceAddress(d.Why, address, "the "+a.side()), replaceAddress(d.If, address, "the "+a.side())
	}
	if d := o.DecidedBy; d != nil && d.Text != "" {
		general := *d
		general.Text = replaceAddress(d.Text, address, "the "+a.side())
		o.DecidedBy = &general
	}
	o.Steps = slices.Clone(o.Steps)
	for i := range o.Steps {
		s := &o.Steps[i]
		if s.At.Rule == nil || !s.Matched {
			continue
		}
		switch t := translation(s).(type) {
		case ruleset.SNAT:
			if a.hashed(t.NATRange, t.NATFlags) && strings.HasPrefix(s.Effect, "snat to ") && o.Source != a.at(address).Source {
				s.Effect = "snat to " + rangeText(t.NATRange)
				o.Source, o.Next = netip.Addr{}, nil
			}
		case ruleset.DNAT:
			if a.hashed(t.NATRange, t.NATFlags) {
				a.anyTarget(o, t)
				return
			}
		}
	}
}

// anyTarget: each address is sent to another target, which the rest of the way
// may depend on.
func (a *asker) anyTarget(o *sim.Outcome, t ruleset.DNAT) {
	*o = sim.Outcome{
		Verdict: sim.VerdictUnknown, SourceKind: sim.SourceUnknown, Destination: t.First, DestinationPort: sim.UnknownPort,
		DependsOn: append(o.DependsOn, sim.Dependency{
			What: "destination", Why: "a hash of source and destination picks one of " + rangeText(t.NATRange) + "; ask for one address",
		}),
	}
}

// pool is the first and last of the addresses that the source is one of, where
// it differs from address to address; else nil.
func pool(o *sim.Outcome) []netip.Addr {
	if o.Source.IsValid() || o.SourceKind != sim.SNATed || o.DecidedBy == nil || o.DecidedBy.Rule == nil || o.DecidedBy.Rule.Rule == nil {
		return nil
	}
	for i := range o.Steps {
		if t, ok := translation(&o.Steps[i]).(ruleset.SNAT); ok && o.Steps[i].At == *o.DecidedBy.Rule {
			return []netip.Addr{t.First, t.Last}
		}
	}
	return nil
}

// translation is what a step's rule does, a native one's with its maps looked up.
func translation(s *sim.Step) ruleset.Target {
	switch {
	case s.Translation != nil:
		return s.Translation
	case s.At.Rule == nil:
		return nil
	}
	return s.At.Rule.Target
}

// hashed says whether the addresses asked about pick one of the range.
func (a *asker) hashed(r ruleset.NATRange, flags ruleset.NATFlags) bool {
	return r.First.IsValid() && r.First != r.Last && a.network.Bits() < a.network.Addr().BitLen() && (a.source || !flags.Persistent)
}

func rangeText(r ruleset.NATRange) string { return r.First.String() + "-" + r.Last.String() }

// replaceAddress replaces whole addresses: 10.0.0.0 isn't in 10.0.0.0/8.
func replaceAddress(text string, address netip.Addr, by string) string {
	old := address.String()
	var b strings.Builder
	for {
		i := strings.Index(text, old)
		if i < 0 {
			b.WriteString(text)
			return b.String()
		}
		end := i + len(old)
		b.WriteString(text[:i])
		if i > 0 && inAddress(text[i-1]) || end < len(text) && (inAddress(text[end]) || text[end] == '/') && !endsSentence(text[end:]) {
			b.WriteString(old)
		} else {
			b.WriteString(by)
		}
		text = text[end:]
	}
}

func inAddress(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || c == ':' || c == '.'
}

// endsSentence: a dot or colon that no digit follows is no part of an address.
func endsSentence(rest string) bool {
	return (rest[0] == '.' || rest[0] == ':') && (len(rest) == 1 || rest[1] == ' ')
}

// keyOf is equal for outcomes that differ only in what goes with the packet's
// own addresses.
func keyOf(outcomes []sim.Outcome, q *sim.Question) string {
	var b strings.Builder
	for i := range outcomes {
		o := &outcomes[i]
		fmt.Fprintf(&b, "%.6g %s %s %s %v %s %d %d %s %s %t %s\n", o.Probability, o.Verdict,
			relative(o.Source, q.Source, o, true), o.SourceKind, o.SourcePort,
			relative(o.Destination, q.Destination, o, false), o.DestinationPort, o.Protocol, o.OutInterface, o.NextHop, o.ToNode, o.RejectWith)
		if d := o.DecidedBy; d != nil {
			fmt.Fprintf(&b, "by %p %p %s", d.Route, d.Connection, replaceAddress(d.Text, q.Destination, ""))
			if d.Rule != nil {
				fmt.Fprintf(&b, " %p %p", d.Rule.Chain, d.Rule.Rule)
			}
		}
		for _, d := range o.DependsOn {
			fmt.Fprintf(&b, " %s: %s\n", d.What, d.Text())
		}
		if t := o.Encapsulated; t != nil {
			fmt.Fprintf(&b, "in %s %v {%s}\n", t.Interface, t.Question, keyOf(t.Outcomes, &sim.Question{}))
		}
		if n := o.Next; n != nil {
			fmt.Fprintf(&b, "on %s {%s}\n", n.Node, keyOf(n.Outcomes, &n.Question))
		}
	}
	return b.String()
}

// relative says what an address of an outcome has to do with the packet's own.
func relative(a, own netip.Addr, o *sim.Outcome, source bool) string {
	if a == own {
		return "itself"
	}
	for _, s := range o.Steps {
		if s.At.Rule == nil || !s.Matched {
			continue
		}
		t, ok := translation(&s).(ruleset.NetMap)
		if behind := s.Hook == "postrouting" || s.Hook == "input"; ok && behind == source {
			return "in " + t.To.String()
		}
	}
	return a.String()
}
