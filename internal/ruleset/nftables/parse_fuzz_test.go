package nftables_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// FuzzReadText: nothing panics or hangs, problems have lines of the text, and a
// rule's own text gives the same rule again.
func FuzzReadText(f *testing.F) {
	f.Add(corpus(f))
	files, err := filepath.Glob("testdata/text/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(txtar.Parse(data).Files[0].Data))
	}
	for line := range strings.Lines(corpus(f)) {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rs, problems := nftables.ReadText(text, 1)
		lines := strings.Count(text, "\n") + strings.Count(text, "\r") + 1
		for _, p := range problems {
			if p.Line < 1 || p.Line > lines || p.Why == "" {
				t.Errorf("%+v of %d lines", p, lines)
			}
		}
		for _, table := range rs.Tables {
			for _, c := range table.Chains {
				for i, r := range c.Rules {
					if r.Index != i+1 || r.Line < 1 || r.Line > lines {
						t.Errorf("rule %d of chain %s: index %d, line %d of %d", i+1, c.Name, r.Index, r.Line, lines)
					}
					if !strings.Contains(text, "#") { // nft tells 1:102 from 1:102# by what follows
						again(t, table.Family, r)
					}
				}
			}
		}
	})
}

// again reads a rule's text alone.
func again(t *testing.T, family string, r *nftables.Rule) {
	t.Helper()
	if strings.Contains(showAny(r.Statements), "Why:") { // which depends on what came before
		return
	}
	rs, _ := nftables.ReadText("table "+family+" t {\nchain c {\n"+r.Text+"\n}\n}\n", 1)
	if len(rs.Tables) != 1 || len(rs.Tables[0].Chains) != 1 || len(rs.Tables[0].Chains[0].Rules) != 1 {
		t.Errorf("%q is no rule by itself", r.Text)
		return
	}
	alone := rs.Tables[0].Chains[0].Rules[0]
	if !reflect.DeepEqual(alone.Statements, r.Statements) || alone.Comment != r.Comment {
		t.Errorf("%q: by itself\n%s, but\n%s", r.Text, showAny(alone.Statements), showAny(r.Statements))
	}
}
