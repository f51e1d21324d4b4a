package sim

import (
	"fmt"

	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// state of an expression's value.
type state uint8

const (
	known state = iota
	// open: the dump or the question doesn't tell.
	open
	// broken: the packet has no such thing, and the rule doesn't match whatever is
	// compared (NFT_BREAK).
	broken
)

// subject is an expression that rules ask about, made fit to run.
type subject struct {
	value func(r *run) (nftables.Value, state)
	// within asks whether an open value lies in one of the ranges; nil where that
	// is assumed both ways. text names it for people, why says why it is open.
	within    func(r *run, set []nftables.Interval) bool
	text, why string
	// chance: dice with so many sides, the first of which is offset.
	chance, offset uint32
}

// in asks whether a subject whose value is open lies in one of the ranges.
func (s *subject) in(r *run, set []nftables.Interval) bool {
	if s.chance > 0 {
		return s.throw(r, set)
	}
	if s.within != nil {
		return s.within(r, set)
	}
	return r.assume(fmt.Sprintf("%s %x", s.text, set), s.text, s.why, true)
}

// throw throws the dice: how much of them the ranges cover is the probability.
func (s *subject) throw(r *run, set []nftables.Interval) bool {
	covered := uint64(0)
	for _, g := range set {
		covered += s.sides(g)
	}
	p := float64(covered) / float64(s.chance)
	switch {
	case covered == 0:
		return false
	case p >= 1:
		return true
	}
	return r.choose("", "dice", alternative{weight: p}, alternative{weight: 1 - p}) == 0
}

// sides of the dice that lie in a range.
func (s *subject) sides(g nftables.Interval) uint64 {
	first, last := max(number(g.First), s.offset), min(number(g.Last), s.offset+s.chance-1)
	if first > last {
		return 0
	}
	return uint64(last-first) + 1
}

func constant(v nftables.Value, s state) func(*run) (nftables.Value, state) {
	return func(*run) (nftables.Value, state) { return v, s }
}

func opened(e nftables.Expr, why string) subject {
	return subject{value: constant("", open), text: nftables.ExprText(e), why: why}
}

// subjects of an expression: one for each part of a concatenation.
func (t nativeTable) subjects(e nftables.Expr) []*subject {
	if c, ok := e.(nftables.Concat); ok {
		var all []*subject
		for _, part := range c.Parts {
			all = append(all, t.subject(part))
		}
		return all
	}
	return []*subject{t.subject(e)}
}

// subject of an expression. What only names a field of the packet is made once
// for all rules: thousands ask for the same few.
func (t nativeTable) subject(e nftables.Expr) *subject {
	switch e.(type) {
	case nftables.Meta, nftables.CT, nftables.Payload:
	default:
		return t.newSubject(e)
	}
	if made, ok := t.node.natives.Load(e); ok {
		return made.(*subject)
	}
	made, _ := t.node.natives.LoadOrStore(e, t.newSubject(e))
	return made.(*subject)
}

func (t nativeTable) newSubject(e nftables.Expr) *subject {
	var s subject
	switch e := e.(type) {
	case nftables.Meta:
		s = metaSubject(e)
	case nftables.CT:
		s = ctSubject(e)
	case nftables.Payload:
		s = payloadSubject(e)
	case nftables.FIB:
		s = fibSubject(e)
	case nftables.RT:
		s = rtSubject(e)
	case nftables.Numgen:
		s = subject{value: constant("", open), chance: e.Modulus, offset: e.Offset}
	case nftables.JHash:
		s = subject{value: constant("", open), chance: e.Modulus, offset: e.Offset}
	case nftables.SymHash:
		s = subject{value: constant("", open), chance: e.Modulus, offset: e.Offset}
	case nftables.Binary:
		s = t.binarySubject(e)
	case nftables.Lookup:
		s = t.lookupSubject(e)
	case nftables.UnknownExpr:
		s = opened(e, e.Why)
		if e.Why == "" {
			s.why = "not understood"
		}
	default:
		s = opened(e, "it isn't followed")
	}
	if s.text == "" {
		s.text = nftables.ExprText(e)
	}
	if s.why == "" {
		s.why = "it isn't in a dump"
	}
	return &s
}
