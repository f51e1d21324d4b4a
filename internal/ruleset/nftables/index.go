package nftables

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// Index is a set or map made fit for lookups. It can be asked from several
// goroutines at once. Its set must not change any more.
type Index struct {
	types   []Datatype
	entries []*Entry // in the set's order, * last
	others  int32    // the entry *, or -1
	unread  bool     // one of the entries is Unread
	// dynamic: rules of the table put elements in, and what isn't there may be.
	dynamic bool
	all     *view

	lock  sync.Mutex
	views map[uint64]*view // for keys with open parts, by the parts that are known
}

// Entry of an index: one element.
type Entry struct {
	// Key, one interval for each part of the key; of the element *, every value.
	Key []Interval
	// Element as it stands in the set; its Data is nil in sets.
	Element *Element
	// Data of a map, each part parsed, where it isn't a verdict or an expression of
	// its own. It is nil where it could not be read.
	Data []Interval
	// Changes: it has a timeout, or the set is dynamic.
	Changes bool
	// Unread: a part of the key could not be read, and stands as every value. It is
	// found beside the entry that was, never for certain.
	Unread bool

	order int32
}

// Order of the entry in its index, from 0.
func (e *Entry) Order() int { return int(e.order) }

// Entry of an order.
func (x *Index) Entry(order int) *Entry { return x.entries[order] }

// Len is the number of entries.
func (x *Index) Len() int { return len(x.entries) }

// maxToldOfSet are told of one set; the rest is counted.
const maxToldOfSet = 20

// maxKeyParts of a key: the kernel has 16 registers for it.
const maxKeyParts = 64

// IndexOf makes the index of a named set, map, or literal whose keys have the
// types given; nil types are those that it was declared with. data are the types
// of a map's data, where the set doesn't declare them (a literal). What can't be
// read is a problem; lookups that might have hit it say so.
func (t *Table) IndexOf(s *Set, types []Datatype, data ...Datatype) (*Index, []Problem) {
	if len(types) == 0 {
		types, _ = t.KeyTypes(s)
	}
	if len(data) == 0 {
		data, _ = t.DataTypes(s)
	}
	b := builder{set: s, data: data, index: &Index{
		types: types, others: -1, dynamic: slices.ContainsFunc(s.Flags, func(f string) bool { return strings.Contains(f, "dynamic") }),
	}}
	b.add()
	b.index.all = b.index.newView(b.known())
	b.conflicts()
	if b.more > 0 {
		b.problems = append(b.problems, Problem{Line: s.Line, Text: s.Name, Why: fmt.Sprintf("%d more elements like these", b.more)})
	}
	return b.index, b.problems
}

// builder of an index.
type builder struct {
	set      *Set
	data     []Datatype
	index    *Index
	problems []Problem
	more     int
	scratch  []byte
	chunk    *strings.Builder
}

// known says whether every type has a length: without, no key can be asked.
func (b *builder) known() uint64 {
	if len(b.index.types) == 0 || len(b.index.types) > maxKeyParts {
		return 0
	}
	for _, d := range b.index.types {
		if d.Bytes == 0 {
			return 0
		}
	}
	return ^uint64(0) >> (64 - len(b.index.types))
}

func (b *builder) problem(e *Element, why string) {
	if len(b.problems) == maxToldOfSet {
		b.more++
		return
	}
	b.problems = append(b.problems, Problem{Line: b.set.Line, Text: describe(e.Key), Why: why})
}

// add reads all elements, into few pieces of memory: sets have millions.
func (b *builder) add() {
	x, n := b.index, len(b.set.Elements)
	entries := make([]Entry, n)
	keys := make([]Interval, n*len(x.types))
	x.entries = make([]*Entry, 0, n)
	var others *Entry
	for i := range entries {
		e := &entries[i]
		e.Element = &b.set.Elements[i]
		e.Key, keys = keys[:len(x.types):len(x.types)], keys[len(x.types):]
		e.Changes = x.dynamic || b.set.Timeout != "" || e.Element.Timeout != ""
		star := b.key(e)
		b.readData(e)
		if star {
			others = b.other(others, e)
			continue
		}
		x.unread = x.unread || e.Unread
		e.order = int32(len(x.entries))
		x.entries = append(x.entries, e)
	}
	if others != nil {
		x.others = int32(len(x.entries))
		others.order = x.others
		x.entries = append(x.entries, others)
	}
}

