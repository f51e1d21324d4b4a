package sim

import (
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

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
