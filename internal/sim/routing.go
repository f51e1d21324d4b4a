package sim

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// sysctl returns a setting, empty where the node has none; given is false where
// that isn't known.
func (r *run) sysctl(name string) (value string, given bool) {
	value, ok := r.node.host.Sysctls[name]
	return value, ok || r.node.host.AllSysctls
}

// isLocal asks whether an address is the node's. Where addresses weren't given
// it chooses, "no" first: that is what [snapshot.Host] without routes means.
func (r *run) isLocal(a netip.Addr) bool {
	local, known := r.node.host.Network.IsLocal(a)
	if known {
		return local
	}
	if a.IsLoopback() || r.local && a == r.question.Source {
		return true
	}
	if a == r.question.Source {
		r.lacks("addresses", "none were given; "+a.String()+" is taken as not being the node's (else --local)")
		return false // what comes in isn't from the node
	}
	key := localKey(a)
	if taken, ok := r.recall(key); ok {
		return taken == 1
	}
	return r.choose(key, "addresses",
		alternative{why: "none were given", when: a.String() + " isn't one of the node's"},
		alternative{why: "none were given", when: a.String() + " is one of the node's"}) == 1
}

func localKey(a netip.Addr) string { return "local " + a.String() }

// isLocalAsAssumed is isLocal for the routing decision: it doesn't choose, but
// follows what a rule has asked, as later rules follow it.
func (r *run) isLocalAsAssumed(a netip.Addr) bool {
	if local, known := r.node.host.Network.IsLocal(a); known {
		return local
	}
	if a.IsLoopback() || r.local && a == r.question.Source {
		return true
	}
	if taken, ok := r.recall(localKey(a)); ok {
		return taken == 1
	}
	r.lacks("addresses", "none were given; "+a.String()+" is taken as not being the node's")
	r.choose(localKey(a), "addresses", alternative{})
	return false
}

// routesKnown says whether a lookup can be done.
func (r *run) routesKnown() bool { return r.node.host.Network.Of(r.family).Main }

func (r *run) lookup(mark uint32) route.Result { return r.node.host.Network.Lookup(r.query(mark)) }

func (r *run) query(mark uint32) route.Query {
	q := route.Query{
		Source: r.src, Destination: r.dst, Mark: mark, InInterface: r.in.name,
		Protocol: r.protocol, SourcePort: r.sport.number(), DestinationPort: r.dport.number(),
	}
	if r.local {
		q.InInterface = ""
	}
	return q
}

// takeRoute puts the packet on the route found; false where it ends there.
func (r *run) takeRoute(result route.Result) bool {
	r.route = result
	if !result.Found {
		return r.endRoute(Rejected, &Decider{Text: "no route to " + r.dst.String()}, "no route")
	}
	switch result.Type {
	case route.Blackhole:
		return r.endRoute(Dropped, &Decider{Route: result.Route}, "blackhole")
	case route.Unreachable:
		return r.endRoute(Rejected, &Decider{Route: result.Route}, "unreachable")
	case route.Prohibit:
		return r.endRoute(Rejected, &Decider{Route: result.Route}, "prohibit")
	case route.Local, route.Broadcast, route.Multicast, route.Anycast:
		if result.Type == route.Multicast && !r.local && !r.hasJoined() {
			return r.endRoute(Dropped, &Decider{Text: "nobody on the node has joined " + r.dst.String()}, "not joined")
		}
		if result.Type == route.Local || result.Type == route.Anycast || !r.local || result.Interface == "lo" {
			r.toNode = true
			r.out = interfaceNamed("lo")
			return true
		}
	}
	hop := r.chooseHop(result)
	r.toNode = false
	r.nextHop, r.out = hop.Via, interfaceNamed(hop.Interface)
	if hop.Interface == "" {
		r.out = interfaceNamed(result.Interface)
	}
	if r.local && r.family == packet.IPv4Family && r.src.IsLoopback() && !r.routesLocalnet(r.out.name) { // __mkroute_output
		return r.endRoute(Rejected, &Decider{Text: "127.0.0.0/8 leaves by " + r.out.name + " only with route_localnet, which is off"}, "martian")
	}
	return true
}

