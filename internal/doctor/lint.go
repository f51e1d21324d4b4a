package doctor

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
)

// chains of iptables, with their tables.
func (p *patient) chains(visit func(*ruleset.Table, *ruleset.Chain)) {
	for _, t := range p.host.Rules.Tables {
		if t.Native != nil {
			continue
		}
		for _, c := range t.Chains {
			visit(t, c)
		}
	}
}

// longest chain that is compared rule by rule with itself: longer ones are sets of
// addresses that programs write.
const longest = 500

// neverMatches: a rule before it takes every packet that it asks for, and does
// something else with them.
func neverMatches(p *patient) []Finding {
	var all []Finding
	p.chains(func(t *ruleset.Table, c *ruleset.Chain) {
		if len(c.Rules) > longest {
			return
		}
		for j := range c.Rules {
			late := &c.Rules[j]
			if late.Target == nil || late.Counted && late.Packets > 0 {
				continue
			}
			i := slices.IndexFunc(c.Rules[:j], func(early ruleset.Rule) bool { return takesAll(&early, late) })
			if i < 0 || sameTarget(&c.Rules[i], late) {
				continue
			}
			early, at := sim.RuleRef{Table: t, Chain: c, Rule: &c.Rules[i]}, sim.RuleRef{Table: t, Chain: c, Rule: late}
			if by := p.ownerOf(at); by != owner.Unknown && by == p.ownerOf(early) {
				continue // its own affair
			}
			all = append(all, Finding{
				Summary:     fmt.Sprintf("rule %d of %s %s is never asked", late.Index, t.Name, c.Name),
				Evidence:    []string{p.place(early), p.place(at)},
				Consequence: fmt.Sprintf("Whoever wrote rule %d believes it to be in force; every packet that it asks for has left the chain at rule %d.", late.Index, c.Rules[i].Index),
				Mend:        []string{remove(at), fmt.Sprintf("# or, where it is meant to hold, before the other: %s -t %s -I %s %d %s", program(t), t.Name, c.Name, c.Rules[i].Index, specification(late))},
			})
		}
	})
	return all
}

// specification is the rule behind "-A CHAIN ".
func specification(rule *ruleset.Rule) string {
	_, rest, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(rule.Text), "-A "), " ")
	return rest
}

// takesAll: the early rule ends the chain for each packet that the late one asks
// for. A rule that needn't be in its own form (iptables -L) isn't judged.
func takesAll(early, late *ruleset.Rule) bool {
	return strings.HasPrefix(late.Text, "-A ") && !early.NoInterfaces && ends(early.Target) &&
		addressHolds(early.Source, late.Source) && addressHolds(early.Destination, late.Destination) &&
		interfaceHolds(early.In, late.In) && interfaceHolds(early.Out, late.Out) &&
		(early.Protocol == (ruleset.Protocol{}) || early.Protocol == late.Protocol) &&
		!slices.ContainsFunc(early.Matches, func(m ruleset.Match) bool { return uncertain(m) || !slices.ContainsFunc(late.Matches, same(m)) })
}

func same(m ruleset.Match) func(ruleset.Match) bool {
	return func(o ruleset.Match) bool { return reflect.DeepEqual(m, o) }
}

// uncertain matches don't say the same of a packet twice: marks are changed on the way.
func uncertain(m ruleset.Match) bool {
	switch m.(type) {
	case ruleset.Statistic, ruleset.Stateful, ruleset.Unknown, ruleset.Mark:
		return true
	}
	return false
}

// ends the chain for the packet, whatever comes.
func ends(t ruleset.Target) bool {
	switch t := t.(type) {
	case ruleset.Accept, ruleset.Drop, ruleset.Return, ruleset.Reject, ruleset.SNAT, ruleset.DNAT, ruleset.Redirect:
		return true
	case ruleset.Masquerade:
		return t.Ports == nil
	case ruleset.Jump:
		return t.Goto
	}
	return false
}

func addressHolds(early, late ruleset.Address) bool {
	switch {
	case early == (ruleset.Address{}), early == late:
		return true
	case early.Not || late.Not || !late.Prefix.IsValid():
		return false
	}
	return early.Prefix.Bits() <= late.Prefix.Bits() && early.Prefix.Masked().Contains(late.Prefix.Addr())
}

