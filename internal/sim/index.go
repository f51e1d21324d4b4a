package sim

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// shortChain is the length up to which a chain is simply walked.
const shortChain = 16

// index finds the rules of a long chain that can match a packet: by the one
// thing that tells most of its rules apart. kube-proxy's KUBE-SERVICES has a
// destination in each rule, KUBE-NODEPORTS a port, dispatch chains an interface
// or a source.
type index struct {
	kind        indexKind
	byAddress   map[netip.Addr][]int32
	byPort      map[uint16][]int32
	byInterface map[string][]int32
	// others are the rules that any packet may match, ascending.
	others []int32
	length int
}

type indexKind uint8

const (
	noIndex indexKind = iota
	byDestination
	bySource
	byDestinationPort
	byIn
	byOut
	indexKinds
)

func (n *Node) indexOf(c *ruleset.Chain) *index {
	if x, ok := n.indexes.Load(c); ok {
		return x.(*index)
	}
	x, _ := n.indexes.LoadOrStore(c, newIndex(c))
	return x.(*index)
}

// newIndex takes the kind that leaves the fewest rules unsorted.
func newIndex(c *ruleset.Chain) *index {
	var sorted [indexKinds]int
	for i := range c.Rules {
		for k := byDestination; k < indexKinds; k++ {
			if has(k, &c.Rules[i]) {
				sorted[k]++
			}
		}
	}
	best := noIndex
	for k := byDestination; k < indexKinds; k++ {
		if sorted[k] > sorted[best] {
			best = k
		}
	}
	x := &index{
		kind: best, length: len(c.Rules),
		byAddress: map[netip.Addr][]int32{}, byPort: map[uint16][]int32{}, byInterface: map[string][]int32{},
	}
	for i := range c.Rules {
		x.add(int32(i), &c.Rules[i])
	}
	return x
}

// has says whether the rule names one value of that kind.
func has(k indexKind, rule *ruleset.Rule) bool {
	switch k {
	case byDestination:
		return single(rule.Destination)
	case bySource:
		return single(rule.Source)
	case byDestinationPort:
		_, ok := singlePort(rule)
		return ok
	case byIn:
		return named(rule.In)
	case byOut:
		return named(rule.Out)
	}
	return false
}

func single(a ruleset.Address) bool { return a.Prefix.IsValid() && a.Prefix.IsSingleIP() && !a.Not }

func named(i ruleset.Interface) bool { return i.Name != "" && !i.Wildcard && !i.Not }

func singlePort(rule *ruleset.Rule) (uint16, bool) {
	for _, m := range rule.Matches {
		if p, ok := m.(ruleset.Ports); ok && p.Side == ruleset.Destination && !p.Not && len(p.Ranges) == 1 && p.Ranges[0].First == p.Ranges[0].Last {
			return p.Ranges[0].First, true
		}
	}
	return 0, false
}

func (x *index) add(i int32, rule *ruleset.Rule) {
	if !has(x.kind, rule) {
		x.others = append(x.others, i)
		return
	}
	switch x.kind {
	case byDestination:
		x.byAddress[rule.Destination.Prefix.Addr()] = append(x.byAddress[rule.Destination.Prefix.Addr()], i)
	case bySource:
		x.byAddress[rule.Source.Prefix.Addr()] = append(x.byAddress[rule.Source.Prefix.Addr()], i)
	case byDestinationPort:
		port, _ := singlePort(rule)
		x.byPort[port] = append(x.byPort[port], i)
	case byIn:
		x.byInterface[rule.In.Name] = append(x.byInterface[rule.In.Name], i)
	case byOut:
		x.byInterface[rule.Out.Name] = append(x.byInterface[rule.Out.Name], i)
	}
}

// candidates are the rules to ask, ascending: those of two sorted lists, or all.
type candidates struct {
	a, b []int32
	all  int
	at   int
}

func (x *index) candidates(r *run) candidates {
	switch x.kind {
	case byDestination:
		return candidates{a: x.byAddress[r.dst], b: x.others}
	case bySource:
		return candidates{a: x.byAddress[r.src], b: x.others}
	case byDestinationPort:
		if r.dport.known {
			return candidates{a: x.byPort[r.dport.port], b: x.others}
		}
	case byIn:
		if r.in.known {
			return candidates{a: x.byInterface[r.in.name], b: x.others}
		}
	case byOut:
		if r.out.known {
			return candidates{a: x.byInterface[r.out.name], b: x.others}
		}
	}
	return candidates{all: x.length}
}

func (c *candidates) next() (int, bool) {
	if c.all > 0 {
		c.at++
		return c.at - 1, c.at <= c.all
	}
	switch {
	case len(c.a) == 0 && len(c.b) == 0:
		return 0, false
	case len(c.b) == 0 || len(c.a) > 0 && c.a[0] < c.b[0]:
		i := c.a[0]
		c.a = c.a[1:]
		return int(i), true
	}
	i := c.b[0]
	c.b = c.b[1:]
	return int(i), true
}
