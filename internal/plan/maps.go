package plan

import (
	"cmp"
	"fmt"
	"slices"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// destinationMap leads from destinations to rules.
type destinationMap struct {
	name string
	// bits: the keys are prefixes of this length, in a hash; 0: ranges.
	bits     int
	elements []Element
	// only is the verdict of all elements, where they have one in common. Such a
	// map is a plain set, which costs half the time to fill: the kernel looks into
	// the chain behind each verdict of a map, at every change.
	only Verdict
}

// lookup is the end of the rule that asks the map.
func (m *destinationMap) lookup(f packet.Family) []Statement {
	if m.only.Kind != NoVerdict {
		return []Statement{InSet{Family: f, Field: DestinationAddress, Set: m.name, Bits: m.bits}, m.only}
	}
	return []Statement{VerdictMap{f, DestinationAddress, m.name, m.bits}}
}

func (m *destinationMap) set(f packet.Family) Set {
	return Set{Name: m.name, Key: addrKey(f), Interval: m.bits == 0, Map: m.only.Kind == NoVerdict, Elements: m.elements}
}

// simplify turns a map to one verdict into a set. An empty map stays one, unless
// no element could have another verdict than the only one there is.
func (m *destinationMap) simplify(verdicts []Verdict) {
	if len(m.elements) == 0 && len(verdicts) > 1 {
		return
	}
	only := verdicts[0]
	for i := range m.elements {
		if i == 0 {
			only = m.elements[0].Verdict
		}
		if m.elements[i].Verdict != only {
			return
		}
	}
	m.only = only
	for i := range m.elements {
		m.elements[i].Verdict = Verdict{}
	}
}

// An interval set is a tree, whose depth shows from some thousand elements on:
// at 100,000 a lookup costs a dozen cache misses. Prefixes of one length can
// stand in a hash instead, looked up by the masked address, which costs the same
// at any size; but each length costs a lookup of its own. So the few lengths
// that most prefixes have get a hash each, where they have many.
const (
	hashFrom = 512 // prefixes of one length
	hashMost = 3   // lengths
)

// destinationMaps distributes pieces, which don't overlap, over a tree and
// hashes. The tree is always there: smaller policies have nothing else.
func (c *compiler) destinationMaps(v *view, first *policy.Rule, pieces []cidr.Piece, verdicts []Verdict) []destinationMap {
	name := v.setName("to", first)
	lengths := make([]uint8, len(pieces))
	for i, p := range pieces {
		lengths[i] = prefixLength(p.Range)
	}
	count, hashed := hashedLengths(lengths, cmp.Or(c.opts.HashFrom, hashFrom))
	var place [129]int // length → number of its map, from 1
	var maps []destinationMap
	inTree := len(pieces)
	for i, bits := range hashed {
		place[bits] = i + 1
		maps = append(maps, destinationMap{name: fmt.Sprintf("%s-%d", name, bits), bits: bits, elements: make([]Element, 0, count[bits])})
		inTree -= count[bits]
	}
	tree := destinationMap{name: name, elements: make([]Element, 0, inTree)}
	for i, p := range pieces {
		m := place[lengths[i]]
		if m == 0 {
			tree.elements = append(tree.elements, element(p.Range, verdicts[p.Owner]))
			continue
		}
		e := element(cidr.FromAddr(p.First), verdicts[p.Owner])
		maps[m-1].elements = append(maps[m-1].elements, e)
	}
	maps = append(maps, tree)
	for i := range maps {
		maps[i].simplify(verdicts)
	}
	return maps
}

// hashedLengths are the prefix lengths worth a hash, the most frequent first.
func hashedLengths(lengths []uint8, least int) (count [129]int, hashed []int) {
	for _, bits := range lengths {
		count[bits]++
	}
	for bits, n := range count {
		if bits > 0 && n >= least {
			hashed = append(hashed, bits)
		}
	}
	slices.SortFunc(hashed, func(a, b int) int { return cmp.Or(count[b]-count[a], a-b) })
	return count, hashed[:min(len(hashed), hashMost)]
}

// prefixLength of a range that is a prefix; 0 for others, and for everything.
func prefixLength(r cidr.Range) uint8 {
	p, ok := netipx.IPRangeFrom(r.First, r.Last).Prefix()
	if !ok {
		return 0
	}
	return uint8(p.Bits())
}
