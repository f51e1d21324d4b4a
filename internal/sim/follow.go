package sim

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/route"
)

// mostNodes bounds how many nodes a packet is followed through.
const mostNodes = 8

// Named is one of several nodes.
type Named struct {
	Name string
	*Node
}

// Follow answers a question where several nodes are known: it starts on the
// node that the question says, else on that which the source belongs to, and goes
// on wherever an outcome leads to another of them ([Outcome.Next]). start names the
// first node.
func Follow(nodes []Named, q Question, o Options) (start string, outcomes []Outcome) {
	first := firstOf(nodes, q)
	outcomes = first.Run(q, o)
	f := follower{nodes, o}
	f.goOn(first.Name, outcomes, q, 1)
	return first.Name, outcomes
}

type follower struct {
	nodes   []Named
	options Options
}

// goOn follows the outcomes of a node.
func (f follower) goOn(from string, outcomes []Outcome, q Question, depth int) {
	if depth == mostNodes {
		return
	}
	for i := range outcomes {
		o := &outcomes[i]
		if o.Verdict != Accepted || o.ToNode || !o.Source.IsValid() {
			continue
		}
		to, in := f.arrival(o)
		if to == nil || to.Name == from {
			continue
		}
		next := Question{
			Source: o.Source, Destination: o.Destination, Protocol: q.Protocol, DestinationPort: o.DestinationPort,
			SourcePort: UnknownPort, InInterface: in,
		}
		if o.SourcePort.Known && o.SourcePort.First == o.SourcePort.Last {
			next.SourcePort = int(o.SourcePort.First)
		}
		o.Next = &Next{Node: to.Name, Question: next, Outcomes: to.Run(next, f.options)}
		f.goOn(to.Name, o.Next.Outcomes, next, depth+1)
	}
}

// arrival is the node that an outcome's packet comes to, and the interface
// there; nil where it is none of those known.
func (f follower) arrival(o *Outcome) (to *Named, in string) {
	if o.Encapsulated != nil {
		return f.tunnelled(o.Encapsulated)
	}
	hop := o.NextHop
	if !hop.IsValid() {
		hop = o.Destination
	}
	for i := range f.nodes {
		if name, ok := holder(&f.nodes[i].host.Network, hop); ok {
			return &f.nodes[i], name
		}
	}
	return nil, ""
}

// tunnelled: the inner packet comes out of the same kind of link at the node
// that the outer one is sent to.
func (f follower) tunnelled(e *Encapsulated) (to *Named, in string) {
	for i := range f.nodes {
		n := &f.nodes[i].host.Network
		if _, ok := holder(n, e.Question.Destination); !ok || len(e.Outcomes) != 1 || e.Outcomes[0].Verdict != Accepted {
			continue
		}
		for _, link := range n.Links {
			if link.Name == e.Interface && link.Kind != "" {
				return &f.nodes[i], link.Name
			}
		}
		return &f.nodes[i], ""
	}
	return nil, ""
}

// holder is the interface that has the address.
func holder(n *route.Network, a netip.Addr) (name string, ok bool) {
	for i := range n.Addresses {
		if n.Addresses[i].Prefix.Addr() == a {
			return n.Addresses[i].Interface, true
		}
	}
	return "", false
}

// firstOf is the node that has the packet first.
func firstOf(nodes []Named, q Question) *Named {
	for i := range nodes {
		if q.At != "" && nodes[i].Name == q.At {
			return &nodes[i]
		}
	}
	return nodeOf(nodes, q.Source)
}

// nodeOf is the node that the source belongs to: whose address it is, else
// whose link it is on, by the most specific route.
func nodeOf(nodes []Named, source netip.Addr) *Named {
	best, bits := 0, -1
	for i := range nodes {
		n := &nodes[i].host.Network
		if _, ok := holder(n, source); ok {
			return &nodes[i]
		}
		r := n.Lookup(route.Query{Destination: source, SourcePort: -1, DestinationPort: -1})
		if r.Known && r.Found && r.Type == route.Unicast && !hasGateway(r) && r.Route != nil && r.Route.Destination.Bits() > bits {
			best, bits = i, r.Route.Destination.Bits()
		}
	}
	return &nodes[best]
}
