package doctor

import (
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/vicinity"
)

// network is one that the node forwards for: its pods, containers or machines.
type network struct {
	prefix netip.Prefix
	// link that its packets come in by; empty where not known.
	link string
	// member is an address of it that isn't the node's.
	member netip.Addr
	// why it is taken for one, as evidence.
	why string
}

func (n *network) family() packet.Family { return packet.Of(n.member) }

// mostNetworks are looked at: of many alike a few tell.
const mostNetworks = 32

// findNetworks goes by bridges with ports of containers, by routes to single
// addresses behind such links, and, where the kinds of links aren't known, by the
// rules that masquerade a network.
func (p *patient) findNetworks() []network {
	n := &p.host.Network
	var all []network
	for _, w := range vicinity.Networks(p.host) {
		if member := p.memberOf(w.Prefix, w.Link); !w.Empty && member.IsValid() {
			all = append(all, network{w.Prefix, w.Link, member, w.Why})
		}
	}
	// `ip link` without -d doesn't tell bridges from others.
	if !slices.ContainsFunc(n.Links, func(l route.Link) bool { return l.Kind != "" }) && !p.detailed() {
		all = append(all, p.masqueradedNetworks()...)
	}
	return all[:min(len(all), mostNetworks)]
}

// detailed: the links of a snapshot were taken with their kinds.
func (p *patient) detailed() bool { return p.host.Network.KnownLinks && p.host.Meta != nil }

// isNetwork: it has room for more than its own two ends, and can be routed.
func isNetwork(p netip.Prefix) bool { return vicinity.IsNetwork(p) }

// masqueradedNetworks are the sources of rules that masquerade.
func (p *patient) masqueradedNetworks() []network {
	var all []network
	for at := range p.natRules() {
		rule := at.Rule
		_, masquerades := rule.Target.(ruleset.Masquerade)
		source := rule.Source.Prefix
		if !masquerades || rule.Source.Not || !source.IsValid() || !isNetwork(source) ||
			slices.ContainsFunc(all, func(n network) bool { return n.prefix == source.Masked() }) {
			continue
		}
		link := ""
		if rule.Out.Not && !rule.Out.Wildcard {
			link = rule.Out.Name
		}
		if member := p.memberOf(source.Masked(), link); member.IsValid() {
			all = append(all, network{source.Masked(), link, member, "rule " + rule.Text})
		}
	}
	return all
}

// memberOf is an address of a network: a neighbour that is known there, else the
// first that isn't the node's.
func (p *patient) memberOf(prefix netip.Prefix, link string) netip.Addr {
	if prefix.IsSingleIP() {
		return prefix.Addr()
	}
	n := &p.host.Network
	for _, b := range n.Neighbors {
		if b.Interface == link && b.MAC != "" && prefix.Contains(b.Address) && !p.isLocal(b.Address) {
			return b.Address
		}
	}
	const tries = 8
	a := prefix.Addr().Next()
	for range tries {
		if a = a.Next(); !prefix.Contains(a) {
			break
		}
		if !p.isLocal(a) {
			return a
		}
	}
	return netip.Addr{}
}

func (p *patient) isLocal(a netip.Addr) bool {
	local, _ := p.host.Network.IsLocal(a)
	return local
}

// outside is an address that is nobody's here.
func outside(f packet.Family) netip.Addr { return vicinity.Outside(f) }

// neighbour is a host on a link of the node's own.
type neighbour struct {
	address netip.Addr
	link    string
}

// neighbours are those at the node's uplinks: gateways, and hosts that it has
// talked with. Links of containers have none.
func (p *patient) neighbours() []neighbour {
	n := &p.host.Network
	var all []neighbour
	add := func(a netip.Addr, link string) {
		l := n.Link(link)
		if l == nil || l.Master != "" || link == "lo" || a.IsLinkLocalUnicast() || p.isLocal(a) || slices.ContainsFunc(p.networks, func(w network) bool { return w.link == link }) {
			return
		}
		if x := (neighbour{a, link}); !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	for i := range n.Routes {
		for _, h := range n.Routes[i].Nexthops {
			if h.Via.IsValid() && !h.OnLink {
				add(h.Via, h.Interface)
			}
		}
	}
	for _, b := range n.Neighbors {
		if b.MAC != "" {
			add(b.Address, b.Interface)
		}
	}
	return all[:min(len(all), mostNetworks)]
}

// addressOn is the node's first address of a family on a link.
func (p *patient) addressOn(link string, f packet.Family) (netip.Addr, bool) {
	for _, a := range p.host.Network.Addresses {
		if at := a.Prefix.Addr(); a.Interface == link && packet.Of(at) == f && at.IsGlobalUnicast() {
			return at, true
		}
	}
	return netip.Addr{}, false
}
