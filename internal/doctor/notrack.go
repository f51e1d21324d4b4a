package doctor

import (
	"fmt"
	"slices"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
)

// untracked: a rule switches tracking off, and with it the translation that another
// rule or a policy sees to.
func untracked(p *patient) []Finding {
	var all []Finding
	for _, at := range p.untracking() {
		for i := range p.networks {
			n := &p.networks[i]
			q, ok := aimed(at.Rule, n)
			if !ok || !p.ask(q).every(func(o *sim.Outcome) bool { return kept(o) && meets(o, at) }) {
				continue
			}
			then := p.without(at).ask(q)
			if !then.every(translated) {
				continue
			}
			evidence := []string{p.place(at)}
			if by, one := then.rule(); one {
				evidence = append(evidence, "without it: "+p.without(at).place(by))
			}
			all = append(all, Finding{
				Summary:     fmt.Sprintf("what %s sends to %s isn't tracked, so nothing translates it", n.prefix, q.Destination),
				Evidence:    evidence,
				Consequence: fmt.Sprintf("It leaves with addresses of %s, and no rule and no policy of this node can change that.", n.prefix),
				Mend:        []string{remove(at)},
			})
			break
		}
	}
	return all
}

// untracking rules of iptables and nftables.
func (p *patient) untracking() []sim.RuleRef {
	var all []sim.RuleRef
	for _, t := range p.host.Rules.Tables {
		for _, c := range t.Chains {
			for i := range c.Rules {
				r := &c.Rules[i]
				_, plain := r.Target.(ruleset.NoTrack)
				if plain || r.Native != nil && slices.ContainsFunc(r.Native.Statements, func(s nftables.Statement) bool { _, yes := s.(nftables.NoTrack); return yes }) {
					all = append(all, sim.RuleRef{Table: t, Chain: c, Rule: r})
				}
			}
		}
	}
	const most = 32
	return all[:min(len(all), most)]
}

func meets(o *sim.Outcome, at sim.RuleRef) bool {
	return slices.ContainsFunc(o.Steps, func(s sim.Step) bool { return s.Matched && s.At == at })
}

// aimed at the rule: a packet of the network that it asks for.
func aimed(rule *ruleset.Rule, n *network) (sim.Question, bool) {
	q := tcp(n.member, outside(n.family()), https, n.link)
	if d := rule.Destination; d.Prefix.IsValid() && !d.Not {
		q.Destination = d.Prefix.Addr()
		if !d.Prefix.IsSingleIP() {
			q.Destination = d.Prefix.Masked().Addr().Next()
		}
	}
	if rule.Protocol.Is && !rule.Protocol.Not {
		q.Protocol = rule.Protocol.Number
	}
	for _, m := range rule.Matches {
		if ports, ok := m.(ruleset.Ports); ok && ports.Side == ruleset.Destination && !ports.Not && len(ports.Ranges) > 0 {
			q.DestinationPort = int(ports.Ranges[0].First)
		}
	}
	return q, q.Destination.Is4() == n.member.Is4() && q.Destination.IsGlobalUnicast() && !n.prefix.Contains(q.Destination)
}
