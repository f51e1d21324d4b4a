package route

import (
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
)

// localEntry is the route by which an address is the node's own.
func (ix *index) localEntry(a netip.Addr) (e *entry, state state) {
	s := search{ix: ix, fi: ix.of(packet.Of(a)), q: &Query{Destination: a}, reverse: true}
	v := s.table(s.fi.local)
	if v.state == found && (v.kind != Local || len(v.entry.hops) == 0) {
		return nil, pass
	}
	return v.entry, v.state
}

// IsLocal says whether the address is one of the node's own. Where neither the
// addresses nor table local were given, only what routes tell is known.
func (n *Network) IsLocal(a netip.Addr) (local, known bool) {
	if !a.IsValid() {
		return false, false
	}
	if a.IsLoopback() {
		return true, true
	}
	switch _, state := n.indexed().localEntry(a); state {
	case found:
		return true, true
	case unknown:
		return false, false
	}
	return false, n.localGiven(packet.Of(a)) || n.addressesGiven(packet.Of(a))
}

// Bits of address types as -m addrtype has them: 1 << RTN_….
const (
	bitUnspec = 1 << 0
	// others follow in the order of Type.
)

// bitOf is the bit of a type.
func bitOf(t Type) uint16 { return 2 << t }

// TypeOf is the kernel's inet_addr_type (inet_dev_addr_type where dev isn't
// empty): what -m addrtype asks. known is false where the dump can't tell.
//
// An IPv6 address has several types at once: this is the most telling one, as
// nft's fib expression has it. HasType is exact for both.
func (n *Network) TypeOf(a netip.Addr, dev string) (t Type, known bool) {
	if !a.IsValid() {
		return Unicast, false
	}
	if a.Is6() {
		return n.typeOf6(a, dev)
	}
	if a.IsUnspecified() || a == limitedBroadcast { // before Linux 5.3 all of 0.0.0.0/8
		return Broadcast, true
	}
	if a.IsMulticast() {
		return Multicast, true
	}
	ix := n.indexed()
	s := search{ix: ix, fi: ix.of(packet.IPv4Family), q: &Query{Destination: a}, reverse: true}
	v := s.table4(s.fi.local)
	t, ok := v.addressType(dev)
	if s.fi.ordinary { // see find
		v := s.mergedTables()
		if merged, ok2 := v.addressType(dev); merged != t || !ok2 {
			return t, false
		}
	}
	if dev != "" && v.state == found && !n.localGiven(packet.IPv4Family) && ix.holders(a) > 1 {
		return t, false // which interface's route is the first
	}
	return t, ok && (t != Unicast || v.state == found || n.localGiven(packet.IPv4Family) || n.addressesGiven(packet.IPv4Family))
}

// holders counts the interfaces that have an address.
func (ix *index) holders(a netip.Addr) (n int) {
	for _, d := range ix.devices {
		n += count(slices.ContainsFunc(d.v4, func(own *Address) bool { return own.Prefix.Addr() == a || own.Broadcast == a }))
	}
	return n
}

// addressType is the type of what was found; a table's error isn't a type.
func (v *verdict) addressType(dev string) (t Type, ok bool) {
	if v.state != found || v.entry.rejects() || dev != "" && (len(v.entry.hops) == 0 || v.entry.hops[0].Interface != dev) {
		return Unicast, v.state != unknown
	}
	return v.kind, true
}

// HasType says whether -m addrtype matches an address: any of the wanted types,
// a set of bits 1 << RTN_… (ruleset.AddressTypes), with dev from --limit-iface-in
// or -out, empty without (net/netfilter/xt_addrtype.c).
func (n *Network) HasType(a netip.Addr, wanted uint16, dev string) (has, known bool) {
	if a.Is4() {
		t, known := n.TypeOf(a, dev)
		return wanted&bitOf(t) != 0, known
	}
	switch {
	case wanted&bitOf(Multicast) != 0 && !a.IsMulticast(),
		wanted&bitOf(Unicast) != 0 && !isUnicast6(a),
		wanted&bitUnspec != 0 && !a.IsUnspecified():
		return false, true
	}
	if asked := bitOf(Local) | bitOf(Anycast) | bitOf(Unreachable); wanted&asked == 0 {
		return true, true
	}
	types, known := n.lookupTypes6(a, dev, wanted&bitOf(Local) != 0)
	return wanted&types != 0, known
}

// isUnicast6: IPV6_ADDR_UNICAST. Mapped addresses and :: aren't.
func isUnicast6(a netip.Addr) bool {
	return !a.IsMulticast() && !a.IsUnspecified() && !a.Is4In6()
}

