package doctor

import (
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
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

// fewest and most are bounds of what is looked at: an address block of fewer bits
// is no network of one node, and of many alike a few tell.
const (
	fewestBits   = 8
	mostNetworks = 32
)

// findNetworks goes by bridges with ports of containers, by routes to single
// addresses behind such links, and, where the kinds of links aren't known, by the
// rules that masquerade a network.
func (p *patient) findNetworks() []network {
	n := &p.host.Network
	var all []network
	for i := range n.Links {
		if n.KnownAddresses {
			all = append(all, p.bridgeNetworks(&n.Links[i])...)
		}
	}
	all = append(all, p.routedMembers()...)
	// `ip link` without -d doesn't tell bridges from others.
	if !slices.ContainsFunc(n.Links, func(l route.Link) bool { return l.Kind != "" }) && !p.detailed() {
		all = append(all, p.masqueradedNetworks()...)
	}
	return all[:min(len(all), mostNetworks)]
}

// detailed: the links of a snapshot were taken with their kinds.
func (p *patient) detailed() bool { return p.host.Network.KnownLinks && p.host.Meta != nil }

// bridgeNetworks are those of a bridge's addresses, where what hangs on it are
// containers or machines: a bridge over a network card is the node's own uplink.
func (p *patient) bridgeNetworks(l *route.Link) []network {
	n := &p.host.Network
	if l.Kind != "bridge" || !l.Up {
		return nil
	}
	port := ""
	for i := range n.Links {
		if n.Links[i].Master != l.Name {
			continue
		}
		if !forContainers(n.Links[i].Kind) {
			return nil
		}
		port = n.Links[i].Name
	}
	if port == "" {
		return nil
	}
	var all []network
	for _, a := range n.Addresses {
		if a.Interface == l.Name && isNetwork(a.Prefix) {
			if member := p.memberOf(a.Prefix.Masked(), l.Name); member.IsValid() {
				all = append(all, network{a.Prefix.Masked(), l.Name, member, "bridge " + l.Name + " has " + a.Prefix.String() + " and port " + port})
			}
		}
	}
	return all
}

// forContainers: kinds of links to a container or a machine.
func forContainers(kind string) bool { return kind == "veth" || kind == "tun" }

// isNetwork: it has room for more than its own two ends, and can be routed.
func isNetwork(p netip.Prefix) bool {
	return p.Bits() >= fewestBits && p.Addr().BitLen()-p.Bits() >= 2 && p.Addr().IsGlobalUnicast()
}

// routedMembers are the single addresses that CNIs without a bridge route to links.
//
//	10.244.1.7 dev cali0123456789a scope link
func (p *patient) routedMembers() []network {
	n := &p.host.Network
	var all []network
	for i := range n.Routes {
		rt := &n.Routes[i]
		if rt.Table != route.TableMain || rt.Type != route.Unicast || !rt.Destination.IsSingleIP() || len(rt.Nexthops) != 1 || rt.Nexthops[0].Via.IsValid() {
			continue
		}
		link := n.Link(rt.Nexthops[0].Interface)
		if link == nil || link.Kind != "veth" || link.Master != "" || !rt.Destination.Addr().IsGlobalUnicast() || rt.Protocol == "kernel" || p.isLocal(rt.Destination.Addr()) {
			continue // of no container: the node's own address there has such a route too
		}
		all = append(all, network{rt.Destination, link.Name, rt.Destination.Addr(), "route " + rt.Text})
	}
	return all
}

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

// outside is an address that is nobody's here: far away in the Internet.
func outside(f packet.Family) netip.Addr {
	if f == packet.IPv4Family {
		return netip.AddrFrom4([4]byte{1, 1, 1, 1})
	}
	return netip.AddrFrom16([16]byte{0x26, 0x06, 0x47, 0x00, 0x47, 0x00, 14: 0x11, 15: 0x11})
}

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
