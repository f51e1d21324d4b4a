package doctor

import (
	"fmt"
	"regexp"
	"slices"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
)

// leftoverRules of those whose other rules tell that they are left over.
func leftoverRules(p *patient) []Finding {
	var all []Finding
	for _, t := range p.host.Rules.Tables {
		if t.Native != nil {
			continue
		}
		all = append(all, leftoverFlannel(p, t)...)
		for _, c := range t.Chains {
			all = append(all, danglingJump(p, t, c)...)
			all = append(all, oldJumps(p, t, c)...)
		}
	}
	return all
}

const flannelChain = "FLANNEL-POSTRTG"

// leftoverFlannel are rules of a mode that flannel isn't in: it takes its own way's
// rules away at its end, if it is let, and another way's never.
func leftoverFlannel(p *patient, t *ruleset.Table) []Finding {
	if t.Name != "nat" {
		return nil
	}
	chain := t.Chain(flannelChain)
	written := chain != nil && len(chain.Rules) > 0 && jumps(t, flannelChain) != nil
	native := p.flannelTable(t.Family)
	var all []Finding
	if written && native != nil {
		all = append(all, p.bothFlannels(t, chain, native))
	}
	if old := p.oldFlannel(t); old != nil && (written || native != nil) {
		f := Finding{
			Summary:     fmt.Sprintf("%s has rules of an old flannel beside those of today's", program(t)),
			Consequence: "Networks and exceptions of the day on which they were written go on to count: flannel looks after its own chain or table alone.",
		}
		for _, at := range old {
			f.Evidence = append(f.Evidence, p.place(at))
		}
		f.Mend = removals(old)
		all = append(all, f)
	}
	return all
}

// flannelTable of flannel's nftables mode, nil without.
func (p *patient) flannelTable(f packet.Family) *nftables.Table {
	family, name := "ip", "flannel-ipv4"
	if f == packet.IPv6Family {
		family, name = "ip6", "flannel-ipv6"
	}
	for _, t := range p.host.Rules.Tables {
		if t.Native != nil && t.Native.Family == family && t.Name == name && slices.ContainsFunc(t.Native.Chains, func(c *nftables.Chain) bool { return len(c.Rules) > 0 }) {
			return t.Native
		}
	}
	return nil
}

// bothFlannels: which of the two flannel writes can't be told. In its iptables mode it
// puts its rules back within seconds, in its nftables mode never.
func (p *patient) bothFlannels(t *ruleset.Table, chain *ruleset.Chain, native *nftables.Table) Finding {
	f := Finding{
		Summary: fmt.Sprintf("flannel's rules for %s stand there in both of its modes", t.Family),
		Evidence: []string{
			fmt.Sprintf("%s %s has chain %s with %d rules", program(t), t.Name, chain.Name, len(chain.Rules)),
			fmt.Sprintf("nft has table %s %s", native.Family, native.Name),
		},
		Consequence: "The mode that flannel has left goes on to translate by the networks and exceptions of that day, whatever its configuration says now.",
	}
	for _, table := range p.sameProgram(t) {
		for _, name := range [...]string{flannelChain, "FLANNEL-FWD"} {
			if c := table.Chain(name); c != nil {
				f.Mend = append(f.Mend, p.oldChain(table, c, "", "").Mend...)
			}
		}
	}
	f.Mend = append(f.Mend, fmt.Sprintf("# where %s is back in a minute flannel is in its iptables mode (no EnableNFTables in its net-conf.json), and this is what is left: nft delete table %s %s",
		chain.Name, native.Family, native.Name))
	return f
}

// sameProgram are the tables of nat and filter that one program changes.
func (p *patient) sameProgram(t *ruleset.Table) []*ruleset.Table {
	var all []*ruleset.Table
	for _, o := range p.host.Rules.Tables {
		if o.Native == nil && o.Variant == t.Variant && o.Family == t.Family && (o.Name == "nat" || o.Name == "filter") {
			all = append(all, o)
		}
	}
	return all
}

