package sim

import (
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// match compares.
func (t nativeTable) match(s nftables.Match) statement {
	switch s.Right.(type) {
	case nftables.SetRef, nftables.SetLiteral:
		return asking(t.inSet(s))
	}
	types, ok := t.table.Native.TypeOfMatch(s)
	subjects := t.subjects(s.Left)
	if f, is := s.Left.(nftables.FIB); is && ok && types[0].Name == "boolean" { // exists, missing
		f.Result = "check"
		subjects = []*subject{t.subject(f)}
	}
	if !ok || len(types) != len(subjects) {
		return asking(assumedMatch(nftables.StatementText(s), subjects))
	}
	if len(types) == 1 && types[0].Flags && s.Op == "in" {
		if mask, ok := constantOf(types[0], s.Right); ok {
			return asking(anyFlag(subjects[0], mask, nftables.StatementText(s)))
		}
	}
	ranges, ok := rangesOf(types, s)
	if !ok {
		return asking(t.compareExpressions(s, subjects))
	}
	if len(subjects) == 1 {
		return comparing(subjects[0], ranges, s.Op == "!=")
	}
	return asking(func(r *run) bool {
		in, state := partsIn(r, subjects, ranges)
		return state != broken && in != (s.Op == "!=")
	})
}

// asking goes on with the rule where the answer is yes.
func asking(holds func(r *run) bool) statement {
	return func(r *run, _ RuleRef, _ int) (flow, verdict) { return matched(holds(r)) }
}

func matched(yes bool) (flow, verdict) {
	if yes {
		return onward, fallThrough
	}
	return mismatch, fallThrough
}

// comparing compares one thing with constants, as most matches do.
func comparing(one *subject, ranges []nftables.Interval, not bool) statement {
	return func(r *run, _ RuleRef, _ int) (flow, verdict) {
		v, state := one.value(r)
		switch state {
		case broken:
			return mismatch, fallThrough
		case open:
			return matched(one.in(r, ranges) != not)
		}
		return matched(contains(ranges, v) != not)
	}
}

// partsIn asks whether each part of a key lies in its range.
func partsIn(r *run, subjects []*subject, ranges []nftables.Interval) (in bool, s state) {
	in = true
	for i := range subjects {
		v, state := subjects[i].value(r)
		switch {
		case state == broken:
			return false, broken
		case in && state == known:
			in = contains(ranges[i:i+1], v)
		case in:
			in = subjects[i].in(r, ranges[i:i+1])
		}
	}
	return in, known
}

// assumedMatch follows both answers.
func assumedMatch(text string, subjects []*subject) func(r *run) bool {
	what, why := text, "not understood"
	if len(subjects) == 1 {
		what, why = subjects[0].text, subjects[0].why
	}
	return func(r *run) bool {
		for i := range subjects {
			if _, state := subjects[i].value(r); state == broken {
				return false
			}
		}
		return r.assume("match "+text, what, why, true)
	}
}

// anyFlag is "ct state new,established": one of the bits is set.
func anyFlag(s *subject, mask nftables.Value, text string) func(r *run) bool {
	return func(r *run) bool {
		v, state := s.value(r)
		switch state {
		case broken:
			return false
		case open:
			return r.assume("match "+text, s.text, s.why, true)
		}
		for i := range min(len(v), len(mask)) {
			if v[i]&mask[i] != 0 {
				return true
			}
		}
		return false
	}
}

// rangesOf are those that the left side must lie in, one for each part; for a
// single part there may be none.
func rangesOf(types []nftables.Datatype, s nftables.Match) ([]nftables.Interval, bool) {
	all, ok := constants(types, s.Right)
	if !ok || len(all) != 1 {
		return all, ok
	}
	return ordered(s.Op, all[0])
}

// ordered turns < and its like into a range.
func ordered(op string, g nftables.Interval) ([]nftables.Interval, bool) {
	least := nftables.Value(strings.Repeat("\x00", len(g.First)))
	most := nftables.Value(strings.Repeat("\xff", len(g.First)))
	switch op {
	case "<":
		if g.First == least {
			return nil, true
		}
		return []nftables.Interval{{First: least, Last: step(g.First, false)}}, true
	case "<=":
		return []nftables.Interval{{First: least, Last: g.Last}}, true
	case ">":
		if g.Last == most {
			return nil, true
		}
		return []nftables.Interval{{First: step(g.Last, true), Last: most}}, true
	case ">=":
		return []nftables.Interval{{First: g.First, Last: most}}, true
	}
	return []nftables.Interval{g}, true
}

// step is the value one above or below.
func step(v nftables.Value, up bool) nftables.Value {
	b := []byte(v)
	for i := len(b) - 1; i >= 0; i-- {
		if up {
			if b[i]++; b[i] != 0 {
				break
			}
		} else if b[i]--; b[i] != 0xff {
			break
		}
	}
	return nftables.Value(b)
}

// compareExpressions: the right side is known only when the packet is there.
func (t nativeTable) compareExpressions(s nftables.Match, left []*subject) func(r *run) bool {
	right := t.subjects(s.Right)
	if len(right) != len(left) || s.Op != "==" && s.Op != "!=" {
		return assumedMatch(nftables.StatementText(s), left)
	}
	text := nftables.StatementText(s)
	return func(r *run) bool {
		same, unknown := true, ""
		for i := range left {
			a, one := left[i].value(r)
			b, other := right[i].value(r)
			switch {
			case one == broken || other == broken:
				return false
			case one == open:
				unknown = left[i].why
			case other == open:
				unknown = right[i].why
			default:
				same = same && a == b
			}
		}
		if unknown != "" && same {
			return r.assume("match "+text, text, unknown, true)
		}
		return same != (s.Op == "!=")
	}
}
