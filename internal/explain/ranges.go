package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
)

// mostSegments bounds a question about a network.
const mostSegments = 100_000

// Ranges is the answer about a network: what becomes of packets to, or from,
// each part of it. Fields are only ever added.
type Ranges struct {
	Version int  `json:"version"`
	Flow    Flow `json:"flow"`
	// Network whose addresses are asked about; Side says which end of the flow
	// they are: source or destination.
	Network string `json:"network"`
	Side    string `json:"side"`
	// Rule asked for: only parts of the network that it meets are in Ranges.
	Rule     *Decider `json:"rule,omitempty"`
	Warnings []string `json:"warnings"`
	Ranges   []Range  `json:"ranges"`
}

// Range is a part of the network in which all addresses fare alike. Where an
// outcome has addresses that go with the packet's, they are those of From.
type Range struct {
	From     netip.Addr `json:"from"`
	To       netip.Addr `json:"to"`
	CIDRs    []string   `json:"cidrs"`
	Outcomes []Outcome  `json:"outcomes"`
}

// Ranges answers for every source or destination of a network: it asks for one
// address between any two that rules, sets, routes or connections tell apart.
// Where rule isn't empty, only ranges that the rule meets are returned:
// [TABLE:]CHAIN:INDEX, or the rule's text.
func (e *Explainer) Ranges(q Asked, rule string) (Ranges, error) {
	a := &asker{e: e, q: q.Question, source: q.Sources.IsValid(), network: q.Destinations}
	if a.source {
		a.network = q.Sources
	} else if !a.network.IsValid() {
		a.network = netip.PrefixFrom(q.Destination, q.Destination.BitLen())
	}
	out := Ranges{
		Version: 1, Flow: flow(q.Question), Network: a.network.String(), Side: a.side(), Warnings: e.Warnings(), Ranges: []Range{},
	}
	if rule != "" {
		refs, err := e.findRules(rule, q.Family())
		if err != nil {
			return out, err
		}
		a.wanted = refs
		out.Rule = e.ruleDecider(refs[0])
	}
	if err := a.run(); err != nil {
		return out, err
	}
	for i := range a.found {
		out.Ranges = append(out.Ranges, a.found[i].answer(e))
	}
	if len(a.left) > 0 {
		out.Warnings = append(out.Warnings, fmt.Sprintf("left out: %s: no interface sends from, and no packet goes to, such an address", strings.Join(a.left, ", ")))
	}
	return out, nil
}

// Unknown says whether part of the answer is unknown.
func (r *Ranges) Unknown() bool {
	return slices.ContainsFunc(r.Ranges, func(x Range) bool { return anyUnknown(x.Outcomes) })
}

// asker asks about one address after the other.
type asker struct {
	e       *Explainer
	q       sim.Question
	source  bool
	network netip.Prefix
	wanted  []sim.RuleRef
	found   []part
	// left are networks that no packet has.
	left  []string
	asked int
}

// part of the network in which all fare alike, with the outcomes of its first address.
type part struct {
	cidr.Range
	key string
	q   sim.Question
	// outcomes of the first address, and what of them holds for all.
	outcomes, alike []sim.Outcome
}

func (a *asker) side() string {
	if a.source {
		return "source"
	}
	return "destination"
}

func (a *asker) run() error {
	within := cidr.FromPrefix(a.network)
	starts, err := a.e.starts(within)
	if err != nil {
		return err
	}
	for i, start := range starts {
		last := within.Last
		if i+1 < len(starts) {
			last = starts[i+1].Prev()
		}
		if err := a.segment(cidr.Range{First: start, Last: last}); err != nil {
			return err
		}
	}
	return nil
}

