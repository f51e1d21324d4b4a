package explain

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/conflict"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Warnings are about the nodes, whatever the question.
func (e *Explainer) Warnings() []string {
	all := []string{}
	for _, h := range e.hosts {
		for i, n := range h.Notes {
			if i == 3 {
				more := "1 more line wasn't understood"
				if len(h.Notes) > i+1 {
					more = fmt.Sprintf("%d more lines weren't understood", len(h.Notes)-i)
				}
				all = append(all, more)
				break
			}
			all = append(all, noteText(n))
		}
		all = append(all, unreadable(h)...)
		all = append(all, variants(h)...)
		all = append(all, dormant(h)...)
		all = append(all, orphans(h)...)
		all = append(all, ciliumWithout(h)...)
	}
	return all
}

// unreadable warns where rules or sets of the node are there, and a program that
// should have shown them failed.
func unreadable(h *snapshot.Host) []string {
	if h.Meta == nil {
		return nil
	}
	var all, denied []string
	for _, name := range [...]string{
		snapshot.FileIPTables, snapshot.FileIPTablesLegacy, snapshot.FileIP6Tables, snapshot.FileIP6TablesLegacy, snapshot.FileNFT, snapshot.FileIPSet,
	} {
		why := h.Meta.Missing[name]
		switch {
		case why == "" || strings.HasSuffix(why, snapshot.NotInstalled):
		case strings.HasPrefix(why, "permission denied"):
			denied = append(denied, name)
		default:
			all = append(all, name+" couldn't be taken: "+why)
		}
	}
	if denied != nil {
		all = append(all, "permission denied: rules and sets can't be read without CAP_NET_ADMIN; run unmasq as root (sudo). Missing: "+strings.Join(denied, ", "))
	}
	return all
}

func noteText(n snapshot.Note) string {
	place := n.File
	if n.Line > 0 {
		place = fmt.Sprintf("%s:%d", n.File, n.Line)
	}
	if n.Text == "" {
		return fmt.Sprintf("%s: %s", place, n.Why)
	}
	const most = 80
	text := strings.TrimSpace(n.Text)
	if r := []rune(text); len(r) > most {
		text = string(r[:most]) + "…"
	}
	return fmt.Sprintf("%s: %s: %s", place, n.Why, text)
}

// variants warns where both iptables variants hold NAT rules: which is asked
// first no dump tells.
func variants(h *snapshot.Host) []string {
	has := map[ruleset.Variant]bool{}
	for _, t := range h.Rules.Tables {
		for _, c := range t.Chains {
			if t.Name == "nat" && len(c.Rules) > 0 {
				has[variantOf(t)] = true
			}
		}
	}
	if has[ruleset.Legacy] && has[ruleset.NFT] {
		return []string{"both iptables-legacy and iptables-nft hold NAT rules; the kernel asks both, in an order that no dump tells"}
	}
	return nil
}

// variantOf a table: what iptables-nft wrote is its own also where only nft shows it.
func variantOf(t *ruleset.Table) ruleset.Variant {
	if t.Native != nil && t.Native.IPTables {
		return ruleset.NFT
	}
	return t.Variant
}

// dormant warns of tables that are switched off: they look as if they were in force.
func dormant(h *snapshot.Host) []string {
	var all []string
	for _, t := range h.Rules.Tables {
		if t.Native != nil && t.Native.IsDormant() {
			all = append(all, fmt.Sprintf("table %s %s is dormant: none of its chains is asked", t.Native.Family, t.Name))
		}
	}
	return all
}

// orphans warns of chains whose rules no packet comes to, in an excerpt: the
// built-in chain that jumps to them is missing, so that the answer is as if they
// weren't there.
func orphans(h *snapshot.Host) []string {
	var all []string
	for _, t := range h.Rules.Tables {
		if t.Native != nil {
			continue // nft has no such excerpts
		}
		builtIn, reached := 0, map[string]bool{}
		for _, c := range t.Chains {
			if isBuiltIn(c.Name) {
				builtIn++
			}
			for i := range c.Rules {
				if jump, ok := c.Rules[i].Target.(ruleset.Jump); ok {
					reached[jump.Chain] = true
				}
			}
		}
		for _, c := range t.Chains {
			if builtIn < 2 && !isBuiltIn(c.Name) && !reached[c.Name] && len(c.Rules) > 0 {
				all = append(all, fmt.Sprintf("no rule given jumps to chain %s of table %s, so its rules are not asked: give the whole table (iptables-save -t %[2]s)", c.Name, t.Name))
			}
		}
	}
	return all
}

// ciliumWithout warns where Cilium's NAT chain has no rule that masquerades: it then
// does so in eBPF, or not at all, which no dump of rules tells.
func ciliumWithout(h *snapshot.Host) []string {
	for _, t := range h.Rules.Tables {
		c := t.Chain("CILIUM_POST_nat")
		if c == nil || slices.ContainsFunc(c.Rules, func(r ruleset.Rule) bool { return r.Comment == conflict.CiliumMasquerade }) {
			continue
		}
		return []string{"Cilium's chains are here without its rule that masquerades: with enable-bpf-masquerade it translates in eBPF, which isn't followed (kubectl -n kube-system exec ds/cilium -- cilium-dbg status | grep Masquerading)"}
	}
	return nil
}

func isBuiltIn(chain string) bool {
	switch chain {
	case "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING":
		return true
	}
	return false
}
