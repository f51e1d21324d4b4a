package route

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
)

// lookup4 is the routing of an IPv4 packet.
func (s *search) lookup4() Result {
	if r, special := s.special4(); special {
		return r
	}
	v := s.find()
	fails := v.state == pass || v.state == found && (v.entry == nil || v.entry.rejects())
	if fails && !s.forwarded() && s.q.OutInterface != "" {
		return s.onLink(s.q.OutInterface) // "apparently, routing tables are wrong": net/ipv4/route.c
	}
	return s.result(v)
}

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

// find asks the rules; of IPv4 with the ordinary rules, also in the kernel's
// other way. Until the first rule is added or deleted it holds tables local and
// main as one, and then never again. With both in one, a longer prefix of main
// comes before a shorter one of local. A dump doesn't tell which of the two it is.
func (s *search) find() verdict {
	v := s.decide(0)
	if !s.fi.ordinary || s.fi.family == packet.IPv6Family || !s.mergeMatters() || v.state == unknown {
		return v
	}
	other := s.merged()
	if v.same(&other) {
		return v
	}
	if other.state == unknown {
		return other
	}
	return verdict{state: unknown, why: "tables local and main overlap there: which comes first depends on whether there ever was another routing rule"}
}

// mergeMatters: most tables local hold single addresses.
func (s *search) mergeMatters() bool {
	at := s.fi.local.tree.find(s.q.Destination)
	if at >= 0 && s.fi.local.tree.nodes[at].prefix.IsSingleIP() {
		at = s.fi.local.tree.nodes[at].parent
	}
	return at >= 0
}

// merged is fib_lookup without custom rules.
func (s *search) merged() verdict {
	v := s.mergedTables()
	if v.state == pass {
		return s.table4(s.fi.table(TableDefault))
	}
	return v
}

// mergedTables looks into local and main as one table.
func (s *search) mergedTables() verdict {
	local, main := &s.fi.local.tree, &s.fi.main.tree
	a, b := local.find(s.q.Destination), main.find(s.q.Destination)
	for a >= 0 || b >= 0 {
		var n *node
		if a >= 0 && (b < 0 || local.nodes[a].prefix.Bits() >= main.nodes[b].prefix.Bits()) {
			n = &local.nodes[a]
			a = n.parent
		} else {
			n = &main.nodes[b]
			b = n.parent
		}
		for _, e := range n.entries {
			if v, used := s.entry4(e); used {
				return v
			}
		}
	}
	return verdict{}
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

// multicastSource is the source that multicast bound to an interface gets before
// any route is looked for; invalid for others.
func (s *search) multicastSource() netip.Addr {
	d := s.q.Destination
	if s.q.OutInterface == "" || s.forwarded() || hasSource(s.q.Source) || !d.Is4() || !d.IsMulticast() || isLocalMulticast(d) {
		return netip.Addr{}
	}
	return s.ix.selectAddress(s.q.OutInterface, netip.Addr{}, ScopeUniverse)
}

// bySource: multicast and broadcast leave by the interface that has the source.
func (s *search) bySource() Result {
	holders := 0
	var holder string
	for _, d := range s.ix.devices {
		for _, a := range d.v4 {
			if a.Prefix.Addr() == s.q.Source {
				holders++
				holder = d.name
			}
		}
	}
	if e, state := s.ix.localEntry(s.q.Source); state == found && holders == 0 {
		holders, holder = 1, e.hops[0].Interface
	}
	switch {
	case holders == 1:
		return s.onLink(holder)
	case holders > 1:
		return Result{Why: "several interfaces have " + s.q.Source.String() + "; which one the kernel takes isn't known"}
	case !s.ix.n.localGiven(s.fi.family) && !s.ix.n.addressesGiven(s.fi.family):
		return Result{Why: "which interface has " + s.q.Source.String() + " isn't known"}
	}
	return Result{Known: true}
}
