package route

import (
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
)

// Query is a packet that looks for its way.
type Query struct {
	Source, Destination netip.Addr
	Mark                uint32
	// InInterface is empty for what the node itself sends.
	InInterface, OutInterface   string
	Protocol                    uint8 // 0 where not known
	SourcePort, DestinationPort int   // -1 where not known
	// TOS of the packet.
	TOS uint8
	// InUnknown: it comes in by an interface, but nobody knows by which.
	InUnknown bool
}

// Result of a lookup.
type Result struct {
	// Known is false where the routes weren't given, or a rule asks for what the
	// query leaves open; Why then says what is missing.
	Known bool
	Why   string
	// Found is false where no route leads there (ENETUNREACH).
	Found bool
	Type  Type
	// Route is nil where a rule itself decides, and where the kernel takes the
	// out-interface without a route.
	Route *Route
	// Rule that led to the route, or that decided; one of the default rules where
	// none were given.
	Rule *Rule
	// Nexthops that can be taken, with the share of each in Weight; one unless
	// multipath. It belongs to the network: don't change it.
	Nexthops []Nexthop
	// Interface of local routes and single nexthops.
	Interface string
	// Source is what the kernel would choose as source address for a packet of
	// the node itself that has none yet; invalid for others, and where it depends
	// on the next hop.
	Source netip.Addr
}

// Link of that name, nil without.
func (n *Network) Link(name string) *Link {
	if n.index != nil {
		return n.index.links[name]
	}
	for i := range n.Links {
		if n.Links[i].Name == name {
			return &n.Links[i]
		}
	}
	return nil
}

// Lookup is the kernel's fib_lookup (ip6_route_lookup) with what its callers do
// around it: ip_route_output_key for what the node sends, ip_route_input for
// what comes in. Reverse path filters aren't part of it. IPv6 is looked up as
// with forwarding on; with it off the kernel also asks whether gateways answer.
func (n *Network) Lookup(q Query) Result {
	if !q.Destination.IsValid() {
		return Result{Why: "no destination"}
	}
	s := newSearch(n.indexed(), &q)
	if s.fi.family == packet.IPv6Family {
		return s.result(s.find())
	}
	if chosen := s.multicastSource(); chosen.IsValid() { // rules see it
		q.Source = chosen
		r := s.lookup4()
		r.Source = chosen
		return r
	}
	return s.lookup4()
}

// search is one lookup.
type search struct {
	ix *index
	fi *familyIndex
	q  *Query
	// in is flowi_iif: lo for what the node sends.
	in string
	// budget of open rules that are followed both ways.
	budget int
	// out is the interface that routes must have (IPv4), or should have (IPv6;
	// must, where strict).
	out    string
	strict bool
	// byDevice: routes of any metric through out come first (ip6_pol_route_lookup).
	byDevice bool
	// reverse: a reverse path, for which the kernel doesn't choose among next hops.
	reverse bool
}

func newSearch(ix *index, q *Query) search {
	const openRules = 12
	s := search{ix: ix, fi: ix.of(packet.Of(q.Destination)), q: q, in: q.InInterface, out: q.OutInterface, budget: openRules}
	if s.in == "" && !q.InUnknown {
		s.in = "lo"
	}
	if s.fi.family == packet.IPv6Family {
		s.strict = needsLink(q.Destination) || q.OutInterface != "" && !hasSource(q.Source)
		if s.forwarded() {
			s.out = q.InInterface
			s.strict = needsLink(q.Destination)
		}
	}
	return s
}

func (s *search) forwarded() bool { return s.q.InInterface != "" || s.q.InUnknown }

func hasSource(a netip.Addr) bool { return a.IsValid() && !a.IsUnspecified() }

// needsLink is rt6_need_strict: such addresses mean something on a link only.
func needsLink(a netip.Addr) bool {
	return a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsLoopback()
}

// vrf that the packet comes from or is bound to, empty without.
func (s *search) vrf() string {
	for _, name := range [2]string{s.q.OutInterface, s.q.InInterface} {
		if d := s.ix.byName[name]; d != nil && d.master != "" {
			return d.master
		}
	}
	return ""
}

// state of a search.
type state uint8

const (
	// pass: nothing found, the next rule is asked.
	pass state = iota
	found
	unknown
)

// verdict of a table, or of the rules.
type verdict struct {
	state state
	// kind of what was found.
	kind  Type
	entry *entry
	// hops: those of the entry from first to last.
	first, last int
	rule        *Rule
	why         string
}

// same says whether two verdicts send the packet the same way.
func (v *verdict) same(o *verdict) bool {
	if v.state != o.state || v.state == unknown {
		return false
	}
	if v.state == pass || v.entry == o.entry && v.first == o.first && v.last == o.last && v.kind == o.kind {
		return true
	}
	if v.kind != o.kind || v.entry == nil || o.entry == nil {
		return false
	}
	return v.entry.route.Source == o.entry.route.Source && slices.Equal(v.hops(), o.hops())
}

func (v *verdict) hops() []Nexthop { return v.entry.hops[v.first:v.last] }

// decide asks the rules from number i on (fib_rules_lookup).
func (s *search) decide(i int) verdict {
	for i < len(s.fi.rules) {
		r := &s.fi.rules[i]
		if !r.plain {
			m, why := r.matches(s)
			if m == no {
				i++
				continue
			}
			if m == maybe {
				return s.either(i, why)
			}
		}
		v, next := s.follow(i)
		if v.state != pass {
			return v
		}
		i = next
	}
	return verdict{}
}

