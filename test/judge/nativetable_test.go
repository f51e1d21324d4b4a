package judge_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// nativeTable is a table of nft's own.
type nativeTable struct {
	family, name string
	// sets and maps, each whole: "set s0 { … }".
	sets   []string
	chains []*nativeChain
}

// nativeChain with its rules; base is empty for those that are only jumped to.
type nativeChain struct {
	name, base string
	rules      []string
}

func (t *nativeTable) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s %s {\n", t.family, t.name)
	for _, s := range t.sets {
		fmt.Fprintf(&b, "\t%s\n", s)
	}
	for i := len(t.chains) - 1; i >= 0; i-- { // those that are jumped to come first
		c := t.chains[i]
		fmt.Fprintf(&b, "\tchain %s {\n", c.name)
		if c.base != "" {
			fmt.Fprintf(&b, "\t\t%s\n", c.base)
		}
		for _, rule := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", rule)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func (t *nativeTable) clone() *nativeTable {
	c := &nativeTable{t.family, t.name, slices.Clone(t.sets), nil}
	for _, x := range t.chains {
		c.chains = append(c.chains, &nativeChain{x.name, x.base, slices.Clone(x.rules)})
	}
	return c
}

func (t *nativeTable) mentions(name string) bool {
	inSets := slices.ContainsFunc(t.sets, func(s string) bool { return slices.Contains(nativeWords(s), name) })
	return inSets || slices.ContainsFunc(t.chains, func(c *nativeChain) bool {
		return slices.ContainsFunc(c.rules, func(rule string) bool { return slices.Contains(nativeWords(rule), name) })
	})
}

func nativeWords(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,;{}\t", r) })
}

// smaller tables with one thing less each; nil stands for none at all.
func (t *nativeTable) smaller() (out []*nativeTable) {
	edit := func(change func(*nativeTable)) {
		c := t.clone()
		change(c)
		out = append(out, c)
	}
	for ci, c := range t.chains {
		if c.base != "" || !t.mentions(c.name) {
			edit(func(x *nativeTable) { x.chains = slices.Delete(x.chains, ci, ci+1) })
		}
		for ri := range c.rules {
			edit(func(x *nativeTable) { x.chains[ci].rules = slices.Delete(x.chains[ci].rules, ri, ri+1) })
		}
	}
	for si, s := range t.sets {
		if !t.mentions("@" + strings.Fields(s)[1]) {
			edit(func(x *nativeTable) { x.sets = slices.Delete(x.sets, si, si+1) })
		}
	}
	return out
}

// nativeText is for nft -f: tables of that many names in place of what was there.
func nativeText(tables []*nativeTable) string {
	var b strings.Builder
	for _, family := range []string{"ip", "ip6", "inet", "netdev", "bridge"} {
		for i := range mostNative {
			fmt.Fprintf(&b, "table %s n%d\ndelete table %s n%d\n", family, i, family, i)
		}
	}
	for _, t := range tables {
		b.WriteString(t.String())
	}
	return b.String()
}

// loadNative replaces the native tables. What nft refuses of random ones, such as
// two protocols in one rule, is left out.
func (r *ruleset) loadNative(n *node) error {
	const attempts = 8
	for i := 0; ; i++ {
		_, err := n.ns.Run(nativeText(r.native), "nft", "-f", "-")
		if err == nil || i == attempts || !prune(r.native, err.Error()) {
			return err
		}
	}
}

// prune removes what nft refuses: it names the line.
func prune(tables []*nativeTable, message string) bool {
	pruned := false
	for _, m := range refusedLine.FindAllStringSubmatch(message, -1) {
		text := strings.TrimSpace(m[1])
		for _, t := range tables {
			before := len(t.sets)
			t.sets = slices.DeleteFunc(t.sets, func(s string) bool { return s == text })
			pruned = pruned || len(t.sets) < before
			for _, c := range t.chains {
				before := len(c.rules)
				c.rules = slices.DeleteFunc(c.rules, func(r string) bool { return r == text })
				pruned = pruned || len(c.rules) < before
			}
		}
	}
	return pruned
}

var refusedLine = regexp.MustCompile(`/dev/stdin:[0-9]+:[0-9-]+: Error: .*\n(.*)`)

// hashes says whether a rule picks by a hash, which is the same for a packet
// with the same addresses.
func (r *ruleset) hashes() bool {
	return slices.ContainsFunc(r.native, func(t *nativeTable) bool {
		return slices.ContainsFunc(t.chains, func(c *nativeChain) bool {
			return slices.ContainsFunc(c.rules, func(rule string) bool { return strings.Contains(rule, "hash ") })
		})
	})
}