func interfaceHolds(early, late ruleset.Interface) bool {
	if early == (ruleset.Interface{}) || early == late {
		return true
	}
	return early.Wildcard && !early.Not && !late.Not && late.Name != "" && strings.HasPrefix(late.Name, early.Name)
}

// sameTarget: that it isn't asked changes nothing.
func sameTarget(a, b *ruleset.Rule) bool { return reflect.DeepEqual(a.Target, b.Target) }

// duplicates: the same rule, but for its comment, twice in a built-in chain, where the
// second does nothing that the first hasn't done. Components' own chains are theirs.
func duplicates(p *patient) []Finding {
	var all []Finding
	p.chains(func(t *ruleset.Table, c *ruleset.Chain) {
		var f Finding
		if c.Policy == "" {
			return
		}
		for j := range c.Rules {
			if len(c.Rules) > longest || !repeatable(&c.Rules[j]) {
				continue
			}
			i := slices.IndexFunc(c.Rules[:j], func(r ruleset.Rule) bool { return equal(&r, &c.Rules[j]) })
			if i < 0 {
				continue
			}
			at := sim.RuleRef{Table: t, Chain: c, Rule: &c.Rules[j]}
			f.Evidence = append(f.Evidence, p.place(sim.RuleRef{Table: t, Chain: c, Rule: &c.Rules[i]}), p.place(at))
			// The last first: numbers of those before it stay.
			f.Mend = append([]string{fmt.Sprintf("%s -t %s -D %s %d", program(t), t.Name, c.Name, c.Rules[j].Index)}, f.Mend...)
		}
		if f.Mend == nil {
			return
		}
		f.Summary = fmt.Sprintf("rules of %s %s stand there more than once: %d of them could go", t.Name, c.Name, len(f.Mend))
		f.Consequence = "Who takes such a rule away, by hand or at a program's end, leaves the other in force."
		all = append(all, f)
	})
	return all
}

// repeatable: rules of which the second does nothing.
func repeatable(r *ruleset.Rule) bool {
	if r.NoInterfaces || slices.ContainsFunc(r.Matches, uncertain) || r.Index == 0 || !strings.HasPrefix(r.Text, "-A ") {
		return false
	}
	_, jumps := r.Target.(ruleset.Jump)
	return ends(r.Target) || jumps
}

func equal(a, b *ruleset.Rule) bool {
	return a.Source == b.Source && a.Destination == b.Destination && a.In == b.In && a.Out == b.Out && a.Protocol == b.Protocol &&
		reflect.DeepEqual(a.Matches, b.Matches) && reflect.DeepEqual(a.Target, b.Target)
}

// leftovers of components: what they would have taken away themselves.
func leftovers(p *patient) []Finding {
	var all []Finding
	p.chains(func(t *ruleset.Table, c *ruleset.Chain) {
		switch {
		case strings.HasPrefix(c.Name, "OLD_CILIUM_"):
			all = append(all, p.oldChain(t, c, "Cilium renames its chains when it starts, and takes the old ones away when the new ones stand",
				"Until Cilium has written its rules again, whether packets meet the old ones or none is chance."))
		case t.Name == "nat" && c.Name == "IP-MASQ" && jumps(t, c.Name) != nil && jumps(t, "IP-MASQ-AGENT") != nil:
			all = append(all, p.oldChain(t, c, "GKE's nodes write it at boot where there is no ip-masq-agent, and never again",
				"What ip-masq-agent leaves untranslated IP-MASQ masquerades, or the other way round: the list in its configuration doesn't hold."))
		case t.Name == "nat" && p.host.Network.KnownLinks:
			for i := range c.Rules {
				at := sim.RuleRef{Table: t, Chain: c, Rule: &c.Rules[i]}
				out := c.Rules[i].Out
				if _, masquerades := c.Rules[i].Target.(ruleset.Masquerade); !masquerades || !out.Not || out.Wildcard || p.host.Network.Link(out.Name) != nil || p.ownerOf(at) != owner.Docker {
					continue
				}
				all = append(all, Finding{
					Summary:     fmt.Sprintf("docker's rule for bridge %s is there without the bridge", out.Name),
					Evidence:    []string{p.place(at), "no link is named " + out.Name},
					Consequence: fmt.Sprintf("Whoever has addresses of %s now is masqueraded, wherever the packets go.", c.Rules[i].Source.Prefix),
					Mend:        []string{remove(at)},
				})
			}
		}
	})
	return append(all, leftoverRules(p)...)
}

