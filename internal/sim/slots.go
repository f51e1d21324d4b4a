package sim

import (
	"cmp"
	"math"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// hook is a place on a packet's way.
type hook uint8

const (
	prerouting hook = iota
	input
	forward
	output
	postrouting
	hookCount
)

func (h hook) String() string {
	return [...]string{
		"prerouting", "input", "forward", "output", "postrouting", // of IP
		"ingress", "egress", "prerouting", "input", "forward", "output", "postrouting", // of devices and bridges
	}[h]
}

// Priorities of what the kernel itself registers (linux/netfilter_ipv4.h).
const (
	trackPriority       = -200
	destinationPriority = -100
	sourcePriority      = 100
)

// natPriority is that of the one slot that all NAT chains of a hook run in.
func (h hook) natPriority() int {
	if h == prerouting || h == output {
		return destinationPriority
	}
	return sourcePriority
}

// slot is what runs at one priority of a hook. All NAT chains are in one slot,
// whatever their priorities: those order them among themselves.
type slot struct {
	priority int
	nat      bool
	// absent: iptables' table of that name wasn't given, and it can't be told that
	// there is none.
	absent string
	// bases in the order of their priorities.
	bases []base
	// binds: the address that the packet has is bound where no rule binds another,
	// so that what the node sends to itself, which comes in again through lo, is
	// asked about no second time.
	binds bool
}

// rank of slots with one priority.
func (s *slot) rank() int {
	if s.nat {
		return 1
	}
	return 0
}

// base is a table with its chain at a hook, nil where an excerpt doesn't show it.
type base struct {
	table    *ruleset.Table
	chain    *ruleset.Chain
	priority int
	// reroutes: a changed mark, or another field that routes depend on, asks for a
	// new route of what the node sends.
	reroutes bool
	does     effects
	// native is a native chain made fit to run.
	native *nativeChain
}

func (b *base) name() string {
	if b.table.Native != nil {
		return "nftables " + b.table.Native.Family + " " + b.table.Name + " " + b.chain.Name
	}
	return b.table.Variant.String() + " " + b.table.Name
}

// tables of iptables at each hook, with their priorities.
type standard struct {
	name     string
	priority int
}

var order = [hookCount][]standard{
	prerouting:  {{"raw", -300}, {"mangle", -150}, {"nat", -100}},
	input:       {{"mangle", -150}, {"filter", 0}, {"security", 50}, {"nat", 100}},
	forward:     {{"mangle", -150}, {"filter", 0}, {"security", 50}},
	output:      {{"raw", -300}, {"mangle", -150}, {"nat", -100}, {"filter", 0}, {"security", 50}},
	postrouting: {{"mangle", -150}, {"nat", 100}},
}

var builtin = [hookCount]string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}

// slots of a family's hooks.
func (n *Node) slots(f packet.Family) *[hookCount][]slot {
	var all [hookCount][]slot
	translates := n.translates(f)
	does := map[*ruleset.Table]effects{}
	for h := range hookCount {
		slots := map[int]*slot{}
		at := func(priority int, nat bool) *slot {
			key := 2 * priority
			if nat {
				key = 2*h.natPriority() + 1 // filter chains of that priority are apart
				priority = h.natPriority()
			}
			if slots[key] == nil {
				slots[key] = &slot{priority: priority, nat: nat}
			}
			return slots[key]
		}
		for _, s := range order[h] {
			n.addStandard(f, h, s, at)
		}
		n.addNative(f, h, at)
		if translates && h != forward {
			at(0, true).binds = true
		}
		for _, s := range slots {
			if len(s.bases) > 0 || s.absent != "" || s.binds {
				slices.SortStableFunc(s.bases, func(a, b base) int {
					return cmp.Or(cmp.Compare(a.priority, b.priority), -cmp.Compare(a.handle(), b.handle()))
				})
				if len(s.bases) > 1 {
					addEffects(s.bases, does)
				}
				all[h] = append(all[h], *s)
			}
		}
		slices.SortFunc(all[h], func(a, b slot) int { // NAT is the last of its priority
			return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.rank(), b.rank()))
		})
	}
	return &all
}

// translates says whether the family has a NAT chain at any hook: then the kernel
// binds at all of them (net/netfilter/nf_nat_core.c, nf_nat_register_fn).
func (n *Node) translates(f packet.Family) bool {
	return slices.ContainsFunc(n.host.Rules.Tables, func(t *ruleset.Table) bool {
		return t.Native == nil && t.Family == f && t.Name == "nat" && len(t.Chains) > 0 ||
			t.Native != nil && t.Has(f) && slices.ContainsFunc(t.Chains, func(c *ruleset.Chain) bool {
				return c.Native.Base != nil && c.Native.Base.Type == "nat"
			})
	})
}

// addEffects of the tables, each looked at once.
func addEffects(bases []base, does map[*ruleset.Table]effects) {
	for i := range bases {
		t := bases[i].table
		if _, known := does[t]; !known {
			does[t] = effectsOf(t)
		}
		bases[i].does = does[t]
	}
}

// handle of a native table: one made later has a higher one, and the kernel asks
// the chain that was registered last first.
func (b *base) handle() uint64 {
	if b.table.Native == nil {
		return 0
	}
	return b.table.Native.Handle
}

