package vicinity

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Network is one that the node forwards for: its pods, containers or machines.
type Network struct {
	Prefix netip.Prefix
	// Link that its packets come in by.
	Link string
	// Members are addresses of it that are known to be somebody's, without the node's own.
	Members []netip.Addr
	// Why it is taken for one.
	Why string
	// Empty: nothing hangs on its bridge now.
	Empty bool
}

// Family of the network.
func (n *Network) Family() packet.Family { return packet.Of(n.Prefix.Addr()) }

// fewestBits: an address block of fewer bits is no network of one node.
const fewestBits = 8

// Networks goes by bridges with ports of containers or with none, and by routes to
// single addresses behind such links.
func Networks(h *snapshot.Host) []Network {
	var all []Network
	for i := range h.Network.Links {
		all = append(all, bridgeNetworks(h, &h.Network.Links[i])...)
	}
	return append(all, routedMembers(h)...)
}

// bridgeNetworks are those of a bridge's addresses, where what hangs on it are
// containers or machines: a bridge over a network card is the node's own uplink.
func bridgeNetworks(h *snapshot.Host, l *route.Link) []Network {
	n := &h.Network
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
	why := "and port " + port
	switch {
	case port != "":
	case strings.HasPrefix(l.Name, "virbr") || IsUplink(n, l.Name):
		return nil
	default:
		why = "and nothing on it"
	}
	var all []Network
	for _, a := range n.Addresses {
		if a.Interface != l.Name || !IsNetwork(a.Prefix) {
			continue
		}
		found := Network{Prefix: a.Prefix.Masked(), Link: l.Name, Empty: port == "", Why: "bridge " + l.Name + " has " + a.Prefix.String() + " " + why}
		for _, b := range n.Neighbors {
			if b.Interface == l.Name && b.MAC != "" && found.Prefix.Contains(b.Address) && !isLocal(h, b.Address) {
				found.Members = append(found.Members, b.Address)
			}
		}
		slices.SortFunc(found.Members, netip.Addr.Compare)
		all = append(all, found)
	}
	return all
}

// IsUplink says whether a default route leaves by a link.
func IsUplink(n *route.Network, link string) bool {
	return slices.ContainsFunc(n.Routes, func(r route.Route) bool {
		return r.Destination.IsValid() && r.Destination.Bits() == 0 && slices.ContainsFunc(r.Nexthops, func(h route.Nexthop) bool { return h.Interface == link })
	})
}

// forContainers: kinds of links to a container or a machine.
func forContainers(kind string) bool { return kind == "veth" || kind == "tun" }

// IsNetwork says whether a prefix has room for more than its own two ends, and can be routed.
func IsNetwork(p netip.Prefix) bool {
	return p.Bits() >= fewestBits && p.Addr().BitLen()-p.Bits() >= 2 && p.Addr().IsGlobalUnicast()
}

// routedMembers are the single addresses that CNIs without a bridge route to links.
//
//	10.244.1.7 dev cali0123456789a scope link
func routedMembers(h *snapshot.Host) []Network {
	n := &h.Network
	var all []Network
	for i := range n.Routes {
		rt := &n.Routes[i]
		if rt.Table != route.TableMain || rt.Type != route.Unicast || !rt.Destination.IsSingleIP() || len(rt.Nexthops) != 1 || rt.Nexthops[0].Via.IsValid() {
			continue
		}
		a, link := rt.Destination.Addr(), n.Link(rt.Nexthops[0].Interface)
		if link == nil || link.Kind != "veth" || link.Master != "" || !a.IsGlobalUnicast() || rt.Protocol == "kernel" || isLocal(h, a) {
			continue // of no container: the node's own address there has such a route too
		}
		all = append(all, Network{Prefix: rt.Destination, Link: link.Name, Members: []netip.Addr{a}, Why: "route " + rt.Text})
	}
	return all
}

func isLocal(h *snapshot.Host, a netip.Addr) bool {
	local, _ := h.Network.IsLocal(a)
	return local
}

