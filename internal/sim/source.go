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
		if r.question.Source.IsLoopback() || r.question.Destination.IsLoopback() && !r.translatedOnBridge() {
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

// translatedOnBridge says whether PREROUTING translated ::1 before IPv6 itself saw
// the packet: on a bridge that shows its packets to iptables.
func (r *run) translatedOnBridge() bool {
	link := r.node.host.Network.Link(r.in.name)
	return !r.dst.IsLoopback() && link != nil && link.Kind == "bridge" && r.bridgeCallsIPTables()
}

// sourceIsValid is the check that an IPv4 source passes once the packet has its
// route: martians, rp_filter (net/ipv4/fib_frontend.c, fib_validate_source).
func (r *run) sourceIsValid(broadcast bool) bool {
	if !r.in.known || r.in.name == "lo" || r.family != packet.IPv4Family {
		return true
	}
	filter := r.confIn().rpFilter
	if filter == 0 && !r.mayRedirect() {
		if r.confIn().acceptLocal {
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
	if r.confIn().srcValidMark {
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
	case kind == route.Local && !r.confIn().acceptLocal:
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
	return !r.toNode && r.out.name == r.in.name && r.confIn().sendRedirects
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

// interfaceConf are settings net.ipv4.conf of one interface, or of all where
// those say more, that the routing of what comes in asks for.
type interfaceConf struct {
	name                      string
	rpFilter                  int
	acceptLocal, srcValidMark bool
	sendRedirects             bool
}

// confIn are those of the interface that the packet came in by.
func (r *run) confIn() *interfaceConf {
	if r.conf.name != r.in.name || r.in.name == "" {
		r.conf = r.readConf(r.in.name)
	}
	return &r.conf
}

func (r *run) readConf(name string) interfaceConf {
	c := interfaceConf{name: name}
	given := false
	for _, of := range []string{"all", name} {
		of = "net.ipv4.conf." + of
		switch v, _ := r.sysctl(of + ".rp_filter"); v {
		case "1":
			c.rpFilter = max(c.rpFilter, 1)
		case "2":
			c.rpFilter = max(c.rpFilter, 2)
		}
		on := func(key string) bool {
			v, _ := r.sysctl(of + key)
			return v == "1"
		}
		c.acceptLocal = c.acceptLocal || on(".accept_local")
		c.srcValidMark = c.srcValidMark || on(".src_valid_mark")
		v, known := r.sysctl(of + ".send_redirects")
		c.sendRedirects, given = c.sendRedirects || v == "1", given || known
	}
	c.sendRedirects = c.sendRedirects || !given // it is the kernel's default
	return c
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
