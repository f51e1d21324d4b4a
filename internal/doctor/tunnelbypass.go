package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/sim"
)

// tunnelBypassed: a policy keeps the addresses of pods towards nodes themselves, where only a
// tunnel carries pods' addresses: their packets to a node don't take it.
func tunnelBypassed(p *patient) []Finding {
	if p.unmasqTable(tableName) == nil {
		return nil
	}
	type rule struct {
		chain string
		pods  netip.Prefix
	}
	var all []Finding
	at := map[rule]int{}
	for i := range p.networks {
		n := &p.networks[i]
		for _, far := range p.behindTunnels(n) {
			by, ok := p.pinnedBeside(n, far.node)
			if !ok {
				continue
			}
			pods := p.block(n)
			name := rule{by.Chain.Name, pods}
			if _, known := at[name]; !known {
				at[name] = len(all)
				all = append(all, p.bypassing(pods, by))
			}
			f := &all[at[name]]
			if seen := fmt.Sprintf("goes to node %s without the tunnel; to that node's pods: route %s", far.node, strings.TrimSpace(far.route.Text)); !slices.ContainsFunc(f.Evidence, func(e string) bool { return strings.HasSuffix(e, seen) }) {
				f.Evidence = append(f.Evidence, n.member.String()+" "+seen)
			}
			p.hide(f, "nodes-past-tunnel", pods.String(), fmt.Sprintf("%s/%d", far.node, far.node.BitLen()))
		}
	}
	return all
}

func (p *patient) bypassing(pods netip.Prefix, by sim.RuleRef) Finding {
	return Finding{
		Summary:     fmt.Sprintf("policy rule %s keeps addresses of %s towards nodes, past the tunnel", policyRule(by), pods),
		Evidence:    []string{p.place(by)},
		Consequence: fmt.Sprintf("The network between the nodes sees addresses of %s, which it has no route to and may drop; what arrives is answered through the tunnel, where reverse path filters drop it.", pods),
		Mend:        []string{"# or leave nodes out of what rule " + policyRule(by) + " keeps"},
	}
}

// policyRule is DOCUMENT/NAME of the rule whose chain it is.
func policyRule(at sim.RuleRef) string {
	_, name, _ := strings.Cut(generation.ReplaceAllString(at.Chain.Name, ""), "/")
	return name
}

// farNode is a node with a route to its pods by a tunnel.
type farNode struct {
	node  netip.Addr
	route *route.Route
}

// behindTunnels are nodes to whose pods the network's packets go by a tunnel.
func (p *patient) behindTunnels(n *network) []farNode {
	const mostAsked, fewest = 256, 8
	most := max(fewest, mostAsked/len(p.networks))
	var all []farNode
	for _, rt := range p.tunnelRoutes(n) {
		for _, network := range p.behind(rt) {
			to := p.stranger(network, n.prefix)
			if len(all) == most || !to.IsValid() {
				continue
			}
			answers := p.ask(tcp(n.member, to, https, n.link))
			if !answers.every(func(o *sim.Outcome) bool { return accepted(o) && o.Encapsulated != nil }) {
				continue
			}
			node := answers[0].Encapsulated.Question.Destination
			if !slices.ContainsFunc(all, func(f farNode) bool { return f.node == node }) {
				all = append(all, farNode{node, rt})
			}
		}
	}
	return all
}

// behind the route are its destination, or, where one WireGuard link leads to several peers,
// what each of them may have of it.
func (p *patient) behind(rt *route.Route) []netip.Prefix {
	var all []netip.Prefix
	for _, peer := range p.host.WireGuard {
		for _, allowed := range peer.Allowed {
			if peer.Link == rt.Nexthops[0].Interface && rt.Destination.Contains(allowed.Addr()) && rt.Destination.Bits() <= allowed.Bits() {
				all = append(all, allowed)
			}
		}
	}
	if all == nil {
		return []netip.Prefix{rt.Destination}
	}
	return all
}

// pinnedBeside: a policy keeps the address of the network's packets to a node, and they
// leave by no tunnel.
func (p *patient) pinnedBeside(n *network, node netip.Addr) (sim.RuleRef, bool) {
	if node.Is4() != n.member.Is4() {
		return sim.RuleRef{}, false
	}
	answers := p.ask(tcp(n.member, node, https, n.link))
	at, one := answers.rule()
	return at, one && answers.every(func(o *sim.Outcome) bool {
		link := p.host.Network.Link(o.OutInterface)
		return accepted(o) && o.SourceKind == sim.Pinned && o.Encapsulated == nil && !o.ToNode && link != nil && !isTunnel(link.Kind)
	})
}
