package route

import (
	"math/bits"
	"net/netip"
)

// source6 is ip6_route_get_saddr where the route names no source; invalid where
// it depends on the next hop.
func (s *search) source6(v *verdict) netip.Addr {
	var chosen netip.Addr
	for i, hop := range v.hops() {
		a, certain := s.ix.select6(hop.Interface, s.q.Destination)
		if !certain || i > 0 && a != chosen {
			return netip.Addr{}
		}
		chosen = a
	}
	return chosen
}

// select6 is ipv6_dev_get_saddr: RFC 6724 as the kernel has it (net/ipv6/addrconf.c).
// certain is false where sysctl use_tempaddr decides, which isn't known here.
func (ix *index) select6(out string, destination netip.Addr) (a netip.Addr, certain bool) {
	c := choice6{out: out, destination: destination, scope: scope6(destination), label: label6(destination)}
	public := ix.choose6(&c)
	c.temporary = true
	if private := ix.choose6(&c); private != public {
		return addressOf(private), false // hosts that make temporary addresses mostly prefer them
	}
	return addressOf(public), true
}

func addressOf(a *Address) netip.Addr {
	if a == nil {
		return netip.Addr{}
	}
	return a.Prefix.Addr()
}

// choice6 is what candidates are judged by.
type choice6 struct {
	out         string
	destination netip.Addr
	scope       int
	label       int
	// temporary addresses are preferred (use_tempaddr 2).
	temporary bool
}

// choose6 walks the candidates: addresses of the interface alone for
// destinations that mean something on a link only.
func (ix *index) choose6(c *choice6) *Address {
	var best *Address
	dev := ix.byName[c.out]
	if c.destination.IsMulticast() || c.scope <= scopeLinkLocal {
		if dev != nil {
			best = c.better(nil, dev)
		}
		return best
	}
	master := ""
	if dev != nil {
		master = dev.master
	}
	if master != "" { // the device and its VRF come first
		if best = c.better(c.better(nil, dev), ix.byName[master]); best != nil && scope6(best.Prefix.Addr()) >= c.scope {
			return best
		}
	}
	for _, d := range ix.devices {
		if d.master == master {
			best = c.better(best, d)
		}
	}
	return best
}

// better of the best so far and a device's addresses.
func (c *choice6) better(best *Address, d *device) *Address {
	for _, a := range d.v6 {
		own := a.Prefix.Addr()
		if a.Tentative && !a.Optimistic || own.IsUnspecified() || own.IsMulticast() {
			continue
		}
		if best == nil || c.compare(a, best) > 0 {
			best = a
		}
	}
	return best
}

// compare is positive where a is better than b: by the first rule that tells
// them apart (ipv6_get_saddr_eval).
func (c *choice6) compare(a, b *Address) int {
	for _, rule := range [...]func(*choice6, *Address) int{
		func(c *choice6, a *Address) int { return count(a.Prefix.Addr() == c.destination) },
		(*choice6).scopeRule,
		func(_ *choice6, a *Address) int {
			return count(!a.Deprecated && !a.Optimistic || isMappedOrLoopback(a.Prefix.Addr()))
		},
		func(c *choice6, a *Address) int { return count(c.out == "" || a.Interface == c.out) },
		func(c *choice6, a *Address) int { return count(label6(a.Prefix.Addr()) == c.label) },
		func(c *choice6, a *Address) int { return count(a.Temporary == c.temporary) },
		func(c *choice6, a *Address) int { return count(isORCHID(a.Prefix.Addr()) == isORCHID(c.destination)) },
		func(c *choice6, a *Address) int { return min(commonBits(a.Prefix.Addr(), c.destination), a.lengthOf()) },
		func(_ *choice6, a *Address) int { return count(!a.Optimistic) },
	} {
		if d := rule(c, a) - rule(c, b); d != 0 {
			return d
		}
	}
	return 0
}

// scopeRule: a scope that is wide enough is the better the narrower it is; one
// that isn't is worse than all of those.
func (c *choice6) scopeRule(a *Address) int {
	scope := scope6(a.Prefix.Addr())
	if scope >= c.scope {
		return -scope
	}
	return scope - 128
}

// lengthOf is the prefix's length as the kernel has it: of a point-to-point
// address, that of its peer.
func (a *Address) lengthOf() int {
	if a.Peer.IsValid() {
		return a.Peer.Bits()
	}
	return a.Prefix.Bits()
}

// Scopes of IPv6 addresses: RFC 4291's numbers.
const (
	scopeLinkLocal = 2
	scopeSiteLocal = 5
	scopeGlobal    = 14
)

// scope6 is __ipv6_addr_src_scope.
func scope6(a netip.Addr) int {
	b := a.As16()
	switch {
	case b[0] == 0xff:
		return int(b[1] & 0xf)
	case b[0] == 0xfe && b[1]&0xc0 == 0x80, a.IsLoopback():
		return scopeLinkLocal
	case b[0] == 0xfe && b[1]&0xc0 == 0xc0:
		return scopeSiteLocal
	case a.IsUnspecified():
		return -1
	}
	return scopeGlobal
}

// labels6 is the kernel's default table of labels (net/ipv6/addrlabel.c), the
// longest prefix first; `ip addrlabel` can change it.
var labels6 = [...]struct {
	prefix netip.Prefix
	label  int
}{
	{netip.MustParsePrefix("::1/128"), 0},
	{netip.MustParsePrefix("::/96"), 3},
	{netip.MustParsePrefix("::ffff:0:0/96"), 4},
	{netip.MustParsePrefix("2001::/32"), 6},
	{netip.MustParsePrefix("2001:10::/28"), 7},
	{netip.MustParsePrefix("3ffe::/16"), 12},
	{netip.MustParsePrefix("2002::/16"), 2},
	{netip.MustParsePrefix("fec0::/10"), 11},
	{netip.MustParsePrefix("fc00::/7"), 5},
}

func label6(a netip.Addr) int {
	for i := range labels6 {
		if labels6[i].prefix.Contains(a) {
			return labels6[i].label
		}
	}
	return 1
}

// isMappedOrLoopback is ipv6_saddr_preferred: such addresses never count as deprecated.
func isMappedOrLoopback(a netip.Addr) bool {
	b := a.As16()
	for _, x := range b[:10] {
		if x != 0 {
			return false
		}
	}
	return b[10] == b[11] && (b[10] == 0 || b[10] == 0xff)
}

// isORCHID: 2001:10::/28, RFC 4843.
func isORCHID(a netip.Addr) bool {
	b := a.As16()
	return b[0] == 0x20 && b[1] == 0x01 && b[2] == 0 && b[3]&0xf0 == 0x10
}

// commonBits is the length of the longest prefix of both.
func commonBits(a, b netip.Addr) int {
	x, y := a.As16(), b.As16()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return 8*i + bits.LeadingZeros8(d)
		}
	}
	return 128
}
