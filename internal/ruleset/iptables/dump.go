package iptables

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// origin is what a header or a command line says of what follows.
type origin struct {
	// family 0 and variant VariantUnknown where it doesn't say.
	family  packet.Family
	variant ruleset.Variant
	// table of -t, or filter for an iptables -S without; empty for -save.
	table string
	// chain that -S or -L was asked for.
	chain string
	// part: the output went through a grep or the like.
	part bool
	// ignored: it isn't the node's, or no table of iptables.
	ignored bool
}

// dump is what one run of a program printed, as far as the text shows it. All
// its tables are of one family and variant.
type dump struct {
	origin
	line int
	// continued: nothing but the order of lines tells it from the dump before, so
	// both are of one family where only one of them shows it. loose: a line between
	// two dumps.
	continued, loose bool
	parts            []*part
	// v4, v6, likely6 are the first lines that speak of a family.
	v4, v6, likely6 place
}

// place is a line; the zero value is none.
type place struct {
	line int
	text string
}

// part is a table, or lines that belong to one that is still to be found.
type part struct {
	line  int
	table *ruleset.Table
	// can be one of these tables; stated: a header or a command says which.
	can    tableSet
	stated bool
	// header: a line "*nat". complete: COMMIT was seen.
	header, complete bool
	// hooks with rules or a policy, and declared with a policy.
	hooks, declared hook
	// gaps: there are rules of chains that no line declares.
	gaps, hasRules bool
	// hasUsers: chains that aren't built in are declared.
	hasUsers bool
	// superseded: another declaration of its chain came before any rule.
	superseded bool
	// undecided jumps to chains that weren't declared before them.
	undecided int
}

// newPart begins a table in the current dump.
func (r *reader) newPart(name string) *part {
	r.flush()
	r.chains++ // hostile texts have millions of them
	p := &part{line: r.number, table: &ruleset.Table{Name: name, File: r.options.File}, can: everyTable}
	if name != "" {
		p.stated = true
		p.can = named(name)
	}
	d := r.current()
	d.parts = append(d.parts, p)
	return p
}

// last is the part that lines without further evidence belong to; one is begun
// where there is none.
func (r *reader) last() *part {
	d := r.current()
	if len(d.parts) == 0 {
		return r.newPart(d.table)
	}
	p := d.parts[len(d.parts)-1]
	if p.complete {
		r.resume()
		return r.newPart("")
	}
	return p
}

// rest is the origin of lines that follow a dump's end: the same program printed
// them, for all that is known.
func (d *dump) rest() origin {
	o := d.origin
	o.table, o.chain = "", ""
	return o
}

// chain of that name, nil without.
func (p *part) chain(name string) *ruleset.Chain { return p.table.Chain(name) }

// declare takes note of a chain, with its policy where it is a built-in one.
func (r *reader) declare(name, policy string) {
	if r.full() {
		return
	}
	p := r.partFor(name)
	h := hookOf(name)
	p.hooks |= h
	p.declared |= h
	p.hasUsers = p.hasUsers || h == 0
	if c := p.chain(name); c != nil {
		c.Policy = policy
		return
	}
	r.chains++
	p.table.Add(&ruleset.Chain{Name: name, Policy: policy})
}

// partFor finds the part that a declaration belongs to, or begins one.
func (r *reader) partFor(name string) *part {
	p := r.last()
	h := hookOf(name)
	known := p.chain(name) != nil
	if p.header {
		if known {
			r.problem("the chain is declared twice")
		}
		return p
	}
	switch {
	case known || p.stated && h != 0 && h.tables()&p.can == 0:
		// Another dump begins, of which nothing is known.
		p.superseded = !p.hasRules
		r.resume()
		p = r.newPart("")
	case h == 0 && p.hasRules && p.can&nat == 0 && !p.stated && !r.listing:
		// All chains of a table are printed before its rules. A grep through a save
		// leaves filter's lines before nat's without a header in between.
		p = r.newPart("")
	case h == 0 || p.stated:
	case h.tables()&p.can == 0, p.after(h, r.listing):
		p = r.newPart("")
	}
	if !p.stated && h != 0 {
		p.can &= h.tables()
	}
	return p
}

// after says whether a built-in chain can't be declared here any more, by the
// order in which the programs print: built-in chains first, and of these
// PREROUTING before all, INPUT before FORWARD and OUTPUT; iptables-save and -S
// print all chains before any rule.
func (p *part) after(h hook, listing bool) bool {
	return p.hasUsers || p.hasRules && !listing ||
		h == prerouting && p.declared != 0 || h == input && p.declared&(forward|output|postrouting) != 0
}

