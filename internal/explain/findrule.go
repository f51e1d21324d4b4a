package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
)

// findRules finds the rule that is meant by [TABLE:]CHAIN:INDEX, by its text, or
// by a part of its text that no other rule has: one rule, or the rules of that
// place in both variants, or on several nodes. Where the table isn't stated, nat
// is meant before others.
func (e *Explainer) findRules(text string, f packet.Family) ([]sim.RuleRef, error) {
	found := e.rulesWhere(f, byPlace(text))
	for _, like := range []func(string) bool{
		func(rule string) bool { return rule == strings.Join(strings.Fields(text), " ") },
		func(rule string) bool { return strings.Contains(rule, strings.Join(strings.Fields(text), " ")) },
	} {
		if len(found) > 0 {
			break
		}
		found = e.rulesWhere(f, func(at sim.RuleRef) bool { return like(strings.Join(strings.Fields(at.Rule.Text), " ")) })
	}
	if nat := slices.DeleteFunc(slices.Clone(found), func(at sim.RuleRef) bool { return at.Table.Name != "nat" }); len(nat) > 0 {
		found = nat
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("--rule %q: no such %s rule; expected CHAIN:INDEX as `iptables --line-numbers` counts, or the rule's text", text, f)
	}
	for _, at := range found {
		if placeOf(at) != placeOf(found[0]) {
			return nil, fmt.Errorf("--rule %q: %d rules are meant, %s and %s among them; expected one of these", text, len(found), placeOf(found[0]), placeOf(at))
		}
	}
	return found, nil
}

// byPlace is a test for [TABLE:]CHAIN:INDEX.
func byPlace(text string) func(sim.RuleRef) bool {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return func(sim.RuleRef) bool { return false }
	}
	chain := text[:i]
	index, err := strconv.Atoi(text[i+1:])
	return func(at sim.RuleRef) bool {
		return err == nil && at.Rule.Index == index && (chain == at.Chain.Name || chain == at.Table.Name+":"+at.Chain.Name)
	}
}

func placeOf(at sim.RuleRef) string {
	return fmt.Sprintf("%s:%s:%d", at.Table.Name, at.Chain.Name, at.Rule.Index)
}

func (e *Explainer) rulesWhere(f packet.Family, is func(sim.RuleRef) bool) []sim.RuleRef {
	var found []sim.RuleRef
	for _, h := range e.hosts {
		for _, t := range h.Rules.Tables {
			for _, c := range t.Chains {
				found = append(found, rulesOf(t, c, f, is)...)
			}
		}
	}
	return found
}

func rulesOf(t *ruleset.Table, c *ruleset.Chain, f packet.Family, is func(sim.RuleRef) bool) []sim.RuleRef {
	var found []sim.RuleRef
	for i := range c.Rules {
		if at := (sim.RuleRef{Table: t, Chain: c, Rule: &c.Rules[i]}); t.Has(f) && is(at) {
			found = append(found, at)
		}
	}
	return found
}
