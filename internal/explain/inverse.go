package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// mostSegments bounds an inverse question.
const mostSegments = 200_000

// Ranges is the answer to an inverse question: what becomes of packets to each
// part of a network. Fields are only ever added.
type Ranges struct {
	Version int    `json:"version"`
	Flow    Flow   `json:"flow"`
	Network string `json:"network"`
	// Rule asked for, empty where all of the network was.
	Rule     string   `json:"rule,omitempty"`
	Warnings []string `json:"warnings"`
	Ranges   []Range  `json:"ranges"`
}

// Range is a part of the network in which all destinations fare alike.
type Range struct {
	From     netip.Addr `json:"from"`
	To       netip.Addr `json:"to"`
	CIDRs    []string   `json:"cidrs"`
	Outcomes []Outcome  `json:"outcomes"`
}

// Inverse answers for every destination of a network: it asks for one address
// between any two that rules, sets or routes tell apart. Where rule isn't empty,
// only ranges in which that rule decides, or is on the way, are returned: it is
// CHAIN:INDEX, or the rule's text. q.Destination is ignored.
func (e *Explainer) Inverse(q sim.Question, network netip.Prefix, rule string) (Ranges, error) {
	network = network.Masked()
	q.Destination = network.Addr()
	out := Ranges{Version: 1, Flow: flow(q), Network: network.String(), Rule: rule, Warnings: append(e.warnings(), e.moving()...), Ranges: []Range{}}
	matches, err := e.findRule(rule)
	if err != nil {
		return out, err
	}
	whole := netipx.RangeOfPrefix(network)
	starts := e.starts(cidr.Range{First: whole.From(), Last: whole.To()})
	if len(starts) > mostSegments {
		return out, fmt.Errorf("rules, sets and routes part %s into %d ranges; at most %d are followed: ask for a smaller network", network, len(starts), mostSegments)
	}
	previous := ""
	for i, start := range starts {
		last := whole.To()
		if i+1 < len(starts) {
			last = starts[i+1].Prev()
		}
		q.Destination = start
		_, outcomes := e.run(q, sim.Options{})
		if rule != "" && !slices.ContainsFunc(outcomes, matches) {
			previous = ""
			continue
		}
		if key := kindOf(outcomes, start); key == previous && len(out.Ranges) > 0 {
			out.Ranges[len(out.Ranges)-1].extend(last, outcomes)
		} else {
			out.Ranges = append(out.Ranges, Range{From: start, To: start, Outcomes: e.outcomes(outcomes, q)})
			out.Ranges[len(out.Ranges)-1].extend(last, outcomes)
			previous = key
		}
	}
	for i := range out.Ranges {
		r := &out.Ranges[i]
		for _, p := range netipx.IPRangeFrom(r.From, r.To).Prefixes() {
			r.CIDRs = append(r.CIDRs, p.String())
		}
	}
	return out, nil
}

// extend takes the addresses up to last. Where a pool gives each destination one
// of its addresses, several destinations have no single source any more.
func (r *Range) extend(last netip.Addr, outcomes []sim.Outcome) {
	r.To = last
	if r.From == r.To {
		return
	}
	for i := range outcomes {
		if p, ok := poolOf(&outcomes[i]); ok {
			o := &r.Outcomes[i]
			o.Source, o.SourceRange = nil, []netip.Addr{p.First, p.Last}
		}
	}
}

// poolOf is the range that a rule took the source from, where the kernel picks
// one by a hash of the destination too.
func poolOf(o *sim.Outcome) (ruleset.NATRange, bool) {
	if o.SourceKind != sim.SNATed || o.DecidedBy == nil || o.DecidedBy.Rule == nil || o.DecidedBy.Rule.Rule == nil {
		return ruleset.NATRange{}, false
	}
	t, ok := o.DecidedBy.Rule.Rule.Target.(ruleset.SNAT)
	return t.NATRange, ok && t.First != t.Last && !t.Persistent
}

// moving warns of rules that send each destination to another address: a range
// can show where the first goes only.
func (e *Explainer) moving() []string {
	all := []string{}
	e.eachRule(func(t *ruleset.Table, c *ruleset.Chain, r *ruleset.Rule) {
		several := false
		switch target := r.Target.(type) {
		case ruleset.DNAT:
			several = target.First != target.Last
		case ruleset.NetMap:
			several = true
		}
		if several {
			all = append(all, fmt.Sprintf("%s:%d sends each destination to an address of its own; a range shows what becomes of its first: %s", c.Name, r.Index, strings.TrimSpace(r.Text)))
		}
	})
	return all
}

// eachRule of all nodes.
func (e *Explainer) eachRule(visit func(*ruleset.Table, *ruleset.Chain, *ruleset.Rule)) {
	for _, h := range e.hosts {
		for _, t := range h.Rules.Tables {
			for _, c := range t.Chains {
				for i := range c.Rules {
					visit(t, c, &c.Rules[i])
				}
			}
		}
	}
}

// Unknown says whether part of the answer is unknown.
func (r *Ranges) Unknown() bool {
	return slices.ContainsFunc(r.Ranges, func(part Range) bool { return anyUnknown(part.Outcomes) })
}

