package conntrack

import "net/netip"

// Table finds entries. It doesn't change, and any number may ask it at once.
type Table struct {
	entries []Entry
	tuples  map[key]found
	// between finds the entries of two hosts, by the original direction.
	between map[pair][]int32
}

// key is what the kernel's hash table of connections compares.
type key struct {
	tuple    Tuple
	zone     uint16
	protocol uint8
}

type found struct {
	entry int32
	reply bool
}

type pair struct {
	source, destination netip.Addr
	zone                uint16
	protocol            uint8
}

// NewTable of entries, which it keeps. Where two have the same tuple (two dumps
// in one), the later one counts.
func NewTable(entries []Entry) *Table {
	t := &Table{
		entries: entries,
		tuples:  make(map[key]found, 2*len(entries)),
		between: make(map[pair][]int32, len(entries)),
	}
	for i := range entries {
		e := &entries[i]
		t.tuples[key{e.Reply, e.ReplyZone, e.Protocol}] = found{int32(i), true}
		t.tuples[key{e.Original, e.OriginalZone, e.Protocol}] = found{int32(i), false}
		p := pair{e.Original.Source, e.Original.Destination, e.OriginalZone, e.Protocol}
		t.between[p] = append(t.between[p], int32(i))
	}
	return t
}

// Find returns the entry of a packet, nil where there is none, and whether the
// packet goes in the direction of the reply. zone is what a CT rule gave the
// packet, else 0.
func (t *Table) Find(protocol uint8, packet Tuple, zone uint16) (entry *Entry, reply bool) {
	f, ok := t.tuples[key{packet, zone, protocol}]
	if !ok {
		return nil, false
	}
	return &t.entries[f.entry], f.reply
}

// FindLoose returns the entries whose first packet went from source to
// destination, for a question that leaves the source port open; in the order of
// the dump. destinationPort is -1 where it is open too.
func (t *Table) FindLoose(protocol uint8, source, destination netip.Addr, destinationPort int, zone uint16) []*Entry {
	var entries []*Entry
	for _, i := range t.between[pair{source, destination, zone, protocol}] {
		e := &t.entries[i]
		if destinationPort < 0 || int(e.Original.DestinationPort) == destinationPort {
			entries = append(entries, e)
		}
	}
	return entries
}
