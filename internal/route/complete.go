package route

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
)

// Complete prepares the network for lookups, after all reading. Where the table
// of the node's own addresses wasn't given, it derives it: from the addresses,
// and from the preferred sources of routes, which the kernel takes only where
// they are the node's own. It may be called again after changes; without it
// lookups are right, but slow.
func (n *Network) Complete() { n.index = newIndex(n) }

// indexed is the network's index.
func (n *Network) indexed() *index {
	if n.index != nil {
		return n.index
	}
	return newIndex(n)
}

// index holds the routes as the kernel looks them up.
type index struct {
	n        *Network
	families [2]*familyIndex
	// links by name; devices that have addresses, in the kernel's order of links.
	links   map[string]*Link
	devices []*device
	byName  map[string]*device
}

// device is a link with its addresses, in the kernel's order.
type device struct {
	name   string
	v4, v6 []*Address
	// master is the VRF that it belongs to.
	master string
}

// familyIndex is the routing of one family.
type familyIndex struct {
	family packet.Family
	known  Known
	rules  []ruleIndex
	tables map[uint32]*table
	// ordinary: the rules are the ones that every node has. The kernel may then
	// hold tables local and main as one (see find).
	ordinary    bool
	local, main *table
}

func (ix *index) of(f packet.Family) *familyIndex {
	if f == packet.IPv4Family {
		return ix.families[0]
	}
	return ix.families[1]
}

func newIndex(n *Network) *index {
	ix := &index{n: n, links: make(map[string]*Link, len(n.Links))}
	for i := range n.Links {
		ix.links[n.Links[i].Name] = &n.Links[i]
	}
	ix.groupAddresses()
	for i, f := range packet.Families {
		ix.families[i] = ix.newFamily(f)
	}
	return ix
}

// groupAddresses by device.
func (ix *index) groupAddresses() {
	n := ix.n
	ix.byName = map[string]*device{}
	add := func(name string) *device {
		d := ix.byName[name]
		if d == nil {
			d = &device{name: name, master: ix.vrfOf(name)}
			ix.byName[name] = d
			ix.devices = append(ix.devices, d)
		}
		return d
	}
	for i := range n.Links {
		add(n.Links[i].Name)
	}
	for i := range n.Addresses {
		a := &n.Addresses[i]
		d := add(a.Interface)
		if a.Prefix.Addr().Is4() {
			d.v4 = append(d.v4, a)
		} else {
			d.v6 = append(d.v6, a)
		}
	}
	slices.SortStableFunc(ix.devices, func(a, b *device) int { // lo is the first link of every namespace
		return cmp.Compare(count(b.name == "lo"), count(a.name == "lo"))
	})
}

// vrfOf is the VRF that the link belongs to; empty without one. A VRF is its own.
func (ix *index) vrfOf(name string) string {
	link := ix.links[name]
	if link != nil && link.Kind == "vrf" {
		return name
	}
	for range 8 { // a port of a bridge that belongs to a VRF
		if link == nil || link.Master == "" {
			return ""
		}
		if link = ix.links[link.Master]; link != nil && link.Kind == "vrf" {
			return link.Name
		}
	}
	return ""
}

func (ix *index) newFamily(f packet.Family) *familyIndex {
	n := ix.n
	fi := &familyIndex{family: f, known: *n.Of(f), tables: map[uint32]*table{}}
	room := map[uint32]int{}
	for i := range n.Routes {
		if rt := &n.Routes[i]; rt.Family == f {
			room[rt.Table]++
		}
	}
	for number, routes := range room {
		fi.tables[number] = &table{family: f, entries: make([]entry, 0, routes)}
	}
	for i := range n.Routes {
		if rt := &n.Routes[i]; rt.Family == f {
			fi.add(rt)
		}
	}
	if !n.localGiven(f) && fi.tables[TableLocal] == nil {
		for _, rt := range ix.deriveLocal(f) {
			fi.add(rt)
		}
	}
	for _, t := range fi.tables {
		t.build(ix)
	}
	fi.local, fi.main = fi.table(TableLocal), fi.table(TableMain)
	fi.table(TableDefault)
	fi.addRules(ix)
	return fi
}

// add puts a route into its table.
func (fi *familyIndex) add(rt *Route) {
	t := fi.tables[rt.Table]
	if t == nil {
		t = &table{family: fi.family}
		fi.tables[rt.Table] = t
	}
	t.entries = append(t.entries, entry{route: rt})
}

// table that may have no routes.
func (fi *familyIndex) table(number uint32) *table {
	t := fi.tables[number]
	if t == nil {
		t = &table{family: fi.family}
		t.build(nil)
		fi.tables[number] = t
	}
	return t
}

