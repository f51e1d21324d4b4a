package sim

import (
	"slices"
	"strings"
	"sync"

	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// match compares.
func (t nativeTable) match(s nftables.Match) statement {
	switch s.Right.(type) {
	case nftables.SetRef, nftables.SetLiteral:
		return asking(t.inSet(s))
	}
	types, ok := t.table.Native.TypeOfMatch(s)
	subjects := t.subjects(s.Left)
	if f, is := s.Left.(nftables.FIB); is && ok && types[0].Name == "boolean" { // exists, missing
		f.Result = "check"
		subjects = []*subject{t.subject(f)}
	}
	if !ok || len(types) != len(subjects) {
		return asking(assumedMatch(nftables.StatementText(s), subjects))
	}
	if len(types) == 1 && types[0].Flags && s.Op == "in" {
		if mask, ok := constantOf(types[0], s.Right); ok {
			return asking(anyFlag(subjects[0], mask, nftables.StatementText(s)))
		}
	}
	ranges, ok := rangesOf(types, s)
	if !ok {
		return asking(t.compareExpressions(s, subjects))
	}
	if len(subjects) == 1 {
		return comparing(subjects[0], ranges, s.Op == "!=")
	}
	return asking(func(r *run) bool {
		in, state := partsIn(r, subjects, ranges)
		return state != broken && in != (s.Op == "!=")
	})
}

// asking goes on with the rule where the answer is yes.
func asking(holds func(r *run) bool) statement {
	return func(r *run, _ RuleRef, _ int) (flow, verdict) { return matched(holds(r)) }
}

func matched(yes bool) (flow, verdict) {
	if yes {
		return onward, fallThrough
	}
	return mismatch, fallThrough
}

// comparing compares one thing with constants, as most matches do.
func comparing(one *subject, ranges []nftables.Interval, not bool) statement {
	return func(r *run, _ RuleRef, _ int) (flow, verdict) {
		v, state := one.value(r)
		switch state {
		case broken:
			return mismatch, fallThrough
		case open:
			return matched(one.in(r, ranges) != not)
		}
		return matched(contains(ranges, v) != not)
	}
}

// partsIn asks whether each part of a key lies in its range.
func partsIn(r *run, subjects []*subject, ranges []nftables.Interval) (in bool, s state) {
	in = true
	for i := range subjects {
		v, state := subjects[i].value(r)
		switch {
		case state == broken:
			return false, broken
		case in && state == known:
			in = contains(ranges[i:i+1], v)
		case in:
			in = subjects[i].in(r, ranges[i:i+1])
		}
	}
	return in, known
}

// assumedMatch follows both answers.
func assumedMatch(text string, subjects []*subject) func(r *run) bool {
	what, why := text, "not understood"
	if len(subjects) == 1 {
		what, why = subjects[0].text, subjects[0].why
	}
	return func(r *run) bool {
		for i := range subjects {
			if _, state := subjects[i].value(r); state == broken {
				return false
			}
		}
		return r.assume("match "+text, what, why, true)
	}
}

// anyFlag is "ct state new,established": one of the bits is set.
func anyFlag(s *subject, mask nftables.Value, text string) func(r *run) bool {
	return func(r *run) bool {
		v, state := s.value(r)
		switch state {
		case broken:
			return false
		case open:
			return r.assume("match "+text, s.text, s.why, true)
		}
		for i := range min(len(v), len(mask)) {
			if v[i]&mask[i] != 0 {
				return true
			}
		}
		return false
	}
}

// rangesOf are those that the left side must lie in, one for each part; for a
// single part there may be none.
func rangesOf(types []nftables.Datatype, s nftables.Match) ([]nftables.Interval, bool) {
	all, ok := constants(types, s.Right)
	if !ok || len(all) != 1 {
		return all, ok
	}
	return ordered(s.Op, all[0])
}

// ordered turns < and its like into a range.
func ordered(op string, g nftables.Interval) ([]nftables.Interval, bool) {
	least := nftables.Value(strings.Repeat("\x00", len(g.First)))
	most := nftables.Value(strings.Repeat("\xff", len(g.First)))
	switch op {
	case "<":
		if g.First == least {
			return nil, true
		}
		return []nftables.Interval{{First: least, Last: step(g.First, false)}}, true
	case "<=":
		return []nftables.Interval{{First: least, Last: g.Last}}, true
	case ">":
		if g.Last == most {
			return nil, true
		}
		return []nftables.Interval{{First: step(g.Last, true), Last: most}}, true
	case ">=":
		return []nftables.Interval{{First: g.First, Last: most}}, true
	}
	return []nftables.Interval{g}, true
}

// step is the value one above or below.
func step(v nftables.Value, up bool) nftables.Value {
	b := []byte(v)
	for i := len(b) - 1; i >= 0; i-- {
		if up {
			if b[i]++; b[i] != 0 {
				break
			}
		} else if b[i]--; b[i] != 0xff {
			break
		}
	}
	return nftables.Value(b)
}

// compareExpressions: the right side is known only when the packet is there.
func (t nativeTable) compareExpressions(s nftables.Match, left []*subject) func(r *run) bool {
	right := t.subjects(s.Right)
	if len(right) != len(left) || s.Op != "==" && s.Op != "!=" {
		return assumedMatch(nftables.StatementText(s), left)
	}
	text := nftables.StatementText(s)
	return func(r *run) bool {
		same, unknown := true, ""
		for i := range left {
			a, one := left[i].value(r)
			b, other := right[i].value(r)
			switch {
			case one == broken || other == broken:
				return false
			case one == open:
				unknown = left[i].why
			case other == open:
				unknown = right[i].why
			default:
				same = same && a == b
			}
		}
		if unknown != "" && same {
			return r.assume("match "+text, text, unknown, true)
		}
		return same != (s.Op == "!=")
	}
}

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

// data makes an expression that yields a value, or several of a concatenation,
// fit to run.
func (t nativeTable) data(e nftables.Expr, types []nftables.Datatype) func(r *run) ([]nftables.Interval, state) {
	if m, ok := e.(nftables.Lookup); ok {
		find := t.lookup(m.Key, m.Map, types...)
		return func(r *run) ([]nftables.Interval, state) {
			entry, state := find(r)
			switch {
			case state != known:
				return nil, state
			case entry == nil:
				return nil, broken // no element: the rule ends
			case len(entry.Data) == 0:
				return nil, open
			}
			r.found(entry)
			return entry.Data, known
		}
	}
	if fixed, ok := constants(types, e); ok {
		return func(*run) ([]nftables.Interval, state) { return fixed, known }
	}
	subjects := t.subjects(e)
	return func(r *run) ([]nftables.Interval, state) {
		all := make([]nftables.Interval, len(subjects))
		for i := range subjects {
			v, state := subjects[i].value(r)
			if state != known {
				return nil, state
			}
			all[i] = nftables.Interval{First: v, Last: v}
		}
		return all, known
	}
}

// constants parses what doesn't depend on the packet.
func constants(types []nftables.Datatype, e nftables.Expr) ([]nftables.Interval, bool) {
	all, err := nftables.ParseKey(types, e)
	return all, err == nil
}

// constantOf is a value that doesn't depend on the packet.
func constantOf(d nftables.Datatype, e nftables.Expr) (nftables.Value, bool) {
	g, err := nftables.Parse(d, e)
	return g.First, err == nil && g.Single()
}

// operate is a bit operation; on numbers, remembered.
func (v *fieldValues) operate(op string, a, b nftables.Value) nftables.Value {
	if len(a) != 4 || len(b) != 4 {
		return operate(op, a, b)
	}
	switch x, y := number(a), number(b); op {
	case "&":
		return v.number32(x & y)
	case "|":
		return v.number32(x | y)
	default:
		return v.number32(x ^ y)
	}
}

func operate(op string, a, b nftables.Value) nftables.Value {
	out := make([]byte, min(len(a), len(b)))
	for i := range out {
		switch op {
		case "&":
			out[i] = a[i] & b[i]
		case "|":
			out[i] = a[i] | b[i]
		case "^":
			out[i] = a[i] ^ b[i]
		}
	}
	return nftables.Value(out)
}

// binarySubject is a bit operation on what the packet has.
func (t nativeTable) binarySubject(e nftables.Binary) subject {
	types, ok := t.table.Native.TypeOf(e.Left)
	left := t.subject(e.Left)
	if !ok || len(types) != 1 {
		return opened(e, "not understood")
	}
	if e.Op == "<<" || e.Op == ">>" {
		return t.shift(e, left)
	}
	right := func(*run) (nftables.Value, state) { return "", open }
	if v, ok := constantOf(types[0], e.Right); ok {
		right = constant(v, known)
	} else {
		s := t.subject(e.Right)
		right = s.value
	}
	return subject{why: left.why, value: func(r *run) (nftables.Value, state) {
		a, one := left.value(r)
		b, other := right(r)
		if s := max(one, other); s != known {
			return "", s
		}
		return r.values.operate(e.Op, a, b), known
	}}
}

// shift of a number of up to four bytes.
func (t nativeTable) shift(e nftables.Binary, left *subject) subject {
	by, err := nftables.Parse(nftables.Datatype{Name: "integer", Bytes: 4}, e.Right)
	if err != nil {
		return opened(e, "not understood")
	}
	return subject{why: left.why, value: func(r *run) (nftables.Value, state) {
		v, s := left.value(r)
		if s != known || len(v) > 4 {
			return "", max(s, open)
		}
		n := number(v)
		if e.Op == "<<" {
			n <<= number(by.First)
		} else {
			n >>= number(by.First)
		}
		return number32(n)[4-len(v):], known
	}}
}

// lookupSubject is a map's data as a key or value.
func (t nativeTable) lookupSubject(e nftables.Lookup) subject {
	find := t.lookup(e.Key, e.Map)
	return subject{why: "the map's elements aren't known", value: func(r *run) (nftables.Value, state) {
		entry, s := find(r)
		switch {
		case s != known:
			return "", s
		case entry == nil:
			return "", broken
		case len(entry.Data) != 1 || entry.Data[0].First != entry.Data[0].Last:
			return "", open
		}
		r.found(entry)
		return entry.Data[0].First, known
	}}
}
