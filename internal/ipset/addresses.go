package ipset

import (
	"math/bits"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/cidr"
)

// Addresses are those that elements have in a dimension (from 0), nomatch
// elements too, sorted, overlaps joined: outside of them no packet is in the
// set, unless elements are missing. Under a bitmask they are more. There are
// none for a dimension of another kind, and for a list:set, whose Members have them.
func (s *Set) Addresses(dimension int) []cidr.Range {
	at := 0
	for i, p := range s.kind.parts {
		if p != host && p != network {
			continue
		}
		if i == dimension {
			return s.addresses(at)
		}
		at++
	}
	return nil
}

// addresses number at of pairs.
func (s *Set) addresses(at int) []cidr.Range {
	most := s.maskBits()
	seen := map[prefix]struct{}{}
	var ranges []cidr.Range
	for _, t := range s.tables {
		length := min(t.bits[at], most)
		for k := range t.groups {
			p := prefix{k[at].masked(length), length}
			if _, ok := seen[p]; ok {
				continue
			}
			seen[p] = struct{}{}
			n, err := p.address.netip(s.Family).Prefix(int(length))
			if err == nil { // always: length is within the family's
				r := netipx.RangeOfPrefix(n)
				ranges = append(ranges, cidr.Range{First: r.From(), Last: r.To()})
			}
		}
	}
	pieces := cidr.FirstMatch(ranges)
	ranges = ranges[:0]
	for _, p := range pieces {
		ranges = append(ranges, p.Range)
	}
	return ranges
}

// maskBits is how many bits from the first are compared.
func (s *Set) maskBits() uint8 {
	if !s.Options.Mask.IsValid() {
		return 128
	}
	m := addressOf(s.Options.Mask)
	n := bits.LeadingZeros64(^m.high)
	if n == 64 {
		n += bits.LeadingZeros64(^m.low)
	}
	return uint8(n)
}
