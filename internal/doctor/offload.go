package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
)

// offloaded: a flowtable takes established connections past rules that mean to stop
// any packet, not only a connection's first.
func offloaded(p *patient) []Finding {
	stopping := p.stopping()
	if stopping == nil {
		return nil
	}
	var all []Finding
	for _, t := range p.host.Rules.Tables {
		if t.Native == nil || t.Native.IsDormant() {
			continue
		}
		for i := range t.Native.Objects {
			if o := &t.Native.Objects[i]; o.Kind == "flowtable" && p.takesLinks(o) {
				if f, used := p.bypass(t, o, stopping); used {
					all = append(all, f)
				}
			}
		}
	}
	return all
}

// takesLinks: one of the flowtable's devices is up.
//
//	hook ingress priority filter devices = { cni0, eth0 }
func (p *patient) takesLinks(o *nftables.Object) bool {
	words := strings.FieldsFunc(o.Text, func(r rune) bool { return strings.ContainsRune(" ,{}\";\n\t", r) })
	return slices.ContainsFunc(words, func(word string) bool {
		l := p.host.Network.Link(word)
		return l != nil && l.Up
	})
}

func (p *patient) bypass(t *ruleset.Table, o *nftables.Object, stopping []sim.RuleRef) (Finding, bool) {
	const most = 3
	f := Finding{
		Summary: fmt.Sprintf("flowtable %s takes connections past rules that are to stop their packets", o.Name),
		Consequence: "Such a rule stops new connections alone: those that it should end, of a policy that has changed or an address that has been blocked, go on for as long as they have " +
			"something to send. (Source addresses are not concerned: what is offloaded keeps its translation.)",
	}
	for _, c := range t.Chains {
		for i := range c.Rules {
			if adds(c.Rules[i].Native, o.Name) {
				at := sim.RuleRef{Table: t, Chain: c, Rule: &c.Rules[i]}
				f.Evidence = append(f.Evidence, p.place(at))
				f.Mend = append(f.Mend, remove(at))
			}
		}
	}
	if f.Mend == nil {
		return f, false
	}
	f.Evidence = append(f.Evidence, "flowtable "+o.Name+": "+o.Text)
	for _, at := range stopping[:min(len(stopping), most)] {
		f.Evidence = append(f.Evidence, "not asked about them: "+p.place(at))
	}
	f.Mend = append(f.Mend, fmt.Sprintf("nft delete flowtable %s %s %s", t.Native.Family, t.Name, o.Name),
		"# or keep it, and end connections when rules change: conntrack -D -s ADDRESS takes them out of the flowtable within a second")
	return f, true
}

// adds: flow add @NAME.
func adds(r *nftables.Rule, name string) bool {
	return slices.ContainsFunc(r.Statements, func(s nftables.Statement) bool {
		u, unknown := s.(nftables.UnknownStatement)
		return unknown && u.Name == "flow add" && strings.HasSuffix(u.Text, "@"+name)
	})
}

// stopping are rules of the forward hook that drop or reject packets of established
// connections too, up to the one that lets all of these pass.
func (p *patient) stopping() []sim.RuleRef {
	var all []sim.RuleRef
	for _, t := range p.host.Rules.Tables {
		if t.Native != nil && t.Native.IsDormant() {
			continue
		}
		for _, c := range t.Chains {
			if t.Native == nil && c.Name == "FORWARD" || c.Native != nil && c.Native.Base != nil && c.Native.Base.Hook == "forward" {
				all, _ = stops(t, c, all, map[*ruleset.Chain]bool{})
			}
		}
	}
	return all
}

// stops walks a chain as a packet of an established connection would. ended: all such
// packets are let pass before its end.
func stops(t *ruleset.Table, c *ruleset.Chain, all []sim.RuleRef, seen map[*ruleset.Chain]bool) (_ []sim.RuleRef, ended bool) {
	seen[c] = true
	for i := range c.Rules {
		r := &c.Rules[i]
		established, others := asksFor(r)
		if !established {
			continue
		}
		switch does, chain := endOf(r); {
		case does == accepts && !others:
			return all, true
		case does == refuses:
			all = append(all, sim.RuleRef{Table: t, Chain: c, Rule: r})
		case does == jumpsTo && t.Chain(chain) != nil && !seen[t.Chain(chain)]:
			if all, ended = stops(t, t.Chain(chain), all, seen); ended && !others {
				return all, true
			}
		}
	}
	return all, false
}
