package snapshot

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// native gathers nftables tables, those of iptables-nft among them.
type native struct {
	tables []*nftables.Table
	// chains are tables without rules, which tell the devices of base chains.
	chains []*nftables.Table
	// given are the tables' families and names.
	given map[[2]string]bool
	// part: something was lost of which the table isn't known.
	part bool
	// listed: the snapshot's own file was among the dumps, which holds all tables.
	listed bool
}

// readJSON reads nft -j list ruleset.
func (n *native) readJSON(b *builder, file, text string, line int) {
	rules, problems := nftables.ReadJSON(text, line)
	n.add(b, file, rules, problems)
}

// readText reads nft list ruleset, and add commands.
func (n *native) readText(b *builder, file, text string, line int) {
	if strings.Contains(text, "```") || strings.Contains(text, "~~~") {
		lines := strings.Split(text, "\n")
		for i, l := range lines {
			if isFence(strings.TrimSpace(l)) {
				lines[i] = ""
			}
		}
		text = strings.Join(lines, "\n")
	}
	rules, problems := nftables.ReadText(text, line)
	n.add(b, file, rules, problems)
}

func (n *native) add(b *builder, file string, rules *nftables.Ruleset, problems []nftables.Problem) {
	for _, p := range problems {
		b.note(file, p.Line, p.Text, p.Why)
	}
	if onlyChains(file) {
		n.chains = append(n.chains, rules.Tables...)
		return
	}
	for _, t := range rules.Tables {
		t.File = file
		if n.again(t) {
			b.note(file, t.Line, fmt.Sprintf("table %s %s", t.Family, t.Name), "the table was given before; this one isn't used")
			continue
		}
		n.tables = append(n.tables, t)
	}
	b.host.NFTGiven = true
	n.part = n.part || rules.Excerpt
	n.listed = n.listed || file == FileNFT || strings.HasSuffix(file, "/"+FileNFT)
}

// onlyChains says whether a file has tables without their rules.
func onlyChains(file string) bool { return path.Base(file) == FileNFTChains }

// whole says whether the dumps are a whole ruleset. Several tables come of nft
// list ruleset; one alone may have been asked for.
func (n *native) whole() bool {
	count := map[string]int{}
	several := false
	if n.part {
		return false
	}
	for _, t := range n.tables {
		if t.Excerpt {
			return false
		}
		count[t.File]++
		several = several || count[t.File] > 1
	}
	return n.listed || several
}

// again says whether the table was given before. Its twin, which says the same,
// is no news.
func (n *native) again(t *nftables.Table) bool {
	key := [2]string{t.Family, t.Name}
	if n.given[key] {
		return true
	}
	if n.given == nil {
		n.given = map[[2]string]bool{}
	}
	n.given[key] = true
	return false
}

// iptablesOwn says whether iptables-nft made the table: its names and base
// chains, each at its own hook and priority (iptables/nft.c, xtables_ipv4).
func iptablesOwn(t *nftables.Table) bool {
	if t.Family != "ip" && t.Family != "ip6" || !isTable(t.Name) {
		return false
	}
	if t.IPTables {
		return true
	}
	for _, c := range t.Chains {
		if c.Base != nil && !iptablesBase(t.Name, c) {
			return false
		}
	}
	return true
}

// priorities of iptables' tables but nat.
var priorities = map[string]int{"raw": -300, "mangle": -150, "filter": 0, "security": 50}

func iptablesBase(table string, c *nftables.Chain) bool {
	kind, priority := "filter", priorities[table]
	switch {
	case table == "nat":
		kind, priority = "nat", -100
		if c.Base.Hook == "input" || c.Base.Hook == "postrouting" {
			priority = 100
		}
	case table == "mangle" && c.Base.Hook == "output":
		kind = "route"
	}
	return strings.ToLower(c.Name) == c.Base.Hook && strings.ToUpper(c.Base.Hook) == c.Name && c.Base.Type == kind && c.Base.Priority == priority
}

// decides says whether the table can do anything to a packet.
func decides(t *nftables.Table) bool {
	return slices.ContainsFunc(t.Chains, func(c *nftables.Chain) bool {
		return len(c.Rules) > 0 || c.Base != nil && c.Base.Drop
	})
}

// finish adds the native tables to the host's, and those of iptables-nft that
// iptables-save should have shown.
func (n *native) finish(b *builder) {
	slices.SortStableFunc(n.tables, func(x, y *nftables.Table) int {
		return cmp.Or(cmp.Compare(x.Family, y.Family), cmp.Compare(x.Name, y.Name))
	})
	b.host.NFTWhole = n.whole()
	for _, t := range n.chains {
		n.addDevices(t)
	}
	for _, t := range n.tables {
		own := iptablesOwn(t)
		t.IPTables = own
		switch {
		case own && !decides(t), own && n.behindIPTables(b, t):
		default:
			b.tables.all = append(b.tables.all, ruleset.FromNative(t))
		}
	}
	b.host.Rules.Tables = b.tables.all
}

// addDevices gives base chains that are listed without devices those that
// another listing of their table has.
func (n *native) addDevices(from *nftables.Table) {
	for _, t := range n.tables {
		if t.Family != from.Family || t.Name != from.Name {
			continue
		}
		for _, c := range t.Chains {
			if other := from.Chain(c.Name); c.Base != nil && len(c.Base.Devices) == 0 && other != nil && other.Base != nil {
				c.Base.Devices = other.Base.Devices
			}
		}
	}
}

// notShown: iptables-save failed, or says that it can't show the table.
//
//	# Table `nat' is incompatible, use 'nft' tool.
func notShown(t *ruleset.Table) bool { return t.Unread || t.Excerpt && len(t.Chains) == 0 }

// behindIPTables says whether iptables-save shows the table. Where it doesn't,
// nft's listing stands in, without the parameters of iptables' extensions.
func (n *native) behindIPTables(b *builder, t *nftables.Table) bool {
	family, program := packet.IPv4Family, "iptables-save"
	if t.Family == "ip6" {
		family, program = packet.IPv6Family, "ip6tables-save"
	}
	if slices.ContainsFunc(b.host.Rules.Tables, func(x *ruleset.Table) bool {
		return x.Family == family && x.Name == t.Name && x.Variant != ruleset.Legacy && x.Native == nil && !notShown(x)
	}) {
		return true
	}
	b.tables.all = slices.DeleteFunc(b.tables.all, func(x *ruleset.Table) bool { // nft has what iptables-save couldn't print
		return notShown(x) && x.Native == nil && x.Family == family && x.Name == t.Name && x.Variant == ruleset.NFT
	})
	why := fmt.Sprintf("table %s %s is written by iptables-nft; give %s too: nft doesn't show the parameters of its extensions", t.Family, t.Name, program)
	if b.host.IPTables[family] {
		why = fmt.Sprintf("table %s %s is written by iptables-nft, but %s doesn't have it: were they printed at one time, on one node?", t.Family, t.Name, program)
	}
	b.note(t.File, t.Line, "", why)
	return false
}
