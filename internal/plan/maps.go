package plan

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/policy"
	"go4.org/netipx"
)

// destinationMap leads from destinations to rules.
type destinationMap struct {
	name string
	// bits: the keys are prefixes of this length, in a hash; 0: ranges.
	bits     int
	elements []Element
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
	place := map[int]int{} // length → index of its map
	var maps []destinationMap
	for _, bits := range hashedLengths(pieces, cmp.Or(c.opts.HashFrom, hashFrom)) {
		place[bits] = len(maps)
		maps = append(maps, destinationMap{name: fmt.Sprintf("%s-%d", name, bits), bits: bits})
	}
	tree := destinationMap{name: name}
	for _, p := range pieces {
		e := element(p.Range, verdicts[p.Owner])
		i, hashed := place[prefixLength(p.Range)]
		if !hashed {
			tree.elements = append(tree.elements, e)
			continue
		}
		e.Last = e.First
		maps[i].elements = append(maps[i].elements, e)
	}
	return append(maps, tree)
}

// hashedLengths are the prefix lengths worth a hash, the most frequent first.
func hashedLengths(pieces []cidr.Piece, least int) []int {
	count := map[int]int{}
	for _, p := range pieces {
		if bits := prefixLength(p.Range); bits > 0 {
			count[bits]++
		}
	}
	var lengths []int
	for bits, n := range count {
		if n >= least {
			lengths = append(lengths, bits)
		}
	}
	slices.SortFunc(lengths, func(a, b int) int { return cmp.Or(count[b]-count[a], a-b) })
	return lengths[:min(len(lengths), hashMost)]
}

// prefixLength of a range that is a prefix; 0 for others, and for everything.
func prefixLength(r cidr.Range) int {
	p, ok := netipx.IPRangeFrom(r.First, r.Last).Prefix()
	if !ok {
		return 0
	}
	return p.Bits()
}
