package route

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
)

// MasqueradeAddress is the source that masquerade takes for a packet to
// destination through that next hop (the destination itself on connected
// routes): the kernel's inet_select_addr, and ipv6_dev_get_saddr. ok is false
// where the interface has none (the kernel then drops the packet); known is
// false where addresses weren't given, or the answer depends on something else
// that wasn't: a is then the best guess, if any.
func (n *Network) MasqueradeAddress(out string, nexthop, destination netip.Addr) (a netip.Addr, ok, known bool) {
	ix := n.indexed()
	if destination.Is6() {
		if !n.addressesGiven(packet.IPv6Family) {
			return netip.Addr{}, false, false
		}
		a, certain := ix.select6(out, destination)
		return a, a.IsValid(), certain
	}
	if !nexthop.Is4() { // a gateway of the other family doesn't count (rt_nexthop)
		nexthop = destination
	}
	if !n.addressesGiven(packet.IPv4Family) {
		a = ix.guess(out, nexthop)
		return a, a.IsValid(), false
	}
	a = ix.selectAddress(out, nexthop, ScopeUniverse)
	return a, a.IsValid(), true
}

// guess: the kernel's own routes to an interface's subnets name its addresses.
func (ix *index) guess(out string, nexthop netip.Addr) (a netip.Addr) {
	for i := range ix.n.Routes {
		rt := &ix.n.Routes[i]
		if rt.Protocol != "kernel" || !rt.Source.Is4() || len(rt.Nexthops) == 0 || rt.Nexthops[0].Interface != out {
			continue
		}
		if !a.IsValid() || rt.Destination.Contains(nexthop) {
			a = rt.Source
		}
	}
	return a
}

// selectAddress is inet_select_addr: the primary address of the device whose
// subnet has the destination, else its first, else one of another device. An
// invalid destination is no wish. (With sysctl route_localnet addresses of scope
// host count as scope link; 127.0.0.1 is then a candidate for routes of scope
// link on lo, which nobody has.)
func (ix *index) selectAddress(name string, destination netip.Addr, scope Scope) netip.Addr {
	dev := ix.byName[name]
	var first netip.Addr
	if dev != nil {
		for _, a := range dev.v4 {
			if a.Secondary || min(a.Scope, ScopeHost) > scope {
				continue
			}
			if !destination.IsValid() || a.connected().Contains(destination) {
				return a.Prefix.Addr()
			}
			if !first.IsValid() {
				first = a.Prefix.Addr()
			}
		}
	}
	if first.IsValid() {
		return first
	}
	return ix.selectElsewhere(dev, scope)
}

// selectElsewhere takes an address of another device: of the VRF first, then lo,
// then the others, of the same VRF or, where there is none, of none.
func (ix *index) selectElsewhere(dev *device, scope Scope) netip.Addr {
	master := ""
	if dev != nil {
		master = dev.master
	}
	if vrf := ix.byName[master]; vrf != nil {
		if a := vrf.firstOf(scope); a.IsValid() {
			return a
		}
	}
	for _, d := range ix.devices {
		if d.master != master {
			continue
		}
		if a := d.firstOf(scope); a.IsValid() {
			return a
		}
	}
	return netip.Addr{}
}

// firstOf is in_dev_select_addr.
func (d *device) firstOf(scope Scope) netip.Addr {
	for _, a := range d.v4 {
		if !a.Secondary && a.Scope != ScopeLink && a.Scope <= scope {
			return a.Prefix.Addr()
		}
	}
	return netip.Addr{}
}

// sourceOfHop is fib_result_prefsrc: the source of a packet that has none, on
// that way.
func (ix *index) sourceOfHop(rt *Route, hop *Nexthop) netip.Addr {
	if rt.Source.IsValid() || ix == nil {
		return rt.Source
	}
	gateway := hop.Via
	if !gateway.Is4() {
		gateway = netip.Addr{}
	}
	return ix.selectAddress(hop.Interface, gateway, rt.Scope)
}
