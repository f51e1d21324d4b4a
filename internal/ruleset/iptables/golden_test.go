package iptables_test

import (
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/iptables"
)

var update = flag.Bool("update", false, "write what is read into testdata")

// golden compares got with the archive's file "want", or writes it there.
func golden(t *testing.T, path, got string) {
	t.Helper()
	archive := open(t, path)
	want := section(archive, "want")
	if got == want {
		return
	}
	if !*update {
		t.Errorf("%s (-want +got):\n%s", path, cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")))
		return
	}
	archive.Files = slices.DeleteFunc(archive.Files, func(f txtar.File) bool { return f.Name == "want" })
	archive.Files = append(archive.Files, txtar.File{Name: "want", Data: []byte(got)})
	if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, path string) *txtar.Archive {
	t.Helper()
	archive, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return archive
}

func section(a *txtar.Archive, name string) string {
	for _, f := range a.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s: no files, %v", pattern, err)
	}
	return paths
}

// isInput says whether the file of an archive is a dump, and which reader it is for.
func isInput(name string) (reader, bool) {
	switch {
	case strings.HasPrefix(name, "-L"), name == "list":
		return iptables.ReadList, true
	case strings.HasPrefix(name, "save"), name == "S":
		return iptables.ReadSave, true
	}
	return nil, false
}

var first = iptables.Options{FirstLine: 1}

// TestCases reads short texts as they stand in tickets.
func TestCases(t *testing.T) {
	for _, path := range glob(t, "testdata/cases/*.txtar") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			for _, f := range open(t, path).Files {
				if read, ok := isInput(f.Name); ok {
					golden(t, path, show(read(string(f.Data), first)))
				}
			}
		})
	}
}

// TestPrograms reads what the real programs print of one rule set with every
// match and target: all forms must make the same model, as far as they show it.
func TestPrograms(t *testing.T) {
	for _, path := range glob(t, "testdata/*.txtar") {
		t.Run(filepath.Base(path), func(t *testing.T) {
			archive := open(t, path)
			want, problems := iptables.ReadSave(section(archive, "save"), first)
			golden(t, path, show(want, problems))
			for _, f := range archive.Files {
				read, ok := isInput(f.Name)
				if !ok {
					continue
				}
				got, problems := read(string(f.Data), first)
				if len(problems) > 0 {
					t.Errorf("%s: %v", f.Name, problems)
				}
				if diff := cmp.Diff(alike(want, f.Name), alike(got, f.Name)); diff != "" {
					t.Errorf("%s (-save +this):\n%s", f.Name, diff)
				}
				if f.Name == "S" {
					// Without the commands in between, the tables must be found.
					got, problems := read(withoutComments(string(f.Data)), first)
					if diff := cmp.Diff(alike(want, f.Name), alike(got, f.Name)); diff != "" || len(problems) > 0 {
						t.Errorf("%s without comments %v (-save +this):\n%s", f.Name, problems, diff)
					}
				}
			}
		})
	}
}

func withoutComments(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// alike writes tables in one order, and leaves out what the form doesn't show:
// -L the text of matches as on the command line, and interfaces without -v.
func alike(tables []*ruleset.Table, form string) []string {
	list, verbose := strings.HasPrefix(form, "-L"), strings.Contains(form, "-v")
	var all []string
	for _, t := range tables {
		for _, c := range t.Chains {
			name := t.Family.String() + " " + t.Name + " " + c.Name + " " + c.Policy
			if t.Excerpt {
				name += " excerpt"
			}
			all = append(all, name)
			for _, r := range c.Rules {
				r.Packets, r.Bytes, r.Counted = 0, 0, false
				if list && !verbose {
					r.In, r.Out, r.NoInterfaces = ruleset.Interface{}, ruleset.Interface{}, false
				}
				if list {
					r.Matches, r.Target = withoutText(r.Matches), withoutTargetText(r.Target)
				}
				all = append(all, name+" "+showRule(r))
			}
		}
	}
	slices.Sort(all)
	return all
}

func withoutText(matches []ruleset.Match) []ruleset.Match {
	var all []ruleset.Match
	for _, m := range matches {
		switch x := m.(type) {
		case ruleset.Unknown:
			m = ruleset.Unknown{}
		case ruleset.Stateful:
			x.Text = ""
			m = x
		case ruleset.Always:
			x.Text = ""
			m = x
		}
		all = append(all, m)
	}
	return all
}

func withoutTargetText(target ruleset.Target) ruleset.Target {
	switch x := target.(type) {
	case ruleset.UnknownTarget:
		x.Text = ""
		return x
	case ruleset.Inert:
		x.Text = ""
		return x
	}
	return target
}

// TestLineEnds: files that went through other systems hold the same rules.
func TestLineEnds(t *testing.T) {
	text := section(open(t, "testdata/iptables-nft.txtar"), "save")
	want := show(iptables.ReadSave(text, first))
	for name, end := range map[string]string{"CR LF": "\r\n", "CR": "\r", "blanks": "  \n\t "} {
		got := show(iptables.ReadSave(strings.ReplaceAll(text, "\n", end), first))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-LF +this):\n%s", name, diff)
		}
	}
}

// TestEveryTypeHasACase fails when the model gets a match or a target that no
// file in testdata holds.
func TestEveryTypeHasACase(t *testing.T) {
	seen := map[string]bool{}
	for _, path := range append(glob(t, "testdata/*.txtar"), glob(t, "testdata/cases/*.txtar")...) {
		for _, f := range open(t, path).Files {
			read, ok := isInput(f.Name)
			if !ok {
				continue
			}
			tables, _ := read(string(f.Data), first)
			for _, table := range tables {
				for _, c := range table.Chains {
					for _, r := range c.Rules {
						for _, m := range r.Matches {
							seen[reflect.TypeOf(m).Name()] = true
						}
						if r.Target != nil {
							seen[reflect.TypeOf(r.Target).Name()] = true
						}
					}
				}
			}
		}
	}
	found := 0
	for _, file := range []string{"../matches.go", "../targets.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Recv == nil || f.Name.Name != "match" && f.Name.Name != "target" {
				continue
			}
			found++
			if name := f.Recv.List[0].Type.(*ast.Ident).Name; !seen[name] {
				t.Errorf("%s: no file in testdata holds a %s", file, name)
			}
		}
	}
	if found < 30 {
		t.Errorf("only %d types found", found)
	}
}

// TestCutOff: the last line of a file that ends too early may lack anything.
func TestCutOff(t *testing.T) {
	tables, problems := iptables.ReadSave("*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -s 10.0.0.0/8\n-A POSTROUTING -s 10.1.0", first)
	want := `IPv4 iptables nat excerpt
  POSTROUTING ACCEPT
    3: {Index:1 Source:Address{Prefix:10.0.0.0/8}}
    4: {Index:2 Matches:[Unknown{Name:"source" Text:"-s 10.1.0" Why:"address is blacked out"} Unknown{Name:"rule" Text:"-A POSTROUTING -s 10.1.0" Why:"the line may be cut off"}] Target:UnknownTarget{Text:"-A POSTROUTING -s 10.1.0" Why:"the line may be cut off"}}
line 1: the table ends without COMMIT: the dump was cut off: "*nat"
line 4: the line may be cut off: "-A POSTROUTING -s 10.1.0"
`
	if diff := cmp.Diff(want, show(tables, problems)); diff != "" {
		t.Error(diff)
	}
}
