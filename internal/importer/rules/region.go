package rules

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// Region is a set of packets of one family: all that a policy's rule can tell apart.
type Region struct {
	Family packet.Family
	// Forwarded packets, the Node's own.
	Forwarded, Node     bool
	Source, Destination Addresses
	// Out are names of interfaces, a trailing * stands for any ending; nil: all.
	Out []string
	// Ports of destinations; nil: any port and protocol.
	Ports []policy.PortMatch
}

// Addresses are those in one of In and in none of Except.
type Addresses struct{ In, Except []netip.Prefix }

// everything of a family.
func everything(f packet.Family) Region {
	all := Addresses{In: []netip.Prefix{f.Everywhere()}}
	return Region{Family: f, Forwarded: true, Node: true, Source: all, Destination: all}
}

// IsAll says whether every address of the family is meant.
func (a Addresses) IsAll() bool {
	return len(a.Except) == 0 && slices.ContainsFunc(a.In, func(p netip.Prefix) bool { return p.Bits() == 0 })
}

// Contains says whether an address is meant.
func (a Addresses) Contains(ip netip.Addr) bool {
	within := func(p netip.Prefix) bool { return p.Contains(ip) }
	return slices.ContainsFunc(a.In, within) && !slices.ContainsFunc(a.Except, within)
}

func (a Addresses) ranges() []cidr.Range { return cidr.Subtract(ranges(a.In), ranges(a.Except)) }

func ranges(prefixes []netip.Prefix) []cidr.Range {
	out := make([]cidr.Range, len(prefixes))
	for i, p := range prefixes {
		out[i] = cidr.FromPrefix(p)
	}
	return out
}

func (a Addresses) empty() bool { return len(a.In) == 0 || len(a.Except) > 0 && len(a.ranges()) == 0 }

// and is what both have.
func (a Addresses) and(b Addresses) Addresses {
	if a.IsAll() {
		return b
	}
	if b.IsAll() {
		return a
	}
	var both Addresses
	for _, p := range a.In {
		for _, q := range b.In {
			if p.Overlaps(q) {
				both.In = addPrefix(both.In, longer(p, q))
			}
		}
	}
	return both.without(a.Except).without(b.Except)
}

// without takes prefixes out.
func (a Addresses) without(prefixes []netip.Prefix) Addresses {
	except := slices.Clone(a.Except)
	for _, p := range prefixes {
		if slices.ContainsFunc(a.In, p.Overlaps) {
			except = addPrefix(except, p)
		}
	}
	a.Except = except
	return a
}

// addPrefix adds one to those that don't hold it, and drops those that it holds.
func addPrefix(to []netip.Prefix, p netip.Prefix) []netip.Prefix {
	holds := func(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }
	if slices.ContainsFunc(to, func(q netip.Prefix) bool { return holds(q, p) }) {
		return to
	}
	return append(slices.DeleteFunc(to, func(q netip.Prefix) bool { return holds(p, q) }), p)
}

func longer(p, q netip.Prefix) netip.Prefix {
	if p.Bits() > q.Bits() {
		return p
	}
	return q
}

func (a Addresses) within(b Addresses) bool {
	return b.IsAll() || slices.Equal(a.In, b.In) && slices.Equal(a.Except, b.Except) || len(cidr.Subtract(a.ranges(), b.ranges())) == 0
}

// and is what both regions have; false where that is nothing.
func (r Region) and(o Region) (Region, bool) {
	r.Forwarded, r.Node = r.Forwarded && o.Forwarded, r.Node && o.Node
	r.Source, r.Destination = r.Source.and(o.Source), r.Destination.and(o.Destination)
	var some, ports bool
	r.Out, some = andNames(r.Out, o.Out)
	r.Ports, ports = andPorts(r.Ports, o.Ports)
	return r, some && ports && r.Family == o.Family && !r.empty()
}

func (r Region) empty() bool {
	return !r.Forwarded && !r.Node || r.Source.empty() || r.Destination.empty()
}

// within says whether o has every packet of r.
func (r Region) within(o Region) bool {
	return r.Family == o.Family && (!r.Forwarded || o.Forwarded) && (!r.Node || o.Node) &&
		namesWithin(r.Out, o.Out) && portsWithin(r.Ports, o.Ports) &&
		r.Destination.within(o.Destination) && r.Source.within(o.Source)
}

// overlaps says whether a packet can be in both.
func (r Region) overlaps(o Region) bool {
	_, some := r.and(o)
	return some
}

// covers says whether a pattern has every name that another has.
func covers(pattern, other string) bool {
	prefix, wildcard := strings.CutSuffix(pattern, "*")
	return pattern == other || wildcard && strings.HasPrefix(strings.TrimSuffix(other, "*"), prefix)
}

func andNames(a, b []string) ([]string, bool) {
	if a == nil || b == nil {
		return append(a, b...), true
	}
	var both []string
	add := func(name string) {
		if !slices.Contains(both, name) {
			both = append(both, name)
		}
	}
	for _, x := range a {
		for _, y := range b {
			switch {
			case covers(x, y):
				add(y)
			case covers(y, x):
				add(x)
			}
		}
	}
	return both, len(both) > 0
}

func namesWithin(a, b []string) bool {
	return b == nil || a != nil && !slices.ContainsFunc(a, func(name string) bool {
		return !slices.ContainsFunc(b, func(pattern string) bool { return covers(pattern, name) })
	})
}

func andPorts(a, b []policy.PortMatch) ([]policy.PortMatch, bool) {
	if a == nil || b == nil {
		return append(a, b...), true
	}
	var both []policy.PortMatch
	for _, x := range a {
		for _, y := range b {
			p := policy.PortMatch{Protocol: x.Protocol, PortRange: policy.PortRange{First: max(x.First, y.First), Last: min(x.Last, y.Last)}}
			if x.Protocol == y.Protocol && p.First <= p.Last && !slices.Contains(both, p) {
				both = append(both, p)
			}
		}
	}
	return both, len(both) > 0
}

func portsWithin(a, b []policy.PortMatch) bool {
	return b == nil || a != nil && !slices.ContainsFunc(a, func(p policy.PortMatch) bool {
		return !slices.ContainsFunc(b, func(q policy.PortMatch) bool {
			return p.Protocol == q.Protocol && q.First <= p.First && p.Last <= q.Last
		})
	})
}
