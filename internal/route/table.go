package route

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/packet"
)

// table is a routing table: its destinations as a tree of prefixes.
type table struct {
	family  packet.Family
	entries []entry
	tree    tree
}

// entry is a route with what is computed once.
type entry struct {
	route *Route
	// hops that aren't dead.
	hops []Nexthop
	// sources that the kernel would choose for each hop (IPv4).
	sources []netip.Addr
	// ambiguous: an IPv4 default route beside others of its metric; the kernel
	// takes the one whose gateway answers.
	ambiguous bool
}

func (e *entry) rejects() bool {
	return e.route.Type == Blackhole || e.route.Type == Unreachable || e.route.Type == Prohibit || e.route.Type == Throw
}

// build makes the tree of the entries.
func (t *table) build(ix *index) {
	if t.family == packet.IPv6Family {
		t.joinSiblings()
	}
	for i := range t.entries {
		t.entries[i].prepare(ix)
	}
	sorted := make([]*entry, len(t.entries))
	prefixes := make([]netip.Prefix, 0, len(t.entries))
	for i := range t.entries {
		sorted[i] = &t.entries[i]
	}
	slices.SortStableFunc(sorted, func(a, b *entry) int { return byPrefix(a.route.Destination, b.route.Destination) })
	for i, e := range sorted {
		if i == 0 || e.route.Destination != sorted[i-1].route.Destination {
			prefixes = append(prefixes, e.route.Destination)
		}
	}
	t.tree = newTree(prefixes)
	for i := range t.tree.nodes {
		node := &t.tree.nodes[i]
		same := 1
		for same < len(sorted) && sorted[same].route.Destination == node.prefix {
			same++
		}
		node.split(sorted[:same:same])
		sorted = sorted[same:]
		if t.family == packet.IPv4Family {
			markAmbiguous(node)
		}
	}
}

// prepare leaves out dead next hops and chooses sources.
func (e *entry) prepare(ix *index) {
	e.hops = e.route.Nexthops
	if slices.ContainsFunc(e.hops, func(h Nexthop) bool { return h.Dead }) {
		e.hops = slices.DeleteFunc(slices.Clone(e.hops), func(h Nexthop) bool { return h.Dead })
	}
	if e.route.Family != packet.IPv4Family {
		return
	}
	e.sources = make([]netip.Addr, len(e.hops))
	for i := range e.hops {
		e.sources[i] = ix.sourceOfHop(e.route, &e.hops[i])
	}
}

// joinSiblings: kernels before 4.11 print the next hops of an IPv6 multipath
// route as routes of their own, one after the other (rt6_qualify_for_ecmp).
func (t *table) joinSiblings() {
	type same struct {
		destination, from netip.Prefix
		metric            uint32
	}
	first, siblings := map[same]*entry{}, map[*entry][]*Route{}
	kept := make([]entry, 0, len(t.entries))
	for _, e := range t.entries {
		rt := e.route
		key := same{rt.Destination, rt.From, rt.Metric}
		if rt.Type != Unicast || len(rt.Nexthops) == 0 || !rt.Nexthops[0].Via.IsValid() || rt.Protocol == "ra" || rt.Unknown != "" {
			kept = append(kept, e)
			continue
		}
		if before := first[key]; before != nil {
			siblings[before] = append(siblings[before], rt)
			continue
		}
		kept = append(kept, e)
		first[key] = &kept[len(kept)-1] // kept never grows beyond its capacity
	}
	t.entries = kept
	for e, others := range siblings {
		joined := *e.route
		joined.Nexthops = slices.Clone(joined.Nexthops)
		texts := make([]string, 0, len(others)+1)
		texts = append(texts, joined.Text)
		for _, rt := range others {
			joined.Nexthops = append(joined.Nexthops, rt.Nexthops...)
			texts = append(texts, rt.Text)
		}
		joined.Text = strings.Join(texts, " ")
		e.route = &joined
	}
}

// node of a tree: the routes to one prefix.
type node struct {
	prefix netip.Prefix
	// parent is the next shorter prefix, -1 without.
	parent int32
	// entries by priority: type of service and metric.
	entries []*entry
	// from is the tree of sources for IPv6 routes that have one, nil without.
	from *tree
}