// addStandard adds iptables' tables of a name.
func (n *Node) addStandard(f packet.Family, h hook, standard standard, at func(int, bool) *slot) {
	s := at(standard.priority, standard.name == "nat")
	given := false
	for _, t := range n.host.Rules.Tables {
		if t.Family != f || t.Name != standard.name {
			continue
		}
		if given = given || t.Native == nil || t.Native.IPTables; t.Native != nil {
			continue
		}
		c := t.Chain(builtin[h])
		if c == nil && !t.Excerpt || c != nil && len(c.Rules) == 0 && c.Policy != "DROP" {
			continue // no rule is asked there
		}
		s.bases = append(s.bases, base{t, c, standard.priority, standard.name == "mangle" && h == output, effects{}, nil})
	}
	if !given && !n.host.IPTables[f] {
		s.absent = n.absent(standard.name)
	}
}

// absent says what isn't known of a table of iptables that no dump shows. nft
// lists those of iptables-nft, and never those of iptables-legacy.
func (n *Node) absent(table string) string {
	switch {
	case n.host.NFTWhole:
		return "the tables of " + ruleset.Legacy.String()
	case n.host.NFTGiven:
		return "all other tables of nftables and iptables"
	}
	return "table " + table
}

// addNative adds the base chains of native tables.
func (n *Node) addNative(f packet.Family, h hook, at func(int, bool) *slot) {
	for _, t := range n.host.Rules.Tables {
		if t.Native == nil || !t.Has(f) || t.Native.IsDormant() {
			continue
		}
		for _, c := range t.Chains {
			b := c.Native.Base
			if b == nil || b.Hook != h.String() {
				continue
			}
			nat := b.Type == "nat"
			s := at(b.Priority, nat)
			if len(c.Rules) == 0 && c.Policy != "DROP" {
				continue
			}
			s.bases = append(s.bases, base{t, c, b.Priority, b.Type == "route" && h == output, effects{}, n.nativeOf(t, c)})
		}
	}
}

// pass runs what is at a hook; false where the packet ends there.
func (r *run) pass(h hook) bool {
	r.hook = h
	slots := r.node.hooks[r.family][h]
	for len(slots) > 0 {
		if r.advance(slots[0].priority) {
			return true
		}
		one := 1
		if len(slots) > 1 && slots[1].priority == slots[0].priority {
			one = 2
		}
		if !r.passEqual(slots[:one]) {
			return false
		}
		slots = slots[one:]
	}
	r.advance(math.MaxInt)
	return r.verdict == Accepted
}

// passEqual runs the slots of one priority: one, or that of NAT and another.
func (r *run) passEqual(slots []slot) bool {
	if len(slots) == 1 {
		return r.passSlot(&slots[0])
	}
	others, nat := &slots[0], &slots[1]
	if len(nat.bases) > 0 && len(others.bases) > 0 && r.natAsks() {
		name := others.bases[0].name()
		if r.choose("", "order of NAT and "+name,
			alternative{why: lastIsFirst, when: name + " is asked first"}, alternative{why: lastIsFirst, when: "NAT is asked first"}) == 1 {
			return r.passSlot(nat) && r.passSlot(others)
		}
	}
	return r.passSlot(others) && r.passSlot(nat)
}

// advance does what the kernel itself does at a hook below a priority: finding
// the connection, translating as it says, handing to IPVS. It says whether IPVS
// took the packet.
func (r *run) advance(priority int) (taken bool) {
	if priority > trackPriority {
		r.track()
	}
	if priority > r.hook.natPriority() {
		r.translate()
	}
	switch r.hook {
	case input: // ip_vs_in is at 98, before the slot of NAT
		return priority >= sourcePriority && r.balance()
	case output: // and at -99
		if priority > destinationPriority {
			r.balance()
		}
	}
	return false
}

// passSlot runs the chains of one slot.
func (r *run) passSlot(s *slot) bool {
	if s.absent != "" {
		r.lacksRules(s.absent)
	}
	for bases := s.bases; len(bases) > 0; {
		equal := 1
		for equal < len(bases) && bases[equal].priority == bases[0].priority {
			equal++
		}
		if !r.passGroup(s, bases[:equal]) {
			return false
		}
		bases = bases[equal:]
	}
	if s.nat && r.natAsks() && (len(s.bases) > 0 || s.binds) {
		r.endNAT()
	}
	return r.verdict == Accepted
}

func (r *run) evaluateBase(b *base) verdict {
	if b.native != nil {
		return r.runRules(b.native, 0)
	}
	return r.evaluate(b.chain, 0)
}

// passBase runs one base chain.
func (r *run) passBase(b *base) bool {
	r.table = b.table
	switch {
	case len(b.table.Chains) == 0 && b.table.Excerpt: // it is there, but nothing of it was given
		r.lacksRules("the tables of " + b.table.Variant.String())
		switch {
		case b.table.Unread && b.table.Name == "nat":
			r.hiddenNAT = r.hiddenNAT || r.natAsks()
		case b.table.Unread:
			r.doubt = true
		}
		return true
	case b.chain == nil:
		r.lacksRules("chain " + builtin[r.hook] + " of table " + b.table.Name)
		r.markOpen = r.markOpen || r.hook == prerouting || r.hook == output
		return true
	}
	switch r.evaluateBase(b) {
	case drop:
		return false
	case fallThrough:
		if b.chain.Policy == "DROP" {
			r.stop(Dropped, RuleRef{Table: b.table, Chain: b.chain}, "policy DROP")
			return false
		}
	}
	return r.verdict == Accepted
}