// other keeps the first element *: the kernel has one. If another says
// something else, no answer of it is certain.
func (b *builder) other(first, e *Entry) *Entry {
	if first == nil {
		return e
	}
	if b.set.Map && !reflect.DeepEqual(first.Element.Data, e.Element.Data) {
		b.problem(e.Element, "is there twice, which the kernel would refuse")
		first.Changes = true
	}
	return first
}

// key reads an element's key, and says whether it is *.
func (b *builder) key(e *Entry) (star bool) {
	types := b.index.types
	var one [1]Expr
	parts := one[:]
	if c, is := e.Element.Key.(Concat); is {
		parts = partsOf(c)
	} else {
		one[0] = e.Element.Key
	}
	star = len(parts) == 1 && isStar(parts[0])
	fits := len(parts) == len(types)
	if !star && !fits {
		b.problem(e.Element, fmt.Sprintf("%d parts, not the %d of the set's type", len(parts), len(types)))
	}
	for i, d := range types {
		b.scratch = b.scratch[:0]
		var err error
		if fits && !star {
			b.scratch, err = appendBounds(b.scratch, d, parts[i])
		}
		if err != nil {
			b.problem(e.Element, err.Error())
		}
		e.Unread = e.Unread || err != nil || !fits && !star
		if len(b.scratch) == 0 {
			b.scratch = appendAll(b.scratch, d)
		}
		e.Key[i] = b.interval()
	}
	e.Unread = e.Unread || !star && len(types) == 0
	return star
}

// interval keeps what was read, beside what was read before.
func (b *builder) interval() Interval {
	n := len(b.scratch) / 2
	if string(b.scratch[:n]) == string(b.scratch[n:]) {
		v := b.keep(b.scratch[:n])
		return Interval{v, v}
	}
	return Interval{b.keep(b.scratch[:n]), b.keep(b.scratch[n:])}
}

// keep copies a value into a chunk that many share.
func (b *builder) keep(v []byte) Value {
	if b.chunk == nil || b.chunk.Cap()-b.chunk.Len() < len(v) {
		b.chunk = new(strings.Builder)
		b.chunk.Grow(max(len(v), min(1<<16, 64+len(b.set.Elements)*16)))
	}
	at := b.chunk.Len()
	b.chunk.Write(v)
	return Value(b.chunk.String()[at:])
}

// readData of a map, where it is constant.
func (b *builder) readData(e *Entry) {
	if e.Element.Data == nil {
		return
	}
	if _, verdict := e.Element.Data.(VerdictValue); verdict || len(b.data) == 1 && b.data[0].Name == "verdict" {
		return
	}
	if len(b.data) == 0 {
		return
	}
	data, err := ParseKey(b.data, e.Element.Data)
	if err != nil {
		b.problem(e.Element, "data "+err.Error())
		return
	}
	e.Data = data
}

// conflicts marks what the kernel would not hold beside what is there: it
// refuses a key twice with other data, and intervals of one part that overlap.
// Where there is no data, one answer comes of it anyway. It takes intervals of
// several parts that cross each other; then the one that came first counts.
func (b *builder) conflicts() {
	x := b.index
	if !b.set.Map || len(x.types) == 0 {
		return
	}
	for _, pair := range x.all.twins(x.entries, len(x.types) == 1) {
		first, second := x.entries[pair[0]], x.entries[pair[1]]
		if reflect.DeepEqual(first.Element.Data, second.Element.Data) {
			continue
		}
		b.problem(second.Element, "overlaps "+describe(first.Element.Key)+", which the kernel would refuse")
		second.Unread, x.unread = true, true
	}
}
