// Package cidr does the arithmetic on address ranges that the compiler needs:
// who covers what, when lists of prefixes overlap.
//
// It keeps ranges as they were stated wherever it can, neighbours unmerged, so
// that one more prefix in a list is one more element in a set and nothing else.
//
//	pieces := cidr.FirstMatch(keep, masquerade) // overlaps go to keep
package cidr

import (
	"cmp"
	"net/netip"
	"slices"

	"go4.org/netipx"
)

// Range is First to Last, both included, of one family.
type Range struct{ First, Last netip.Addr }

// FromPrefix returns the addresses of a prefix.
func FromPrefix(p netip.Prefix) Range {
	r := netipx.RangeOfPrefix(p)
	return Range{r.From(), r.To()}
}

// FromAddr returns the range of one address.
func FromAddr(a netip.Addr) Range { return Range{a, a} }

// Contains says whether a is in r.
func (r Range) Contains(a netip.Addr) bool {
	return a.BitLen() == r.First.BitLen() && !a.Less(r.First) && !r.Last.Less(a)
}

// Piece is a range that belongs to list number Owner.
type Piece struct {
	Range
	Owner int
}

// FirstMatch divides the addresses of several lists of ranges (one family) so
// that each belongs to the first list that holds it. Pieces are sorted and
// don't overlap. Ranges of one list that merely touch stay apart; ranges of one
// list that overlap are joined.
func FirstMatch(lists ...[]Range) []Piece {
	s := newSweep(lists)
	pieces := make([]Piece, 0, len(s.borders)/2)
	for s.next() {
		if len(s.active) == 0 {
			continue
		}
		owner := s.active[0]
		if n := len(pieces); n > 0 && s.spanned == owner && pieces[n-1].Owner == owner {
			pieces[n-1].Last = s.segment.Last
			continue
		}
		pieces = append(pieces, Piece{s.segment, owner})
	}
	return pieces
}

// Subtract returns the addresses of a that are not in b.
func Subtract(a, b []Range) []Range {
	if len(b) == 0 {
		return a
	}
	var out []Range
	for _, p := range FirstMatch(b, a) {
		if p.Owner == 1 {
			out = append(out, p.Range)
		}
	}
	return out
}

// Segments calls emit for every stretch of addresses between two borders of any
// list, in order, with the sorted numbers of the lists that hold it. Stretches
// that no list holds are left out. The slice is valid during the call only.
func Segments(lists [][]Range, emit func(Range, []int)) {
	s := newSweep(lists)
	for s.next() {
		if len(s.active) > 0 {
			emit(s.segment, s.active)
		}
	}
}

// border is where a range of a list begins, or the address after its end.
type border struct {
	at    netip.Addr
	list  int32
	begin bool
}

// sweep walks over the borders of all lists in address order.
type sweep struct {
	borders []border
	pos     int
	count   []int // ranges of each list that hold the current segment
	active  []int // lists with count > 0, sorted
	segment Range
	// spanned is the first active list of which a range reaches over the border
	// between the last segment and this one; -1 for none.
	spanned int
	max     netip.Addr
}

func newSweep(lists [][]Range) *sweep {
	n := 0
	for _, l := range lists {
		n += 2 * len(l)
	}
	s := &sweep{count: make([]int, len(lists)), borders: make([]border, 0, n)}
	for i, l := range lists {
		for _, r := range l {
			s.borders = append(s.borders, border{r.First, int32(i), true})
			if after := r.Last.Next(); after.IsValid() {
				s.borders = append(s.borders, border{after, int32(i), false})
			} else {
				s.max = r.Last
			}
		}
	}
	slices.SortFunc(s.borders, func(a, b border) int {
		if c := a.at.Compare(b.at); c != 0 {
			return c
		}
		return cmp.Compare(boolInt(a.begin), boolInt(b.begin)) // ends before beginnings
	})
	return s
}

// next moves to the next segment; false at the end.
func (s *sweep) next() bool {
	if s.pos >= len(s.borders) {
		return false
	}
	at := s.borders[s.pos].at
	for s.pos < len(s.borders) && s.borders[s.pos].at == at && !s.borders[s.pos].begin {
		s.leave(int(s.borders[s.pos].list))
		s.pos++
	}
	s.spanned = -1
	if len(s.active) > 0 {
		s.spanned = s.active[0]
	}
	for s.pos < len(s.borders) && s.borders[s.pos].at == at {
		s.enter(int(s.borders[s.pos].list))
		s.pos++
	}
	last := s.max
	if s.pos < len(s.borders) {
		last = s.borders[s.pos].at.Prev()
	}
	s.segment = Range{at, last}
	return true
}

func (s *sweep) enter(list int) {
	s.count[list]++
	if s.count[list] == 1 {
		i, _ := slices.BinarySearch(s.active, list)
		s.active = slices.Insert(s.active, i, list)
	}
}

func (s *sweep) leave(list int) {
	s.count[list]--
	if s.count[list] == 0 {
		i, _ := slices.BinarySearch(s.active, list)
		s.active = slices.Delete(s.active, i, i+1)
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