// segment asks for its ends. They fare alike, unless something tells addresses
// apart that starts doesn't know: then it is halved.
func (a *asker) segment(r cidr.Range) error {
	if a.impossible(r) {
		return nil
	}
	if a.asked++; a.asked > 4*mostSegments {
		return tooMany(a.network)
	}
	first := a.ask(r)
	if r.First == r.Last {
		a.add(first)
		return nil
	}
	if a.ask(cidr.Range{First: r.Last, Last: r.Last}).key == first.key {
		a.add(first)
		return nil
	}
	middle := halfway(r.First, r.Last)
	if err := a.segment(cidr.Range{First: r.First, Last: middle}); err != nil {
		return err
	}
	return a.segment(cidr.Range{First: middle.Next(), Last: r.Last})
}

func tooMany(network netip.Prefix) error {
	return fmt.Errorf("rules, sets and routes part %s into more than %d ranges; ask for a smaller network", network, mostSegments)
}

// impossible leaves out addresses that no packet can have.
func (a *asker) impossible(r cidr.Range) bool {
	q := a.at(r.First)
	if !q.Destination.IsUnspecified() && impossibleSource(&q) == "" {
		return false
	}
	for _, p := range netipx.IPRangeFrom(r.First, r.Last).Prefixes() {
		a.left = append(a.left, p.String())
	}
	return true
}

// at is the question with that address.
func (a *asker) at(address netip.Addr) sim.Question {
	q := a.q
	if a.source {
		q.Source = address
		q.Local = q.Local || address.IsLoopback() && q.InInterface == ""
	} else {
		q.Destination = address
	}
	return a.e.understood(q)
}

func (a *asker) ask(r cidr.Range) part {
	p := part{Range: r, q: a.at(r.First)}
	_, p.outcomes = a.e.run(p.q, sim.Options{})
	p.alike = slices.Clone(p.outcomes)
	for i := range p.alike {
		a.generalise(&p.alike[i], r.First)
	}
	p.key = keyOf(p.alike, &p.q)
	return p
}

// add joins a part with the one before it, where both fare alike.
func (a *asker) add(p part) {
	if len(a.wanted) > 0 && !slices.ContainsFunc(p.outcomes, a.meets) {
		return
	}
	if n := len(a.found); n > 0 && a.found[n-1].key == p.key && a.found[n-1].Last.Next() == p.First {
		a.found[n-1].Last = p.Last
		return
	}
	a.found = append(a.found, p)
}

// meets says whether a rule that was asked for is on the packet's way.
func (a *asker) meets(o sim.Outcome) bool {
	if d := o.DecidedBy; d != nil && d.Rule != nil && slices.Contains(a.wanted, *d.Rule) {
		return true
	}
	return slices.ContainsFunc(o.Steps, func(s sim.Step) bool { return s.Matched && slices.Contains(a.wanted, s.At) }) ||
		o.Next != nil && slices.ContainsFunc(o.Next.Outcomes, a.meets)
}

func (p *part) answer(e *Explainer) Range {
	of := p.alike
	if p.First == p.Last {
		of = p.outcomes
	}
	r := Range{From: p.First, To: p.Last, CIDRs: []string{}, Outcomes: e.outcomes(of, p.q)}
	for i := range of {
		r.Outcomes[i].SourceRange = pool(&of[i])
	}
	for _, c := range netipx.IPRangeFrom(p.First, p.Last).Prefixes() {
		r.CIDRs = append(r.CIDRs, c.String())
	}
	return r
}

// halfway between two addresses of a family, a before b.
func halfway(a, b netip.Addr) netip.Addr {
	x, y := a.As16(), b.As16()
	carry := 0
	var sum [17]int
	for i := 15; i >= 0; i-- {
		s := int(x[i]) + int(y[i]) + carry
		sum[i+1], carry = s&0xff, s>>8
	}
	sum[0] = carry
	var out [16]byte
	for i := range out {
		out[i] = byte(sum[i]<<7 | sum[i+1]>>1)
	}
	m := netip.AddrFrom16(out)
	if packet.Of(a) == packet.IPv4Family {
		return m.Unmap()
	}
	return m
}
