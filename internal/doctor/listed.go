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
	for i := range p.networks {
		n := &p.networks[i]
		var f Finding
		var lacks []string
		for _, o := range p.otherPods(n) {
			answers := p.ask(tcp(n.member, o.member, https, n.link))
			at, one := answers.rule()
			if !one || !answers.every(translated) || p.ownerOf(at) != owner.IPMasqAgent {
				continue
			}
			lacks = append(lacks, o.prefix.String())
			if f.Evidence == nil {
				f.Evidence, f.Mend = []string{p.place(at), listed(at)}, p.changes(at)
			}
			f.Evidence = append(f.Evidence, o.why)
		}
		if lacks == nil {
			continue
		}
		f.Summary = fmt.Sprintf("the list of ip-masq-agent lacks %s, where %s sends to", strings.Join(lacks, ", "), n.prefix)
		f.Consequence = "Pods see a node in place of each other; network policies that name pods don't fit, and who called can't be told."
		f.Mend = append(f.Mend, "# the networks of all nodes' pods belong into nonMasqueradeCIDRs, such as the cluster's whole CIDR")
		p.keep(&f, "pods-see-pods", n.prefix.String(), lacks...)
		all = append(all, f)
	}
	return all
}

// otherPods that the network's pods may send to: others of it, those of the node's
// other networks, and those of other nodes.
func (p *patient) otherPods(n *network) []network {
	var all []network
	if neighbour := p.strangerTo(n.member, n.prefix); neighbour.IsValid() {
		all = append(all, network{n.prefix, n.link, neighbour, n.why})
	}
	for _, o := range p.networks {
		if o.family() == n.family() && o.link != n.link && o.prefix != n.prefix && o.link != "" {
			all = append(all, o)
		}
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
