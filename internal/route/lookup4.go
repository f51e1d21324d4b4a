package route

import "net/netip"

// table4 looks into an IPv4 table: the longest prefix first, within one the
// routes for the packet's type of service, then the lowest metric.
func (s *search) table4(t *table) verdict {
	for at := t.tree.find(s.q.Destination); at >= 0; at = t.tree.nodes[at].parent {
		for _, e := range t.tree.nodes[at].entries {
			v, used := s.entry4(e)
			if used {
				return v
			}
		}
	}
	return verdict{}
}

// entry4 tries a route; used is false where the next is to be tried.
func (s *search) entry4(e *entry) (v verdict, used bool) {
	rt := e.route
	switch {
	case rt.TOS != 0 && rt.TOS != s.q.TOS&^3:
		return v, false
	case rt.Unknown != "":
		return verdict{state: unknown, why: "route " + rt.Text + ": " + rt.Unknown}, true
	case rt.Type == Throw:
		return v, true
	case e.rejects():
		return verdict{state: found, kind: rt.Type, entry: e}, true
	}
	first, last := 0, len(e.hops)
	if s.out != "" {
		for first < last && e.hops[first].Interface != s.out {
			first++
		}
		last = min(last, first+1) // the kernel takes the first that fits
	}
	if first == last {
		return v, false
	}
	if e.ambiguous && s.out == "" && !s.reverse {
		return verdict{state: unknown, why: "several default routes have the metric of " + rt.Text + "; the kernel takes one whose gateway answers"}, true
	}
	return verdict{state: found, kind: rt.Type, entry: e, first: first, last: last}, true
}

// local4 looks into table local of a node with the ordinary rules. There the
// kernel holds tables local and main as one (fib_trie_table's alias) until the
// first rule is added or deleted, and then never again: a longer prefix of main
// comes before a shorter one of local, or doesn't. A dump doesn't tell.
func (s *search) local4(t *table) verdict {
	v := s.table4(t)
	if v.state != found || v.entry.route.Destination.IsSingleIP() {
		return v
	}
	at := s.fi.main.tree.find(s.q.Destination)
	if at < 0 || s.fi.main.tree.nodes[at].prefix.Bits() <= v.entry.route.Destination.Bits() {
		return v
	}
	if other := s.table4(s.fi.main); other.state == found && other.entry.route.Destination.Bits() <= v.entry.route.Destination.Bits() {
		return v
	}
	return verdict{state: unknown, why: "route " + v.entry.route.Text + " and a longer prefix of table main: which comes first depends on whether there ever was another routing rule"}
}

// special4 answers for addresses that aren't looked up in tables.
func (s *search) special4() (r Result, special bool) {
	q := s.q
	broadcast := q.Destination == limitedBroadcast
	zero := q.Destination.IsUnspecified()
	switch {
	case s.forwarded() && (broadcast || q.Destination.IsMulticast()):
		r = Result{Known: true, Found: true, Type: Broadcast, Interface: q.InInterface}
		if !broadcast {
			r.Type = Multicast
		}
		return r, true
	case s.forwarded():
		return Result{Known: true}, zero
	case q.Destination.IsUnspecified():
		return s.itself(), true
	case q.OutInterface != "" && (broadcast || isLocalMulticast(q.Destination)):
		return s.onLink(q.OutInterface), true
	case q.OutInterface == "" && hasSource(q.Source) && (broadcast || q.Destination.IsMulticast()):
		return s.bySource(), true
	}
	return Result{Known: true}, zero
}

// itself is where 0.0.0.0 leads.
func (s *search) itself() Result {
	r := Result{Known: true, Found: true, Type: Local, Interface: "lo"}
	if hasSource(s.q.Source) {
		return r
	}
	if s.q.OutInterface != "" {
		r.Source = s.ix.selectAddress(s.q.OutInterface, netip.Addr{}, ScopeHost)
	}
	if !r.Source.IsValid() {
		r.Source = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return r
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// isLocalMulticast: 224.0.0.0/24.
func isLocalMulticast(a netip.Addr) bool {
	b := a.As4()
	return b[0] == 224 && b[1] == 0 && b[2] == 0
}

// onLink is what the kernel does with a given out-interface where no route
// leads: it takes the destination for a neighbour.
func (s *search) onLink(out string) Result {
	r := Result{Known: true, Found: true, Interface: out, Nexthops: []Nexthop{{Interface: out, Weight: 1}}}
	switch {
	case s.q.Destination == limitedBroadcast:
		r.Type = Broadcast
	case s.q.Destination.IsMulticast():
		r.Type = Multicast
	}
	if !hasSource(s.q.Source) {
		r.Source = s.ix.selectAddress(out, netip.Addr{}, ScopeLink)
	}
	return r
}

// bySource: multicast and broadcast leave by the interface that has the source.
func (s *search) bySource() Result {
	e, isLocal := s.ix.localEntry(s.q.Source)
	if !isLocal {
		if !s.ix.n.localGiven(s.fi.family) && !s.ix.n.KnownAddresses {
			return Result{Why: "which interface has " + s.q.Source.String() + " isn't known"}
		}
		return Result{Known: true}
	}
	return s.onLink(e.hops[0].Interface)
}