// removals of several rules of a chain, the last first: numbers of those before it stay.
func removals(rules []sim.RuleRef) []string {
	rules = slices.SortedFunc(slices.Values(rules), func(a, b sim.RuleRef) int { return b.Rule.Index - a.Rule.Index })
	var all []string
	for _, at := range rules {
		all = append(all, remove(at))
	}
	return all
}

// oldFlannel are rules that flannel, before it had a chain of its own, put straight into POSTROUTING.
func (p *patient) oldFlannel(t *ruleset.Table) []sim.RuleRef {
	c := t.Chain("POSTROUTING")
	if c == nil {
		return nil
	}
	var all []sim.RuleRef
	for i := range c.Rules {
		at := sim.RuleRef{Table: t, Chain: c, Rule: &c.Rules[i]}
		if _, jump := at.Rule.Target.(ruleset.Jump); !jump && p.ownerOf(at) == owner.Flannel {
			all = append(all, at)
		}
	}
	return all
}

// neverEmpty are chains whose writers never leave them without rules: kube-proxy's of the filter
// table, which has that name too, is empty where all services have endpoints.
var neverEmpty = []string{flannelChain, "FLANNEL-FWD", "IP-MASQ-AGENT", "IP-MASQ", "KUBE-SERVICES", "KUBE-POSTROUTING"}

// danglingJump: a chain that its writer has emptied, or lost, with the jump to it.
func danglingJump(p *patient, t *ruleset.Table, c *ruleset.Chain) []Finding {
	if t.Excerpt || len(c.Rules) > 0 || c.Name == "KUBE-SERVICES" && t.Name != "nat" || !slices.Contains(neverEmpty, c.Name) && !perPod.MatchString(c.Name) || jumps(t, c.Name) == nil {
		return nil
	}
	f := p.oldChain(t, c, "", "Nobody's packets are changed by it. What writes the chain is gone, or has lost its rules without noticing: then it doesn't translate what it is believed to.")
	f.Severity, f.Summary = Info, fmt.Sprintf("table %s jumps to chain %s, which is empty", t.Name, c.Name)
	f.Evidence = f.Evidence[1:]
	return []Finding{f}
}

// perPod chains are those that CNI plugins write for each pod.
var perPod = regexp.MustCompile(`^CNI-(DN-)?[0-9a-f]{20,}$`)

// oldJumps: ip-masq-agent's jumps of versions that asked in another way. Those that
// differ by their comment alone are duplicates.
func oldJumps(p *patient, t *ruleset.Table, c *ruleset.Chain) []Finding {
	if t.Name != "nat" || len(c.Rules) == 0 || p.ownerOf(sim.RuleRef{Table: t, Chain: c, Rule: &c.Rules[len(c.Rules)-1]}) != owner.IPMasqAgent {
		return nil
	}
	var to []sim.RuleRef
	for _, at := range jumps(t, c.Name) {
		if builtIn(at, "POSTROUTING") && p.ownerOf(at) == owner.IPMasqAgent && !slices.ContainsFunc(to, func(o sim.RuleRef) bool { return equal(o.Rule, at.Rule) }) {
			to = append(to, at)
		}
	}
	if len(to) < 2 {
		return nil
	}
	slices.SortStableFunc(to, func(a, b sim.RuleRef) int { return len(b.Rule.Matches) - len(a.Rule.Matches) })
	f := Finding{
		Summary:     fmt.Sprintf("POSTROUTING jumps to %s by rules of different versions of ip-masq-agent", c.Name),
		Evidence:    []string{p.place(to[0])},
		Consequence: "The widest of them counts: packets that today's version doesn't ask about are masqueraded, and go through the chain twice.",
	}
	for _, at := range to[1:] {
		f.Evidence = append(f.Evidence, p.place(at))
	}
	f.Mend = removals(to[1:])
	return []Finding{f}
}
