package judge_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// derive makes packets from a dump's rules. For each rule, and for each way of
// jumps that leads to it, there is one packet that should meet it, and others
// that differ from that one in one thing: an address or port at a boundary, the
// protocol, the link it comes in by, or that the node itself sends it.
func (d *dump) derive() []packet.Flow {
	g := &derivation{dump: d, own: d.own(), links: d.links(), seen: map[packet.Flow]bool{}, random: rand.New(rand.NewPCG(1, 2))}
	for _, t := range d.rules.tables {
		callers := map[string][]caller{}
		for _, c := range t.chains {
			for _, rule := range c.rules {
				words := strings.Fields(rule)
				to := words[len(words)-1]
				callers[to] = append(callers[to], caller{c.name, hintsOf(rule, d.rules.sets)})
			}
		}
		for _, c := range t.chains {
			for _, rule := range c.rules {
				for _, way := range ways(c.name, callers, 5) {
					g.about(hintsOf(rule, d.rules.sets), way)
				}
			}
		}
	}
	for _, t := range d.native.Tables {
		if ofFamily(t, d.family) {
			g.native(t)
		}
	}
	return g.flows
}

type caller struct {
	chain string
	hints hints
}

// ways that lead to a chain: the hints of the jumps, those from the built-in
// chain last. Only the first few of many.
func ways(chain string, callers map[string][]caller, depth int) (out [][]hints) {
	if depth == 0 || len(callers[chain]) == 0 {
		return [][]hints{nil}
	}
	const many = 2
	for _, c := range callers[chain] {
		for _, w := range ways(c.chain, callers, depth-1) {
			if out = append(out, append([]hints{c.hints}, w...)); len(out) == many {
				return out
			}
		}
	}
	return out
}

type derivation struct {
	*dump
	// own addresses and links of the node.
	own   []netip.Addr
	links []string
	seen  map[packet.Flow]bool
	flows []packet.Flow
	// random is the same each time.
	random *rand.Rand
}

func (g *derivation) about(own hints, way []hints) {
	var all, outer hints // outer: what the packet has when it comes in is asked for first
	for _, h := range slices.Backward(way) {
		outer.add(h)
	}
	outer.add(own)
	all.add(own)
	for _, h := range way {
		all.add(h)
	}
	for _, h := range []*hints{&all, &outer} {
		h.sources, h.destinations = slices.DeleteFunc(h.sources, g.bad), slices.DeleteFunc(h.destinations, g.bad)
	}
	pool := dumpPool(g.family)
	all.destinations, outer.destinations = g.behind(all), append(outer.destinations, g.behind(hints{out: outer.out})...)
	base := packet.Flow{
		Source: first(all.sources, pool[:1]), Destination: first(outer.destinations, pool[3:4]),
		Protocol: first(all.protocols, []uint8{packet.TCP}), DestinationPort: first(outer.destinationPorts, []uint16{80}),
		InInterface: first(g.named(all.in), g.links[len(g.links)-1:]),
	}
	g.add(base)
	g.vary(base, all, pool)
	for range mixtures {
		f := base
		g.mix(&f, all, pool)
		g.add(f)
	}
}

// vary a packet in one thing, or in the two that make it one of the node's own.
func (g *derivation) vary(base packet.Flow, all hints, pool []netip.Addr) {
	with := func(change func(*packet.Flow)) {
		f := base
		change(&f)
		g.add(f)
	}
	for _, link := range g.links {
		with(func(f *packet.Flow) { f.InInterface = link })
	}
	for _, a := range slices.Concat(all.sources, pool[:4]) {
		with(func(f *packet.Flow) { f.Source = a })
	}
	for _, a := range slices.Concat(all.destinations, pool[:1]) {
		with(func(f *packet.Flow) { f.Destination = a })
	}
	for _, p := range all.destinationPorts {
		with(func(f *packet.Flow) { f.DestinationPort = p })
	}
	for _, p := range []uint8{packet.TCP, packet.UDP, packet.ICMP, packet.ICMPv6, packet.SCTP} {
		with(func(f *packet.Flow) { f.Protocol = p })
	}
	for _, a := range all.targets {
		with(func(f *packet.Flow) { f.Source = a })
		with(func(f *packet.Flow) { f.Source, f.Destination = a, g.own[0] })
	}
	for _, a := range g.own {
		with(func(f *packet.Flow) { f.Destination = a })
		with(func(f *packet.Flow) { f.Destination, f.InInterface = a, g.links[0] }) // by the uplink
		with(func(f *packet.Flow) { f.Source, f.Local, f.InInterface = a, true, "" })
		for _, b := range g.own {
			with(func(f *packet.Flow) { f.Source, f.Destination, f.Local, f.InInterface = a, b, true, "" })
		}
	}
}

