package sim

// Hop is a node on a packet's path.
type Hop struct {
	Node string
	// Aside: it only crosses a bridge of the node, whose rules don't see it.
	Aside bool
	// Outcome of the routing alone: where it leaves, or why it ends there.
	Outcome Outcome
}

// Path is the way of a packet by routes, tunnels and the kernel's own checks alone,
// from the node At or the one that the source belongs to: that of a reply, which no
// NAT rule is asked about. Where routes leave it open, it is the first that they offer.
func Path(nodes []Named, q Question) []Hop {
	at, f := firstOf(nodes, q), follower{nodes: nodes}
	var hops []Hop
	for range mostNodes {
		h := at.route(q)
		h.Node = at.Name
		hops = append(hops, h)
		o := &hops[len(hops)-1].Outcome
		if o.Verdict != Accepted || o.ToNode {
			break
		}
		to, in := f.arrival(o)
		if to == nil || to == at {
			break
		}
		at = to
		q.InInterface, q.Local = in, false
	}
	return hops
}

// route is what becomes of the question by routing alone.
func (n *Node) route(q Question) Hop {
	r := n.runs.Get().(*run)
	defer n.runs.Put(r)
	r.dice = dice{path: r.dice.path[:0]}
	a := asked{question: q}
	a.fromNode, a.comesIn = n.entry(&q)
	r.elements = nil
	r.begin(&a)
	var h Hop
	switch {
	case r.local:
		if r.routeOut() && !r.toNode {
			r.leave()
		}
	case r.isBridged():
		h.Aside = !r.bridgeCallsIPTables()
	default:
		if r.routeIn() && !r.toNode {
			r.leave()
		}
	}
	h.Outcome = r.outcome()
	return h
}
