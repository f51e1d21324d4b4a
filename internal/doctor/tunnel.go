package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/sim"
)

// tunnelTranslated: the outer packet of a tunnel leaves with another source than the
// tunnel's end.
func tunnelTranslated(p *patient) []Finding {
	var all []Finding
	var seen []string
	for i := range p.networks {
		n := &p.networks[i]
		for j := range p.host.Network.Routes {
			rt := &p.host.Network.Routes[j]
			if rt.Family != n.family() || rt.Type != route.Unicast || rt.Destination.Bits() == 0 || len(rt.Nexthops) != 1 || slices.Contains(seen, rt.Nexthops[0].Interface) {
				continue
			}
			link := p.host.Network.Link(rt.Nexthops[0].Interface)
			if link == nil || !isTunnel(link.Kind) {
				continue
			}
			if f, found := p.outer(n, rt); found {
				seen = append(seen, link.Name)
				all = append(all, f)
			}
		}
	}
	return all
}

func isTunnel(kind string) bool {
	switch kind {
	case "vxlan", "geneve", "ipip", "ip6tnl", "gre", "sit", "wireguard":
		return true
	}
	return false
}

// outer asks what becomes of the tunnel's packet.
func (p *patient) outer(n *network, rt *route.Route) (Finding, bool) {
	to := p.stranger(rt.Destination, n.prefix)
	if !to.IsValid() {
		return Finding{}, false
	}
	answers := p.ask(tcp(n.member, to, https, n.link))
	if !answers.every(func(o *sim.Outcome) bool { return accepted(o) && o.Encapsulated != nil }) {
		return Finding{}, false
	}
	own := answers[0].Encapsulated
	outer := outcomes(own.Outcomes)
	at, one := outer.rule()
	changed := func(o *sim.Outcome) bool {
		return translated(o) && o.Source.IsValid() && o.Source != own.Question.Source
	}
	if !one || !outer.every(changed) {
		return Finding{}, false
	}
	return Finding{
		Summary:     fmt.Sprintf("packets of tunnel %s leave as %s, not as %s", own.Interface, outer[0].Source, own.Question.Source),
		Evidence:    []string{p.place(at), "route " + strings.TrimSpace(rt.Text), fmt.Sprintf("outer packet from %s to %s", own.Question.Source, own.Question.Destination)},
		Consequence: "Tunnels that know their peer's address, and firewalls between the nodes, drop them; the others take two ways for one connection.",
		Mend:        append([]string{p.exemptTunnel(at, own)}, p.changes(at)...),
	}, true
}

// exemptTunnel lets the tunnel's packets pass before any rule of the chain.
func (p *patient) exemptTunnel(at sim.RuleRef, own *sim.Encapsulated) string {
	q := &own.Question
	base := at
	if c := at.Table.Chain("POSTROUTING"); at.Table.Native == nil && at.Chain.Policy == "" && c != nil {
		base.Chain = c
	}
	rule, native := fmt.Sprintf("-s %s -d %s -p %d -j ACCEPT", q.Source, q.Destination, q.Protocol), fmt.Sprintf("%[1]s saddr %[2]s %[1]s daddr %[3]s meta l4proto %[4]d accept", ipWord(q.Source), q.Source, q.Destination, q.Protocol)
	if q.DestinationPort != sim.UnknownPort && q.DestinationPort != 0 {
		rule = fmt.Sprintf("-s %s -p udp -m udp --dport %d -j ACCEPT", q.Source, q.DestinationPort)
		native = fmt.Sprintf("%s saddr %s udp dport %d accept", ipWord(q.Source), q.Source, q.DestinationPort)
	}
	return insert(base, rule, native)
}