// place finds the part that a rule belongs to.
func (r *reader) place(chain string, rule *ruleset.Rule) *part {
	p := r.last()
	set := tablesOf(chain, rule)
	if p.header || set == 0 {
		return p
	}
	if !p.stated && betweenTables(p.can, set) {
		p = r.otherPart(set &^ mangle)
		p.can &= set
		return p
	}
	if p.can&set == 0 {
		switch declared := p.chain(chain) != nil; {
		case declared && (p.stated || r.listing): // no table takes it: it stays where it stands
			return p
		case p.stated: // the command was of something else
			r.resume()
			p = r.newPart("")
		default:
			p = r.otherPart(set)
		}
	}
	p.can &= set
	return p
}

// betweenTables: only mangle has chains for both, such as FORWARD and
// POSTROUTING, and nothing says that it is mangle. Lines without headers are
// then more likely some of filter and some of nat.
func betweenTables(have, next tableSet) bool {
	return have&next == mangle && (have&filter != 0 && next&nat != 0 || have&nat != 0 && next&filter != 0)
}

// otherPart finds an earlier part that the rule fits, or begins one. It becomes the last.
func (r *reader) otherPart(set tableSet) *part {
	parts := r.dump.parts
	for i, other := range slices.Backward(parts) {
		if other.can&set != 0 && !other.stated {
			r.dump.parts = append(slices.Delete(parts, i, i+1), other)
			return other
		}
	}
	return r.newPart("")
}

// append adds the rule that was read to its chain, at the place that at says:
// 0 the end, 1 the front.
func (r *reader) append(name string, at int) {
	if r.full() {
		return
	}
	s := &r.spec
	if r.owner == nil || r.owner.Name != name || at != 0 {
		r.flush()
	}
	decided := s.takeTarget(r.last().chain(s.target) != nil)
	p := r.place(name, &s.rule)
	if !decided {
		p.undecided++
	}
	c := p.chain(name)
	if c == nil {
		c = &ruleset.Chain{Name: name}
		p.table.Add(c)
		p.gaps = true
		r.chains++
	}
	p.hasRules = true
	p.hooks |= hookOf(name)
	s.rule.Line = r.number
	r.dump.note(s.families, place{r.number, r.line})
	r.rules += max(1, len(s.rule.Matches))
	if at != 0 {
		r.insert(c, at)
	} else {
		if r.owner != c {
			r.flush()
			r.owner = c
		}
		r.scratch = append(r.scratch, s.rule)
	}
	if s.problem != "" {
		r.problem(s.problem)
	}
}

// insert puts the rule at a place of the chain, as -I does.
func (r *reader) insert(c *ruleset.Chain, at int) {
	at = min(at, len(c.Rules)+1)
	if r.moved += len(c.Rules) + 1 - at; r.moved > maxMoved {
		r.problem("more insertions than are read")
		return
	}
	c.Rules = slices.Insert(c.Rules, at-1, r.spec.rule)
}

// note remembers the first lines that speak of a family.
func (d *dump) note(f families, at place) {
	if f.v4 && d.v4.line == 0 {
		d.v4 = at
	}
	if f.v6 && d.v6.line == 0 {
		d.v6 = at
	}
	if f.likely6 && d.likely6.line == 0 {
		d.likely6 = at
	}
}

// shown is the family that the dump's own text shows, 0 where nothing does.
func (d *dump) shown() packet.Family {
	four := d.v4.line != 0 && (d.v6.line == 0 || d.v4.line < d.v6.line)
	switch {
	case d.family != 0:
		return d.family
	case four:
		return packet.IPv4Family
	case d.v6.line != 0 || d.likely6.line != 0:
		return packet.IPv6Family
	}
	return 0
}

// share gives dumps whose own text shows no family that of the dumps they
// continue, or that continue them.
func (r *reader) share() {
	families := make([]packet.Family, len(r.dumps))
	for i, d := range r.dumps {
		families[i] = d.shown()
		if families[i] == 0 && i > 0 && d.continued {
			families[i] = families[i-1]
		}
	}
	for i, d := range slices.Backward(r.dumps) {
		if i+1 < len(r.dumps) && families[i] == 0 && (d.loose || r.dumps[i+1].continued) {
			families[i] = families[i+1]
		}
		if i > 0 && families[i] == 0 && d.loose {
			families[i] = families[i-1]
		}
		if d.family == 0 {
			d.family = cmp.Or(r.options.Family, families[i], packet.IPv4Family)
		}
	}
}

// check says where the text of a dump contradicts its family.
func (r *reader) check(d *dump) {
	family := d.family
	contrary := d.v6
	if family == packet.IPv6Family {
		contrary = d.v4
	}
	if contrary.line != 0 {
		r.problemAt(contrary.line, contrary.text, fmt.Sprintf("the table is %s, this is not", family))
	}
}
