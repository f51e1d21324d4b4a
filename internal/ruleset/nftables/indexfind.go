package nftables

import "slices"

// Part of a key that is looked up: a value, or open where it isn't known.
type Part struct {
	Value Value
	Open  bool
}

// Find returns the entry that the key has. More than one entry, or one with
// certain false, where open parts decide: each of them may be the one, or none.
// For keys without open parts: at most one, and certain, unless elements of the
// set could not be read (those that may have the key are returned too), or the
// set changes by itself. They come as the kernel prefers them, the element *
// last; after an entry that has the key whatever its open parts are
// ([Entry.Covers]) and that doesn't change, none comes but such that could not be read. A key of other lengths than the types' isn't
// found, and that is not certain. The entries returned must not be changed.
func (x *Index) Find(key []Part) (entries []*Entry, certain bool) {
	known, ok := x.ask(key)
	if !ok {
		return x.entries, len(x.entries) == 0 && len(key) == len(x.types) && !x.dynamic
	}
	if known == ^uint64(0)>>(64-len(key)) && !x.unread {
		f := finder{entries: x.entries, key: key, best: -1}
		f.search(x.all)
		if f.best < 0 {
			f.best = x.others
		}
		if f.best < 0 {
			return nil, !x.dynamic
		}
		if !x.entries[f.best].Changes {
			return x.entries[f.best : f.best+1 : f.best+1], !x.dynamic
		}
	}
	return x.findAll(key, known)
}

// ask says which parts are known; not ok is a key that can't be asked.
func (x *Index) ask(key []Part) (known uint64, ok bool) {
	if len(key) != len(x.types) || len(key) == 0 || len(key) > maxKeyParts {
		return 0, false
	}
	for i := range key {
		if key[i].Open {
			continue
		}
		if len(key[i].Value) != x.types[i].Bytes || x.types[i].Bytes == 0 {
			return 0, false
		}
		known |= 1 << i
	}
	return known, true
}

// findAll returns every entry that could have the key.
func (x *Index) findAll(key []Part, known uint64) ([]*Entry, bool) {
	f := finder{entries: x.entries, key: key, all: true}
	f.search(x.view(known))
	slices.Sort(f.found)
	found := make([]*Entry, 0, len(f.found)+1)
	done := false
	for _, i := range f.found {
		e := x.entries[i]
		if done && !e.Unread { // those may stand for the key alone, wherever they are
			continue
		}
		found = append(found, e)
		done = done || !e.Changes && e.Covers(key)
	}
	if !done && x.others >= 0 {
		found = append(found, x.entries[x.others])
		done = !x.entries[x.others].Changes
	}
	return found, !x.dynamic && (len(found) == 0 || len(found) == 1 && done)
}

// Covers says whether the entry has the key whatever its open parts are.
func (e *Entry) Covers(key []Part) bool {
	if e.Unread || len(key) != len(e.Key) {
		return false
	}
	for i, k := range e.Key {
		if key[i].Open {
			if !k.everything() {
				return false
			}
		} else if !k.Contains(key[i].Value) {
			return false
		}
	}
	return true
}

// everything says whether all bits may be 0 and all may be 1. Of numbers with
// fewer bits than their bytes have it is no.
func (i Interval) everything() bool {
	for at := range len(i.First) {
		if i.First[at] != 0 || i.Last[at] != 0xff {
			return false
		}
	}
	return true
}

// view for keys with these parts known.
func (x *Index) view(known uint64) *view {
	if known == ^uint64(0)>>(64-len(x.types)) {
		return x.all
	}
	x.lock.Lock()
	defer x.lock.Unlock()
	v := x.views[known]
	if v == nil {
		v = x.newView(known)
		if x.views == nil {
			x.views = map[uint64]*view{}
		}
		x.views[known] = v
	}
	return v
}

// finder is one lookup.
type finder struct {
	entries []*Entry
	key     []Part
	all     bool
	best    int32 // the first in the set's order, -1 without
	found   []int32
}

// search asks every group of the view.
func (f *finder) search(v *view) {
	var room [64]byte
	for _, g := range v.groups {
		hash := room[:0]
		for i := range f.key {
			if g.exact>>i&1 == 1 {
				hash = append(hash, f.key[i].Value...)
			}
		}
		place, taken := g.places[string(hash)]
		switch {
		case !taken:
		case place >= 0 && g.exact == g.known: // the hash has told all
			f.take(place)
		case place >= 0:
			f.check(place)
		default:
			f.bucket(&g.buckets[^place])
		}
	}
}

func (f *finder) bucket(b *bucket) {
	if b.by >= 0 {
		f.tree(b, f.key[b.by].Value, 0, len(b.entries))
		return
	}
	for _, i := range b.entries {
		f.check(i)
	}
}

// tree visits the entries of a bucket whose part by has the value.
func (f *finder) tree(b *bucket, v Value, low, high int) {
	for low < high {
		middle := (low + high) / 2
		if b.ends[middle] < v {
			return
		}
		f.tree(b, v, low, middle)
		if f.entries[b.entries[middle]].Key[b.by].First > v {
			return
		}
		f.check(b.entries[middle])
		low = middle + 1
	}
}

// check takes the entry where each part that is known lies in its interval.
func (f *finder) check(i int32) {
	e := f.entries[i]
	for part := range e.Key {
		if !f.key[part].Open && !e.Key[part].Contains(f.key[part].Value) {
			return
		}
	}
	f.take(i)
}

func (f *finder) take(i int32) {
	if f.all {
		f.found = append(f.found, i)
	} else if f.best < 0 || i < f.best {
		f.best = i
	}
}