// split sorts the routes to a prefix: those for certain sources into their own tree.
func (n *node) split(all []*entry) {
	if !slices.ContainsFunc(all, func(e *entry) bool { return e.route.From.IsValid() }) {
		n.entries = all
		slices.SortStableFunc(n.entries, priority)
		return
	}
	bySource := map[netip.Prefix][]*entry{}
	for _, e := range all {
		if from := e.route.From; from.IsValid() {
			bySource[from] = append(bySource[from], e)
		} else {
			n.entries = append(n.entries, e)
		}
	}
	slices.SortStableFunc(n.entries, priority)
	if len(bySource) == 0 {
		return
	}
	prefixes := make([]netip.Prefix, 0, len(bySource))
	for p := range bySource {
		prefixes = append(prefixes, p)
	}
	from := newTree(prefixes)
	for i := range from.nodes {
		entries := bySource[from.nodes[i].prefix]
		slices.SortStableFunc(entries, priority)
		from.nodes[i].entries = entries
	}
	n.from = &from
}

func priority(a, b *entry) int {
	return cmp.Or(cmp.Compare(b.route.TOS, a.route.TOS), cmp.Compare(a.route.Metric, b.route.Metric))
}

// markAmbiguous finds default routes among which the kernel chooses by the
// state of their gateways (fib_select_default).
func markAmbiguous(n *node) {
	if n.prefix.Bits() > 0 {
		return
	}
	var behind [256]bool // scopes of those with the same priority
	for i := len(n.entries) - 1; i >= 0; i-- {
		e := n.entries[i]
		if i+1 < len(n.entries) && priority(e, n.entries[i+1]) != 0 {
			behind = [256]bool{}
		}
		if e.toGateway() {
			e.ambiguous = behind[e.route.Scope]
			behind[e.route.Scope] = true
		}
	}
}

func (e *entry) toGateway() bool {
	return e.route.Type == Unicast && len(e.hops) > 0 && e.hops[0].Via.IsValid()
}

// tree finds the longest prefix that holds an address; the shorter ones are its
// parents.
type tree struct {
	nodes []node
	// starts of stretches of addresses that have the same longest prefix, and
	// the node of each, -1 for none.
	starts []netip.Addr
	at     []int32
}

// byPrefix sorts by address, those that hold others first.
func byPrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// newTree of different prefixes of one family, host bits cleared.
func newTree(prefixes []netip.Prefix) tree {
	slices.SortFunc(prefixes, byPrefix)
	t := tree{nodes: make([]node, 0, len(prefixes))}
	var open []int32 // prefixes that hold the present place, the longest last
	closeUntil := func(next netip.Addr) {
		for len(open) > 0 {
			last := lastOf(t.nodes[open[len(open)-1]].prefix)
			if next.IsValid() && next.Compare(last) <= 0 {
				return
			}
			open = open[:len(open)-1]
			t.start(last.Next(), top(open))
		}
	}
	for _, p := range prefixes {
		closeUntil(p.Addr())
		t.nodes = append(t.nodes, node{prefix: p, parent: top(open)})
		open = append(open, int32(len(t.nodes)-1))
		t.start(p.Addr(), top(open))
	}
	closeUntil(netip.Addr{})
	return t
}

func top(open []int32) int32 {
	if len(open) == 0 {
		return -1
	}
	return open[len(open)-1]
}

// start begins a stretch; an invalid address is behind the last one.
func (t *tree) start(a netip.Addr, node int32) {
	if !a.IsValid() {
		return
	}
	if n := len(t.starts); n > 0 && t.starts[n-1] == a {
		t.at[n-1] = node
		return
	}
	t.starts = append(t.starts, a)
	t.at = append(t.at, node)
}

// find is the node of the longest prefix that holds the address, -1 for none.
func (t *tree) find(a netip.Addr) int32 {
	low, high := 0, len(t.starts)
	for low < high {
		middle := int(uint(low+high) >> 1)
		if a.Less(t.starts[middle]) {
			high = middle
		} else {
			low = middle + 1
		}
	}
	if low == 0 {
		return -1
	}
	return t.at[low-1]
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr { return netipx.PrefixLastIP(p) }