// Remotes are routes to networks that look like those of other nodes' pods: by way of
// a gateway or a tunnel, of the same size as the network that is this node's own, next
// to it in the same block.
func Remotes(h *snapshot.Host, n *Network) []*route.Route {
	own, block := Block(h, n.Prefix), 8
	if n.Family() == packet.IPv6Family {
		block = 16
	}
	var found []*route.Route
	for i := range h.Network.Routes {
		rt := &h.Network.Routes[i]
		if rt.Family != n.Family() || rt.Type != route.Unicast || rt.Table != route.TableMain || rt.Destination.Bits() != own.Bits() || rt.Destination == own ||
			own.Bits() <= 16 || len(rt.Nexthops) == 0 || !rt.Nexthops[0].Via.IsValid() {
			continue
		}
		if wide, err := own.Addr().Prefix(own.Bits() - block); err == nil && wide.Contains(rt.Destination.Addr()) {
			found = append(found, rt)
		}
	}
	return found
}

// Block of addresses that a network is of: with calico the blackhole route tells.
//
//	blackhole 192.168.0.0/26 proto bird
func Block(h *snapshot.Host, p netip.Prefix) netip.Prefix {
	for i := range h.Network.Routes {
		if rt := &h.Network.Routes[i]; rt.Type == route.Blackhole && rt.Destination.Contains(p.Addr()) && rt.Destination.Bits() < p.Bits() {
			return rt.Destination
		}
	}
	return p
}

// exemptions are chains of components that masquerade all but what returns there.
var exemptions = []string{"IP-MASQ-AGENT", "IP-MASQ"}

// Kept are the networks that ip-masq-agent leaves alone, link-local ones left out.
//
//	-A IP-MASQ-AGENT -d 10.0.0.0/8 -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN
func Kept(h *snapshot.Host) (all []netip.Prefix) {
	for _, t := range h.Rules.Tables {
		if t.Native != nil || t.Name != "nat" {
			continue
		}
		for _, name := range exemptions {
			chain := t.Chain(name)
			if chain == nil {
				continue
			}
			for i := range chain.Rules {
				rule := &chain.Rules[i]
				_, returns := rule.Target.(ruleset.Return)
				to := rule.Destination.Prefix
				if returns && to.IsValid() && !rule.Destination.Not && !rule.Source.Prefix.IsValid() && !to.Addr().IsLinkLocalUnicast() && !slices.Contains(all, to.Masked()) {
					all = append(all, to.Masked())
				}
			}
		}
	}
	return all
}

// Free is the address of a prefix with a number that isn't the node's and not among
// those taken: what stands for any of its members where none is known.
func Free(h *snapshot.Host, p netip.Prefix, taken func(netip.Addr) bool) netip.Addr {
	const tries = 512
	a := p.Masked().Addr().Next()
	for range tries {
		if a = a.Next(); !p.Contains(a) {
			break
		}
		if !isLocal(h, a) && !taken(a) {
			return a
		}
	}
	return netip.Addr{}
}

// Primary is the address that the node is known by: that of the interface that leads
// out, which a default route leaves by.
func Primary(h *snapshot.Host, f packet.Family) netip.Addr {
	if out := h.Network.Lookup(route.Query{Destination: Outside(f), SourcePort: -1, DestinationPort: -1}); out.Known && out.Found && out.Source.IsValid() && out.Source.IsGlobalUnicast() {
		return out.Source
	}
	containers := map[string]bool{}
	for _, n := range Networks(h) {
		containers[n.Link] = true
	}
	best := netip.Addr{}
	for _, a := range h.Network.Addresses {
		ip, link := a.Prefix.Addr(), h.Network.Link(a.Interface)
		usable := packet.Of(ip) == f && ip.IsGlobalUnicast() && !containers[a.Interface] && a.Prefix.Bits() < ip.BitLen()
		if usable && !best.IsValid() && (link == nil || cmp.Or(link.Kind, "veth") == "veth" || link.Kind == "bond" || link.Kind == "vlan" || link.Kind == "bridge") {
			best = ip
		}
	}
	return best
}

// Outside is an address that is nobody's here: far away in the Internet.
func Outside(f packet.Family) netip.Addr {
	if f == packet.IPv4Family {
		return netip.AddrFrom4([4]byte{1, 1, 1, 1})
	}
	return netip.AddrFrom16([16]byte{0x26, 0x06, 0x47, 0x00, 0x47, 0x00, 14: 0x11, 15: 0x11})
}