// behind are a rule's destinations, and addresses behind the links that it names.
func (g *derivation) behind(h hints) []netip.Addr {
	all := slices.Clone(h.destinations)
	for _, link := range g.named(h.out) {
		for _, p := range g.subnets(link) {
			if i := slices.IndexFunc(dumpPool(g.family), p.Contains); i >= 0 {
				all = append(all, dumpPool(g.family)[i])
			}
		}
	}
	return all
}

// named links, those with + or * at the end among them.
func (g *derivation) named(names []string) (all []string) {
	for _, name := range names {
		prefix := strings.TrimRight(name, "+*")
		for _, link := range g.links {
			if link == name || prefix != name && strings.HasPrefix(link, prefix) {
				all = append(all, link)
			}
		}
	}
	return all
}

// mixtures are packets of a rule that differ from its first in several things.
const mixtures = 2

func (g *derivation) mix(f *packet.Flow, all hints, pool []netip.Addr) {
	f.Source = oneOf(g, f.Source, all.sources, pool[:4])
	f.Destination = oneOf(g, f.Destination, all.destinations, g.own)
	f.Protocol = oneOf(g, f.Protocol, all.protocols)
	f.DestinationPort = oneOf(g, f.DestinationPort, all.destinationPorts)
	f.InInterface = oneOf(g, f.InInterface, g.links)
}

// oneOf several, or in one of three cases what there was.
func oneOf[T any](g *derivation, was T, lists ...[]T) T {
	if choice := slices.Concat(lists...); len(choice) > 0 && g.random.IntN(3) > 0 {
		return choice[g.random.IntN(len(choice))]
	}
	return was
}

func first[T any](lists ...[]T) (v T) {
	for _, l := range lists {
		if len(l) > 0 {
			return l[0]
		}
	}
	return v
}

// add a packet that can be sent, once.
func (g *derivation) add(f packet.Flow) {
	if !f.HasPorts() {
		f.DestinationPort = 0
	}
	if slices.Contains(g.own, f.Source) {
		f.Local, f.InInterface = true, ""
	}
	otherICMP := f.Protocol == packet.ICMPv6 && g.family == packet.IPv4Family || f.Protocol == packet.ICMP && g.family == packet.IPv6Family
	if g.seen[f] || otherICMP || f.Source == f.Destination {
		return
	}
	g.seen[f] = true
	g.flows = append(g.flows, f)
}

// bad addresses are martian, or for many: also the first and last address of
// one of the node's subnets. What those mean is another matter.
func (g *derivation) bad(a netip.Addr) bool {
	for _, own := range g.own {
		for _, bits := range []int{16, 24} {
			if p, err := own.Prefix(bits); err == nil && a.Is4() && (a == p.Addr() || a == lastOf(p)) {
				return true
			}
		}
		if p, err := own.Prefix(64); err == nil && a.Is6() && a == p.Addr() {
			return true // the anycast address of the subnet's routers
		}
	}
	return !usable(g.family, a)
}

// sourcePort of packet i, which no rule asks for.
func sourcePort(f packet.Flow, i int) uint16 {
	if f.HasPorts() || f.Protocol == packet.ICMP || f.Protocol == packet.ICMPv6 {
		return uint16(firstPort + i%(lastPort-firstPort))
	}
	return 0
}
