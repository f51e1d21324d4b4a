package doctor

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
)

// twoMasqueraders: were the rule that translates a network's packets not there,
// another component's would.
func twoMasqueraders(p *patient) []Finding {
	type pair struct{ winner, loser string }
	var all []Finding
	var seen []pair
	for i := range p.networks {
		n := &p.networks[i]
		q := tcp(n.member, outside(n.family()), https, n.link)
		answers := p.ask(q)
		winner, one := answers.rule()
		first := ""
		if one {
			first = p.ownerOf(winner)
		}
		if !one || !answers.every(translated) || first == owner.Unmasq || forService(first) {
			continue
		}
		loser, second, found := p.next(winner, q)
		if !found || p.onlyDockers(winner, first, second) {
			continue
		}
		if x := (pair{p.place(winner), loser}); !slices.Contains(seen, x) {
			seen = append(seen, x)
			all = append(all, p.bothMasquerade(n, winner, first, second, loser))
		}
	}
	return all
}

// forService: the owner translates so that a service's replies come back.
func forService(name string) bool { return name == owner.KubeProxy || name == owner.CNIPortmap }

// next is the rule that would decide if all of the winner's owner were not there;
// for ip-masq-agent, whose chain a dump of one chain leaves out, also the jump to it.
func (p *patient) next(winner sim.RuleRef, q sim.Question) (place, name string, found bool) {
	const most = 4
	first, at, less := p.ownerOf(winner), winner, p
	for range most {
		less = less.without(at)
		answers := less.ask(q)
		for i := range answers {
			for _, s := range answers[i].Steps {
				if jump, ok := target(s.At).(ruleset.Jump); ok && s.Matched && less.ownerOf(s.At) == owner.IPMasqAgent && first != owner.IPMasqAgent && jump.Chain != "" {
					return less.place(s.At), owner.IPMasqAgent, true
				}
			}
		}
		next, one := answers.rule()
		if !one || !answers.every(translated) {
			return "", "", false
		}
		if name := less.ownerOf(next); name != first {
			return less.place(next), name, true
		}
		at = next
	}
	return "", "", false
}

func target(at sim.RuleRef) ruleset.Target {
	if at.Rule == nil {
		return nil
	}
	return at.Rule.Target
}

// onlyDockers: ip-masq-agent takes all there is, docker's own default network too,
// where nobody's pods are as long as there is another network.
func (p *patient) onlyDockers(winner sim.RuleRef, first, second string) bool {
	return first == owner.Docker && second == owner.IPMasqAgent && winner.Rule.Out.Not && len(p.networks) > 1
}

func (p *patient) bothMasquerade(n *network, winner sim.RuleRef, first, second, loser string) Finding {
	f := Finding{
		Severity:    Warning,
		Summary:     fmt.Sprintf("%s and %s both masquerade %s; %s's rule is asked first", called(first), called(second), n.prefix, called(first)),
		Evidence:    []string{p.place(winner), loser},
		Consequence: fmt.Sprintf("What %s is told to leave untranslated is translated all the same, as long as the rule of %s comes first; which one does is decided by who started last.", called(second), called(first)),
		Mend:        append([]string{remove(winner)}, p.changes(winner)...),
	}
	if first == owner.Unknown || second == owner.Unknown {
		f.Severity = Info
	}
	return f
}

// called is an owner as a sentence names it.
func called(name string) string {
	if name == owner.Unknown {
		return "somebody"
	}
	return name
}

// exemption is a rule that means to leave a destination untranslated.
type exemption struct {
	at sim.RuleRef
	to netip.Prefix
}

// exemptions of iptables' nat tables: -d NETWORK -j RETURN or ACCEPT.
func (p *patient) exemptions() []exemption {
	var all []exemption
	for at := range p.natRules() {
		d := at.Rule.Destination
		switch at.Rule.Target.(type) {
		case ruleset.Return, ruleset.Accept:
			if !d.Not && !at.Rule.Source.Not && d.Prefix.IsValid() && d.Prefix.Bits() > 0 && d.Prefix.Addr().IsGlobalUnicast() {
				all = append(all, exemption{at, d.Prefix.Masked()})
			}
		}
	}
	const most = 64
	return all[:min(len(all), most)]
}

// natRules are those of iptables' nat tables.
func (p *patient) natRules() iter.Seq[sim.RuleRef] {
	return func(yield func(sim.RuleRef) bool) {
		for _, t := range p.host.Rules.Tables {
			if t.Name != "nat" || t.Native != nil {
				continue
			}
			for _, c := range t.Chains {
				for i := range c.Rules {
					if !yield(sim.RuleRef{Table: t, Chain: c, Rule: &c.Rules[i]}) {
						return
					}
				}
			}
		}
	}
}

