package sim

import (
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// effects of a table, as far as they matter to the order of chains.
type effects struct {
	// marks: it changes something that other chains can ask for.
	marks          bool
	drops, rejects bool
}

func effectsOf(t *ruleset.Table) (e effects) {
	for _, c := range t.Chains {
		e.drops = e.drops || c.Policy == "DROP"
		for i := range c.Rules {
			if n := c.Rules[i].Native; n != nil {
				e.addNative(n.Statements)
			} else {
				e.add(c.Rules[i].Target)
			}
		}
	}
	return e
}

func (e *effects) add(target ruleset.Target) {
	switch target.(type) {
	case ruleset.SetMark, ruleset.ConnMark, ruleset.NoTrack, ruleset.UnknownTarget:
		e.marks = true
	case ruleset.Drop:
		e.drops = true
	case ruleset.Reject:
		e.rejects = true
	}
}

func (e *effects) addNative(statements []nftables.Statement) {
	for _, s := range statements {
		switch s := s.(type) {
		case nftables.Assign, nftables.NoTrack, nftables.UnknownStatement, nftables.XT:
			e.marks = true
		case nftables.Reject:
			e.rejects = true
		case nftables.Verdict:
			e.drops = e.drops || s.Kind == nftables.Drop || s.Kind == nftables.Queue
		case nftables.VerdictMap:
			e.drops = true // one of its elements may
		}
	}
}
