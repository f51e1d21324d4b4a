package sim

import (
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// fibSubject is fib KEYS RESULT: net/ipv4/netfilter/nft_fib_ipv4.c.
func fibSubject(e nftables.FIB) subject {
	source := slices.Contains(e.Keys, "saddr")
	of := func(r *run) netip.Addr {
		if source {
			return r.src
		}
		return r.dst
	}
	if e.Result != "type" {
		return subject{value: func(r *run) (nftables.Value, state) { return r.fibInterface(e, source) }, why: "the route isn't known"}
	}
	return subject{
		value: func(r *run) (nftables.Value, state) {
			t, ok := r.node.host.Network.FIBType(r.fibQuery(e, source), r.fibDevice(e))
			if !ok {
				return "", open
			}
			return r.values.number32(uint32(t) + 1), known
		},
		within: func(r *run, set []nftables.Interval) bool {
			t := route.Unicast
			switch a := of(r); {
			case a.IsMulticast():
				t = route.Multicast
			case r.isLocal(a):
				t = route.Local
			}
			return contains(set, number32(uint32(t)+1))
		},
	}
}

// fibQuery is the lookup; that of a source is the way back.
func (r *run) fibQuery(e nftables.FIB, source bool) route.Query {
	q := route.Query{Source: r.src, Destination: r.dst, SourcePort: -1, DestinationPort: -1, OutInterface: r.in.name}
	if source {
		q.Source, q.Destination = q.Destination, q.Source
	}
	if slices.Contains(e.Keys, "mark") {
		q.Mark = r.mark
	}
	return q
}

func (r *run) fibDevice(e nftables.FIB) string {
	switch {
	case slices.Contains(e.Keys, "iif") && r.in.known:
		return r.in.name
	case slices.Contains(e.Keys, "oif") && r.out.known:
		return r.out.name
	}
	return ""
}

// fibInterface is the interface of the route to an address, empty without one,
// and where the rule names iif or oif and the route doesn't lead there. check
// asks whether there is one. nft takes it at prerouting, input and forward alone.
func (r *run) fibInterface(e nftables.FIB, source bool) (nftables.Value, state) {
	limited := slices.Contains(e.Keys, "iif") || slices.Contains(e.Keys, "oif")
	if !r.routesKnown() || !r.in.known || slices.Contains(e.Keys, "oif") && !r.out.known {
		return "", open
	}
	device, name := r.fibDevice(e), ""
	switch back, kind, found, ok := r.node.host.Network.FIBInterface(r.fibQuery(e, source), device); {
	case r.in.name == "lo" && r.hook != forward: // nft_fib_can_skip
		name = "lo"
	case !ok:
		return "", open
	case found && kind != route.Local && kind != route.Anycast && (!limited || back == device):
		name = back
	}
	if e.Result == "check" {
		if name != "" {
			return number8(1), known
		}
		return number8(0), known
	}
	return interfaceName(name), known
}

// rtSubject is rt nexthop, the gateway, or the destination on a link; and rt ipsec,
// whether a policy of IPsec takes the packet: no, where there is none.
func rtSubject(e nftables.RT) subject {
	switch e.Key {
	case "nexthop":
	case "ipsec":
		return subject{value: func(r *run) (nftables.Value, state) {
			if r.node.host.NoIPsec {
				return number8(0), known
			}
			return "", open
		}, text: "IPsec policies", why: "which there are isn't known"}
	default:
		return opened(e, "it isn't in a dump")
	}
	return subject{value: func(r *run) (nftables.Value, state) {
		switch {
		case e.Family == "ip" && r.family != packet.IPv4Family || e.Family == "ip6" && r.family != packet.IPv6Family:
			return "", broken
		case !r.route.Known:
			return "", open
		case r.nextHop.IsValid():
			return nftables.Value(r.nextHop.AsSlice()), known
		}
		return r.values.address(r.dst), known
	}}
}
