package owner_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/iptables"
)

// Whatever the rules are, every answer has a name of the list, an unknown owner
// has no setting, and a second look says the same.
func FuzzOwners(f *testing.F) {
	files, err := txtarFiles()
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range a.Files {
			if part.Name != "want" && part.Name != "native" {
				f.Add(string(part.Data), part.Name == "listing")
			}
		}
	}
	f.Fuzz(func(t *testing.T, text string, listing bool) {
		reader := iptables.ReadSave
		if listing {
			reader = iptables.ReadList
		}
		tables, _ := reader(text, iptables.Options{FirstLine: 1})
		rules := &ruleset.Ruleset{Tables: tables}
		first, second := owner.New(rules, nil), owner.New(rules, nil)
		for _, table := range tables {
			for _, c := range table.Chains {
				check(t, first.Of(table, c, nil), second.Of(table, c, nil), c.Name)
				for i := range c.Rules {
					r := &c.Rules[i]
					check(t, first.Of(table, c, r), second.Of(table, c, r), r.Text)
				}
			}
		}
	})
}

func check(t *testing.T, a, b owner.Owner, text string) {
	t.Helper()
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("%s: two answers:\n%s", text, diff)
	}
	if !slices.Contains(owner.Names(), a.Name) {
		t.Errorf("%s: %q is no name of the list", text, a.Name)
	}
	if a.Name == owner.Unknown && (a.Setting != "" || a.Because != "" || a.Trap != "") {
		t.Errorf("%s: an unknown owner has neither setting nor reason: %+v", text, a)
	}
	if strings.Contains(strings.Join(a.Change, ""), "\n\n") {
		t.Errorf("%s: change is no line: %q", text, a.Change)
	}
}
