package sim

import (
	"fmt"
	"slices"
	"strings"
)

// lastIsFirst is why the order of chains with one priority is open.
const lastIsFirst = "of one priority, the one registered last is asked first, which no dump tells for sure"

// mostEqual chains of one priority that all act on a packet are asked in all orders.
const mostEqual = 4

// passGroup runs the chains of one priority. Which is first is asked only where
// it matters to this packet: a chain that does nothing to it can stand anywhere.
func (r *run) passGroup(s *slot, group []base) bool {
	if r.probing || len(group) < 2 || !orderMatters(s.nat, group) {
		return r.passInOrder(s, group)
	}
	left := slices.Clone(group)
	for round := 0; r.goesOn(s); round++ {
		var acting []base
		for i := range left {
			if r.acts(s, &left[i]) {
				acting = append(acting, left[i])
			}
		}
		switch {
		case len(acting) == 0:
			return r.verdict == Accepted
		case len(acting) > mostEqual:
			r.lacks("order of chains", fmt.Sprintf("%d of one priority decide about the packet; no dump tells for sure which was registered last, and is asked first", len(acting)))
			return r.passInOrder(s, left)
		}
		now := r.firstOf(s, acting, round)
		if !r.passInOrder(s, acting[now:now+1]) {
			return false
		}
		left = r.notBefore(s, left, acting, now)
	}
	return r.verdict == Accepted
}

// firstOf chooses which of the chains that act is asked first.
func (r *run) firstOf(s *slot, acting []base, round int) int {
	if len(acting) == 1 {
		return 0
	}
	var names []string
	var alternatives []alternative
	for i := range acting {
		names = append(names, acting[i].name())
		alternatives = append(alternatives, alternative{why: lastIsFirst, when: acting[i].name() + " is asked first"})
	}
	return r.choose(fmt.Sprintf("order %s %d %d", r.hook, s.priority, round), "order of "+strings.Join(names, " and "), alternatives...)
}

// notBefore are the chains that are left to be asked after one has acted: the
// others that act, and of those that did nothing, those that would now and didn't
// come before.
func (r *run) notBefore(s *slot, left, acting []base, now int) []base {
	rest := slices.Delete(slices.Clone(acting), now, now+1)
	for i := range left {
		b := &left[i]
		if slices.ContainsFunc(acting, func(a base) bool { return a.chain == b.chain }) || !r.goesOn(s) || !r.wouldAct(s, b) {
			continue
		}
		first := acting[now].name()
		if r.choose("", "order of "+first+" and "+b.name(),
			alternative{why: lastIsFirst, when: first + " is asked first"}, alternative{why: lastIsFirst, when: b.name() + " is asked first"}) == 0 {
			rest = append(rest, *b)
		}
	}
	return rest
}

// goesOn says whether the chains of a slot are still asked.
func (r *run) goesOn(s *slot) bool {
	return r.verdict == Accepted && (!s.nat || r.natAsks())
}

// acts tries a chain: where it does something to the packet, or a choice would
// decide whether it does, all is as before; else the chain has been asked.
func (r *run) acts(s *slot, b *base) bool {
	before := *r
	r.probing, r.chose = true, false
	r.passInOrder(s, []base{*b})
	if !r.chose && !r.differs(&before) {
		r.probing = false
		return false
	}
	r.restore(&before)
	return true
}

// wouldAct is acts, and leaves all as before.
func (r *run) wouldAct(s *slot, b *base) bool {
	before := *r
	yes := r.acts(s, b)
	r.restore(&before)
	return yes
}

// restore puts the run back to what it was, but for the work that was done.
func (r *run) restore(before *run) {
	used := r.budget
	*r = *before
	r.budget = used
}

// differs says whether something that decides has changed.
func (r *run) differs(o *run) bool {
	return r.verdict != o.verdict || r.src != o.src || r.dst != o.dst || r.mark != o.mark || r.connMark != o.connMark ||
		r.noTrack != o.noTrack || r.boundSource != o.boundSource || r.boundDest != o.boundDest || r.redirected != o.redirected ||
		r.markOpen != o.markOpen || r.doubt != o.doubt || r.hiddenNAT != o.hiddenNAT || r.needRoute != o.needRoute || r.rewritten
}

// orderMatters says whether another order could give another answer.
func orderMatters(nat bool, group []base) bool {
	if nat {
		return true
	}
	marks, stops := false, 0
	for i := range group {
		marks = marks || group[i].does.marks
		if group[i].does.rejects || group[i].does.drops {
			stops++
		}
	}
	return marks || stops > 1
}

// passInOrder runs chains in the order given.
func (r *run) passInOrder(s *slot, bases []base) bool {
	for i := range bases {
		b := &bases[i]
		if s.nat && !r.natAsks() {
			return true
		}
		before := r.mark
		r.rewritten = false
		if !r.passBase(b) {
			return false
		}
		if b.reroutes && (r.mark != before || r.rewritten) {
			r.needRoute, r.routeMark = true, r.mark
		}
	}
	return r.verdict == Accepted
}
