package sim

import (
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// leave looks at the interface that the packet leaves by: into a tunnel it goes
// on as another packet, which the node sends.
func (r *run) leave() {
	if r.depth > 0 || !r.out.known {
		return
	}
	link := r.node.host.Network.Link(r.out.name)
	if link == nil {
		return
	}
	q := Question{Source: link.Local, SourcePort: UnknownPort, DestinationPort: UnknownPort, Mark: r.mark, Local: true}
	switch link.Kind {
	case "vxlan", "geneve":
		q.Protocol, q.DestinationPort = packet.UDP, int(link.Port)
	case "wireguard":
		q.Protocol, q.Mark = packet.UDP, 0
		if peer, found := r.node.host.PeerTo(link.Name, r.dst); found && peer.Endpoint.IsValid() {
			q.Mark, q.Destination, q.DestinationPort = peer.Mark, peer.Endpoint.Addr().Unmap(), int(peer.Endpoint.Port())
		}
	case "ipip":
		q.Protocol = packet.IPIP
	case "sit", "ip6tnl":
		q.Protocol = packet.IPv6
	case "gre", "gretap", "ip6gre":
		q.Protocol = packet.GRE
	default:
		return
	}
	if !q.Destination.IsValid() {
		q.Destination = r.tunnelEnd(link)
	}
	r.tunnel = &Encapsulated{Interface: link.Name, Question: q}
	if !q.Destination.IsValid() {
		r.lacks("tunnel "+link.Name, "where its outer packet goes isn't known")
		r.tunnel = nil
		return
	}
	if !q.Source.IsValid() {
		found := r.node.host.Network.Lookup(route.Query{Destination: q.Destination, Mark: q.Mark, SourcePort: -1, DestinationPort: -1})
		q.Source = found.Source
	}
	if !q.Source.IsValid() || packet.Of(q.Source) != packet.Of(q.Destination) {
		r.lacks("tunnel "+link.Name, "its outer source address isn't known")
		r.tunnel = nil
		return
	}
	r.tunnel.Question = q
	r.tunnel.Outcomes = r.node.answer(q, r.options, r.depth+1, &r.budget)
}

// tunnelEnd is the outer destination: the link's own, what the neighbour and
// forwarding tables say, or, for IP in IP without a fixed end, the next hop.
func (r *run) tunnelEnd(link *route.Link) netip.Addr {
	if link.Remote.IsValid() && !link.Remote.IsUnspecified() && !link.Remote.IsMulticast() {
		return link.Remote
	}
	switch link.Kind {
	case "ipip", "sit", "gre":
		if r.nextHop.IsValid() {
			return r.nextHop
		}
		return netip.Addr{}
	}
	if f := r.learnt(link.Name, r.hop(), func(f *route.Forward) bool { return f.Interface == link.Name && f.Remote.IsValid() }); f != nil {
		return f.Remote
	}
	return netip.Addr{}
}

// hop is whom the packet is sent to on its link: the gateway, or the destination.
func (r *run) hop() netip.Addr {
	if r.nextHop.IsValid() {
		return r.nextHop
	}
	return r.dst
}

// learnt is the entry of the forwarding tables that fits, for the link address
// that a neighbour on a link has; nil without.
func (r *run) learnt(link string, neighbor netip.Addr, fits func(*route.Forward) bool) *route.Forward {
	n := &r.node.host.Network
	for i := range n.Neighbors {
		if n.Neighbors[i].Interface != link || n.Neighbors[i].Address != neighbor {
			continue
		}
		for j := range n.Forwarding {
			if f := &n.Forwarding[j]; strings.EqualFold(f.MAC, n.Neighbors[i].MAC) && fits(f) {
				return f
			}
		}
	}
	return nil
}
