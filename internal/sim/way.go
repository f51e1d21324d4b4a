package sim

// Way is how all that was open turned out, by dice or otherwise, on one packet's way.
// The same way leads another packet, such as another client's of the same service, to
// a like end where rules look at both alike; where not, it still is one of its ways.
type Way []uint8

// Along follows one way alone, where Run follows all: for a service of many endpoints
// that is a small part of the work. The outcome is one of those that Run has, without
// what it depends on; open has the words for what was open. ok is false where it
// couldn't be followed to its end.
func (n *Node) Along(q Question, w Way) (o Outcome, open []string, ok bool) {
	r := n.runs.Get().(*run)
	defer n.runs.Put(r)
	r.dice = dice{path: r.dice.path[:0], way: w}
	defer func() { r.dice.way = nil }()
	a := asked{question: q}
	a.fromNode, a.comesIn = n.entry(&q)
	r.elements = nil
	r.begin(&a)
	o = r.follow()
	for i := range r.path[:r.pos] {
		open = append(open, r.path[i].what)
	}
	return o, open, !r.spent()
}

// went is the way of the run; nil where nothing was open, or too much.
func (d *dice) went() Way {
	w := make(Way, 0, d.pos)
	for i := range d.path[:d.pos] {
		if d.path[i].taken > 255 {
			return nil
		}
		w = append(w, uint8(d.path[i].taken))
	}
	return w
}
