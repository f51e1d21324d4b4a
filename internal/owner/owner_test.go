package owner_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/iptables"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

var update = flag.Bool("update", false, "write the owners that are found into testdata")

// Each file of testdata is named for an owner. Its parts:
//
//	rules…      what the component writes, as iptables-save prints it
//	rules6      the same of ip6tables-save
//	listing     the same as iptables -L prints it
//	native      base chains of native tables, a line each: family table chain
//	nft…        what the component writes, as nft list ruleset prints it
//	look-alikes what the component didn't write, though it may look so
//	want        the owner of each rule, part by part
func TestOwners(t *testing.T) {
	for _, file := range testFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a := archive(t, file)
			var got strings.Builder
			for _, part := range a.Files {
				if part.Name != "want" {
					fmt.Fprintf(&got, "# %s\n", part.Name)
					for _, f := range owners(t, part) {
						got.WriteString(f.String())
					}
				}
			}
			compare(t, file, a, got.String())
		})
	}
}

// Every name has a rule that it is the owner of, and one that looks alike.
func TestEveryNameHasCases(t *testing.T) {
	for _, name := range owner.Names() {
		if name == owner.Unknown {
			continue
		}
		a := archive(t, filepath.Join("testdata", name+".txtar"))
		own, alike := 0, 0
		for _, part := range a.Files {
			alikes := strings.HasPrefix(part.Name, "look-alikes")
			for _, f := range owners(t, part) {
				switch {
				case !alikes && f.owner.Name == name:
					own++
				case !alikes:
				case f.owner.Name == name:
					t.Errorf("%s: look-alike is taken for %s: %s", name, name, f.text)
				case f.owner.Name == owner.Unknown:
					alike++
				}
			}
		}
		if own == 0 || alike == 0 {
			t.Errorf("testdata/%s.txtar: %d rules are %s's and %d look-alikes are unknown; want at least one of each", name, own, name, alike)
		}
	}
}

// Nobody is named who isn't in the list, and a person finds a way to change
// each rule that hides a source.
func TestAnswersAreWhole(t *testing.T) {
	for _, file := range testFiles(t) {
		for _, part := range archive(t, file).Files {
			for _, f := range owners(t, part) {
				o := f.owner
				if !slices.Contains(owner.Names(), o.Name) {
					t.Errorf("%s: %q is no name of the list: %s", file, o.Name, f.text)
				}
				if f.hides && len(o.Change) == 0 && o.Trap == "" && o.Because == "" {
					t.Errorf("%s: nothing is said of how to change %s", file, f.text)
				}
				if o.Name == owner.Unknown && (o.Setting != "" || o.Because != "") {
					t.Errorf("%s: an unknown owner has no setting: %s", file, f.text)
				}
			}
		}
	}
}

// found is a rule with its owner.
type found struct {
	text  string
	owner owner.Owner
	// hides: it translates sources.
	hides bool
}

func (f found) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", f.owner.Name, f.text)
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "    %s: %s\n", name, value)
		}
	}
	line("version", f.owner.Version)
	line("setting", f.owner.Setting)
	line("because", f.owner.Because)
	if f.owner.Name != owner.Unknown {
		for _, c := range f.owner.Change {
			line("change", c)
		}
	}
	line("trap", f.owner.Trap)
	return b.String()
}

func owners(t *testing.T, part txtar.File) []found {
	t.Helper()
	text := string(part.Data)
	if part.Name == "want" {
		return nil
	}
	if part.Name == "native" {
		return natives(t, text)
	}
	if strings.HasPrefix(part.Name, "nft") || strings.HasSuffix(part.Name, " nft") {
		return nftRules(t, part.Name, text)
	}
	var all []found
	tables := read(t, part.Name, text)
	index := owner.New(&ruleset.Ruleset{Tables: tables}, nil)
	for _, table := range tables {
		for _, c := range table.Chains {
			if c.Policy == "DROP" {
				all = append(all, found{text: "policy of " + c.Name, owner: index.Of(table, c, nil)})
			}
			for i := range c.Rules {
				all = append(all, one(index.Of(table, c, &c.Rules[i]), &c.Rules[i]))
			}
		}
	}
	return all
}

func read(t *testing.T, part, text string) []*ruleset.Table {
	t.Helper()
	o := iptables.Options{File: part, FirstLine: 1, Family: packet.IPv4Family}
	if strings.HasPrefix(part, "rules6") {
		o.Family = packet.IPv6Family
	}
	reader := iptables.ReadSave
	if strings.HasPrefix(part, "listing") {
		reader = iptables.ReadList
	}
	tables, problems := reader(text, o)
	for _, p := range problems {
		t.Errorf("%s:%d: %s: %s", part, p.Line, p.Why, p.Text)
	}
	return tables
}

func one(o owner.Owner, r *ruleset.Rule) found {
	f := found{text: r.Text, owner: o}
	switch r.Target.(type) {
	case ruleset.Masquerade, ruleset.SNAT:
		f.hides = true
	}
	return f
}

func natives(t *testing.T, text string) []found {
	t.Helper()
	var all []found
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) != 3 {
			t.Fatalf("native chain %q: want family, table, chain", line)
		}
		c := &nftables.Chain{Name: w[2], Base: &nftables.Base{Type: "nat", Hook: "postrouting", Priority: 100}}
		t := ruleset.FromNative(&nftables.Table{Family: w[0], Name: w[1], Chains: []*nftables.Chain{c}})
		all = append(all, found{text: strings.TrimSpace(line), owner: owner.Of(t, t.Chains[0], nil)})
	}
	return all
}

// nftRules are the rules of a ruleset with their owners.
func nftRules(t *testing.T, part, text string) []found {
	t.Helper()
	read, problems := nftables.ReadText(text, 1)
	for _, p := range problems {
		t.Errorf("%s:%d: %s: %s", part, p.Line, p.Why, p.Text)
	}
	rules := &ruleset.Ruleset{}
	for _, table := range read.Tables {
		rules.Tables = append(rules.Tables, ruleset.FromNative(table))
	}
	index := owner.New(rules, nil)
	var all []found
	for _, table := range rules.Tables {
		for _, c := range table.Chains {
			for i := range c.Rules {
				f := found{text: c.Name + ": " + c.Rules[i].Text, owner: index.Of(table, c, &c.Rules[i])}
				for _, s := range c.Rules[i].Native.Statements {
					nat, ok := s.(nftables.NAT)
					f.hides = f.hides || ok && (nat.Kind == nftables.Masquerade || nat.Kind == nftables.SNAT)
				}
				all = append(all, f)
			}
		}
	}
	return all
}

func testFiles(t *testing.T) []string {
	t.Helper()
	files, err := txtarFiles()
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func txtarFiles() ([]string, error) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err == nil && len(files) == 0 {
		err = errors.New("testdata: no files")
	}
	return files, err
}

func archive(t *testing.T, file string) *txtar.Archive {
	t.Helper()
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func compare(t *testing.T, file string, a *txtar.Archive, got string) {
	t.Helper()
	i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == "want" })
	if i < 0 {
		a.Files = append(a.Files, txtar.File{Name: "want"})
		i = len(a.Files) - 1
	}
	if *update {
		a.Files[i].Data = []byte(got)
		if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(a.Files[i].Data), got); diff != "" {
		t.Errorf("owners (-want +got):\n%s", diff)
	}
}
