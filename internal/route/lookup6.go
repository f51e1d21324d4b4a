package route

import "net/netip"

// table6 looks into an IPv6 table (fib6_table_lookup): the longest prefix, in it
// the longest prefix of sources, then shorter ones.
func (s *search) table6(t *table) verdict {
	for c := start6(&t.tree, s.q.Destination, s.source6OrAny()); c.at >= 0; c.back(&t.tree) {
		if v, used := s.choose6(c.entries(&t.tree)); used {
			return v
		}
	}
	return verdict{}
}

func (s *search) source6OrAny() netip.Addr {
	if s.q.Source.IsValid() {
		return s.q.Source
	}
	return netip.IPv6Unspecified()
}

// cursor is a place in a tree of destinations, and in a subtree of sources below
// it where from isn't negative.
type cursor struct {
	source   netip.Addr
	at, from int32
}

// start6 is fib6_node_lookup. A destination that has routes for certain sources,
// none of them for this one, is passed over with all its routes.
func start6(t *tree, destination, source netip.Addr) cursor {
	c := cursor{source: source, from: -1}
	root := int32(-1)
	for c.at = t.find(destination); c.at >= 0; c.at = t.nodes[c.at].parent {
		n := &t.nodes[c.at]
		root = c.at
		if n.from == nil {
			return c
		}
		if c.from = n.from.find(source); c.from >= 0 {
			return c
		}
	}
	if root >= 0 && t.nodes[root].prefix.Bits() == 0 && len(t.nodes[root].entries) > 0 { // the root is always taken in the end
		c.at = root
	}
	return c
}

// back is fib6_backtrack: it goes on to shorter prefixes of sources, to routes
// for all sources, to the next shorter destination.
func (c *cursor) back(t *tree) {
	if c.from >= 0 {
		c.from = t.nodes[c.at].from.nodes[c.from].parent
		if c.from < 0 && len(t.nodes[c.at].entries) == 0 {
			c.up(t)
		}
		return
	}
	c.up(t)
}

func (c *cursor) up(t *tree) {
	for c.at = t.nodes[c.at].parent; c.at >= 0; c.at = t.nodes[c.at].parent {
		n := &t.nodes[c.at]
		if n.from != nil {
			if c.from = n.from.find(c.source); c.from >= 0 {
				return
			}
		}
		if len(n.entries) > 0 {
			return
		}
	}
}

func (c *cursor) entries(t *tree) []*entry {
	n := &t.nodes[c.at]
	if c.from >= 0 {
		return n.from.nodes[c.from].entries
	}
	return n.entries
}

// choose6 is rt6_select: the best of the lowest metric; where none of that can
// be taken, the best of all others.
func (s *search) choose6(entries []*entry) (v verdict, used bool) {
	if s.byDevice {
		return s.chooseByDevice(entries)
	}
	same := len(entries)
	for i, e := range entries {
		if e.route.Metric != entries[0].route.Metric {
			same = i
			break
		}
	}
	if v, used = s.best6(entries[:same]); used {
		return v, true
	}
	return s.best6(entries[same:])
}

func (s *search) best6(entries []*entry) (v verdict, used bool) {
	best := -1
	for _, e := range entries {
		if e.route.Unknown != "" {
			return verdict{state: unknown, why: "route " + e.route.Text + ": " + e.route.Unknown}, true
		}
		if score, fits := s.score6(e); score > best {
			best, v = score, fits
		}
	}
	if best < 0 {
		return v, false
	}
	if v.kind == Throw {
		return verdict{}, true
	}
	return v, true
}

// score6 is rt6_score_route of the best next hop: 2 for the right interface,
// above that the router's preference; -1 where it can't be taken.
func (s *search) score6(e *entry) (score int, v verdict) {
	v = verdict{state: found, kind: e.route.Type, entry: e}
	score = -1
	preference := int(e.route.Preference+2) << 2
	if len(e.hops) == 0 && len(e.route.Nexthops) == 0 && e.rejects() { // it has lo
		score = s.scoreHop("lo")
	}
	matching := 0
	for i := range e.hops {
		hop := s.scoreHop(e.hops[i].Interface)
		score = max(score, hop)
		if s.strict && hop == 2 {
			if matching == 0 {
				v.first = i
			}
			matching++
			v.last = i + 1
		}
	}
	if !s.strict {
		v.last = len(e.hops)
	}
	if matching > 0 && matching != v.last-v.first { // not side by side
		v.last = v.first + 1
	}
	if score < 0 {
		return -1, v
	}
	return score | preference, v
}

func (s *search) scoreHop(device string) int {
	switch {
	case s.out == "" || device == s.out:
		return 2
	case s.strict:
		return -1
	}
	return 0
}

// chooseByDevice is rt6_device_match: the first route through the interface, of
// whatever metric, else the first.
func (s *search) chooseByDevice(entries []*entry) (v verdict, used bool) {
	if s.out != "" {
		for _, e := range entries {
			for i := range e.hops {
				if e.hops[i].Interface == s.out {
					return s.taken(e, i)
				}
			}
		}
		if s.strict {
			return v, false
		}
	}
	if e := entries[0]; len(e.hops) > 0 || e.rejects() {
		return s.taken(e, 0)
	}
	return v, false
}

func (s *search) taken(e *entry, hop int) (v verdict, used bool) {
	switch {
	case e.route.Unknown != "":
		return verdict{state: unknown, why: "route " + e.route.Text + ": " + e.route.Unknown}, true
	case e.route.Type == Throw:
		return v, true
	}
	return verdict{state: found, kind: e.route.Type, entry: e, first: hop, last: min(hop+1, len(e.hops))}, true
}
