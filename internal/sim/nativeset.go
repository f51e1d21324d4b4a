package sim

import (
	"slices"
	"strings"
	"sync"

	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// inSet is a comparison with a set.
func (t nativeTable) inSet(s nftables.Match) func(r *run) bool {
	find := t.lookup(s.Left, s.Right)
	text, not := nftables.StatementText(s), s.Op == "!="
	return func(r *run) bool {
		e, state := find(r)
		switch {
		case state == open:
			return r.assume("match "+text, "set "+strings.TrimPrefix(nftables.ExprText(s.Right), "@"), "its elements aren't known", !not)
		case state == broken:
			return false
		}
		r.found(e)
		return (e != nil) != not
	}
}

// find looks a key up: the entry, or nil where there is none; open where the set
// isn't known, broken where the packet has no such key.
type find func(r *run) (*nftables.Entry, state)

// found notes the element that a rule found the packet in.
func (r *run) found(e *nftables.Entry) {
	if e == nil {
		return
	}
	if r.elements == nil {
		r.elements = make([]*nftables.Element, 0, 8)
	}
	r.elements = append(r.elements, e.Element)
}

// index of a set, with the datatypes of its keys.
type setIndex struct {
	index *nftables.Index
	set   *nftables.Set
	// verdicts of a verdict map's elements, by their order.
	verdicts []elementVerdict
	prepared sync.Once
	// dynamic: rules add elements.
	dynamic bool
}

func newSetIndex(index *nftables.Index, set *nftables.Set) *setIndex {
	return &setIndex{index: index, set: set, dynamic: slices.Contains(set.Flags, "dynamic")}
}

func (t nativeTable) indexOf(key, set nftables.Expr, data []nftables.Datatype) *setIndex {
	types, _ := t.table.Native.TypeOf(key)
	switch s := set.(type) {
	case nftables.SetRef:
		named := t.table.Native.Set(s.Name)
		if named == nil {
			return nil
		}
		if made, ok := t.node.natives.Load(named); ok {
			return made.(*setIndex)
		}
		index, _ := t.table.Native.IndexOf(named, nil)
		made := newSetIndex(index, named)
		t.node.natives.Store(named, made)
		return made
	case nftables.SetLiteral:
		literal := &nftables.Set{Elements: s.Elements, Map: len(data) > 0}
		index, _ := t.table.Native.IndexOf(literal, types, data...)
		return newSetIndex(index, literal)
	}
	return nil
}

// mostParts of a concatenation: the kernel's registers hold no more.
const mostParts = 16

// lookup makes the search for a key fit to run. data are the types of what an
// anonymous map holds; none for sets and verdict maps.
func (t nativeTable) lookup(key, set nftables.Expr, data ...nftables.Datatype) find {
	return t.lookupIn(t.indexOf(key, set, data), key)
}

func (t nativeTable) lookupIn(index *setIndex, key nftables.Expr) find {
	subjects := t.subjects(key)
	if index == nil || index.index == nil || len(subjects) > mostParts {
		return func(*run) (*nftables.Entry, state) { return nil, open }
	}
	if len(subjects) == 1 && subjects[0].chance > 0 {
		return index.spread(subjects[0])
	}
	return func(r *run) (*nftables.Entry, state) {
		base, anyOpen := len(r.parts), false
		defer func() { r.parts = r.parts[:base] }()
		for i := range subjects {
			v, state := subjects[i].value(r)
			if state == broken {
				return nil, broken
			}
			r.parts = append(r.parts, nftables.Part{Value: v, Open: state == open})
			anyOpen = anyOpen || state == open
		}
		parts := r.parts[base:]
		entries, certain := index.index.Find(parts)
		switch {
		case anyOpen || !certain:
			return index.among(r, subjects, parts, entries)
		case len(entries) == 0:
			return nil, known
		}
		return entries[0], known
	}
}

// among asks which of the entries that may have the key it is.
func (x *setIndex) among(r *run, subjects []*subject, parts []nftables.Part, entries []*nftables.Entry) (*nftables.Entry, state) {
	asked := false
	for _, e := range entries {
		asked = asked || e.Changes
		if !e.Unread && !mayHave(parts, e) {
			return nil, open // the set's keys can't be compared
		}
		if x.has(r, subjects, parts, e) {
			return e, known
		}
	}
	switch {
	case !x.dynamic || asked || !r.assume("", "set "+x.set.Name, changing, false):
		return nil, known
	case x.set.Map:
		return nil, open
	}
	return &nftables.Entry{Element: &nftables.Element{Key: nftables.Any{}}}, known
}

const changing = "its elements come and go by themselves"

// has asks whether the packet is in an entry.
func (x *setIndex) has(r *run, subjects []*subject, parts []nftables.Part, e *nftables.Entry) bool {
	if e.Unread {
		return r.assume("", "set "+x.set.Name, "element "+nftables.ExprText(e.Element.Key)+" isn't understood", true)
	}
	for i := range parts {
		if parts[i].Open && !subjects[i].in(r, e.Key[i:i+1]) {
			return false
		}
	}
	return !e.Changes || r.assume("", "set "+x.set.Name, changing, true)
}

// mayHave says whether the known parts of a key are those of an entry.
func mayHave(parts []nftables.Part, e *nftables.Entry) bool {
	for i := range parts {
		if !parts[i].Open && !e.Key[i].Contains(parts[i].Value) {
			return false
		}
	}
	return len(e.Key) == len(parts)
}

// spread throws dice: each element has the part of their sides that it covers.
func (x *setIndex) spread(s *subject) find {
	entries, certain := x.index.Find([]nftables.Part{{Open: true}})
	var alternatives []alternative
	var of []*nftables.Entry
	left := uint64(s.chance)
	for _, e := range entries {
		sides := min(s.sides(e.Key[0]), left)
		if sides == 0 {
			continue
		}
		left -= sides
		of = append(of, e)
		alternatives = append(alternatives, alternative{weight: float64(sides) / float64(s.chance)})
	}
	if left > 0 {
		of = append(of, nil)
		alternatives = append(alternatives, alternative{weight: float64(left) / float64(s.chance)})
	}
	return func(r *run) (*nftables.Entry, state) {
		switch {
		case !certain && len(entries) == 0:
			return nil, open
		case len(of) == 1:
			return of[0], known
		}
		return of[r.choose("", "dice", alternatives...)], known
	}
}
