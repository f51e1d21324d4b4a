package nftables

import (
	"slices"
)

// view is the index for keys of which some parts are known. Entries that have
// single values in the same parts of those make a group; in it they are found
// by these parts' hash, and in one place of it by an interval tree over one of
// the other parts.
type view struct{ groups []*group }

type group struct {
	exact uint64 // parts with single values
	known uint64 // the view's
	// places: an entry, or, below 0, ^ the number of a bucket.
	places  map[string]int32
	buckets []bucket
}

// bucket are the entries of one place. Where by is not -1 they are sorted by the
// beginning of that part, as the nodes of an implicit balanced tree (the root is
// the middle); ends has the last end under each node.
type bucket struct {
	entries []int32
	by      int
	ends    []Value
}

// few entries are walked through.
const few = 8

// newView of the entries but *, for keys that have the parts known.
func (x *Index) newView(known uint64) *view {
	v := &view{}
	groups := map[uint64]*group{}
	entries := x.entries
	if x.others >= 0 {
		entries = entries[:x.others]
	}
	var scratch []byte
	for i, e := range entries {
		exact := e.exact() & known
		g := groups[exact]
		if g == nil {
			g = &group{exact: exact, known: known, places: make(map[string]int32, sizeHint(len(entries), exact))}
			groups[exact] = g
			v.groups = append(v.groups, g)
		}
		var key string
		key, scratch = e.hashKey(exact, scratch)
		g.put(key, int32(i))
	}
	for _, g := range v.groups {
		for i := range g.buckets {
			g.buckets[i].sort(x.entries, g.known&^g.exact)
		}
	}
	return v
}

// sizeHint: without exact parts all is in one place.
func sizeHint(n int, exact uint64) int {
	if exact == 0 {
		return 1
	}
	return n
}

// exact says which parts of the key are single values.
func (e *Entry) exact() (parts uint64) {
	for i, k := range e.Key {
		if k.Single() {
			parts |= 1 << i
		}
	}
	return parts
}

// hashKey are the exact parts, one after the other: their lengths are those of
// the types. One part is shared with the entry.
func (e *Entry) hashKey(exact uint64, scratch []byte) (string, []byte) {
	if exact == 1 {
		return string(e.Key[0].First), scratch
	}
	scratch = scratch[:0]
	for i, k := range e.Key {
		if exact>>i&1 == 1 {
			scratch = append(scratch, k.First...)
		}
	}
	return string(scratch), scratch
}

func (g *group) put(key string, entry int32) {
	place, taken := g.places[key]
	switch {
	case !taken:
		g.places[key] = entry
	case place >= 0:
		g.places[key] = ^int32(len(g.buckets))
		g.buckets = append(g.buckets, bucket{entries: []int32{place, entry}, by: -1})
	default:
		b := &g.buckets[^place]
		b.entries = append(b.entries, entry)
	}
}

// sort makes the tree, over the part in which most entries begin differently.
func (b *bucket) sort(entries []*Entry, parts uint64) {
	if len(b.entries) <= few || parts == 0 {
		return
	}
	most := 0
	for part := range entries[b.entries[0]].Key {
		if parts>>part&1 == 0 {
			continue
		}
		beginnings := map[Value]struct{}{}
		if parts&(parts-1) != 0 { // else there is no choice
			for _, i := range b.entries {
				beginnings[entries[i].Key[part].First] = struct{}{}
			}
		}
		if b.by < 0 || len(beginnings) > most {
			b.by, most = part, len(beginnings)
		}
	}
	slices.SortStableFunc(b.entries, func(i, j int32) int {
		first, second := entries[i].Key[b.by].First, entries[j].Key[b.by].First
		switch {
		case first < second:
			return -1
		case first > second:
			return 1
		}
		return 0
	})
	b.ends = make([]Value, len(b.entries))
	b.plant(entries, 0, len(b.entries))
}

// plant sets the ends under the node of entries from low up to high.
func (b *bucket) plant(entries []*Entry, low, high int) Value {
	if low >= high {
		return ""
	}
	middle := (low + high) / 2
	end := max(entries[b.entries[middle]].Key[b.by].Last, b.plant(entries, low, middle), b.plant(entries, middle+1, high))
	b.ends[middle] = end
	return end
}

// twins are pairs of entries in the same place whose keys are equal, or, where
// intervals is set, overlap (keys of one part): the first in the set's order, and the other.
func (v *view) twins(entries []*Entry, intervals bool) [][2]int32 {
	var pairs [][2]int32
	for _, g := range v.groups {
		for i := range g.buckets {
			pairs = g.buckets[i].twins(entries, pairs)
		}
	}
	if !intervals {
		return pairs
	}
	// Single values within an interval: asked as a packet would.
	for i, e := range entries {
		if e.Unread || !e.Key[0].Single() {
			continue
		}
		f := finder{entries: entries, key: []Part{{Value: e.Key[0].First}}, all: true}
		f.search(v)
		for _, other := range f.found {
			if !entries[other].Unread && !entries[other].Key[0].Single() {
				pairs = append(pairs, [2]int32{min(int32(i), other), max(int32(i), other)})
			}
		}
	}
	return pairs
}

// twins of one bucket: neighbours that overlap in the sorted part, for keys of
// one part; else equal keys.
func (b *bucket) twins(entries []*Entry, pairs [][2]int32) [][2]int32 {
	sorted := b.entries
	for n, i := range sorted {
		for _, j := range sorted[:n][max(0, n-few):] {
			if entries[i].Unread || entries[j].Unread {
				continue
			}
			if slices.Equal(entries[i].Key, entries[j].Key) ||
				len(entries[i].Key) == 1 && overlap(entries[i].Key[0], entries[j].Key[0]) {
				pairs = append(pairs, [2]int32{min(i, j), max(i, j)})
			}
		}
	}
	return pairs
}

func overlap(a, b Interval) bool { return a.First <= b.Last && b.First <= a.Last }
