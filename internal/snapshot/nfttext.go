package snapshot

import (
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// nftText reads the structure of nft list ruleset.
type nftText struct {
	native *native
	b      *builder
	file   string
	number int

	depth int
	table *nftTable
	// chain being read, at depth 2: its name; base where it has a hook.
	chain   string
	inChain bool
	// managed: the comment above the next table says that iptables-nft wrote it.
	managed bool
}

// readText reads nft list ruleset, and add commands.
//
//	table inet filter { # handle 5
//		chain forward {
//			type filter hook forward priority filter + 10; policy drop;
//			ct state established accept
//		}
//	}
func (n *native) readText(b *builder, file, text string, line int) {
	r := nftText{native: n, b: b, file: file, number: line}
	for raw := range strings.SplitSeq(text, "\n") {
		r.line(strings.TrimSpace(raw))
		r.number++
	}
	if r.depth > 0 && r.table != nil {
		b.note(file, r.table.line, "table "+r.table.family+" "+r.table.name, "the table has no end: the dump was cut off")
	}
	b.host.NFTGiven = true
}

func (r *nftText) line(s string) {
	switch {
	case s == "" || isFence(s):
	case s[0] == '#':
		r.managed = strings.Contains(s, "managed by iptables")
	case startsTable(s):
		if r.depth > 0 {
			r.b.note(r.file, r.table.line, "table "+r.table.family+" "+r.table.name, "the table has no end: the dump was cut off")
		}
		r.depth, r.inChain = 0, false
		r.begin(s)
	case r.depth == 0:
		r.command(s)
	default:
		r.within(s)
	}
	if s != "" && !isFence(s) {
		r.depth = max(r.depth+braces(s), 0)
	}
	if r.depth < 2 {
		r.inChain = false
	}
}

// begin reads table [family] name {.
func (r *nftText) begin(s string) {
	f := strings.Fields(s)
	family, name := "ip", f[1]
	if isNFTFamily(f[1]) && len(f) > 2 && f[2] != "{" {
		family, name = f[1], f[2]
	}
	r.table = r.native.table(family, name, r.file, r.number)
	r.table.managed = r.table.managed || r.managed
	if _, handle, ok := strings.Cut(s, "# handle "); ok {
		r.table.handle, _ = strconv.ParseUint(strings.TrimSpace(handle), 10, 64)
	}
	r.managed = false
}

// within reads a line of a table.
func (r *nftText) within(s string) {
	if r.depth == 1 {
		if name, ok := strings.CutPrefix(s, "chain "); ok {
			r.inChain = true
			r.chain, _, _ = strings.Cut(name, " ")
			if _, inside, ok := strings.Cut(s, "{"); ok {
				r.inside(strings.TrimSpace(inside))
			}
		}
		return
	}
	if r.inChain && r.depth == 2 {
		r.inside(s)
	}
}

// inside reads a line of a chain: its hook, its policy, or a rule.
func (r *nftText) inside(s string) {
	switch {
	case s == "" || s == "}" || s[0] == '#' || strings.HasPrefix(s, "comment "), strings.HasPrefix(s, "flags "):
	case strings.HasPrefix(s, "type ") && strings.Contains(s, " hook "):
		r.hook(s)
	case strings.HasPrefix(s, "policy "):
		r.table.policyDrop = r.table.policyDrop || strings.HasPrefix(s, "policy drop")
	case strings.HasPrefix(s, "handle "):
	default:
		r.table.rules++
	}
}

// hook reads type nat hook postrouting priority srcnat; policy accept;
func (r *nftText) hook(s string) {
	f := strings.Fields(s)
	c := ruleset.NativeChain{Family: r.table.family, Table: r.table.name, Name: r.chain}
	for i := 0; i+1 < len(f); i++ {
		switch f[i] {
		case "type":
			c.Type = f[i+1]
		case "hook":
			c.Hook = strings.TrimRight(f[i+1], ";")
		}
	}
	_, rest, _ := strings.Cut(s, " priority ")
	text, rest, _ := strings.Cut(rest, ";")
	var ok bool
	if c.Priority, ok = nftPriority(c.Family, text); !ok {
		r.b.note(r.file, r.number, s[:min(len(s), 200)], "no priority of that name is known; taken as 0")
	}
	r.table.policyDrop = r.table.policyDrop || strings.Contains(rest, "policy drop")
	r.table.chains = append(r.table.chains, c)
}

// command reads add table, add chain, add rule.
func (r *nftText) command(s string) {
	f := words(s, 5)
	if len(f) < 3 || !isNFTCommand(s) {
		return
	}
	family, rest := "ip", f[2:]
	if isNFTFamily(f[2]) {
		family, rest = f[2], f[3:]
	}
	if len(rest) == 0 {
		return
	}
	r.table = r.native.table(family, strings.TrimRight(rest[0], ";{"), r.file, r.number)
	switch f[1] {
	case "rule":
		r.table.rules++
	case "chain":
		if _, inside, ok := strings.Cut(s, "{"); ok && len(rest) > 1 && strings.Contains(inside, " hook ") {
			r.chain = rest[1]
			r.hook(strings.TrimSpace(strings.TrimRight(inside, "} ")))
		}
	}
}
