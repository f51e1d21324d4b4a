package nftables

import "fmt"

// Value is a value as the kernel compares it: bytes in network order, of the
// datatype's length. Host-order integers (marks, ct state, priorities) are
// written big-endian, so that they compare as numbers; fields of less than a
// byte (ip version, dscp) are numbers of one byte; names of interfaces are
// padded with zeros to 16 bytes, and stand for indexes of interfaces too; no
// interface (index 0) is all zeros. It can be the key of a map.
type Value string

// Datatype of an expression: nft's own types.
type Datatype struct {
	// Name as nft describe has it: ipv4_addr, inet_service, mark, ifname, ct_state, integer.
	Name string
	// Bytes of a value; 0 where it isn't known, and for verdicts.
	Bytes int
	// Flags: a bit mask, whose values are sets of named bits (ct_state, tcp_flag).
	Flags bool
	// Bits of a value where they are fewer than its bytes have (dscp: 6), else 0.
	Bits int
}

// width in bits.
func (d Datatype) width() int {
	if d.Bits > 0 {
		return d.Bits
	}
	return d.Bytes * 8
}

// Interval is one value or a range of a part of a key: First ≤ x ≤ Last.
type Interval struct{ First, Last Value }

// Single says whether it is one value.
func (i Interval) Single() bool { return i.First == i.Last }

// Contains says whether the value is in it.
func (i Interval) Contains(v Value) bool { return i.First <= v && v <= i.Last }

// All is the interval of every value.
func (d Datatype) All() Interval {
	bounds := appendAll(nil, d)
	return intervalOf(bounds)
}

// Parse reads what can stand on the right of a comparison with a datatype, or
// as part of a set's key: a literal, symbol, prefix, range, "eth*", a flag list
// (or'ed), a bit operation of constants, or * for every value. A literal is an
// interval of one. Text may be quoted as nft's text has it, or bare as in its
// JSON. Names that only the node knows (users, marks, labels, interfaces by
// index) are errors.
func Parse(d Datatype, e Expr) (Interval, error) {
	bounds, err := appendBounds(nil, d, e)
	if err != nil {
		return Interval{}, err
	}
	return intervalOf(bounds), nil
}

// ParseKey reads the parts of a key, or of a map's data: one interval for each
// type. Concatenations within one another count as one.
func ParseKey(types []Datatype, e Expr) ([]Interval, error) {
	parts := partsOf(e)
	if _, any := e.(Any); any || len(parts) == 1 && isStar(parts[0]) {
		all := make([]Interval, len(types))
		for i, d := range types {
			all[i] = d.All()
		}
		return all, nil
	}
	if len(parts) != len(types) {
		return nil, fmt.Errorf("%s has %d parts, not the %d of its type", describe(e), len(parts), len(types))
	}
	key := make([]Interval, len(parts))
	for i, d := range types {
		var err error
		if key[i], err = Parse(d, parts[i]); err != nil {
			return nil, err
		}
	}
	return key, nil
}

// intervalOf splits what appendBounds made.
func intervalOf(bounds []byte) Interval {
	n := len(bounds) / 2
	all := Value(bounds)
	if all[:n] == all[n:] {
		return Interval{all[:n], all[:n]}
	}
	return Interval{all[:n], all[n:]}
}

// partsOf an expression: those of a concatenation, else itself.
func partsOf(e Expr) []Expr {
	c, is := e.(Concat)
	if !is {
		return []Expr{e}
	}
	parts := make([]Expr, 0, len(c.Parts))
	for _, p := range c.Parts {
		parts = append(parts, partsOf(p)...)
	}
	return parts
}

// isStar says whether an element is the one for all others.
func isStar(e Expr) bool {
	switch e := e.(type) {
	case Any:
		return true
	case Literal:
		return e.Text == "*"
	}
	return false
}
