package nftables_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// FuzzReadJSON reads anything: nothing is lost without a word, a second reading
// is the same, and everything has a text.
func FuzzReadJSON(f *testing.F) {
	for _, a := range jsonFiles(f) {
		f.Add(string(a.Files[0].Data))
	}
	f.Add(`{"nftables": [{"rule": {"family": "ip", "table": "t", "chain": "c", "expr": ["add @m { ip saddr : 1 }"]}}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		rs, problems := nftables.ReadJSON(text, 1)
		again, _ := nftables.ReadJSON(text, 1)
		if d := cmp.Diff(rs, again, cmpopts.IgnoreUnexported(nftables.Table{})); d != "" {
			t.Errorf("a second reading differs:\n%s", d)
		}
		lines := strings.Count(text, "\n") + 1
		for _, p := range problems {
			if p.Why == "" || len(p.Text) > 200 || p.Line < 1 || p.Line > lines {
				t.Errorf("problem %+v of %d lines", p, lines)
			}
		}
		rules := 0
		for _, table := range rs.Tables {
			for _, c := range table.Chains {
				rules += len(c.Rules)
				for i, r := range c.Rules {
					if r.Index != i+1 || r.Line < 1 || r.Line > lines || r.Text != nftables.RuleText(r) {
						t.Errorf("rule %+v", r)
					}
				}
			}
		}
		if n := strings.Count(text, `{`); rules > n {
			t.Errorf("%d rules of %d objects", rules, n)
		}
		if _, more := nftables.ReadJSON(text+"\n?", 1); strings.TrimSpace(text) != "" && len(problems) < 1000 && len(more) == 0 {
			t.Error("what is no JSON is no problem")
		}
	})
}
