package nftables_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

var updateJSON = flag.Bool("update-json", false, "write what ReadJSON reads into testdata/json")

// jsonFiles of testdata/json: "in" is JSON, "out" the model and the problems.
func jsonFiles(t testing.TB) map[string]*txtar.Archive {
	t.Helper()
	names, err := filepath.Glob("testdata/json/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatalf("no files in testdata/json: %v", err)
	}
	files := map[string]*txtar.Archive{}
	for _, name := range names {
		if files[name], err = txtar.ParseFile(name); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestJSONGolden(t *testing.T) {
	for name, a := range jsonFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			got := describeModel(nftables.ReadJSON(string(a.Files[0].Data), 1))
			if *updateJSON {
				a.Files = []txtar.File{a.Files[0], {Name: "out", Data: []byte(got)}}
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(a.Files[1].Data), got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

// describeModel says all that was read, one thing a line.
func describeModel(rs *nftables.Ruleset, problems []nftables.Problem) string {
	var b strings.Builder
	for _, t := range rs.Tables {
		fmt.Fprintf(&b, "table %s %s%s\n", t.Family, t.Name, fieldsOf(*t, "Family", "Name", "Chains", "Sets", "Objects", "File"))
		for _, o := range t.Objects {
			fmt.Fprintf(&b, "  %s %s%s\n", o.Kind, o.Name, fieldsOf(o, "Kind", "Name"))
		}
		for _, s := range t.Sets {
			fmt.Fprintf(&b, "  set %s%s\n", s.Name, fieldsOf(*s, "Name", "Elements"))
			for _, e := range s.Elements {
				fmt.Fprintf(&b, "    %s\n", goText(reflect.ValueOf(e)))
			}
		}
		for _, c := range t.Chains {
			fmt.Fprintf(&b, "  chain %s%s\n", c.Name, fieldsOf(*c, "Name", "Rules", "Base"))
			if c.Base != nil {
				fmt.Fprintf(&b, "    base%s\n", fieldsOf(*c.Base))
			}
			for _, r := range c.Rules {
				fmt.Fprintf(&b, "    rule%s\n      %s\n", fieldsOf(*r, "Statements", "Text"), r.Text)
				for _, s := range r.Statements {
					fmt.Fprintf(&b, "        %s\n", goText(reflect.ValueOf(s)))
				}
			}
		}
	}
	for _, p := range problems {
		fmt.Fprintf(&b, "problem%s\n", fieldsOf(p))
	}
	return b.String()
}

// fieldsOf a struct that aren't zero, but for those named.
func fieldsOf(v any, but ...string) string {
	text := " "
	r := reflect.ValueOf(v)
	for i := range r.NumField() {
		f := r.Type().Field(i)
		if f.IsExported() && !r.Field(i).IsZero() && !strings.Contains(" "+strings.Join(but, " ")+" ", " "+f.Name+" ") {
			text += f.Name + "=" + goText(r.Field(i)) + " "
		}
	}
	return strings.TrimRight(text, " ")
}

func goText(v reflect.Value) string {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		return goText(v.Elem())
	case reflect.Struct:
		return v.Type().Name() + "{" + strings.TrimSpace(fieldsOf(v.Interface())) + "}"
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = goText(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	}
	return fmt.Sprint(v.Interface())
}

// TestJSONCoversModel: every statement and expression of the model is in a file
// of testdata/json.
func TestJSONCoversModel(t *testing.T) {
	all := ""
	for _, a := range jsonFiles(t) {
		all += describeModel(nftables.ReadJSON(string(a.Files[0].Data), 1))
	}
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for _, d := range file.Decls {
		f, is := d.(*ast.FuncDecl)
		if !is || f.Recv == nil || f.Name.Name != "statement" && f.Name.Name != "expr" {
			continue
		}
		name := f.Recv.List[0].Type.(*ast.Ident).Name
		count++
		if !strings.Contains(all, name+"{") {
			t.Errorf("no file has a %s", name)
		}
	}
	if count < 30 {
		t.Errorf("%d types are in types.go", count)
	}
}