// lookupTypes6 is match_lookup_rt6: local, anycast and unreachable by a route
// lookup as for a packet of the node's own.
func (n *Network) lookupTypes6(a netip.Addr, dev string, askLocal bool) (types uint16, known bool) {
	return n.lookupTypes6As(Query{Destination: a, OutInterface: dev, SourcePort: 0, DestinationPort: 0}, dev, askLocal)
}

func (n *Network) lookupTypes6As(q Query, dev string, askLocal bool) (types uint16, known bool) {
	a := q.Destination
	if dev != "" && askLocal && n.holds(dev, a) {
		types = bitOf(Local)
	}
	known = n.localGiven(packet.IPv6Family) || n.addressesGiven(packet.IPv6Family)
	r := n.Lookup(q)
	switch {
	case !r.Known:
		return types, false
	case !r.Found, r.Type >= Blackhole:
		return bitOf(Unreachable), known
	case r.Type == Local && dev == "":
		types |= bitOf(Local)
	}
	if r.Type == Anycast || isSubnetAnycast(r.Route, a) {
		types |= bitOf(Anycast)
	}
	return types, known || r.Type == Local || r.Type == Anycast
}

// isSubnetAnycast is ipv6_anycast_destination: the first address of a connected
// prefix counts as anycast.
func isSubnetAnycast(rt *Route, a netip.Addr) bool {
	if rt == nil || rt.Destination.Addr() != a || rt.Destination.Bits() >= 127 || rt.Type != Unicast && rt.Type != Local {
		return false
	}
	return !slices.ContainsFunc(rt.Nexthops, func(h Nexthop) bool {
		return h.Via.IsValid() || h.Interface == "lo" && rt.Type != Local
	})
}

// holds says whether the interface has the address.
func (n *Network) holds(dev string, a netip.Addr) bool {
	for i := range n.Addresses {
		own := &n.Addresses[i]
		if own.Interface == dev && own.Prefix.Addr() == a && (!own.Tentative || own.Optimistic) {
			return true
		}
	}
	return false
}

func (n *Network) typeOf6(a netip.Addr, dev string) (t Type, known bool) {
	return n.typeOf6As(Query{Destination: a, OutInterface: dev, SourcePort: 0, DestinationPort: 0}, dev)
}

// FIBType is what nft's "fib … type" says of q's Destination: for IPv6 the kernel
// looks a route up, from q's Source and with its mark (nft_fib6_eval_type).
func (n *Network) FIBType(q Query, dev string) (t Type, known bool) {
	if q.Destination.Is4() {
		return n.TypeOf(q.Destination, dev)
	}
	if !q.Destination.IsLinkLocalUnicast() {
		q.OutInterface = ""
	}
	return n.typeOf6As(q, dev)
}

// FIBInterface is the interface of the route that nft's "fib … oif" finds, in
// where it may be that one (nft_fib4_eval, nft_fib6_eval).
func (n *Network) FIBInterface(q Query, in string) (out string, kind Type, found, known bool) {
	if q.Destination.Is4() {
		return n.ReversePath(q.Destination, q.Source, in, q.Mark)
	}
	if !q.Destination.IsLinkLocalUnicast() {
		q.OutInterface = ""
	}
	r := n.Lookup(q)
	if !r.Known || !r.Found || r.Type >= Blackhole {
		return "", Unicast, false, r.Known
	}
	if len(r.Nexthops) > 1 {
		return "", r.Type, true, false // a hash picks one
	}
	return r.Interface, r.Type, true, true
}

func (n *Network) typeOf6As(q Query, dev string) (t Type, known bool) {
	a := q.Destination
	if a.IsMulticast() {
		return Multicast, true
	}
	types, known := n.lookupTypes6As(q, dev, true)
	for _, t := range [...]Type{Local, Anycast, Unreachable} {
		if types&bitOf(t) != 0 {
			return t, known
		}
	}
	return Unicast, known
}

// ReversePath is the lookup of -m rpfilter: where a packet to the source that it
// came from would go. back is in where the way back may lead there (any next hop
// of it, net/ipv4/fib_frontend.c's fib_info_nh_uses_dev), else the interface that
// it takes. mark is 0 without --validmark.
func (n *Network) ReversePath(source, destination netip.Addr, in string, mark uint32) (back string, kind Type, found, known bool) {
	q := Query{Source: destination, Destination: source, Mark: mark, SourcePort: -1, DestinationPort: -1}
	group := destination == limitedBroadcast || destination.Is4() && isLocalMulticast(destination)
	if source.IsUnspecified() && (source.Is6() || group) {
		return in, Unicast, true, true // not looked up
	}
	if source.Is6() {
		q.OutInterface = in
	}
	return n.reverse(&q, in)
}

