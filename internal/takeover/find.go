package takeover

import (
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Find returns what hides networks on a node and is the owner's, table by table.
// Rules of a table that wasn't given whole aren't found.
func Find(h *snapshot.Host, name string) []Part {
	f := finder{owners: owner.New(&h.Rules, h.Sets), name: name}
	var parts []Part
	for _, t := range h.Rules.Tables {
		part := Part{Owner: name, Variant: t.Variant.String(), Family: familyOf(t), Table: t.Name}
		switch {
		case t.Native != nil:
			f.native(t, &part)
		case t.Name == "nat" && !t.Excerpt && !t.Unread && t.Variant != ruleset.VariantUnknown:
			f.iptables(t, &part)
		}
		if part.Count() > 0 || len(part.Chains) > 0 {
			part.Around = around(t, part.Rules)
			parts = append(parts, part)
		}
	}
	return parts
}

// around are the chains of rules, as they stand.
func around(t *ruleset.Table, rules []Rule) []Chain {
	var all []Chain
	for _, r := range rules {
		if !slices.ContainsFunc(all, func(c Chain) bool { return c.Name == r.Chain }) {
			all = append(all, Chain{Name: r.Chain, Rules: texts(t.Chain(r.Chain))})
		}
	}
	return all
}

// finder looks for the rules of one owner.
type finder struct {
	owners *owner.Index
	name   string
}

func (f finder) owns(t *ruleset.Table, c *ruleset.Chain, r *ruleset.Rule) bool {
	return f.owners.Of(t, c, r).Name == f.name
}

// iptables takes chains that do nothing but hide, the jumps to them, and the rules of
// POSTROUTING that hide a network by themselves.
func (f finder) iptables(t *ruleset.Table, part *Part) {
	post := t.Chain("POSTROUTING")
	if post == nil {
		return
	}
	whole := f.wholeChains(t)
	for i := range post.Rules {
		r := &post.Rules[i]
		j, jumps := r.Target.(ruleset.Jump)
		if jumps && whole[j.Chain] || f.owns(t, post, r) && hidesNetwork(r) {
			part.Rules = append(part.Rules, taken(post, i))
		}
	}
	for _, c := range t.Chains {
		if whole[c.Name] {
			part.Chains = append(part.Chains, Chain{Name: c.Name, Rules: texts(c)})
		}
	}
}

// wholeChains are the owner's own chains that only translate sources or let packets
// by, and that POSTROUTING alone jumps to, with whatever comment.
func (f finder) wholeChains(t *ruleset.Table) map[string]bool {
	whole := map[string]bool{}
	for _, c := range t.Chains {
		if c.Policy == "" && f.ownsChain(t, c) {
			whole[c.Name] = true
		}
	}
	for _, c := range t.Chains {
		for i := range c.Rules {
			if j, ok := c.Rules[i].Target.(ruleset.Jump); ok && c.Name != "POSTROUTING" {
				delete(whole, j.Chain)
			}
		}
	}
	return whole
}

// ownsChain: each of its rules is the owner's, and decides about a source. An empty
// chain is the owner's where the jump to it is.
func (f finder) ownsChain(t *ruleset.Table, c *ruleset.Chain) bool {
	for i := range c.Rules {
		if r := &c.Rules[i]; !f.owns(t, c, r) || !decidesSource(r.Target) {
			return false
		}
	}
	return len(c.Rules) > 0 || f.jumpsTo(t, c.Name)
}

func (f finder) jumpsTo(t *ruleset.Table, chain string) bool {
	post := t.Chain("POSTROUTING")
	return slices.ContainsFunc(post.Rules, func(r ruleset.Rule) bool {
		j, ok := r.Target.(ruleset.Jump)
		return ok && j.Chain == chain && f.owns(t, post, &r)
	})
}

func decidesSource(t ruleset.Target) bool {
	switch t.(type) {
	case ruleset.Return, ruleset.Accept, ruleset.Masquerade, ruleset.SNAT:
		return true
	}
	return false
}

// hidesNetwork: a rule of POSTROUTING that translates sources, and none of those that
// services need: for marked packets, IPVS', the node's own to containers, hairpin.
func hidesNetwork(r *ruleset.Rule) bool {
	switch r.Target.(type) {
	case ruleset.Masquerade, ruleset.SNAT:
	default:
		return false
	}
	if from, to := r.Source, r.Destination; from.Prefix.IsValid() && (from == to || from.Prefix.Addr().IsLoopback()) {
		return false
	}
	return !slices.ContainsFunc(r.Matches, func(m ruleset.Match) bool {
		switch m := m.(type) {
		case ruleset.Mark, ruleset.Unknown:
			return true
		case ruleset.AddressType:
			return m.Source != 0
		}
		return false
	})
}

// native takes single rules: the chains hang together by maps.
func (f finder) native(t *ruleset.Table, part *Part) {
	if t.Native.IPTables || t.Excerpt {
		return
	}
	for _, c := range t.Chains {
		for i := range c.Rules {
			if r := &c.Rules[i]; hidesNative(r.Native) && f.owns(t, c, r) {
				part.Rules = append(part.Rules, taken(c, i))
			}
		}
	}
}

// hidesNative is hidesNetwork of a native rule. Nor is it one that nft wouldn't read as
// it is printed (in a comment a quote would end it, and what follows be commands), or
// that can't be named.
func hidesNative(r *nftables.Rule) bool {
	if r.Handle == 0 || strings.ContainsAny(r.Comment, "\"\n") {
		return false
	}
	ends := map[string]string{}
	hides := false
	for _, s := range r.Statements {
		switch s := s.(type) {
		case nftables.UnknownStatement:
			return false
		case nftables.NAT:
			hides = s.Kind == nftables.Masquerade || s.Kind == nftables.SNAT
		case nftables.Match:
			switch left := s.Left.(type) {
			case nftables.Payload:
				ends[left.Field] = s.Op + nftables.ExprText(s.Right)
			case nftables.FIB:
				return false
			case nftables.Meta:
				if left.Key == "mark" {
					return false
				}
			}
		}
	}
	return hides && (ends["saddr"] == "" || ends["saddr"] != ends["daddr"])
}

// taken is rule i of a chain.
func taken(c *ruleset.Chain, i int) Rule {
	r := Rule{Chain: c.Name, Text: c.Rules[i].Text}
	if n := c.Rules[i].Native; n != nil {
		r.handle = n.Handle
	}
	return r
}

func texts(c *ruleset.Chain) []string {
	all := make([]string, len(c.Rules))
	for i := range c.Rules {
		all[i] = c.Rules[i].Text
	}
	return all
}

// Advice is what makes a component write the rules that Find returns of a node, and how
// that is changed; zero where there are none.
func Advice(h *snapshot.Host, name string) owner.Owner {
	f := finder{owners: owner.New(&h.Rules, h.Sets), name: name}
	for _, t := range h.Rules.Tables {
		for _, c := range t.Chains {
			for i := range c.Rules {
				r := &c.Rules[i]
				hides := r.Native != nil && hidesNative(r.Native) || r.Native == nil && hidesNetwork(r)
				if o := f.owners.Of(t, c, r); hides && o.Name == name {
					return o
				}
			}
		}
	}
	return owner.Owner{}
}
