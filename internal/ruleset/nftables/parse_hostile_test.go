package nftables_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// hostile texts, of which a part is repeated for ever.
func hostile() map[string][2]string {
	const chain = "table ip t {\nchain c {\n"
	return map[string][2]string{
		"words":            {"", "a "},
		"lines":            {"", "a\n"},
		"quotes":           {"", `"`},
		"open quotes":      {"", "\"a\n"},
		"braces":           {"", "{"},
		"closing braces":   {"", "}"},
		"brackets":         {chain, "("},
		"hashes":           {"", "#"},
		"xt comments":      {chain, "# xt_a "},
		"backslashes":      {"", "\\"},
		"continued":        {chain, "\\\n"},
		"blanks":           {"", " "},
		"newlines":         {"", "\n"},
		"dollars":          {"define a = b\n", "$a "},
		"variables":        {"define a = b\n", "define a = $a$a\n"},
		"defines":          {"$", "define a = {\n"},
		"dots":             {chain + "ip saddr ", ". ip daddr "},
		"colons":           {chain, ":"},
		"hex":              {chain, "ff:"},
		"quoted lines":     {"", ">"},
		"carriage returns": {"", "\r"},
		"tables":           {"", "table ip t {\n"},
		"chains":           {"table ip t {\n", "chain c {\n"},
		"one line":         {chain, "accept "},
		"rules":            {chain, "accept\n"},
		"unknown rules":    {chain, "x { y\n"},
		"open sets":        {chain, "ip saddr { 1.1.1.1,\n"},
		"open elements":    {"table ip t {\nset s {\nelements = {", " 1.1.1.1,"},
		"bad elements":     {"table ip t {\nset s {\nelements = {", " { 1 ="},
		"operators":        {chain + "meta mark 1", " | 1"},
		"flags":            {chain + "tcp flags syn", ",syn"},
		"jhash":            {chain, "jhash "},
		"maps":             {chain + "ip saddr ", "map { 1 : 2 } "},
		"nested maps":      {chain + "ip saddr ", "map { ip saddr "},
		"inserts":          {"add table t\nadd chain t c\n", "insert rule t c accept\n"},
		"deletes":          {"add table t\n", "add chain t c\ndelete chain t c\n"},
		"elements":         {"add table t\nadd set t s { type mark ; }\n", "add element t s { 1 }\n"},
		"removed elements": {"add table t\nadd set t s { type mark ; }\n", "add element t s { 1 }\ndelete element t s { 2 }\n"},
		"warnings":         {"", "# Warning: table ip a is managed by iptables-nft\n"},
		"flushes":          {"", "add table t\nflush ruleset\n"},
		"objects":          {"table ip t {\n", "counter c {\n"},
	}
}

// TestTextHostile reads two megabytes of each. What isn't linear takes longer
// than a test may.
func TestTextHostile(t *testing.T) {
	for name, parts := range hostile() {
		t.Run(name, func(t *testing.T) {
			text := parts[0] + strings.Repeat(parts[1], (2<<20)/len(parts[1]))
			rs, problems := nftables.ReadText(text, 1)
			if len(problems) > 1001 {
				t.Errorf("%d problems", len(problems))
			}
			if len(rs.Tables) > 1 {
				t.Errorf("%d tables", len(rs.Tables))
			}
		})
	}
}

// TestTextCut: a listing that ends anywhere says so, and gives nothing that the
// whole one has not.
func TestTextCut(t *testing.T) {
	const listing = `table ip nat { # handle 4
	set s {
		type ipv4_addr
		elements = { 10.0.0.1, 10.0.0.2,
			     10.0.0.3 }
	}
	chain post { # handle 1
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr @s tcp dport { 80, 443 } counter packets 1 bytes 2 snat to 192.0.2.1:1024-2048 random comment "x y" # handle 5
		ip saddr 10.0.0.0/8 masquerade
	}
}
`
	body := strings.Index(listing, "{") + 1
	for end := body; end < len(strings.TrimSpace(listing)); end++ {
		rs, problems := nftables.ReadText(listing[:end], 1)
		if len(problems) == 0 || len(rs.Tables) != 1 || !rs.Tables[0].Excerpt {
			t.Fatalf("cut at %d, after %q: problems %v, tables %v", end, listing[max(0, end-30):end], problems, shown(rs, nil))
		}
		for _, c := range rs.Tables[0].Chains {
			for i, r := range c.Rules {
				whole := fmt.Sprint([]string{"snat", "masquerade"}[i])
				if !strings.HasSuffix(listing[:end], "\n") && i == len(c.Rules)-1 && !strings.Contains(showAny(r.Statements), "Unknown") && !strings.Contains(r.Text, whole) {
					t.Errorf("cut at %d: %q has nothing unknown", end, r.Text)
				}
			}
		}
	}
}
