package sim

import (
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// tracks says whether connections of a family are tracked: the kernel does so
// while a rule of it asks for connections or translates (nf_ct_netns_get), be it
// reached or not. Else no NAT chain is asked. Where not all rules are known, they
// are taken to be.
func tracks(h *snapshot.Host, f packet.Family) bool {
	if !h.NFTWhole || !h.IPTables[f] || len(h.Connections) > 0 || len(h.VirtualServers) > 0 {
		return true
	}
	return slices.ContainsFunc(h.Rules.Tables, func(t *ruleset.Table) bool {
		if t.Native != nil && !t.Has(f) && t.Native.Family != "bridge" || t.Native == nil && t.Family != f {
			return false
		}
		return t.Excerpt || t.Unread || slices.ContainsFunc(t.Chains, func(c *ruleset.Chain) bool {
			return slices.ContainsFunc(c.Rules, wantsTracking)
		})
	})
}

// wantsTracking says whether a rule makes the kernel track connections.
func wantsTracking(rule ruleset.Rule) bool {
	if rule.Native != nil {
		return slices.ContainsFunc(strings.Fields(rule.Text), func(word string) bool {
			return slices.Contains([]string{"ct", "snat", "dnat", "masquerade", "redirect", "synproxy", "flow", "xt"}, word)
		})
	}
	switch t := rule.Target.(type) {
	case ruleset.Masquerade, ruleset.SNAT, ruleset.DNAT, ruleset.Redirect, ruleset.NetMap, ruleset.ConnMark, ruleset.UnknownTarget:
		return true
	case ruleset.Inert:
		return t.Name == "CT" || t.Name == "CONNSECMARK" || t.Name == "SYNPROXY"
	}
	return slices.ContainsFunc(rule.Matches, func(m ruleset.Match) bool {
		switch m := m.(type) {
		case ruleset.Conntrack, ruleset.Unknown:
			return true
		case ruleset.Mark:
			return m.Connection
		case ruleset.Stateful:
			return strings.HasPrefix(m.Name, "conn") // connlimit, connbytes
		}
		return false
	})
}