// ReverseRoute is the lookup of sysctl rp_filter for a packet that came in
// (fib_validate_source, IPv4). It routes the way back as what would come in by
// out, the interface that the packet leaves by; empty for packets to the node
// itself. The packet's mark counts with sysctl src_valid_mark only: else leave
// it 0. The destination of a broadcast is left out.
func (n *Network) ReverseRoute(q Query, out string) (back string, kind Type, found, known bool) {
	in := q.InInterface
	q.Source, q.Destination = q.Destination, q.Source
	q.SourcePort, q.DestinationPort = q.DestinationPort, q.SourcePort
	q.InInterface, q.OutInterface, q.InUnknown = out, "", false
	return n.reverse(&q, in)
}

func (n *Network) reverse(q *Query, in string) (back string, kind Type, found, known bool) {
	s := newSearch(n.indexed(), q)
	s.reverse = true
	if q.Destination.Is6() {
		s.byDevice, s.strict = true, q.Destination.IsLinkLocalUnicast()
	} else if q.Source.Is4() && (q.Source.IsMulticast() || q.Source == limitedBroadcast || q.Source.IsUnspecified()) {
		q.Source = netip.Addr{}
	}
	r := s.result(s.find())
	if !r.Known || !r.Found {
		return "", Unicast, false, r.Known
	}
	for i := range r.Nexthops {
		if r.Nexthops[i].Interface == in {
			return in, r.Type, true, true
		}
	}
	if len(r.Nexthops) > 0 {
		back = r.Nexthops[0].Interface
	}
	return back, r.Type, r.Type < Blackhole, true
}

// InterfaceFor is the interface that the route to a leaves by; empty where none
// leads there, or where it is the node's own address. known is false where it
// isn't known, or may be one of several.
func (n *Network) InterfaceFor(a netip.Addr) (name string, known bool) {
	r := n.Lookup(Query{Destination: a, SourcePort: -1, DestinationPort: -1})
	if !r.Known || !r.Found || r.Type != Unicast {
		return "", r.Known
	}
	for _, hop := range r.Nexthops {
		if hop.Interface != r.Nexthops[0].Interface {
			return "", false
		}
	}
	return r.Nexthops[0].Interface, true
}

// Boundaries are ranges such that every address between two of their borders is
// routed alike: destinations of routes and rules, addresses and their subnets,
// and those that the kernel treats apart.
func (n *Network) Boundaries(f packet.Family) []cidr.Range {
	b := boundaries{family: f, seen: map[netip.Prefix]bool{}}
	for i := range n.Routes {
		b.add(n.Routes[i].Destination)
	}
	for i := range n.Rules {
		b.add(n.Rules[i].To)
	}
	for i := range n.Addresses {
		a := &n.Addresses[i]
		b.add(single(a.Prefix.Addr()))
		b.add(a.connected())
		if a.Broadcast.IsValid() {
			b.add(single(a.Broadcast))
		}
	}
	ix := n.indexed()
	for i := range ix.of(f).local.entries {
		b.add(ix.of(f).local.entries[i].route.Destination)
	}
	for _, p := range special {
		b.add(p)
	}
	if f == packet.IPv6Family {
		for i := range labels6 {
			b.add(labels6[i].prefix)
		}
		b.forks(n)
	}
	return b.ranges
}

// special prefixes: not looked up, or in another way.
var special = [...]netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/32"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("224.0.0.0/24"), netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/128"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fec0::/10"), netip.MustParsePrefix("ff00::/8"), netip.MustParsePrefix("2001:10::/28"),
}

type boundaries struct {
	family packet.Family
	seen   map[netip.Prefix]bool
	ranges []cidr.Range
}

func (b *boundaries) add(p netip.Prefix) {
	if !p.IsValid() || packet.Of(p.Addr()) != b.family || b.seen[p] {
		return
	}
	b.seen[p] = true
	b.ranges = append(b.ranges, cidr.FromPrefix(p))
}

// forks: the source of an IPv6 packet may depend on which of two addresses has
// the longer prefix in common with the destination.
func (b *boundaries) forks(n *Network) {
	for i := range n.Addresses {
		x := n.Addresses[i].Prefix.Addr()
		for j := range n.Addresses[:i] {
			y := n.Addresses[j].Prefix.Addr()
			if !x.Is6() || !y.Is6() || x == y {
				continue
			}
			common := commonBits(x, y)
			b.add(netip.PrefixFrom(x, common).Masked())
			b.add(netip.PrefixFrom(x, common+1).Masked())
			b.add(netip.PrefixFrom(y, common+1).Masked())
		}
	}
}
