package doctor

import (
	"slices"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// asksFor says whether a rule may take packets of established connections, and
// whether it asks for anything else.
func asksFor(r *ruleset.Rule) (established, others bool) {
	if r.Native != nil {
		return nativeAsks(r.Native)
	}
	others = r.Source != (ruleset.Address{}) || r.Destination != (ruleset.Address{}) || r.In != (ruleset.Interface{}) || r.Out != (ruleset.Interface{}) ||
		r.Protocol != (ruleset.Protocol{}) || r.NoInterfaces
	established = true
	for _, m := range r.Matches {
		switch m := m.(type) {
		case ruleset.Conntrack:
			if m.States != 0 && (m.States&ruleset.StateEstablished != 0) == m.NotStates {
				established = false
			}
			m.States, m.NotStates = 0, false
			others = others || m != (ruleset.Conntrack{})
		case ruleset.TCPFlags: // a connection's first packet
			established = false
		case ruleset.Always:
		default:
			others = true
		}
	}
	return established, others
}

// nativeAsks is the same of nft's rules.
func nativeAsks(r *nftables.Rule) (established, others bool) {
	established = true
	for _, s := range r.Statements {
		switch s := s.(type) {
		case nftables.Match:
			switch {
			case isState(s.Left):
				if names(s.Right, "established") == (s.Op == "!=") {
					established = false
				}
			case ofTCPFlags(s.Left):
				established = false
			default:
				others = true
			}
		case nftables.Stateful, nftables.XT, nftables.UnknownStatement, nftables.SetUpdate:
			others = true
		}
	}
	return established, others
}

func isState(e nftables.Expr) bool {
	c, ok := e.(nftables.CT)
	return ok && c.Key == "state"
}

func ofTCPFlags(e nftables.Expr) bool {
	if b, ok := e.(nftables.Binary); ok {
		e = b.Left
	}
	p, ok := e.(nftables.Payload)
	return ok && p.Protocol == "tcp" && p.Field == "flags"
}

// names says whether a word is the value, or one of its list or set.
func names(e nftables.Expr, word string) bool {
	switch e := e.(type) {
	case nftables.Literal:
		return e.Text == word
	case nftables.List:
		return slices.ContainsFunc(e.Values, func(v nftables.Expr) bool { return names(v, word) })
	case nftables.SetLiteral:
		return slices.ContainsFunc(e.Elements, func(v nftables.Element) bool { return names(v.Key, word) })
	}
	return false
}

// does is what a rule does with a packet in the end.
type does uint8

const (
	goesOn does = iota
	accepts
	refuses
	jumpsTo
)

// endOf a rule, and the chain that it jumps to.
func endOf(r *ruleset.Rule) (does, string) {
	if r.Native == nil {
		switch t := r.Target.(type) {
		case ruleset.Accept:
			return accepts, ""
		case ruleset.Drop, ruleset.Reject:
			return refuses, ""
		case ruleset.Jump:
			return jumpsTo, t.Chain
		}
		return goesOn, ""
	}
	for _, s := range r.Native.Statements {
		switch s := s.(type) {
		case nftables.Reject:
			return refuses, ""
		case nftables.Verdict:
			return ofVerdict(s)
		case nftables.VerdictMap:
			if m, ok := s.Map.(nftables.SetLiteral); ok && isState(s.Key) {
				return ofEstablished(m)
			}
		}
	}
	return goesOn, ""
}

func ofVerdict(v nftables.Verdict) (does, string) {
	switch v.Kind {
	case nftables.Accept:
		return accepts, ""
	case nftables.Drop:
		return refuses, ""
	case nftables.Jump, nftables.Goto:
		return jumpsTo, v.Chain
	}
	return goesOn, ""
}

// ofEstablished: ct state vmap { established : accept, invalid : drop }
func ofEstablished(m nftables.SetLiteral) (does, string) {
	for i := range m.Elements {
		if v, ok := m.Elements[i].Data.(nftables.VerdictValue); ok && names(m.Elements[i].Key, "established") {
			return ofVerdict(v.Verdict)
		}
	}
	return goesOn, ""
}
