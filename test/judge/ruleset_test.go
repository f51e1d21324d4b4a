package judge_test

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// ruleset is what iptables-restore and ipset restore are given.
type ruleset struct {
	family packet.Family
	tables []*table
	sets   []*set
	// native tables; nil where the world has none.
	native []*nativeTable
}

// table of one variant.
type table struct {
	variant, name string
	chains        []*chain
}

// chain with its rules, each without "-A CHAIN".
type chain struct {
	name, policy string // the policy of a user chain is "-"
	rules        []string
}

// set is an IP set; its elements are as in `ipset save`.
type set struct {
	name, options string
	elements      []string
}

func (r *ruleset) chain(variant, table, name string) *chain {
	for _, t := range r.tables {
		for _, c := range t.chains {
			if t.variant == variant && t.name == table && c.name == name {
				return c
			}
		}
	}
	return nil
}

// variants in the order of their tables.
func (r *ruleset) variants() []string {
	var out []string
	for _, t := range r.tables {
		if !slices.Contains(out, t.variant) {
			out = append(out, t.variant)
		}
	}
	return out
}

// text for iptables-restore of one variant.
func (r *ruleset) text(variant string) string {
	var b strings.Builder
	for _, t := range r.tables {
		if t.variant != variant {
			continue
		}
		fmt.Fprintf(&b, "*%s\n", t.name)
		for _, c := range t.chains {
			fmt.Fprintf(&b, ":%s %s [0:0]\n", c.name, c.policy)
		}
		for _, c := range t.chains {
			for _, rule := range c.rules {
				fmt.Fprintf(&b, "-A %s %s\n", c.name, rule)
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}

// setText is for ipset restore.
func (r *ruleset) setText() string {
	var b strings.Builder
	for _, s := range r.sets {
		fmt.Fprintf(&b, "create %s %s\n", s.name, s.options)
		for _, e := range s.elements {
			fmt.Fprintf(&b, "add %s %s\n", s.name, e)
		}
	}
	return b.String()
}

func (r *ruleset) String() string {
	var b strings.Builder
	for _, v := range r.variants() {
		fmt.Fprintf(&b, "# iptables-%s-restore, %s\n", v, r.family)
		for _, t := range r.tables {
			if t.variant == v && !t.empty() {
				fmt.Fprintf(&b, "*%s\n", t.name)
				for _, c := range t.chains {
					if c.policy != "ACCEPT" {
						fmt.Fprintf(&b, ":%s %s [0:0]\n", c.name, c.policy)
					}
				}
				for _, c := range t.chains {
					for _, rule := range c.rules {
						fmt.Fprintf(&b, "-A %s %s\n", c.name, rule)
					}
				}
				b.WriteString("COMMIT\n")
			}
		}
	}
	if sets := r.setText(); sets != "" {
		b.WriteString("# ipset restore\n" + sets)
	}
	for _, t := range r.native {
		b.WriteString("# nft -f\n" + t.String())
	}
	return b.String()
}

func (t *table) empty() bool {
	return !slices.ContainsFunc(t.chains, func(c *chain) bool { return len(c.rules) > 0 || c.policy != "ACCEPT" })
}

// load puts the ruleset into the node in place of what was there before.
func (r *ruleset) load(n *node) error {
	var names []string
	for _, s := range r.sets {
		names = append(names, s.name)
	}
	if err := n.replaceSets(names, r.setText()); err != nil {
		return err
	}
	for _, v := range r.variants() {
		if err := n.restore(v, r.family, r.text(v)); err != nil {
			return err
		}
	}
	if r.native != nil {
		return r.loadNative(n)
	}
	return nil
}

// refused says whether a program didn't take what it was given.
func refused(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit)
}

// smaller returns rulesets with one thing less each, the largest steps first.
// renamed is what its sets are to be called, since the old ones may still be there.
func (r *ruleset) smaller() []*ruleset {
	var out []*ruleset
	edit := func(change func(*ruleset)) {
		c := r.clone()
		change(c)
		out = append(out, c)
	}
	for ti, t := range r.tables {
		if !t.empty() {
			edit(func(c *ruleset) { c.tables[ti].clear() })
		}
	}
	for ti, t := range r.tables {
		for ci, ch := range t.chains {
			if ch.policy == "-" && !r.mentions(t, ch.name) {
				edit(func(c *ruleset) { c.tables[ti].chains = slices.Delete(c.tables[ti].chains, ci, ci+1) })
				continue
			}
			for ri := range ch.rules {
				edit(func(c *ruleset) {
					x := c.tables[ti].chains[ci]
					x.rules = slices.Delete(x.rules, ri, ri+1)
				})
			}
			if ch.policy == "DROP" {
				edit(func(c *ruleset) { c.tables[ti].chains[ci].policy = "ACCEPT" })
			}
		}
	}
	for ni, t := range r.native {
		edit(func(c *ruleset) { c.native = slices.Delete(c.native, ni, ni+1) })
		for _, small := range t.smaller() {
			edit(func(c *ruleset) { c.native[ni] = small })
		}
	}
	for si, s := range r.sets {
		if !r.mentionsSet(s.name) {
			edit(func(c *ruleset) { c.sets = slices.Delete(c.sets, si, si+1) })
			continue
		}
		for ei := range s.elements {
			edit(func(c *ruleset) { c.sets[si].elements = slices.Delete(c.sets[si].elements, ei, ei+1) })
		}
	}
	return out
}

func (t *table) clear() {
	t.chains = slices.DeleteFunc(t.chains, func(c *chain) bool { return c.policy == "-" })
	for _, c := range t.chains {
		c.rules, c.policy = nil, "ACCEPT"
	}
}

// mentions says whether a rule of the table leads to a chain.
func (r *ruleset) mentions(t *table, name string) bool {
	return slices.ContainsFunc(t.chains, func(c *chain) bool {
		return slices.ContainsFunc(c.rules, func(rule string) bool { return slices.Contains(strings.Fields(rule), name) })
	})
}

func (r *ruleset) mentionsSet(name string) bool {
	inSet := slices.ContainsFunc(r.sets, func(s *set) bool { return slices.Contains(s.elements, name) })
	return inSet || slices.ContainsFunc(r.tables, func(t *table) bool { return r.mentions(t, name) })
}

func (r *ruleset) clone() *ruleset {
	c := &ruleset{family: r.family}
	for _, t := range r.tables {
		u := &table{variant: t.variant, name: t.name}
		for _, ch := range t.chains {
			u.chains = append(u.chains, &chain{ch.name, ch.policy, slices.Clone(ch.rules)})
		}
		c.tables = append(c.tables, u)
	}
	if r.native != nil {
		c.native = []*nativeTable{}
	}
	for _, t := range r.native {
		c.native = append(c.native, t.clone())
	}
	for _, s := range r.sets {
		c.sets = append(c.sets, &set{s.name, s.options, slices.Clone(s.elements)})
	}
	return c
}

// renameSets gives every set a name that no earlier ruleset has.
func (r *ruleset) renameSets(fresh func(string) string) {
	names := map[string]string{}
	for _, s := range r.sets {
		names[s.name] = fresh(s.name)
		s.name = names[s.name]
	}
	replace := func(text string) string {
		words := strings.Fields(text)
		for i, w := range words {
			if n, ok := names[w]; ok {
				words[i] = n
			}
		}
		return strings.Join(words, " ")
	}
	for _, s := range r.sets {
		for i, e := range s.elements {
			s.elements[i] = replace(e)
		}
	}
	for _, t := range r.tables {
		for _, c := range t.chains {
			for i, rule := range c.rules {
				c.rules[i] = replace(rule)
			}
		}
	}
}
