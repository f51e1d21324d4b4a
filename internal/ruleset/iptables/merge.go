package iptables

import (
	"fmt"
	"slices"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// built is a table that was put together, with what is still to be settled.
type built struct {
	*ruleset.Table
	line      int
	undecided int
}

// merge makes tables of the dumps. Parts of one dump that belong to the same
// table are one. Two dumps of the same table are one only where they tell of
// different chains: otherwise it was printed twice, perhaps at different times.
func (r *reader) merge() []*ruleset.Table {
	var all []*built
	r.share()
	for _, d := range r.dumps {
		if d.ignored {
			continue
		}
		for _, t := range r.assemble(d) {
			all = r.join(all, t)
		}
	}
	tables := make([]*ruleset.Table, 0, len(all))
	for _, t := range all {
		settle(t)
		tables = append(tables, t.Table)
	}
	return tables
}

// assemble makes the tables of one dump.
func (r *reader) assemble(d *dump) []*built {
	var tables []*built
	r.check(d)
	for _, p := range d.parts {
		if p.ignorable() {
			continue
		}
		t := p.table
		if !p.stated {
			t.Name = likely(p.can, p.hooks, p.declared, t.Chains).name()
		}
		t.Family = d.family
		t.Variant = d.variant
		if t.Variant == ruleset.VariantUnknown {
			t.Variant = r.options.Variant
		}
		t.Excerpt = !p.whole(d)
		if p.header && !p.complete && !d.part {
			r.problemAt(p.line, "*"+t.Name, "the table ends without COMMIT: the dump was cut off")
		}
		i := slices.IndexFunc(tables, func(other *built) bool { return other.Name == t.Name })
		if i < 0 {
			tables = append(tables, &built{t, p.line, p.undecided})
			continue
		}
		tables[i].absorb(&built{t, p.line, p.undecided})
	}
	return tables
}

// ignorable: the part says no more than that a built-in chain of one of several
// tables exists, which it does anyway. A grep for a chain's name leaves such lines.
func (p *part) ignorable() bool {
	if p.stated || !p.superseded || exactly(p.declared)&p.can != 0 {
		return false
	}
	return !slices.ContainsFunc(p.table.Chains, func(c *ruleset.Chain) bool { return c.Policy == "DROP" || hookOf(c.Name) == 0 })
}

// whole says whether the part is all of its table.
func (p *part) whole(d *dump) bool {
	if p.gaps || d.part || d.chain != "" {
		return false
	}
	if p.header {
		return p.complete && (p.declared != 0 || !p.hasRules)
	}
	return exactly(p.declared)&named(p.table.Name) != 0
}

// absorb adds another part of the same table.
func (t *built) absorb(other *built) {
	for _, c := range other.Chains {
		mine := t.Chain(c.Name)
		if mine == nil {
			t.Add(c)
			continue
		}
		mine.Rules = append(mine.Rules, c.Rules...)
		if mine.Policy == "" {
			mine.Policy = c.Policy
		}
	}
	t.Excerpt = t.Excerpt || other.Excerpt && len(other.Chains) > 0
	t.undecided += other.undecided
}

// join adds a table to those of the dumps before.
func (r *reader) join(all []*built, t *built) []*built {
	i := slices.IndexFunc(all, func(other *built) bool {
		return other.Name == t.Name && other.Family == t.Family &&
			(other.Variant == t.Variant || other.Variant == ruleset.VariantUnknown || t.Variant == ruleset.VariantUnknown)
	})
	if i < 0 {
		return append(all, t)
	}
	before := all[i]
	twice := slices.ContainsFunc(t.Chains, func(c *ruleset.Chain) bool { return before.Chain(c.Name) != nil })
	switch {
	case before.Excerpt == t.Excerpt && !twice, before.Excerpt && t.Excerpt && before.agrees(t) && t.agrees(before):
		t.Chains = slices.DeleteFunc(t.Chains, func(c *ruleset.Chain) bool { return before.Chain(c.Name) != nil })
		before.absorb(t)
		before.Variant = max(before.Variant, t.Variant)
	case !before.Excerpt && t.Excerpt && before.holds(t), before.Excerpt && !t.Excerpt && t.holds(before):
		if before.Excerpt {
			all[i] = t
		}
	case before.Excerpt && !t.Excerpt:
		r.problemAt(before.line, "", fmt.Sprintf("this excerpt of table %s isn't part of what is printed whole from line %d on: left out", t.Name, t.line))
		all[i] = t
	case !before.Excerpt && t.Excerpt:
		r.problemAt(t.line, "", fmt.Sprintf("this excerpt of table %s isn't part of what is printed whole from line %d on: left out", t.Name, before.line))
	default:
		how := ""
		if !before.holds(t) || !t.holds(before) {
			how = ", differently"
		}
		r.problemAt(t.line, "", fmt.Sprintf("table %s is printed twice%s: what is printed from line %d on counts", t.Name, how, before.line))
	}
	return all
}

// holds says whether the table has all that an excerpt shows.
func (t *built) holds(excerpt *built) bool {
	return t.agrees(excerpt) && !slices.ContainsFunc(excerpt.Chains, func(c *ruleset.Chain) bool { return t.Chain(c.Name) == nil }) &&
		len(excerpt.Chains) > 0
}

// agrees says whether the rules of the chains that both tables have are all in
// this table, in their order.
func (t *built) agrees(other *built) bool {
	return !slices.ContainsFunc(other.Chains, func(c *ruleset.Chain) bool {
		mine := t.Chain(c.Name)
		if mine == nil {
			return false
		}
		rules := mine.Rules
		for _, r := range c.Rules {
			n := slices.IndexFunc(rules, func(mine ruleset.Rule) bool { return mine.Text == r.Text })
			if n < 0 {
				return true
			}
			rules = rules[n+1:]
		}
		return false
	})
}

// settle numbers the rules and decides what jumps to undeclared chains mean.
func settle(t *built) {
	for _, c := range t.Chains {
		for i := range c.Rules {
			rule := &c.Rules[i]
			if rule.Index == 0 {
				rule.Index = i + 1
			}
			if t.undecided == 0 || t.Excerpt {
				continue
			}
			if jump, ok := rule.Target.(ruleset.Jump); ok && t.Chain(jump.Chain) == nil {
				option := "-j "
				if jump.Goto {
					option = "-g "
				}
				rule.Target = ruleset.UnknownTarget{Name: jump.Chain, Text: option + jump.Chain, Why: "neither a chain of the table nor a known target"}
			}
		}
	}
}
