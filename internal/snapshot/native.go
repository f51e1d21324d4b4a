package snapshot

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// native gathers nftables tables, those of iptables-nft among them.
type native struct {
	tables []*nftTable
	byName map[[2]string]*nftTable
}

// nftTable is an nftables table, as far as its structure goes.
type nftTable struct {
	family, name string
	handle       uint64
	rules        int
	chains       []ruleset.NativeChain
	// policyDrop: a base chain drops what no rule accepts.
	policyDrop bool
	// managed: nft says that iptables-nft wrote it.
	managed bool
	file    string
	line    int
}

func (n *native) table(family, name, file string, line int) *nftTable {
	key := [2]string{family, name}
	if t := n.byName[key]; t != nil {
		return t
	}
	if n.byName == nil {
		n.byName = map[[2]string]*nftTable{}
	}
	t := &nftTable{family: family, name: name, file: file, line: line}
	n.byName[key] = t
	n.tables = append(n.tables, t)
	return t
}

// nftObject is one element of nft's list.
type nftObject struct {
	Table *struct {
		Family, Name string
		Handle       uint64
	}
	Chain *struct {
		Family, Table, Name, Type, Hook, Policy string
		Prio                                    json.RawMessage
	}
	Rule *struct{ Family, Table string }
}

// readJSON reads nft -j list ruleset.
//
//	{"nftables": [{"metainfo": {…}}, {"table": {"family": "ip", "name": "nat", "handle": 2}},
//	 {"chain": {"family": "ip", "table": "nat", "name": "POSTROUTING", "handle": 1, "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}},
//	 {"rule": {"family": "ip", "table": "nat", "chain": "POSTROUTING", "handle": 3, "expr": […]}}]}
func (n *native) readJSON(b *builder, file, text string, line int) {
	d := json.NewDecoder(strings.NewReader(text))
	before := 0
	at := func() int { // no element is long: this is the line of the next one's start, nearly
		return line + before
	}
	for range 2 { // { "nftables"
		if _, err := d.Token(); err != nil {
			b.note(file, line, "", "not a list of nftables objects")
			return
		}
	}
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		b.note(file, line, "", "not a list of nftables objects")
		return
	}
	offset := 0
	for d.More() {
		var o nftObject
		if err := d.Decode(&o); err != nil {
			b.note(file, at(), err.Error(), "not an object of nftables")
			return
		}
		next := int(d.InputOffset())
		before += strings.Count(text[offset:next], "\n")
		offset = next
		n.object(b, &o, file, at())
	}
	b.host.NFTGiven = true
}

func (n *native) object(b *builder, o *nftObject, file string, line int) {
	switch {
	case o.Table != nil:
		n.table(o.Table.Family, o.Table.Name, file, line).handle = o.Table.Handle
	case o.Rule != nil:
		n.table(o.Rule.Family, o.Rule.Table, file, line).rules++
	case o.Chain != nil && o.Chain.Hook != "":
		c := o.Chain
		t := n.table(c.Family, c.Table, file, line)
		text := strings.Trim(string(c.Prio), `"`)
		priority, ok := nftPriority(c.Family, text)
		if !ok {
			b.note(file, line, text, "no priority of that name is known; taken as 0")
		}
		t.policyDrop = t.policyDrop || c.Policy == "drop"
		t.chains = append(t.chains, ruleset.NativeChain{
			Family: c.Family, Table: c.Table, Name: c.Name, Type: c.Type, Hook: c.Hook, Priority: priority,
		})
	}
}

// priorities by name: nft(8), "Standard priority names".
var priorities = map[string]int{"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
var bridgePriorities = map[string]int{"dstnat": -300, "filter": -200, "out": 100, "srcnat": 300}

// nftPriority reads 100, srcnat, dstnat + 10, filter-5.
func nftPriority(family, text string) (int, bool) {
	text = strings.ReplaceAll(strings.TrimSpace(text), " ", "")
	if text == "" {
		return 0, false
	}
	end := 0
	for end < len(text) && text[end] >= 'a' && text[end] <= 'z' {
		end++
	}
	base := 0
	if name := text[:end]; name != "" {
		names := priorities
		if family == "bridge" {
			names = bridgePriorities
		}
		var ok bool
		if base, ok = names[name]; !ok {
			return 0, false
		}
		if text = text[end:]; text == "" {
			return base, true
		}
	}
	var n int
	if _, err := fmt.Sscanf(text, "%d", &n); err != nil {
		return 0, false
	}
	return base + n, true
}

// iptablesOwn says whether iptables-nft made the table: its names and base
// chains, each at its own hook and priority (iptables/nft.c, xtables_ipv4).
func (t *nftTable) iptablesOwn() bool {
	if t.family != "ip" && t.family != "ip6" || !isTable(t.name) {
		return false
	}
	if t.managed {
		return true
	}
	for _, c := range t.chains {
		if strings.ToLower(c.Name) != c.Hook || strings.ToUpper(c.Hook) != c.Name {
			return false
		}
		kind, priority := "filter", priorities[t.name]
		switch {
		case t.name == "nat":
			kind, priority = "nat", -100
			if c.Hook == "input" || c.Hook == "postrouting" {
				priority = 100
			}
		case t.name == "mangle" && c.Hook == "output":
			kind = "route"
		}
		if c.Type != kind || c.Priority != priority {
			return false
		}
	}
	return true
}

// finish lists the chains of native tables, and says of iptables-nft's own where
// their rules are missing.
func (n *native) finish(b *builder) {
	for _, t := range n.tables {
		if !t.iptablesOwn() {
			for _, c := range t.chains {
				c.Rules, c.Handle = t.rules, t.handle
				if t.policyDrop {
					c.Rules = max(c.Rules, 1) // a policy decides as a rule does
				}
				b.host.Rules.Native = append(b.host.Rules.Native, c)
			}
			continue
		}
		if t.rules == 0 && !t.policyDrop {
			continue
		}
		n.behindIPTables(b, t)
	}
	slices.SortStableFunc(b.host.Rules.Native, func(x, y ruleset.NativeChain) int {
		return cmp.Or(cmp.Compare(x.Family, y.Family), cmp.Compare(x.Table, y.Table))
	})
}

// behindIPTables: a table of iptables-nft's; its rules are in iptables-save.
func (n *native) behindIPTables(b *builder, t *nftTable) {
	family, program := packet.IPv4Family, "iptables-save"
	if t.family == "ip6" {
		family, program = packet.IPv6Family, "ip6tables-save"
	}
	given := slices.ContainsFunc(b.host.Rules.Tables, func(x *ruleset.Table) bool {
		return x.Family == family && x.Name == t.name && x.Variant != ruleset.Legacy
	})
	if given {
		return
	}
	why := fmt.Sprintf("table %s %s is written by iptables-nft; give %s too: nft doesn't show the parameters of its extensions", t.family, t.name, program)
	if b.host.IPTables[family] {
		why = fmt.Sprintf("table %s %s is written by iptables-nft, but %s doesn't have it: were they printed at one time, on one node?", t.family, t.name, program)
	}
	b.note(t.file, t.line, "", why)
	b.tables.unseen(family, ruleset.NFT, t.name, t.file)
	b.host.Rules.Tables = b.tables.all
}