// deriveLocal is table local as the kernel makes it (fib_add_ifaddr,
// addrconf_prefix_route and others).
func (ix *index) deriveLocal(f packet.Family) []*Route {
	if f == packet.IPv6Family {
		return ix.deriveLocal6()
	}
	d := newDerived(f)
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	d.add(Local, netip.PrefixFrom(loopback, 8).Masked(), "lo", loopback)
	d.add(Local, netip.PrefixFrom(loopback, 32), "lo", loopback)
	d.add(Broadcast, single(netip.AddrFrom4([4]byte{127, 255, 255, 255})), "lo", loopback)
	for _, dev := range ix.devices {
		for _, a := range dev.v4 {
			d.add(Local, single(a.Prefix.Addr()), dev.name, primaryOf(dev, a))
			if dev.name == "lo" && !a.Secondary && !a.NoPrefixRoute {
				d.add(Local, a.connected(), dev.name, a.Prefix.Addr())
			}
		}
		for _, a := range dev.v4 {
			if link := ix.links[dev.name]; link == nil || link.Up {
				d.broadcasts(dev, a)
			}
		}
	}
	ix.localSources(&d)
	return d.routes
}

// derived collects routes that no dump has.
type derived struct {
	family packet.Family
	has    map[derivedKey]bool
	// first route to each prefix.
	first  map[netip.Prefix]*Route
	routes []*Route
}

type derivedKey struct {
	prefix netip.Prefix
	dev    string
}

func newDerived(f packet.Family) derived {
	return derived{family: f, has: map[derivedKey]bool{}, first: map[netip.Prefix]*Route{}}
}

func (d *derived) add(t Type, p netip.Prefix, dev string, source netip.Addr) {
	if d.has[derivedKey{p, dev}] {
		return
	}
	d.has[derivedKey{p, dev}] = true
	if first := d.first[p]; first != nil && (t == Broadcast || t != first.Type) {
		first.Unknown = "several interfaces have it; which was the first isn't known"
	}
	scope := ScopeHost
	if t == Broadcast {
		scope = ScopeLink
	}
	if d.family == packet.IPv6Family {
		scope = ScopeUniverse
	}
	rt := &Route{
		Family: d.family, Type: t, Table: TableLocal, Destination: p, Scope: scope, Protocol: "kernel", Source: source,
		Nexthops: []Nexthop{{Interface: dev, Weight: 1}},
		Text:     t.String() + " " + wordOf(p) + " dev " + dev + " table local",
	}
	d.routes = append(d.routes, rt)
	if d.first[p] == nil {
		d.first[p] = rt
	}
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// wordOf is how ip prints a prefix.
func wordOf(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// primaryOf is the address that a secondary one stands behind: the source that
// its routes prefer.
func primaryOf(dev *device, a *Address) netip.Addr {
	if !a.Secondary {
		return a.Prefix.Addr()
	}
	for _, other := range dev.v4 {
		if !other.Secondary && other.connected() == a.connected() {
			return other.Prefix.Addr()
		}
	}
	return a.Prefix.Addr()
}

// connected is the prefix that is reached without a gateway by the address.
func (a *Address) connected() netip.Prefix {
	if a.Peer.IsValid() {
		return a.Peer.Masked()
	}
	return a.Prefix.Masked()
}

// broadcasts: the one that the address has, and the last of its subnet.
func (d *derived) broadcasts(dev *device, a *Address) {
	limited := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if a.Broadcast.Is4() && a.Broadcast != limited {
		d.add(Broadcast, single(a.Broadcast), dev.name, primaryOf(dev, a))
	}
	if p := a.connected(); !a.Secondary && p.Bits() < 31 && !p.Addr().IsUnspecified() {
		d.add(Broadcast, single(lastOf(p)), dev.name, a.Prefix.Addr())
	}
}

// localSources: where addresses weren't given, the preferred sources of routes
// tell some.
func (ix *index) localSources(d *derived) {
	if ix.n.KnownAddresses {
		return
	}
	for i := range ix.n.Routes {
		rt := &ix.n.Routes[i]
		if rt.Family == d.family && rt.Source.IsValid() && len(rt.Nexthops) > 0 {
			d.add(Local, single(rt.Source), rt.Nexthops[0].Interface, rt.Source)
		}
	}
}

func (ix *index) deriveLocal6() []*Route {
	d := newDerived(packet.IPv6Family)
	d.add(Local, single(netip.IPv6Loopback()), "lo", netip.Addr{})
	for _, dev := range ix.devices {
		link := ix.links[dev.name]
		for _, a := range dev.v6 {
			if link != nil && !link.Up || a.Tentative && !a.Optimistic {
				continue
			}
			d.add(Local, single(a.Prefix.Addr()), dev.name, netip.Addr{})
		}
		if dev.name != "lo" && (len(dev.v6) > 0 || link != nil && link.Up) {
			d.add(Multicast, netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff}), 8), dev.name, netip.Addr{})
		}
	}
	ix.localSources(&d)
	for _, dev := range ix.devices {
		for _, a := range dev.v6 {
			if link := ix.links[dev.name]; link == nil || link.Up {
				d.anycast(dev.name, a)
			}
		}
	}
	return d.routes
}

// anycast: the first address of a subnet belongs to every router. Whether the
// node is one, sysctl forwarding of the interface says.
func (d *derived) anycast(dev string, a *Address) {
	first := netip.PrefixFrom(a.Prefix.Addr(), a.lengthOf()).Masked().Addr()
	if a.lengthOf() >= 127 || first.IsUnspecified() || d.has[derivedKey{single(first), dev}] {
		return
	}
	d.add(Anycast, single(first), dev, netip.Addr{})
	d.routes[len(d.routes)-1].Unknown = "whether it belongs to the node depends on sysctl forwarding"
}
