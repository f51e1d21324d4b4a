package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
)

// unlistedPods: what pods send each other is masqueraded by ip-masq-agent, whose list
// of destinations to leave alone lacks their network.
func unlistedPods(p *patient) []Finding {
	var all []Finding
	var by []sim.RuleRef
	for i := range p.networks {
		n := &p.networks[i]
		for _, o := range p.otherPods(n) {
			answers := p.ask(tcp(n.member, o.member, https, n.link))
			at, one := answers.rule()
			if !one || !answers.every(translated) || p.ownerOf(at) != owner.IPMasqAgent {
				continue
			}
			found := slices.Index(by, at)
			if found < 0 {
				found, by = len(all), append(by, at)
				all = append(all, Finding{
					Summary:     fmt.Sprintf("the list of ip-masq-agent lacks %s, where %s sends to", o.prefix, n.prefix),
					Evidence:    []string{p.place(at), listed(at)},
					Consequence: "Pods see a node in place of each other; network policies that name pods don't fit, and who called can't be told.",
					Mend:        append(p.changes(at), "# the networks of all nodes' pods belong into nonMasqueradeCIDRs, such as the cluster's whole CIDR"),
				})
			}
			f := &all[found]
			if !slices.Contains(f.Evidence, o.why) {
				f.Evidence = append(f.Evidence, o.why)
			}
			p.keep(f, "pods-see-pods", n.prefix.String(), o.prefix.String())
		}
	}
	return all
}

// otherPods that a network's pods may send to: others of it, where each pod is routed by
// itself the next one's, and those of other nodes. Another bridge may be anybody's.
func (p *patient) otherPods(n *network) []network {
	var all []network
	if neighbour := p.strangerTo(n.member, n.prefix); neighbour.IsValid() {
		all = append(all, network{n.prefix, n.link, neighbour, n.why})
	}
	next := slices.IndexFunc(p.networks, func(o network) bool {
		return o.prefix != n.prefix && o.family() == n.family() && o.prefix.IsSingleIP() && n.prefix.IsSingleIP()
	})
	if next >= 0 {
		all = append(all, p.networks[next])
	}
	for _, rt := range p.others(n) {
		all = append(all, network{rt.Destination, "", rt.Destination.Addr().Next().Next(), "route " + strings.TrimSpace(rt.Text)})
	}
	return all
}

// strangerTo is another address of a network, that isn't the node's.
func (p *patient) strangerTo(a netip.Addr, in netip.Prefix) netip.Addr {
	const tries = 8
	for range tries {
		if a = a.Next(); in.Contains(a) && !p.isLocal(a) && a != lastOf(in) {
			return a
		}
	}
	return netip.Addr{}
}

// listed is what ip-masq-agent's chain leaves alone.
func listed(at sim.RuleRef) string {
	var all []string
	for i := range at.Chain.Rules {
		r := &at.Chain.Rules[i]
		if _, returns := r.Target.(ruleset.Return); returns && r.Destination.Prefix.IsValid() && !slices.Contains(all, r.Destination.Prefix.String()) {
			all = append(all, r.Destination.Prefix.String())
		}
	}
	if all == nil {
		return "its list is empty"
	}
	return "its list: " + strings.Join(all, ", ")
}
