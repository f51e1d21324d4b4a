package sim

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// certainTypes is -m addrtype.
func (r *run) certainTypes(m ruleset.AddressType) ipset.Answer {
	source := r.certainType(r.src, m.Source, r.limit(m), m.NotSource)
	destination := r.certainType(r.dst, m.Destination, r.limit(m), m.NotDestination)
	switch {
	case source == ipset.No || destination == ipset.No:
		return ipset.No
	case source == ipset.Yes && destination == ipset.Yes:
		return ipset.Yes
	}
	return ipset.Unknown
}

// limit is the interface that --limit-iface-in or -out asks for.
func (r *run) limit(m ruleset.AddressType) string {
	switch {
	case m.LimitIn && r.in.known:
		return r.in.name
	case m.LimitOut && r.out.known:
		return r.out.name
	}
	return ""
}

func (r *run) certainType(a netip.Addr, types ruleset.AddressTypes, dev string, not bool) ipset.Answer {
	if types == 0 {
		return ipset.Yes
	}
	has, known := r.node.host.Network.HasType(a, uint16(types), dev)
	if !known {
		t := route.Unicast
		if a.IsMulticast() || a.IsLoopback() || r.local && a == r.question.Source {
			t = route.Local
			if a.IsMulticast() {
				t = route.Multicast
			}
		} else {
			return ipset.Unknown
		}
		has = types&typeBit(t) != 0
	}
	return answer(has != not)
}

// typeBit is the bit of a route's type in a rule's set.
func typeBit(t route.Type) ruleset.AddressTypes {
	return [...]ruleset.AddressTypes{
		route.Unicast: ruleset.TypeUnicast, route.Local: ruleset.TypeLocal, route.Broadcast: ruleset.TypeBroadcast,
		route.Anycast: ruleset.TypeAnycast, route.Multicast: ruleset.TypeMulticast, route.Blackhole: ruleset.TypeBlackhole,
		route.Unreachable: ruleset.TypeUnreachable, route.Prohibit: ruleset.TypeProhibit, route.Throw: ruleset.TypeThrow,
	}[t]
}

// certainPhysDev: what isn't bridged has no bridge port to leave by; ports
// themselves aren't known.
func (r *run) certainPhysDev(m ruleset.PhysDev) ipset.Answer {
	if (m.IsBridged == ruleset.AskedYes) && !r.bridged || (m.IsBridged == ruleset.AskedNo) && r.bridged {
		return ipset.No
	}
	if !r.bridged && (m.IsOut == ruleset.AskedYes || m.Out != (ruleset.Interface{}) && !m.Out.Not) {
		return ipset.No
	}
	if r.in.known && r.in.name != "" && !r.bridged {
		if link := r.node.host.Network.Link(r.in.name); link != nil && link.Kind != "bridge" &&
			(m.IsIn == ruleset.AskedYes || m.In != (ruleset.Interface{}) && !m.In.Not) {
			return ipset.No
		}
	}
	if m.In == (ruleset.Interface{}) && m.Out == (ruleset.Interface{}) && m.IsIn == ruleset.Unasked && m.IsOut == ruleset.Unasked {
		return ipset.Yes
	}
	return ipset.Unknown
}

// certainOwner: a forwarded packet has no socket, so that only negations hold.
func (r *run) certainOwner(m ruleset.Owner) ipset.Answer {
	if r.local && r.hook == postrouting && r.isGroup() {
		return r.certainLoopedOwner(m)
	}
	if r.local {
		if m.SocketExists == ruleset.AskedNo {
			return ipset.No
		}
		if m.UID == nil && m.GID == nil {
			return ipset.Yes
		}
		return ipset.Unknown
	}
	return answer(holdsWithoutSocket(m))
}

func holdsWithoutSocket(m ruleset.Owner) bool {
	return m.SocketExists != ruleset.AskedYes && (m.UID == nil || m.NotUID) && (m.GID == nil || m.NotGID)
}

// isGroup says whether the packet goes to many, and maybe to the node itself too.
// What goes by lo has no copy.
func (r *run) isGroup() bool {
	if r.out.known && r.out.name == "lo" {
		return false
	}
	return r.dst.IsMulticast() || r.route.Type == route.Broadcast
}

// certainLoopedOwner: the copy of a broadcast that goes to the node itself passes
// POSTROUTING first, and without a socket (ip_mc_output). Whether a multicast
// has such a copy depends on who listens.
func (r *run) certainLoopedOwner(m ruleset.Owner) ipset.Answer {
	if r.dst.IsMulticast() {
		return ipset.Unknown
	}
	return answer(holdsWithoutSocket(m))
}

// certainRPFilter is -m rpfilter.
func (r *run) certainRPFilter(m ruleset.RPFilter) ipset.Answer {
	if !r.in.known {
		return ipset.Unknown
	}
	if r.in.name == "lo" {
		return answer(!m.Invert)
	}
	mark := uint32(0)
	if m.ValidMark {
		mark = r.mark
	}
	back, kind, found, known := r.node.host.Network.ReversePath(r.src, r.dst, r.in.name, mark)
	if !known {
		return ipset.Unknown
	}
	ok := found && (kind == route.Unicast || m.AcceptLocal && kind == route.Local) && (m.Loose || back == r.in.name)
	return answer(ok != m.Invert)
}

func (r *run) certainPacketType(m ruleset.PacketType) ipset.Answer {
	to := r.question.Destination // the link's address, which no rule changes
	if r.local {
		return answer(m.Type == "unicast")
	}
	if to.IsMulticast() {
		return answer(m.Type == "multicast")
	}
	if !r.in.known {
		return ipset.Unknown
	}
	// A broadcast of another link's subnet has come to this node as its router.
	t, known := r.node.host.Network.TypeOf(to, r.in.name)
	switch {
	case !known:
		return ipset.Unknown
	case t == route.Broadcast:
		return answer(m.Type == "broadcast")
	}
	return answer(m.Type == "unicast")
}