// kindOf is equal for outcomes that differ in the destination alone.
func kindOf(outcomes []sim.Outcome, destination netip.Addr) string {
	var b strings.Builder
	for i := range outcomes {
		o := &outcomes[i]
		to := o.Destination.String()
		if o.Destination == destination {
			to = "itself"
		}
		source := o.Source.String()
		if _, ok := poolOf(o); ok {
			source = "pool"
		}
		fmt.Fprintf(&b, "%g %s %d %s %s %v %s %d %s %t %v", o.Probability, o.Verdict, o.Protocol, source, o.SourceKind, o.SourcePort, to, o.DestinationPort, o.OutInterface, o.ToNode, o.NextHop)
		if d := o.DecidedBy; d != nil {
			fmt.Fprintf(&b, " %p %p %s", d.Route, d.Connection, d.Text)
			if d.Rule != nil {
				fmt.Fprintf(&b, " %p %p", d.Rule.Chain, d.Rule.Rule)
			}
		}
		if c := o.Encapsulated; c != nil {
			fmt.Fprintf(&b, " in %s %s (%s)", c.Interface, c.Question.Destination, kindOf(c.Outcomes, c.Question.Destination))
		}
		if n := o.Next; n != nil {
			fmt.Fprintf(&b, " to %s %s (%s)", n.Node, n.Question.InInterface, kindOf(n.Outcomes, destination))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// findRule is a test for outcomes that a rule is part of.
func (e *Explainer) findRule(text string) (func(sim.Outcome) bool, error) {
	if text == "" {
		return nil, nil
	}
	var wanted []*ruleset.Rule
	chain, number, _ := strings.Cut(text, ":")
	index, err := strconv.Atoi(number)
	byIndex := err == nil
	e.eachRule(func(_ *ruleset.Table, c *ruleset.Chain, r *ruleset.Rule) {
		if byIndex && c.Name == chain && r.Index == index || strings.Contains(r.Text, text) {
			wanted = append(wanted, r)
		}
	})
	if len(wanted) == 0 {
		return nil, fmt.Errorf("--rule %q: no such rule; expected CHAIN:INDEX as `iptables --line-numbers` counts, or a part of its text", text)
	}
	return func(o sim.Outcome) bool { return passes(&o, wanted) }, nil
}

// passes says whether one of the rules is on the way, on whichever node.
func passes(o *sim.Outcome, wanted []*ruleset.Rule) bool {
	onWay := func(s sim.Step) bool { return s.Matched && s.At.Rule != nil && slices.Contains(wanted, s.At.Rule) }
	return slices.ContainsFunc(o.Steps, onWay) ||
		o.Next != nil && slices.ContainsFunc(o.Next.Outcomes, func(next sim.Outcome) bool { return passes(&next, wanted) })
}

// starts are the first addresses of the segments of a network within which no
// rule, set, route, address or connection tells destinations apart.
func (e *Explainer) starts(within cidr.Range) []netip.Addr {
	all := []netip.Addr{within.First}
	add := func(r cidr.Range) {
		if within.Contains(r.First) {
			all = append(all, r.First)
		}
		if next := r.Last.Next(); next.IsValid() && within.Contains(next) {
			all = append(all, next)
		}
	}
	for _, h := range e.hosts {
		boundaries(h, within, add)
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

func boundaries(h *snapshot.Host, within cidr.Range, add func(cidr.Range)) {
	for _, r := range h.Network.Boundaries(packet.Of(within.First)) {
		add(r)
	}
	for _, set := range h.Sets {
		for dimension := range 3 {
			for _, r := range set.Addresses(dimension) {
				add(r)
			}
		}
	}
	for _, t := range h.Rules.Tables {
		for _, c := range t.Chains {
			for i := range c.Rules {
				ruleBoundaries(&c.Rules[i], add)
			}
		}
	}
	for i := range h.Connections {
		add(cidr.FromAddr(h.Connections[i].Original.Destination))
		add(cidr.FromAddr(h.Connections[i].Reply.Source))
	}
	for _, v := range h.VirtualServers {
		if at, err := netip.ParseAddrPort(v.Address); err == nil {
			add(cidr.FromAddr(at.Addr()))
		}
	}
	for _, special := range []string{"127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32", "0.0.0.0/8", "::1/128", "ff00::/8", "fe80::/10"} {
		add(cidr.FromPrefix(netip.MustParsePrefix(special)))
	}
}

func ruleBoundaries(rule *ruleset.Rule, add func(cidr.Range)) {
	for _, a := range []ruleset.Address{rule.Destination, rule.Source} {
		if a.Prefix.IsValid() {
			add(cidr.FromPrefix(a.Prefix))
		}
	}
	for _, m := range rule.Matches {
		switch m := m.(type) {
		case ruleset.IPRange:
			add(cidr.Range{First: m.First, Last: m.Last})
		case ruleset.Conntrack:
			for _, a := range []ruleset.Address{m.OriginalDestination, m.ReplySource, m.OriginalSource, m.ReplyDestination} {
				if a.Prefix.IsValid() {
					add(cidr.FromPrefix(a.Prefix))
				}
			}
		}
	}
}
