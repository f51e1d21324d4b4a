package sim

import (
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// sourceIsPossible is what the kernel asks of an address before it routes the
// packet: ip_route_input_slow, ip6_rcv_core.
func (r *run) sourceIsPossible() bool {
	if !r.in.known || r.in.name == "lo" {
		return true
	}
	if r.family == packet.IPv6Family {
		if r.question.Source.IsLoopback() || r.question.Destination.IsLoopback() {
			return r.martian("::1 on " + r.in.name)
		}
		return true
	}
	if r.src.IsMulticast() || r.src.IsUnspecified() || r.src == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return r.martian(r.src.String() + " can't be a source")
	}
	if (r.src.IsLoopback() || r.dst.IsLoopback()) && !r.routesLocalnet(r.in.name) {
		return r.martian("127.0.0.0/8 on " + r.in.name + ", and route_localnet is off")
	}
	return true
}

// sourceIsValid is the check that an IPv4 source passes once the packet has its
// route: martians, rp_filter (net/ipv4/fib_frontend.c, fib_validate_source).
func (r *run) sourceIsValid(broadcast bool) bool {
	if !r.in.known || r.in.name == "lo" || r.family != packet.IPv4Family {
		return true
	}
	filter := r.rpFilter()
	if filter == 0 && !r.mayRedirect() {
		if r.confSetting("accept_local") {
			return true
		}
		if !r.node.customRouting {
			return !r.isOwnAddress() || r.martian(r.src.String()+" is the node's own address")
		}
	}
	return r.wayBackIsValid(filter, broadcast)
}

// wayBackIsValid is __fib_validate_source. With filter 0 it says no to what
// leads back to no host: the node's own addresses, and broadcasts.
func (r *run) wayBackIsValid(filter int, broadcast bool) bool {
	n := &r.node.host.Network
	q := r.query(0)
	if r.confSetting("src_valid_mark") {
		q.Mark = r.mark
	}
	out := r.out.name
	if r.toNode {
		out = ""
	}
	if broadcast {
		q.Destination = netip.Addr{}
	}
	back, kind, found, known := n.ReverseRoute(q, out)
	switch {
	case !known:
		return true
	case !found:
		return filter == 0 || r.noWayBack("no route back to "+r.src.String())
	case kind == route.Local && !r.confSetting("accept_local"):
		return r.martian(r.src.String() + " is the node's own address")
	case kind != route.Unicast && kind != route.Local:
		return r.martian(r.src.String() + " is a " + kind.String() + " address")
	case back == r.in.name, filter == 0:
		return true
	case !r.hasAddress(r.in.name): // then there is no loose mode
		return r.noWayBack("the route back to " + r.src.String() + " leaves by " + back + ", and " + r.in.name + " has no address")
	}
	return filter != 1 || r.noWayBack("the route back to "+r.src.String()+" leaves by "+back)
}

func (r *run) martian(why string) bool {
	return r.endRoute(Dropped, &Decider{Text: "martian: " + why}, "martian")
}

func (r *run) noWayBack(why string) bool {
	return r.endRoute(Dropped, &Decider{Text: "rp_filter on " + r.in.name + ": " + why}, "rp_filter")
}

// mayRedirect says whether the packet leaves as it came, so that the kernel might
// send its sender an ICMP redirect.
func (r *run) mayRedirect() bool {
	if r.toNode || r.out.name != r.in.name {
		return false
	}
	all, given := r.sysctl("net.ipv4.conf.all.send_redirects")
	own, ownGiven := r.sysctl("net.ipv4.conf." + r.in.name + ".send_redirects")
	return all == "1" || own == "1" || !given && !ownGiven // it is the kernel's default
}

// customRouting says whether somebody added routing rules or local routes: then
// the kernel looks up the way back to every source.
func customRouting(n *route.Network) bool {
	return slices.ContainsFunc(n.Rules, func(x route.Rule) bool {
		return x.Family == packet.IPv4Family && x.Priority != 0 && x.Priority < 32766
	}) || slices.ContainsFunc(n.Routes, func(x route.Route) bool {
		return x.Family == packet.IPv4Family && x.Type == route.Local && x.Protocol != "" && x.Protocol != "kernel"
	})
}

// isOwnAddress says whether an interface has the packet's source; a local route
// doesn't make it so.
func (r *run) isOwnAddress() bool {
	n := &r.node.host.Network
	own, known := n.IsLocal(r.src)
	if !own || !known || !n.KnownAddresses {
		return own && known
	}
	return slices.ContainsFunc(n.Addresses, func(a route.Address) bool { return a.Prefix.Addr() == r.src })
}

// hasAddress says whether an interface has an IPv4 address; true where none are known.
func (r *run) hasAddress(name string) bool {
	n := &r.node.host.Network
	return !n.KnownAddresses || slices.ContainsFunc(n.Addresses, func(a route.Address) bool { return a.Interface == name && a.Prefix.Addr().Is4() })
}

// confSetting says whether a setting is on for all interfaces or the one that the
// packet came in by.
func (r *run) confSetting(key string) bool {
	all, _ := r.sysctl("net.ipv4.conf.all." + key)
	own, _ := r.sysctl("net.ipv4.conf." + r.in.name + "." + key)
	return all == "1" || own == "1"
}

// rpFilter is the larger of the setting for all and for the interface.
func (r *run) rpFilter() int {
	filter := 0
	for _, of := range []string{"all", r.in.name} {
		switch v, _ := r.sysctl("net.ipv4.conf." + of + ".rp_filter"); v {
		case "1":
			filter = max(filter, 1)
		case "2":
			filter = max(filter, 2)
		}
	}
	return filter
}

// routesLocalnet says whether 127.0.0.0/8 may come in, or leave, by an interface.
func (r *run) routesLocalnet(name string) bool {
	for _, of := range []string{"all", name} {
		if v, given := r.sysctl("net.ipv4.conf." + of + ".route_localnet"); v == "1" || !given {
			return true
		}
	}
	return false
}
