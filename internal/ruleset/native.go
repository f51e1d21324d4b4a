package ruleset

import (
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// FromNative wraps a native nftables table, so that its rules have their place
// beside those of iptables. Family of a table inet is zero: it has both.
func FromNative(t *nftables.Table) *Table {
	w := &Table{Name: t.Name, Variant: Native, Excerpt: t.Excerpt, File: t.File, Native: t}
	switch t.Family {
	case "ip":
		w.Family = packet.IPv4Family
	case "ip6":
		w.Family = packet.IPv6Family
	}
	for _, c := range t.Chains {
		chain := &Chain{Name: c.Name, Native: c, Rules: make([]Rule, len(c.Rules))}
		if c.Base != nil {
			chain.Policy = "ACCEPT"
			if c.Base.Drop {
				chain.Policy = "DROP"
			}
		}
		for i, rule := range c.Rules {
			chain.Rules[i] = Rule{Text: rule.Text, Line: rule.Line, Index: rule.Index, Comment: rule.Comment, Native: rule}
		}
		w.Add(chain)
	}
	return w
}

// Has says whether packets of a family meet the table.
func (t *Table) Has(f packet.Family) bool {
	return t.Native == nil && t.Family == f || t.Native != nil && (t.Native.Family == "inet" || t.Native.Family == "ip" && f == packet.IPv4Family ||
		t.Native.Family == "ip6" && f == packet.IPv6Family)
}
