package nftables_test

import (
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// TestJSONCutAnywhere: a file that ends anywhere says so, and never reads as
// whole.
func TestJSONCutAnywhere(t *testing.T) {
	for name, a := range jsonFiles(t) {
		if strings.Contains(name, "parts") || strings.Contains(name, "cut") {
			continue // of several documents: one may end where it's cut
		}
		text := strings.TrimSpace(string(a.Files[0].Data))
		for n := 1; n < len(text); n++ {
			rs, problems := nftables.ReadJSON(text[:n], 1)
			if len(problems) == 0 {
				t.Fatalf("%s cut at %d: no problem", name, n)
			}
			last := problems[len(problems)-1]
			if !strings.Contains(last.Why, "cut off") || last.Line != strings.Count(strings.TrimRight(text[:n], " \n"), "\n")+1 {
				t.Fatalf("%s cut at %d: %+v", name, n, last)
			}
			if tables := rs.Tables; len(tables) > 0 && !tables[len(tables)-1].Excerpt {
				t.Fatalf("%s cut at %d: the table is no excerpt", name, n)
			}
		}
	}
}

// TestJSONHostile: what is huge or deep is bounded.
func TestJSONHostile(t *testing.T) {
	rule := func(expr string) string {
		return `{"nftables": [{"rule": {"family": "ip", "table": "t", "chain": "c", "expr": [` + expr + `]}}]}`
	}
	const many = 200_000
	for name, text := range map[string]string{
		"deep":     rule(strings.Repeat(`{"match": {"left": `, many)),
		"brackets": strings.Repeat("[", many),
		"operands": rule(`{"mangle": {"key": {"meta": {"key": "mark"}}, "value": {"|": [1` + strings.Repeat(",1", many) + `]}}}`),
		"elements": rule(`{"match": {"op": "==", "left": {"meta": {"key": "mark"}}, "right": {"set": [1` + strings.Repeat(",1", many) + `]}}}`),
		"keys":     rule(`{"set": {"op": "add", "set": "@s", "elem": {"elem": {"val": 1` + strings.Repeat(`,"counter": null`, many) + `}}}}`),
		"updates":  rule(`{"set": {"op": "add", "set": "@s", "elem": 1, "stmt": [{"counter": null}` + strings.Repeat(`,{"counter": null}`, many) + `]}}`),
		"flags":    rule(`{"log": {"flags": ["a"` + strings.Repeat(`,"a"`, many) + `]}}`),
		"problems": `{"nftables": [1` + strings.Repeat(",1", many) + `]}`,
		"strings":  rule(strings.Repeat(`"add @m { ip saddr : 0x1 }",`, many/100) + `1`),
		"text":     "what is this?",
		"nul":      "{\x00}",
	} {
		rs, problems := nftables.ReadJSON(text, 1)
		if len(problems) > 1000 {
			t.Errorf("%s: %d problems", name, len(problems))
		}
		unknown := len(problems) > 0
		for _, table := range rs.Tables {
			unknown = unknown || table.Excerpt
		}
		if !unknown {
			t.Errorf("%s: nothing is said", name)
		}
	}
}
