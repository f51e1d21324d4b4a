package plan

import (
	"reflect"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// SetChange is what changes in a set that stays.
type SetChange struct {
	Set         *Set // as it shall be
	Add, Delete []Element
}

// Change leads from one table to another by additions and deletions that no
// packet can fall between: new things nobody refers to yet, single elements,
// and things that nobody refers to any more.
type Change struct {
	AddCounters, DeleteCounters []Counter
	AddSets, DeleteSets         []*Set
	AddChains, DeleteChains     []*Chain
	// Rewrite are chains with other rules. Those of all chains are exchanged at one
	// instant: a packet that is under way goes through all of them as they were.
	Rewrite []*Chain
	Sets    []SetChange
}

// Empty says that the tables are equal.
func (c *Change) Empty() bool {
	return len(c.AddCounters)+len(c.DeleteCounters)+len(c.AddSets)+len(c.DeleteSets)+
		len(c.AddChains)+len(c.DeleteChains)+len(c.Rewrite)+len(c.Sets) == 0
}

// Diff finds the change from old to new. It is false where there is none of
// that kind: a set's type differs, an interval would have to be replaced by others
// that overlap it, or a packet could meet one set, or the rules, as they were and
// another set as it shall be. Then the table is built anew under other names and
// exchanged whole.
func Diff(old, new *Table) (*Change, bool) {
	c := &Change{}
	c.counters(old, new)
	return c, c.chains(old, new) && c.sets(old, new) && c.oneLookup() && c.rulesOrSets()
}

// rulesOrSets says that a batch exchanges rules or elements that packets meet, not
// both: elements are seen as they are when they are looked up.
func (c *Change) rulesOrSets() bool {
	return len(c.Sets) == 0 || !slices.ContainsFunc(c.Rewrite, func(x *Chain) bool { return x.Name != AboutChain })
}

// rewritable says that a chain's rules bring no sets of their own without a name.
// Those go with the old rules, when a packet may be at them.
func rewritable(c *Chain) bool {
	return !slices.ContainsFunc(c.Rules, func(r Rule) bool { return slices.ContainsFunc(r.Statements, looksUpConstants) })
}

// looksUpConstants says whether a statement brings such a set.
func looksUpConstants(s Statement) bool {
	switch s := s.(type) {
	case L4Proto:
		return len(s.Protocols) > 1
	case SNAT:
		return len(s.Addresses) > 1
	}
	return false
}

// oneLookup says that no packet meets more than one of the changed sets. A batch
// is committed at once, but a packet looks sets up one after the other: it may
// miss an element that has not come to the first yet, and again when that has
// gone from the second.
//
// Sets of pods may change together: they choose the chains that go on, or guard,
// and no other of them is asked where the first had another answer. Local backends
// are asked too, of a connection between two pods that both come, or go, with this
// very change: for that moment it is as if one had come a moment after the other.
func (c *Change) oneLookup() bool {
	met := map[packet.Family]string{}
	for i := range c.Sets {
		lookup := c.Sets[i].Set.Name
		for _, f := range packet.Families {
			if strings.HasSuffix(lookup, name("from-pods", f)) || lookup == name("own", f) || lookup == name(localBackendsSet, f) {
				lookup = "pods"
			}
		}
		for _, f := range c.Sets[i].Set.families() {
			if met[f] != "" && met[f] != lookup {
				return false
			}
			met[f] = lookup
		}
	}
	return true
}

// families of the packets that look the set up.
func (s *Set) families() []packet.Family {
	switch s.Key {
	case IPv4Addr, IPv4Pair:
		return packet.Families[:1]
	case IPv6Addr, IPv6Pair:
		return packet.Families[1:]
	}
	return packet.Families[:]
}

func (c *Change) counters(old, new *Table) {
	have := map[Counter]bool{}
	for _, x := range old.Counters {
		have[x] = true
	}
	for _, x := range new.Counters {
		if !have[x] {
			c.AddCounters = append(c.AddCounters, x)
		}
		delete(have, x)
	}
	for _, x := range old.Counters {
		if have[x] {
			c.DeleteCounters = append(c.DeleteCounters, x)
		}
	}
}

func (c *Change) chains(old, new *Table) bool {
	have := map[string]*Chain{}
	for i := range old.Chains {
		have[old.Chains[i].Name] = &old.Chains[i]
	}
	for i := range new.Chains {
		x := &new.Chains[i]
		was := have[x.Name]
		switch {
		case was == nil:
			c.AddChains = append(c.AddChains, x)
		case was.equal(x):
		case x.Name == AboutChain, !was.Base && !x.Base && rewritable(was) && rewritable(x):
			c.Rewrite = append(c.Rewrite, x)
		default:
			return false
		}
		delete(have, x.Name)
	}
	for i := range old.Chains {
		if x := &old.Chains[i]; have[x.Name] != nil {
			c.DeleteChains = append(c.DeleteChains, x)
		}
	}
	return true
}

// equal chains have the same rules. It is asked of each chain at each change.
func (c *Chain) equal(d *Chain) bool {
	return c.Name == d.Name && c.Base == d.Base && slices.EqualFunc(c.Rules, d.Rules, func(a, b Rule) bool {
		return a.Comment == b.Comment && slices.EqualFunc(a.Statements, b.Statements, sameStatement)
	})
}

func sameStatement(a, b Statement) bool {
	if t := reflect.TypeOf(a); t == reflect.TypeOf(b) && t.Comparable() {
		return a == b
	}
	return reflect.DeepEqual(a, b)
}

func (c *Change) sets(old, new *Table) bool {
	have := map[string]*Set{}
	for i := range old.Sets {
		have[old.Sets[i].Name] = &old.Sets[i]
	}
	for i := range new.Sets {
		x := &new.Sets[i]
		was := have[x.Name]
		delete(have, x.Name)
		if was == nil {
			c.AddSets = append(c.AddSets, x)
			continue
		}
		if was.Key != x.Key || was.Interval != x.Interval || was.Map != x.Map {
			return false
		}
		add, del := elements(was.Elements, x.Elements)
		if x.Interval && overlap(add, del) {
			return false
		}
		if len(add)+len(del) > 0 {
			c.Sets = append(c.Sets, SetChange{x, add, del})
		}
	}
	for i := range old.Sets {
		if x := &old.Sets[i]; have[x.Name] != nil {
			c.DeleteSets = append(c.DeleteSets, x)
		}
	}
	return true
}

// elements compares two sorted lists.
func elements(old, new []Element) (add, del []Element) {
	i, j := 0, 0
	for i < len(old) && j < len(new) {
		switch {
		case old[i] == new[j]:
			i++
			j++
		case old[i].First < new[j].First:
			del = append(del, old[i])
			i++
		case old[i].First > new[j].First:
			add = append(add, new[j])
			j++
		default:
			del = append(del, old[i])
			add = append(add, new[j])
			i++
			j++
		}
	}
	return append(add, new[j:]...), append(del, old[i:]...)
}

// overlap says whether any range of one sorted list touches one of the other.
func overlap(a, b []Element) bool {
	i, j := 0, 0
	for i < len(a) && j < len(b) {
		switch {
		case a[i].Last < b[j].First:
			i++
		case b[j].Last < a[i].First:
			j++
		default:
			return true
		}
	}
	return false
}
