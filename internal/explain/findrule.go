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

// findRules finds the rule that is meant by [[FAMILY ]TABLE:]CHAIN:INDEX, by [[FAMILY]
// TABLE CHAIN] handle N, by its text, or by a part of its text that no other rule
// has: one rule, or the rules of that place in both variants, or on several nodes.
// Where the table isn't stated, iptables' nat is meant before its others.
func (e *Explainer) findRules(text string, f packet.Family) ([]sim.RuleRef, error) {
	words := plainText(text)
	for _, is := range []func(sim.RuleRef) bool{
		byPlace(text), byHandle(text),
		func(at sim.RuleRef) bool { return plainText(at.Rule.Text) == words },
		func(at sim.RuleRef) bool { return strings.Contains(plainText(at.Rule.Text), words) },
	} {
		if found := e.rulesWhere(f, is); len(found) > 0 {
			return onlyPlace(text, natFirst(found))
		}
	}
	return nil, fmt.Errorf("--rule %q: no such %s rule; expected CHAIN:INDEX as `iptables --line-numbers` counts, TABLE CHAIN handle N as `nft -a` shows it, or the rule's text", text, f)
}

// natFirst leaves iptables' rules of other tables out, where some of nat are meant.
func natFirst(found []sim.RuleRef) []sim.RuleRef {
	if !slices.ContainsFunc(found, func(at sim.RuleRef) bool { return at.Table.Native == nil && at.Table.Name == "nat" }) {
		return found
	}
	return slices.DeleteFunc(found, func(at sim.RuleRef) bool { return at.Table.Native == nil && at.Table.Name != "nat" })
}

// onlyPlace refuses rules of several places.
func onlyPlace(text string, found []sim.RuleRef) ([]sim.RuleRef, error) {
	for _, at := range found {
		if placeOf(at) != placeOf(found[0]) {
			return nil, fmt.Errorf("--rule %q: %d rules are meant, %s and %s among them; expected one of these", text, len(found), placeOf(found[0]), placeOf(at))
		}
	}
	return found, nil
}

// byPlace is a test for [[FAMILY ]TABLE:]CHAIN:INDEX.
func byPlace(text string) func(sim.RuleRef) bool {
	i := strings.LastIndexByte(text, ':')
	if i < 0 {
		return func(sim.RuleRef) bool { return false }
	}
	chain := text[:i]
	index, err := strconv.Atoi(text[i+1:])
	return func(at sim.RuleRef) bool {
		return err == nil && at.Rule.Index == index && (chain == at.Chain.Name || chain == at.Table.Name+":"+at.Chain.Name ||
			placeOf(at) == text)
	}
}

// byHandle is a test for [[FAMILY] TABLE CHAIN] handle N; what stands before it
// may also be the rule's text, as nft -a prints it: … # handle N.
func byHandle(text string) func(sim.RuleRef) bool {
	words := strings.Fields(strings.ReplaceAll(text, "#", " "))
	n := len(words)
	if n < 2 || words[n-2] != "handle" {
		return func(sim.RuleRef) bool { return false }
	}
	handle, err := strconv.ParseUint(words[n-1], 10, 64)
	place := strings.Join(words[:n-2], " ")
	return func(at sim.RuleRef) bool {
		if err != nil || at.Rule.Native == nil || at.Rule.Native.Handle != handle || handle == 0 {
			return false
		}
		chain := at.Table.Name + " " + at.Chain.Name
		return place == "" || place == chain || place == at.Table.Native.Family+" "+chain || place == at.Chain.Name || plainText(place) == plainText(at.Rule.Text)
	}
}

// plainText of a rule is without the numbers of its counters, which change.
func plainText(rule string) string {
	words := strings.Fields(rule)
	out := words[:0]
	for i := 0; i < len(words); i++ {
		if i+3 < len(words) && words[i] == "packets" && words[i+2] == "bytes" {
			i += 3
			continue
		}
		out = append(out, words[i])
	}
	return strings.Join(out, " ")
}

func placeOf(at sim.RuleRef) string {
	if n := at.Table.Native; n != nil {
		return fmt.Sprintf("%s %s:%s:%d", n.Family, n.Name, at.Chain.Name, at.Rule.Index)
	}
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