// jumps to a chain, nil where there are none.
func jumps(t *ruleset.Table, chain string) []sim.RuleRef {
	var all []sim.RuleRef
	for _, c := range t.Chains {
		for i := range c.Rules {
			if jump, ok := c.Rules[i].Target.(ruleset.Jump); ok && jump.Chain == chain {
				all = append(all, sim.RuleRef{Table: t, Chain: c, Rule: &c.Rules[i]})
			}
		}
	}
	return all
}

func (p *patient) oldChain(t *ruleset.Table, c *ruleset.Chain, why, consequence string) Finding {
	f := Finding{
		Summary:     fmt.Sprintf("chain %s of table %s is left over", c.Name, t.Name),
		Evidence:    []string{fmt.Sprintf("%s %s has chain %s with %d rules; %s", program(t), t.Name, c.Name, len(c.Rules), why)},
		Consequence: consequence,
	}
	for _, at := range jumps(t, c.Name) {
		f.Evidence = append(f.Evidence, p.place(at))
		f.Mend = append(f.Mend, remove(at))
	}
	f.Mend = append(f.Mend, fmt.Sprintf("%s -t %s -F %s", program(t), t.Name, c.Name), fmt.Sprintf("%s -t %s -X %s", program(t), t.Name, c.Name))
	return f
}

// twoVariants: both variants of iptables hold rules of one table.
func twoVariants(p *patient) []Finding {
	var all []Finding
	for _, legacy := range p.host.Rules.Tables {
		if legacy.Variant != ruleset.Legacy || legacy.Native != nil || countRules(legacy) == 0 {
			continue
		}
		i := slices.IndexFunc(p.host.Rules.Tables, func(t *ruleset.Table) bool {
			return t.Native == nil && t.Variant == ruleset.NFT && t.Family == legacy.Family && t.Name == legacy.Name && countRules(t) > 0
		})
		if i < 0 {
			continue
		}
		other := p.host.Rules.Tables[i]
		f := Finding{
			Summary: fmt.Sprintf("iptables-legacy and iptables-nft both hold rules of the %s table %s", legacy.Family, legacy.Name),
			Evidence: []string{
				fmt.Sprintf("%s %s: %d rules, such as %s", program(legacy), legacy.Name, countRules(legacy), firstRule(legacy)),
				fmt.Sprintf("%s %s: %d rules, such as %s", program(other), other.Name, countRules(other), firstRule(other)),
			},
			Consequence: "A packet meets both; iptables -S shows the rules of one, and which of the two translates is decided by which was loaded first.",
		}
		if shared := sharedChain(legacy, other); shared != "" {
			f.Evidence = append(f.Evidence, "chain "+shared+" is in both: its component has changed the variant, and left the old rules behind")
			f.Mend = append(f.Mend, "# where "+shared+" is written by iptables-legacy today, flush the nft variant instead")
		} else {
			f.Mend = append(f.Mend, fmt.Sprintf("%s-save -t %s | %s-restore --noflush", program(legacy), legacy.Name, program(other)))
		}
		f.Mend = append(f.Mend, fmt.Sprintf("%s -t %s -F", program(legacy), legacy.Name), fmt.Sprintf("%s -t %s -X", program(legacy), legacy.Name))
		all = append(all, f)
	}
	return all
}

func countRules(t *ruleset.Table) int {
	n := 0
	for _, c := range t.Chains {
		n += len(c.Rules)
	}
	return n
}

func firstRule(t *ruleset.Table) string {
	for _, c := range t.Chains {
		for i := range c.Rules {
			return strings.TrimSpace(c.Rules[i].Text)
		}
	}
	return ""
}

// sharedChain is a chain with rules, not a built-in one, that both tables have.
func sharedChain(a, b *ruleset.Table) string {
	for _, c := range a.Chains {
		if o := b.Chain(c.Name); c.Policy == "" && o != nil && len(c.Rules) > 0 && len(o.Rules) > 0 {
			return c.Name
		}
	}
	return ""
}
