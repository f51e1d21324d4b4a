package probe

import (
	"context"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/matrix"
)

// Space is where calls come from and where a peer may answer: a network namespace of
// this machine, a pod of a cluster.
type Space struct {
	Name      string
	Addresses []netip.Addr
	// Peer: one answers at all its addresses, by the space's name, at this port of TCP
	// and UDP; 0: none does.
	Peer uint16
	// Call makes calls there.
	Call func(context.Context, []Order) ([]Report, error)
	// Arrived says what the space's peer recorded of a call, answered or not; nil: nothing
	// can be known of that.
	Arrived func(Arrival) (netip.AddrPort, bool)
	// Elsewhere are networks that its packets come to by a way that nobody knows here:
	// calls to them aren't made.
	Elsewhere func(netip.Addr) bool
}

// Spaces by whose calls a matrix is measured.
type Spaces []Space

// from which a cell's calls are made: the row's place, or who has the source address; of
// nodes, addresses of bridges may be the same. Nil where nobody has.
func (all Spaces) from(m *matrix.Matrix, c *matrix.Cell) *Space {
	for _, r := range m.Rows {
		if s := all.named(r.Place.Name); r.Name == c.Row && s != nil && slices.Contains(s.Addresses, c.Source) {
			return s
		}
	}
	return all.of(c.Source)
}

// of an address, or nil.
func (all Spaces) of(a netip.Addr) *Space {
	i := slices.IndexFunc(all, func(s Space) bool { return slices.Contains(s.Addresses, a) })
	if i < 0 {
		return nil
	}
	return &all[i]
}

// named space, or nil.
func (all Spaces) named(name string) *Space {
	i := slices.IndexFunc(all, func(s Space) bool { return s.Name == name })
	if i < 0 {
		return nil
	}
	return &all[i]
}
