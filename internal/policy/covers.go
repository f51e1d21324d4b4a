package policy

import (
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
)

// covers says that r surely matches every flow that other matches, whatever the
// facts are. False says nothing: only the simple cases are looked at.
func (r *Rule) covers(other *Rule) bool {
	if other.OverrideServiceMasquerade && !r.OverrideServiceMasquerade {
		return false // other sees marked packets, r doesn't
	}
	for _, f := range packet.Families {
		if r.Action == SNAT && len(r.addressesOf(f)) == 0 && (other.Action != SNAT || len(other.addressesOf(f)) > 0) {
			return false
		}
	}
	return r.To.covers(&other.To) && r.From.covers(&other.From) && coversInterfaces(r.OutInterfaces, other.OutInterfaces)
}

func (f *From) covers(other *From) bool {
	if !within(f.Except, other.Except) || other.Node && !f.Node {
		return false
	}
	if f.Forwarded || everyAddress(f.CIDRs) {
		return true
	}
	return !other.Forwarded &&
		(!other.PodCIDRs || f.PodCIDRs) &&
		(other.Pods == nil || f.Pods != nil && f.Pods.String() == other.Pods.String()) &&
		within(other.CIDRs, f.CIDRs)
}

func (t *To) covers(other *To) bool {
	if !within(t.Except, other.Except) || !coversPorts(t.Ports, other.Ports) {
		return false
	}
	if t.Everywhere || everyAddress(t.CIDRs) {
		return true
	}
	return !other.Everywhere &&
		(!other.PodCIDRs || t.PodCIDRs) &&
		(!other.Nodes || t.Nodes) &&
		(other.Services == nil || t.Services != nil && t.Services.String() == other.Services.String()) &&
		within(other.CIDRs, t.CIDRs)
}

// everyAddress: both 0.0.0.0/0 and ::/0 are listed.
func everyAddress(prefixes []netip.Prefix) bool {
	return !slices.ContainsFunc(packet.Families[:], func(f packet.Family) bool {
		return !slices.Contains(prefixes, f.Everywhere())
	})
}

// within says that each of small lies in one of large. It doesn't look through
// long lists.
func within(small, large []netip.Prefix) bool {
	const most = 1_000_000
	if len(small)*len(large) > most {
		return false
	}
	return !slices.ContainsFunc(small, func(s netip.Prefix) bool {
		return !slices.ContainsFunc(large, func(l netip.Prefix) bool { return l.Bits() <= s.Bits() && l.Contains(s.Addr()) })
	})
}

func coversPorts(ports, other []PortMatch) bool {
	if len(ports) == 0 {
		return true
	}
	return len(other) > 0 && !slices.ContainsFunc(other, func(o PortMatch) bool {
		return !slices.ContainsFunc(ports, func(p PortMatch) bool {
			return p.Protocol == o.Protocol && p.First <= o.First && o.Last <= p.Last
		})
	})
}

// coversInterfaces: names are compared as written, a wildcard only with itself.
func coversInterfaces(names, other []string) bool {
	return len(names) == 0 || len(other) > 0 && !slices.ContainsFunc(other, func(o string) bool { return !slices.Contains(names, o) })
}