// either follows a rule of which isn't known whether it matches, and does not.
func (s *search) either(i int, why string) verdict {
	rule := s.fi.rules[i].Rule
	if rule.Unknown != "" {
		return verdict{state: unknown, rule: rule, why: "rule " + rule.Text + ": " + rule.Unknown}
	}
	if s.budget--; s.budget < 0 {
		return verdict{state: unknown, why: "too many routing rules ask for what isn't known"}
	}
	without := s.decide(i + 1)
	with, next := s.follow(i)
	if with.state == pass {
		with = s.decide(next)
	}
	if with.same(&without) {
		return without
	}
	for _, v := range [2]verdict{without, with} {
		if v.state == unknown {
			return v
		}
	}
	return verdict{state: unknown, why: "rule " + rule.Text + ": " + why + " isn't known"}
}

// follow does what a rule says that matches; next is the rule to go on with
// where that decides nothing.
func (s *search) follow(i int) (v verdict, next int) {
	r := &s.fi.rules[i]
	switch {
	case r.Goto != 0:
		return verdict{}, max(r.jump, i+1)
	case r.NoOperation:
		return verdict{}, i + 1
	case r.Action != Unicast:
		return verdict{state: found, kind: r.Action, rule: r.Rule}, 0
	}
	t, missing := r.table, r.missing
	if r.L3MDev {
		t, missing = s.vrfTable()
	}
	if missing != "" {
		return verdict{state: unknown, why: "routing table " + missing + " wasn't given (rule " + r.Text + ")"}, 0
	}
	v = s.table(t)
	v.rule = r.Rule
	if s.suppressed(r, &v) {
		v = verdict{}
	}
	return v, i + 1
}

// vrfTable is the table of the packet's VRF.
func (s *search) vrfTable() (t *table, missing string) {
	link := s.ix.links[s.vrf()]
	if link == nil || link.Table == 0 {
		return nil, "of a VRF"
	}
	if t = s.fi.tables[link.Table]; t != nil {
		return t, ""
	}
	if s.ix.n.tableGiven(s.fi.family, link.Table) {
		return nil, ""
	}
	return nil, s.ix.n.nameOf(link.Table)
}

// suppressed: the rule doesn't accept what was found (fib4_rule_suppress).
func (s *search) suppressed(r *ruleIndex, v *verdict) bool {
	if v.state != found || v.entry.rejects() {
		return false
	}
	if v.entry.route.Destination.Bits() <= r.SuppressPrefixLength {
		return true
	}
	if r.SuppressGroup == "" || len(v.entry.route.Nexthops) == 0 {
		return false
	}
	hops := v.entry.route.Nexthops[:1]
	if s.fi.family == packet.IPv6Family { // there one was chosen already
		hops = v.hops()
	}
	inGroup := 0
	for i := range hops {
		link := s.ix.links[hops[i].Interface]
		if link == nil || link.Group == "" {
			*v = verdict{state: unknown, why: "rule " + r.Text + ": the group of " + hops[i].Interface + " isn't known"}
			return false
		}
		inGroup += count(link.Group == r.SuppressGroup)
	}
	if inGroup != 0 && inGroup != len(hops) {
		*v = verdict{state: unknown, why: "rule " + r.Text + ": which next hop is chosen decides"}
	}
	return inGroup == len(hops)
}

// table is fib_table_lookup, or fib6_table_lookup.
func (s *search) table(t *table) verdict {
	switch {
	case t == nil:
		return verdict{}
	case s.fi.family == packet.IPv6Family:
		return s.table6(t)
	}
	return s.table4(t)
}

// result of the whole search.
func (s *search) result(v verdict) Result {
	switch v.state {
	case unknown:
		return Result{Why: v.why, Rule: v.rule}
	case pass:
		return Result{Known: true}
	}
	r := Result{Known: true, Found: true, Type: v.kind, Rule: v.rule}
	if v.entry == nil {
		return r
	}
	r.Route = v.entry.route
	if v.entry.rejects() {
		return r
	}
	r.Nexthops = v.hops()
	if len(r.Nexthops) == 1 || v.kind != Unicast && len(r.Nexthops) > 0 {
		r.Interface = r.Nexthops[0].Interface
	}
	if !s.reverse {
		s.groupType(&r)
	}
	if r.Type == Unicast && s.fi.family == packet.IPv6Family && r.Interface == "lo" {
		r.Type = Unreachable // "promoted to reject routes": ip6_route_info_create
		return r
	}
	if !s.forwarded() && !hasSource(s.q.Source) {
		r.Source = s.source(&v)
	}
	return r
}

// groupType: what goes to a group or to everybody keeps the interface of its
// route, but not its gateway (__mkroute_output).
func (s *search) groupType(r *Result) {
	d, local := s.q.Destination, r.Type == Local
	switch {
	case d == limitedBroadcast:
		r.Type = Broadcast
	case d.IsMulticast():
		r.Type = Multicast
		if d.Is6() || !local && r.Route.Destination.Bits() >= 4 {
			return
		}
	default:
		return
	}
	if local {
		r.Interface, r.Nexthops = "lo", []Nexthop{{Interface: "lo", Weight: 1}}
		return
	}
	r.Nexthops = slices.Clone(r.Nexthops)
	for i := range r.Nexthops {
		r.Nexthops[i].Via = netip.Addr{}
	}
}

// source that the kernel chooses on that way.
func (s *search) source(v *verdict) netip.Addr {
	rt := v.entry.route
	switch {
	case rt.Source.IsValid():
		return rt.Source
	case s.fi.family == packet.IPv6Family:
		return s.source6(v)
	case v.kind == Local:
		return s.q.Destination
	}
	first := v.entry.sources[v.first]
	for _, other := range v.entry.sources[v.first:v.last] {
		if other != first {
			return netip.Addr{}
		}
	}
	return first
}
