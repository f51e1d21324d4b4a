package rules

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Read a host's rules. An error is about rules that can't be said as a list at all.
func Read(h *snapshot.Host) (*List, error) {
	r := &reader{sets: h.Sets, owners: owner.New(&h.Rules, h.Sets), networks: map[string][]netip.Prefix{}}
	for _, a := range h.Network.Addresses {
		if ip := a.Prefix.Addr(); !ip.IsLinkLocalUnicast() {
			r.networks[a.Interface] = append(r.networks[a.Interface], a.Prefix.Masked())
		}
	}
	list := &List{}
	for _, f := range packet.Families {
		w := &walker{warned: map[Warning]bool{}}
		bases := &chain{}
		for _, b := range r.bases(h, f) {
			bases.steps = append(bases.steps, step{act: jump, chain: b})
		}
		w.marks, w.node = r.given, nodeAddresses(h, f)
		if _, err := w.walk([]frame{{bases, 0}}, state{Region: everything(f)}, true); err != nil {
			return nil, err
		}
		list.Entries = append(list.Entries, tidy(w.entries)...)
		for _, warning := range w.warnings { // tables of both families are read twice
			if !slices.Contains(list.Warnings, warning) {
				list.Warnings = append(list.Warnings, warning)
			}
		}
		for _, name := range w.sets {
			if !slices.Contains(list.Sets, name) {
				list.Sets = append(list.Sets, name)
			}
		}
	}
	return list, nil
}

// nodeAddresses are the node's own of a family; nil: not known.
func nodeAddresses(h *snapshot.Host, f packet.Family) (own []netip.Prefix) {
	for _, a := range h.Network.Addresses {
		if ip := a.Prefix.Addr().WithZone(""); packet.Of(ip) == f {
			own = append(own, netip.PrefixFrom(ip, ip.BitLen()))
		}
	}
	return own
}

// reader makes chains of what a dump has.
type reader struct {
	sets   ipset.Sets
	owners *owner.Index
	// networks of interfaces.
	networks map[string][]netip.Prefix
	// given are the marks that rules give.
	given uint32
}

// bases are the chains of a family that see packets leave, in the kernel's order.
func (r *reader) bases(h *snapshot.Host, f packet.Family) []*chain {
	type base struct {
		*chain
		priority int
		handle   uint64
	}
	var all []base
	for _, t := range h.Rules.Tables {
		if !t.Has(f) || t.Unread {
			continue
		}
		if t.Native == nil && t.Name == "nat" && t.Chain("POSTROUTING") != nil {
			all = append(all, base{r.chains(t, f)["POSTROUTING"], 100, 0})
		}
		if t.Native == nil || t.Native.IsDormant() {
			continue
		}
		for _, c := range t.Chains {
			if b := c.Native.Base; b != nil && b.Type == "nat" && b.Hook == "postrouting" && r.owners.Of(t, c, nil).Name != owner.Unmasq {
				all = append(all, base{r.chains(t, f)[c.Name], b.Priority, t.Native.Handle})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b base) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), -cmp.Compare(a.handle, b.handle))
	})
	chains := make([]*chain, 0, len(all))
	for _, b := range all {
		chains = append(chains, b.chain)
	}
	return chains
}

// chains of a table, for packets of a family.
func (r *reader) chains(t *ruleset.Table, f packet.Family) map[string]*chain {
	all := make(map[string]*chain, len(t.Chains))
	for _, c := range t.Chains {
		if all[c.Name] == nil {
			all[c.Name] = &chain{name: c.Name}
		}
	}
	for _, c := range t.Chains {
		into := all[c.Name]
		for i := range c.Rules {
			rule := &c.Rules[i]
			ref := Ref{Table: t, Chain: c, Rule: rule, Owner: r.owners.Of(t, c, rule).Name}
			for _, s := range r.stepsOf(f, t, rule, all) {
				s.settleIn(f, r.networks)
				if s.refs = []Ref{ref}; s.act == setMark {
					r.given |= s.mark.Value
				}
				if n := len(into.steps); n == 0 || !into.steps[n-1].join(&s) {
					into.steps = append(into.steps, s)
				}
			}
		}
	}
	return all
}

// stepsOf a rule: one of iptables is one step, one of nftables one for each verdict
// that it may come to.
func (r *reader) stepsOf(f packet.Family, t *ruleset.Table, rule *ruleset.Rule, all map[string]*chain) []step {
	if rule.Native != nil {
		return r.native(f, t.Native, rule.Native, all)
	}
	s := r.iptables(f, rule)
	if to, ok := rule.Target.(ruleset.Jump); ok {
		s.to(to.Chain, all)
	}
	return []step{s}
}

// to is where a jump leads.
func (s *step) to(name string, all map[string]*chain) {
	if s.chain = all[name]; s.chain == nil {
		s.unsaid = append(s.unsaid, "chain "+name+", which the dump doesn't have")
	}
}
