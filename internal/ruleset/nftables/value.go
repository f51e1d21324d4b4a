package nftables

// Value is a value as the kernel compares it: bytes in network order, of the
// datatype's length. Host-order integers (marks, ct state, priorities) are
// written big-endian, so that they compare as numbers; names of interfaces are
// padded with zeros to 16 bytes. It can be the key of a map.
type Value string

// Datatype of an expression: nft's own types.
type Datatype struct {
	// Name as nft describe has it: ipv4_addr, inet_service, mark, ifname, ct_state, integer.
	Name string
	// Bytes of a value; 0 where it isn't known.
	Bytes int
	// Flags: a bit mask, whose values are sets of named bits (ct_state, tcp_flag).
	Flags bool
}

// TypeOf gives the datatype of an expression in a rule or set of the table: one
// per part of a concatenation. known is false where an expression isn't
// understood. partner, which may be nil, is the other side of a comparison, for
// what takes its type from there.
func (t *Table) TypeOf(e Expr) (types []Datatype, known bool) { return nil, false }

// Interval is one value or a range of a part of a key: First ≤ x ≤ Last.
type Interval struct{ First, Last Value }

// Parse reads what can stand on the right of a comparison with a datatype, or
// as part of a set's key: a literal, symbol, prefix, range, "eth*", a flag list
// (or'ed). A literal is an interval of one.
func Parse(d Datatype, e Expr) (Interval, error) { return Interval{}, nil }

// Index is a set or map made fit for lookups.
type Index struct{}

// Entry of an index: one element.
type Entry struct {
	// Key, one interval for each part of the key.
	Key []Interval
	// Element as it stands in the set; its Data is nil in sets.
	Element *Element
	// Data of a map, each part parsed, where it isn't a verdict or an expression of its own.
	Data []Interval
	// Changes: it has a timeout, or the set is dynamic.
	Changes bool
}

// IndexOf makes the index of a named set, map, or literal whose keys have the
// types given. What can't be read is a problem; lookups that might have hit it
// say so.
func (t *Table) IndexOf(s *Set, types []Datatype) (*Index, []Problem) { return nil, nil }

// Part of a key that is looked up: a value, or open where it isn't known.
type Part struct {
	Value Value
	Open  bool
}

// Find returns the entry that the key has. More than one entry, or one with
// certain false, where open parts decide: each of them may be the one, or none.
// For keys without open parts: at most one, and certain, unless elements of the
// set could not be read, or the set changes by itself. The element * comes last.
func (x *Index) Find(key []Part) (entries []*Entry, certain bool) { return nil, false }
