package takeover

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Restore returns the scripts that put parts back into a node as it is now: each rule
// behind the last of those that it stood behind, one script for each table. What stands
// there again by itself is left as it is. Missing tables and chains of nftables are an
// error: who makes them makes their rules too. What is returned beside it is whole.
func Restore(h *snapshot.Host, parts []Part) ([]Script, error) {
	var all []Script
	var failed error
	for i := range parts {
		p := &parts[i]
		if slices.ContainsFunc(parts[:i], p.sameTable) {
			continue
		}
		r := restoring{t: p.tableIn(h), stand: map[string][]line{}}
		for j := i; j < len(parts); j++ {
			if p.sameTable(parts[j]) {
				failed = errors.Join(failed, r.add(&parts[j]))
			}
		}
		if input := r.input(p); input != "" {
			all = append(all, p.script(input))
		}
	}
	return all, failed
}

func (p *Part) sameTable(o Part) bool {
	return p.Variant == o.Variant && p.Family == o.Family && p.Table == o.Table
}

// tableIn a node, nil where there is none.
func (p *Part) tableIn(h *snapshot.Host) *ruleset.Table {
	for _, t := range h.Rules.Tables {
		if t.Variant.String() == p.Variant && t.Name == p.Table && familyOf(t) == p.Family {
			return t
		}
	}
	return nil
}

// restoring of one table.
type restoring struct {
	// t is nil where there is no such table.
	t *ruleset.Table
	// stand are its chains with what was added so far.
	stand         map[string][]line
	chains, rules strings.Builder
}

// line of a chain: a rule without its counters. The handle is 0 for one that was added.
type line struct {
	text   string
	handle uint64
}

// add what is missing of a part.
func (r *restoring) add(p *Part) error {
	missing := p.missing(r.t)
	if p.native() {
		for _, m := range missing {
			if chainOf(r.t, m.Chain) == nil {
				return fmt.Errorf("chain %s of table %s %s is gone: restart %s, which makes it with its rules", m.Chain, p.Family, p.Table, p.Owner)
			}
		}
	}
	for _, c := range p.Chains {
		have := chainOf(r.t, c.Name)
		if have != nil && len(have.Rules) > 0 {
			continue
		}
		if have == nil { // not declared, which would flush it if it is there by then
			fmt.Fprintf(&r.chains, "-N %s\n", c.Name)
		}
		for _, rule := range c.Rules {
			fmt.Fprintln(&r.rules, rule)
		}
	}
	for _, m := range missing {
		r.rule(p, m)
	}
	return nil
}

// rule is put in its place.
func (r *restoring) rule(p *Part, m Rule) {
	now, known := r.stand[m.Chain]
	if !known {
		now = lines(chainOf(r.t, m.Chain))
	}
	at := place(now, p.around(m.Chain), m.Text)
	if p.native() {
		fmt.Fprintf(&r.rules, "%s %s\n", where(p, m.Chain, now, at), m.Text)
	} else {
		fmt.Fprintf(&r.rules, "-I %s %d %s\n", m.Chain, at+1, strings.TrimPrefix(m.Text, "-A "+m.Chain+" "))
	}
	r.stand[m.Chain] = slices.Insert(now, at, line{text: plain(m.Text)})
}

// where is nft's command for a place between rules whose handles are known, or not yet.
func where(p *Part, chain string, now []line, at int) string {
	in := fmt.Sprintf("rule %s %s %s", p.Family, p.Table, chain)
	switch {
	case at > 0 && now[at-1].handle != 0:
		return fmt.Sprintf("add %s handle %d", in, now[at-1].handle)
	case at < len(now) && now[at].handle != 0:
		return fmt.Sprintf("insert %s handle %d", in, now[at].handle)
	case at == 0:
		return "insert " + in
	}
	return "add " + in
}

func (r *restoring) input(p *Part) string {
	text := r.chains.String() + r.rules.String()
	if text == "" || p.native() {
		return text
	}
	return "*" + p.Table + "\n" + text + "COMMIT\n"
}

// around a chain's rules were these.
func (p *Part) around(chain string) []string {
	for _, c := range p.Around {
		if c.Name == chain {
			return c.Rules
		}
	}
	return nil
}

// place from 0 of a rule in a chain, that was among others in this order: behind the last
// of its predecessors that stands; where none does, before its first successor.
func place(now []line, order []string, text string) int {
	n := count(now, text) + 1 // of equal rules the first are there
	mine := slices.IndexFunc(order, func(o string) bool {
		if plain(o) == plain(text) {
			n--
		}
		return n == 0
	})
	switch mine {
	case -1:
		return len(now)
	case 0:
		return 0
	}
	for i := mine - 1; i >= 0; i-- {
		if at := nth(now, order[i], occurrence(order[:i+1])); at >= 0 {
			return at + 1
		}
	}
	for _, next := range order[mine+1:] {
		if at := nth(now, next, 1); at >= 0 {
			return at
		}
	}
	return len(now)
}

// occurrence of the last rule among those like it.
func occurrence(rules []string) int {
	n := 0
	for _, r := range rules {
		if plain(r) == plain(rules[len(rules)-1]) {
			n++
		}
	}
	return n
}

// nth rule of a text, or the last one where there are fewer; -1: none.
func nth(now []line, text string, n int) int {
	at := -1
	for i, l := range now {
		if n > 0 && l.text == plain(text) {
			at, n = i, n-1
		}
	}
	return at
}

func count(now []line, text string) int {
	n := 0
	for _, l := range now {
		if l.text == plain(text) {
			n++
		}
	}
	return n
}

// lines of a chain, which may be nil.
func lines(c *ruleset.Chain) []line {
	if c == nil {
		return nil
	}
	all := make([]line, len(c.Rules))
	for i := range c.Rules {
		all[i].text = plain(c.Rules[i].Text)
		if n := c.Rules[i].Native; n != nil {
			all[i].handle = n.Handle
		}
	}
	return all
}

var counters = regexp.MustCompile(`counter packets [0-9]+ bytes [0-9]+`)

// plain is a rule without what packets change of it.
func plain(rule string) string { return counters.ReplaceAllString(rule, "counter") }

func chainOf(t *ruleset.Table, name string) *ruleset.Chain {
	if t == nil {
		return nil
	}
	return t.Chain(name)
}

// missing rules of a part in a table, which may be nil. Of equal ones as many as lack.
func (p *Part) missing(t *ruleset.Table) []Rule {
	there := map[string]int{}
	if t != nil {
		for _, c := range t.Chains {
			for i := range c.Rules {
				there[c.Name+" "+plain(c.Rules[i].Text)]++
			}
		}
	}
	return lacking(p.Rules, there)
}

// lacking rules, of which so many are there by chain and text.
func lacking(rules []Rule, there map[string]int) []Rule {
	var all []Rule
	for _, r := range rules {
		if key := r.Chain + " " + plain(r.Text); there[key] > 0 {
			there[key]--
			continue
		}
		all = append(all, r)
	}
	return all
}
