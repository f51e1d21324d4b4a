package matrix

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/vicinity"
)

// world is a situation made ready for questions.
type world struct {
	Situation
	nodes    []*node
	explain  *explain.Explainer
	families []packet.Family
	services []*service
	notes    []string
	// backends of services that are asked about: no row's own pod is one of them.
	backends map[netip.Addr]bool
}

// node whose state is known.
type node struct {
	Node
	index    int
	networks []vicinity.Network
}

// nobody is the index of a node that isn't known.
const nobody = -1

func newWorld(s Situation) *world {
	s.Protocol = cmp.Or(s.Protocol, packet.TCP)
	w := &world{Situation: s, backends: map[netip.Addr]bool{}}
	var named []explain.Node
	for i, n := range s.Nodes {
		n.Name = nameOf(n)
		networks := slices.DeleteFunc(vicinity.Networks(n.Host), func(x vicinity.Network) bool { return vicinity.IsUplink(&n.Host.Network, x.Link) })
		w.nodes = append(w.nodes, &node{Node: n, index: i, networks: networks})
		named = append(named, explain.Node{Name: n.Name, Host: n.Host})
	}
	w.explain = explain.New(named...)
	for _, f := range packet.Families {
		if w.here().has(f) {
			w.families = append(w.families, f)
		} else {
			w.note("%s isn't in the table: %s has no address of it", f, w.here().Name)
		}
	}
	return w
}

// nameOf a node: as it was named, as it calls itself, or in words.
func nameOf(n Node) string { return cmp.Or(n.Name, n.Host.Name, "this node") }

// prefer networks with a backend, then those with something on them: a bridge of an
// engine that isn't used stands on many nodes.
func (w *world) prefer() {
	for _, n := range w.nodes {
		rank := func(x vicinity.Network) int {
			for b := range w.backends {
				if x.Prefix.Contains(b) {
					return 0
				}
			}
			if x.Empty {
				return 2
			}
			return 1
		}
		slices.SortStableFunc(n.networks, func(a, b vicinity.Network) int { return rank(a) - rank(b) })
	}
}

// choosePort that pods, nodes and hosts outside are asked at, unless it was stated: one
// that no service has.
func (w *world) choosePort() {
	if w.Port != 0 {
		return
	}
	for w.Port = DefaultPort; slices.ContainsFunc(w.services, func(s *service) bool { return s.kind != vicinity.ClusterIP && s.targets[0].Port == w.Port }); {
		w.Port++
	}
}

func (w *world) here() *node { return w.nodes[0] }

func (w *world) note(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(w.notes, text) {
		w.notes = append(w.notes, text)
	}
}

// has says whether the node takes part in a family.
func (n *node) has(f packet.Family) bool {
	return n.primary(f).IsValid() || slices.ContainsFunc(n.networks, func(x vicinity.Network) bool { return x.Family() == f })
}

// primary is the address that the node is known by.
func (n *node) primary(f packet.Family) netip.Addr { return vicinity.Primary(n.Host, f) }

// holds says whether the address is the node's own.
func (n *node) holds(a netip.Addr) bool {
	local, known := n.Host.Network.IsLocal(a)
	return known && local
}

// lacks an interface, as far as its links are known.
func (n *node) lacks(link string) bool {
	return n.Host.Network.KnownLinks && n.Host.Network.Link(link) == nil
}

// network of the node's containers that has the address; nil without.
func (n *node) network(a netip.Addr) *vicinity.Network {
	var best *vicinity.Network
	for i := range n.networks {
		if x := &n.networks[i]; x.Prefix.Contains(a) && (best == nil || x.Prefix.Bits() > best.Prefix.Bits()) {
			best = x
		}
	}
	return best
}

// whereIs an address: the index of the node that has it or forwards for it.
func (w *world) whereIs(a netip.Addr) int {
	for _, n := range w.nodes {
		if n.holds(a) {
			return n.index
		}
	}
	for _, n := range w.nodes {
		if n.network(a) != nil {
			return n.index
		}
	}
	return nobody
}

// named is the index of a node by its name.
func (w *world) named(name string) int {
	return slices.IndexFunc(w.nodes, func(n *node) bool { return n.Name == name })
}

// called is the name of an address that a server sees, of what was sent by source.
func (w *world) called(a, source netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	for _, n := range w.nodes {
		for i := range n.Host.Network.Addresses {
			if x := &n.Host.Network.Addresses[i]; x.Prefix.Addr() == a && !a.IsLoopback() {
				return n.Name + "'s " + x.Interface
			}
		}
	}
	if a == source {
		return Itself
	}
	for _, p := range w.Places {
		if slices.Contains(p.Addresses, a) {
			return p.Name
		}
	}
	return ""
}

// Itself is the name of a source that a server sees as it is.
const Itself = "itself"

// way that the node has to an address.
func (n *node) way(to netip.Addr) route.Result {
	return n.Host.Network.Lookup(route.Query{Destination: to, SourcePort: -1, DestinationPort: -1})
}

// speaksAs is the source address that the node itself takes for a destination.
func (n *node) speaksAs(to netip.Addr) netip.Addr {
	if r := n.way(to); r.Known && r.Found && r.Source.IsValid() {
		return r.Source
	}
	return n.primary(packet.Of(to))
}
