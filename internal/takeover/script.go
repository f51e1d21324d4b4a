package takeover

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Remove returns the scripts that delete what was found, one for each table. A
// script fails as a whole where a rule is gone by then.
func Remove(parts []Part) []Script {
	var all []Script
	for i := range parts {
		p := &parts[i]
		var b strings.Builder
		if p.native() {
			for _, r := range p.Rules {
				fmt.Fprintf(&b, "delete rule %s %s %s handle %d\n", p.Family, p.Table, r.Chain, r.handle)
			}
		} else {
			fmt.Fprintf(&b, "*%s\n", p.Table)
			for _, r := range p.Rules {
				fmt.Fprintf(&b, "-D%s\n", strings.TrimPrefix(r.Text, "-A"))
			}
			for _, c := range p.Chains {
				fmt.Fprintf(&b, "-F %s\n-X %s\n", c.Name, c.Name)
			}
			b.WriteString("COMMIT\n")
		}
		all = append(all, p.script(b.String()))
	}
	return all
}

func (p *Part) native() bool { return p.Variant == ruleset.Native.String() }

// script for the program that writes such a table.
func (p *Part) script(input string) Script {
	if p.native() {
		return Script{Program: "nft", Args: []string{"-f", "-"}, Input: input}
	}
	program := strings.Replace(p.Variant, "iptables", map[string]string{"ip": "iptables", "ip6": "ip6tables"}[p.Family], 1) + "-restore"
	args := []string{"--noflush"}
	if p.Variant == ruleset.Legacy.String() {
		args = append(args, "-w", "10") // others hold the lock for a moment
	}
	return Script{Program: program, Args: args, Input: input}
}

// Restore returns the scripts that put parts back into a node as it is now: each rule
// behind the one that it stood behind, at the end where that one is gone. What stands
// there again by itself is left as it is. Missing tables of nftables are an error: who
// makes them makes their rules too.
func Restore(h *snapshot.Host, parts []Part) ([]Script, error) {
	var all []Script
	for i := range parts {
		p := &parts[i]
		t := p.tableIn(h)
		var input string
		if p.native() {
			if t == nil {
				return nil, fmt.Errorf("table %s %s of %s is gone: restart %s, which makes it with its rules", p.Family, p.Table, p.Owner, p.Owner)
			}
			input = p.restoreNative(t)
		} else {
			input = p.restoreIPTables(t)
		}
		if input != "" {
			all = append(all, p.script(input))
		}
	}
	return all, nil
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

func (p *Part) restoreIPTables(t *ruleset.Table) string {
	var chains, rules strings.Builder
	for _, c := range p.Chains {
		if have := chainOf(t, c.Name); have != nil && len(have.Rules) > 0 {
			continue
		}
		fmt.Fprintf(&chains, ":%s - [0:0]\n", c.Name)
		for _, r := range c.Rules {
			fmt.Fprintln(&rules, r)
		}
	}
	stand := map[string][]string{}
	for _, r := range p.missing(t) {
		now, known := stand[r.Chain]
		if c := chainOf(t, r.Chain); c != nil && !known {
			now = texts(c)
		}
		at := place(now, r.After)
		stand[r.Chain] = slices.Insert(now, at, r.Text)
		fmt.Fprintf(&rules, "-I %s %d %s\n", r.Chain, at+1, strings.TrimPrefix(r.Text, "-A "+r.Chain+" "))
	}
	if chains.Len()+rules.Len() == 0 {
		return ""
	}
	return "*" + p.Table + "\n" + chains.String() + rules.String() + "COMMIT\n"
}

// place of a rule that stood behind another, from 0.
func place(chain []string, after string) int {
	if after == "" {
		return 0
	}
	if i := slices.Index(chain, after); i >= 0 {
		return i + 1
	}
	return len(chain)
}

// restoreNative adds behind the rule that is there still, whose handle nft asks for.
func (p *Part) restoreNative(t *ruleset.Table) string {
	var b strings.Builder
	for _, r := range p.missing(t) {
		verb, at := "add", ""
		if r.After == "" {
			verb = "insert"
		} else if c := chainOf(t, r.Chain); c != nil {
			if i := slices.IndexFunc(c.Rules, func(o ruleset.Rule) bool { return o.Text == r.After }); i >= 0 {
				at = fmt.Sprintf(" handle %d", c.Rules[i].Native.Handle)
			}
		}
		fmt.Fprintf(&b, "%s rule %s %s %s%s %s\n", verb, p.Family, p.Table, r.Chain, at, r.Text)
	}
	return b.String()
}

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
				there[c.Name+" "+c.Rules[i].Text]++
			}
		}
	}
	var all []Rule
	for _, r := range p.Rules {
		if key := r.Chain + " " + r.Text; there[key] > 0 {
			there[key]--
			continue
		}
		all = append(all, r)
	}
	return all
}