// hasJoined says whether a program of the node listens to the group that the
// packet is sent to; all hosts are in the group of all hosts.
func (r *run) hasJoined() bool {
	if r.dst == netip.AddrFrom4([4]byte{224, 0, 0, 1}) || r.dst == netip.IPv6LinkLocalAllNodes() {
		return true
	}
	const why = "which groups the node's programs have joined isn't in a dump"
	return r.choose("joined "+r.dst.String(), "multicast group", alternative{why: why, when: "one has joined it"}, alternative{why: why, when: "none has joined it"}) == 0
}

func (r *run) endRoute(v Verdict, d *Decider, effect string) bool {
	r.verdict, r.decider = v, d
	r.record(Step{Hook: "routing", Matched: true, Effect: effect})
	return false
}

// chooseHop takes one of the next hops: by weight, since the kernel's hash of a
// flow has a secret of its own.
func (r *run) chooseHop(result route.Result) route.Nexthop {
	hops := result.Nexthops
	if len(hops) == 0 {
		return route.Nexthop{Interface: result.Interface}
	}
	if len(hops) == 1 {
		return hops[0]
	}
	total := 0
	for _, h := range hops {
		total += max(h.Weight, 1)
	}
	alternatives := make([]alternative, len(hops))
	for i, h := range hops {
		alternatives[i] = alternative{weight: float64(max(h.Weight, 1)) / float64(total), why: "through " + h.Interface}
	}
	return hops[r.choose("", "multipath route", alternatives...)]
}

// routeIn is the routing decision of a packet that came in; it sets toNode, or
// the interface that it leaves by.
func (r *run) routeIn() bool {
	if r.redirected {
		r.toNode = true
		return true
	}
	if via := r.question; via.OutInterface != "" || via.Via.IsValid() {
		return r.routeAsAsked()
	}
	if !r.routesKnown() {
		if r.isLocalAsAssumed(r.dst) {
			r.toNode = true
		} else {
			r.openOut()
		}
		return true
	}
	result := r.lookup(r.mark)
	if !result.Known {
		r.lacks("routes", result.Why)
		r.openOut()
		return true
	}
	r.lackingRoutes()
	if !result.Found && !r.forwards() {
		return r.endRoute(Dropped, &Decider{Text: "forwarding is off, and no route to " + r.dst.String()}, "no route")
	}
	if !r.sourceIsPossible() || !r.takeRoute(result) {
		return false
	}
	if !r.toNode && !r.forwards() {
		return r.endRoute(Dropped, &Decider{Text: "forwarding is off"}, "forwarding is off")
	}
	if !r.sourceIsValid(result.Type == route.Broadcast) {
		r.toNode, r.out, r.nextHop = false, openInterface{}, netip.Addr{}
		return false
	}
	if r.toNode {
		return true
	}
	if r.certainPacketType(ruleset.PacketType{Type: "broadcast"}) == ipset.Yes { // ip_forward
		return r.endRoute(Dropped, &Decider{Text: "it came as a broadcast on " + r.in.name + ", which isn't forwarded"}, "not forwarded")
	}
	return true
}

// routeAsAsked takes the way that the question states.
func (r *run) routeAsAsked() bool {
	r.nextHop = r.question.Via
	if r.question.OutInterface != "" {
		r.out = interfaceNamed(r.question.OutInterface)
		return true
	}
	if name, known := r.node.host.Network.InterfaceFor(r.question.Via); known && name != "" {
		r.out = interfaceNamed(name)
		return true
	}
	r.openOut()
	return true
}

func (r *run) openOut() {
	r.lacks("routes", "no routing table was given")
	r.out = openInterface{what: "out-interface", why: "no routing table was given"}
}

// lackingRoutes notes what of the routing wasn't given.
func (r *run) lackingRoutes() {
	if len(r.dependsOn) == 0 {
		r.dependsOn = slices.Clip(r.node.missing[r.family])
		return
	}
	for _, d := range r.node.missing[r.family] {
		r.dependsOn = appendDependency(r.dependsOn, d)
	}
}

// forwards says whether the node forwards what comes in there.
func (r *run) forwards() bool {
	family := "net.ipv4.conf."
	all := "net.ipv4.ip_forward"
	if r.family == packet.IPv6Family {
		family, all = "net.ipv6.conf.", "net.ipv6.conf.all.forwarding"
	}
	v, given := r.sysctl(family + r.in.name + ".forwarding")
	if v == "" {
		v, given = r.sysctl(all)
	}
	if v == "" && !given {
		r.lacks("sysctls", all+" wasn't given; forwarding is taken as on, rp_filter as off")
	}
	return v != "0"
}