// exemptionOverridden: a network's packets to an exempted destination are translated
// by a rule without which the exemption would hold.
func exemptionOverridden(p *patient) []Finding {
	var all []Finding
	var by []sim.RuleRef
	for _, x := range p.exemptions() {
		for i := range p.networks {
			n := &p.networks[i]
			at, found := p.overrides(&x, n)
			if !found {
				continue
			}
			if slices.Contains(by, at) {
				f := &all[slices.Index(by, at)]
				if place := p.place(x.at); !slices.Contains(f.Evidence, place) {
					f.Evidence = append(f.Evidence, place)
				}
				p.keep(f, "exempted", n.prefix.String(), x.to.String())
				continue
			}
			by = append(by, at)
			f := Finding{
				Summary:     fmt.Sprintf("%s is told to leave %s to %s alone, and %s masquerades it", called(p.ownerOf(x.at)), n.prefix, x.to, called(p.ownerOf(at))),
				Evidence:    []string{p.place(at), p.place(x.at)},
				Consequence: fmt.Sprintf("Hosts of %s see this node in place of %s.", x.to, n.prefix),
				Mend:        p.changes(at),
			}
			p.keep(&f, "exempted", n.prefix.String(), x.to.String())
			all = append(all, f)
		}
	}
	return all
}

// overrides is the rule that translates what the exemption means to spare.
func (p *patient) overrides(x *exemption, n *network) (sim.RuleRef, bool) {
	if packetOf(x.to) != n.family() || n.prefix.Overlaps(x.to) && n.prefix.Bits() <= x.to.Bits() {
		return sim.RuleRef{}, false
	}
	to := p.stranger(x.to, n.prefix)
	if !to.IsValid() {
		return sim.RuleRef{}, false
	}
	q := tcp(n.member, to, https, n.link)
	answers := p.ask(q)
	at, one := answers.rule()
	if !one || !answers.every(translated) || forService(p.ownerOf(at)) || p.ownerOf(at) == owner.Unmasq || at.Chain == x.at.Chain {
		return at, false
	}
	// Without it the exemption must be what spares the packet.
	return at, p.without(at).ask(q).every(func(o *sim.Outcome) bool {
		return kept(o) && slices.ContainsFunc(o.Steps, func(s sim.Step) bool {
			return s.Matched && s.At.Rule != nil && s.At.Chain.Name == x.at.Chain.Name && s.At.Rule.Text == x.at.Rule.Text
		})
	})
}

// stranger is an address of a network that is neither the node's nor of a part of it.
func (p *patient) stranger(in, not netip.Prefix) netip.Addr {
	const tries = 8
	a := in.Addr()
	if not.Contains(a) {
		a = lastOf(not)
	}
	for range tries {
		if a = a.Next(); in.Contains(a) && !not.Contains(a) && !p.isLocal(a) {
			return a
		}
	}
	return netip.Addr{}
}

// clientsHidden: what comes from outside to a pod is translated by somebody's rule.
func clientsHidden(p *patient) []Finding {
	var all []Finding
	var seen []sim.RuleRef
	for i := range p.networks {
		n := &p.networks[i]
		far := outside(n.family())
		out, known := p.host.Network.InterfaceFor(far)
		if !known || out == "" || out == n.link || n.link == "" { // without a link it is a rule's network, perhaps of another node's pods
			continue
		}
		answers := p.ask(tcp(far, n.member, https, out))
		at, one := answers.rule()
		if !one || !answers.every(translated) || slices.Contains(seen, at) || forService(p.ownerOf(at)) || p.ownerOf(at) == owner.Unmasq {
			continue
		}
		seen = append(seen, at)
		f := Finding{
			Summary:     fmt.Sprintf("%s masquerades what comes in to %s", called(p.ownerOf(at)), n.prefix),
			Evidence:    []string{p.place(at), n.why},
			Consequence: fmt.Sprintf("Pods of %s see this node in place of their clients, those of load balancers and published ports too.", n.prefix),
		}
		p.keep(&f, "clients", n.family().Everywhere().String(), n.prefix.String())
		if p.ownerOf(at) == owner.IPMasqAgent {
			f.Mend = append(f.Mend, fmt.Sprintf("# or add %s, better the network of all pods, to nonMasqueradeCIDRs: kubectl -n kube-system edit configmap ip-masq-agent", n.prefix))
		} else {
			f.Mend = append(f.Mend, p.changes(at)...)
		}
		all = append(all, f)
	}
	return all
}
