package ipset

import (
	"cmp"
	"slices"
)

// table holds the elements with the same prefix lengths.
type table struct {
	bits   [2]uint8
	groups map[pair]group
}

// group are the elements with the same addresses: one, or number more-1 of Set.more.
type group struct {
	one  rest
	more int32
}

// rest is what an element has beside addresses.
type rest struct {
	// first to last port, the mark, or the number of the interface.
	first, last uint32
	protocol    uint8
	flags       flags
}

type flags uint8

const (
	nomatch flags = 1 << iota
	wildcard
	physdev
)

// rests of a group.
func (s *Set) rests(g *group) []rest {
	if g.more > 0 {
		return s.more[g.more-1]
	}
	return []rest{g.one}
}

// add an element. It returns false where it is there already with another
// nomatch flag, which can't be.
func (s *Set) add(addresses [2]prefix, r rest) bool {
	bits := [2]uint8{addresses[0].bits, addresses[1].bits}
	t := s.byBits[bits]
	if t == nil {
		t = &table{bits, map[pair]group{}}
		if s.byBits == nil {
			s.byBits = map[[2]uint8]*table{}
		}
		s.byBits[bits] = t
		s.tables = append(s.tables, t)
	}
	k := s.underMask(pair{addresses[0].address, addresses[1].address}).masked(bits)
	g, ok := t.groups[k]
	switch {
	case !ok:
		t.groups[k] = group{one: r}
	case g.more > 0:
		s.more[g.more-1] = append(s.more[g.more-1], r)
	case g.one == r:
	case s.single():
		return false
	default:
		s.more = append(s.more, []rest{g.one, r})
		t.groups[k] = group{more: int32(len(s.more))}
	}
	return true
}

// single says whether elements are addresses and nothing else.
func (s *Set) single() bool {
	p, _ := s.kind.other()
	return p == 0 || p == mac || p == optionalMAC
}

func (s *Set) underMask(p pair) pair {
	if !s.Options.Mask.IsValid() {
		return p
	}
	m := addressOf(s.Options.Mask)
	return pair{p[0].and(m), p[1].and(m)}
}

// sort puts everything into the order in which it is asked. The kernel tries
// the lengths of the first network from the longest, and for each those of the
// second (mtype_test_cidrs in ip_set_hash_gen.h).
func (s *Set) sort() {
	slices.SortFunc(s.tables, func(a, b *table) int {
		return cmp.Or(cmp.Compare(b.bits[0], a.bits[0]), cmp.Compare(b.bits[1], a.bits[1]))
	})
	if p, _ := s.kind.other(); p == iface {
		return // the first of a prefix that fits decides, in the kernel's order
	}
	for i := range s.more {
		sorted, ok := joined(s.more[i])
		s.more[i] = sorted
		if !ok {
			s.miss("some elements are there with nomatch and without", true)
		}
	}
}

// joined sorts rests and joins those that overlap; false where such differ in nomatch.
func joined(all []rest) ([]rest, bool) {
	slices.SortFunc(all, func(a, b rest) int {
		return cmp.Or(cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.first, b.first), cmp.Compare(a.last, b.last))
	})
	ok := true
	out := all[:1]
	for _, r := range all[1:] {
		before := &out[len(out)-1]
		if r.protocol != before.protocol || r.first > before.last {
			out = append(out, r)
			continue
		}
		ok = ok && r.flags == before.flags
		before.last = max(before.last, r.last)
	}
	return out, ok
}

// miss notes that an element perhaps isn't known; negates: that it could be a
// nomatch one, where the type has such.
func (s *Set) miss(why string, negates bool) {
	if s.missing == "" {
		s.missing = why
	}
	s.missingNegates = s.missingNegates || negates
}