// routeOut is the first routing decision of what the node sends.
func (r *run) routeOut() bool {
	r.routeMark = r.mark
	return r.decideOut()
}

// decideOut routes what the node sends by its present addresses and routeMark.
func (r *run) decideOut() bool {
	if r.question.OutInterface != "" || r.question.Via.IsValid() {
		return r.routeAsAsked()
	}
	if !r.routesKnown() {
		if r.toNode = r.isLocalAsAssumed(r.dst); r.toNode {
			r.out = interfaceNamed("lo")
		} else {
			r.openOut()
		}
		return true
	}
	result := r.lookup(r.routeMark)
	if !result.Known {
		r.lacks("routes", result.Why)
		r.openOut()
		return true
	}
	r.lackingRoutes()
	return r.takeRoute(result)
}

// settleOut takes the route that OUTPUT's changes of destination, and of the mark
// in table mangle alone, ask for (ip_route_me_harder). Rules at OUTPUT still saw the interface from before.
func (r *run) settleOut() bool {
	if !r.needRoute {
		return true
	}
	return r.decideOut()
}

// isBridged says whether the packet goes from one port of a bridge to another:
// its sender reaches the destination without the node's routing.
func (r *run) isBridged() bool {
	n := &r.node.host.Network
	if !r.in.known || r.in.name == "" || !r.routesKnown() || r.question.OutInterface != "" || r.question.Via.IsValid() {
		return false
	}
	if link := n.Link(r.in.name); link == nil || link.Kind != "bridge" {
		return false
	}
	if local, _ := n.IsLocal(r.dst); local {
		return false
	}
	subnet, ok := r.subnetOf(r.in.name)
	if !ok {
		return false
	}
	// Its sender asks its own routes: of the node's, no rule that is about who sends.
	there := n.Lookup(route.Query{Destination: r.dst, SourcePort: -1, DestinationPort: -1})
	switch {
	case there.Type == route.Local || there.Type == route.Anycast || there.Type == route.Broadcast || there.Type == route.Multicast:
		return false // all of it is the node's, or has a copy there
	case there.Known && there.Type == route.Unicast && onLink(there.Interface, there.Nexthops, r.in.name):
		return true
	}
	return !r.leadsElsewhere(subnet)
}

// onLink says whether a route leads to an interface, without a gateway.
func onLink(name string, hops []route.Nexthop, want string) bool {
	if len(hops) == 1 && !hops[0].Via.IsValid() {
		name = cmp.Or(hops[0].Interface, name)
	}
	return len(hops) < 2 && name == want && (len(hops) == 0 || !hops[0].Via.IsValid())
}

// leadsElsewhere says whether the node has a route to the destination that is
// more specific than the bridge's subnet: the sender is likely to have it too.
func (r *run) leadsElsewhere(subnet netip.Prefix) bool {
	return slices.ContainsFunc(r.node.host.Network.Routes, func(x route.Route) bool {
		return x.Table == route.TableMain && x.Destination.IsValid() && x.Destination.Bits() > subnet.Bits() && x.Destination.Contains(r.dst) &&
			(x.Type != route.Unicast || !onLink("", x.Nexthops, r.in.name))
	})
}

func hasGateway(result route.Result) bool {
	return len(result.Nexthops) == 1 && result.Nexthops[0].Via.IsValid()
}

// subnetOf an interface that source and destination share.
func (r *run) subnetOf(name string) (shared netip.Prefix, ok bool) {
	for i := range r.node.host.Network.Addresses {
		a := &r.node.host.Network.Addresses[i]
		if a.Interface == name && a.Prefix.Contains(r.src) && a.Prefix.Contains(r.dst) {
			return a.Prefix.Masked(), true
		}
	}
	return netip.Prefix{}, false
}

// bridgeCallsIPTables says whether bridged packets are shown to iptables.
func (r *run) bridgeCallsIPTables() bool {
	name := "net.bridge.bridge-nf-call-iptables"
	if r.family == packet.IPv6Family {
		name = "net.bridge.bridge-nf-call-ip6tables"
	}
	v, given := r.sysctl(name)
	if given {
		return v == "1" // absent where br_netfilter isn't loaded
	}
	return r.choose(name, "sysctl "+name, alternative{why: "it isn't given", when: "it is 1"}, alternative{why: "it isn't given", when: "it is 0"}) == 0
}
