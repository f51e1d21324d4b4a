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
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

var updateText = flag.Bool("update-text", false, "write what ReadText reads into testdata/text")

// TestTextGolden reads the files of testdata/text: "in" is nft's text, "out" the
// model and the problems.
func TestTextGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/text/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no files in testdata/text: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := string(a.Files[0].Data)
			got := shown(nftables.ReadText(in, 1))
			if *updateText {
				a.Files = []txtar.File{a.Files[0], {Name: "out", Data: []byte(got)}}
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want := string(a.Files[1].Data)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// shown is the model as text, one line a thing.
func shown(rs *nftables.Ruleset, problems []nftables.Problem) string {
	var out strings.Builder
	for _, t := range rs.Tables {
		fmt.Fprintf(&out, "table %s %s handle %d flags %v comment %q iptables %v excerpt %v line %d\n",
			t.Family, t.Name, t.Handle, t.Flags, t.Comment, t.IPTables, t.Excerpt, t.Line)
		for _, o := range t.Objects {
			fmt.Fprintf(&out, "  object %+v\n", o)
		}
		for _, s := range t.Sets {
			showSet(&out, s)
		}
		for _, c := range t.Chains {
			fmt.Fprintf(&out, "  chain %s handle %d base %+v comment %q\n", c.Name, c.Handle, c.Base, c.Comment)
			for _, r := range c.Rules {
				fmt.Fprintf(&out, "    %d %s (line %d, handle %d, comment %q)\n", r.Index, r.Text, r.Line, r.Handle, r.Comment)
				for _, s := range r.Statements {
					fmt.Fprintf(&out, "      %s\n", showAny(s))
				}
			}
		}
	}
	for _, p := range problems {
		fmt.Fprintf(&out, "problem: %+v\n", p)
	}
	return out.String()
}

func showSet(out *strings.Builder, s *nftables.Set) {
	fmt.Fprintf(out, "  set %s handle %d map %v type %v typeof %s data %v dataof %s flags %v comment %q timeout %q line %d\n",
		s.Name, s.Handle, s.Map, s.Type, showAny(s.TypeOf), s.DataType, showAny(s.DataTypeOf), s.Flags, s.Comment, s.Timeout, s.Line)
	for _, e := range s.Elements {
		fmt.Fprintf(out, "    %s\n", showAny(e))
	}
}

// showAny is %T%+v without the package's name.
func showAny(v any) string {
	r := reflect.ValueOf(v)
	switch {
	case !r.IsValid():
		return "-"
	case r.Kind() == reflect.Slice:
		var parts []string
		for i := range r.Len() {
			parts = append(parts, showAny(r.Index(i).Interface()))
		}
		return "[" + strings.Join(parts, " ") + "]"
	case r.Kind() != reflect.Struct:
		return fmt.Sprintf("%v", v)
	}
	var fields []string
	for i := range r.NumField() {
		if f := r.Field(i); !f.IsZero() {
			fields = append(fields, r.Type().Field(i).Name+":"+showAny(f.Interface()))
		}
	}
	return r.Type().Name() + "{" + strings.Join(fields, " ") + "}"
}

// TestTextCoversModel: every statement and expression that the model has is in
// a golden file.
func TestTextCoversModel(t *testing.T) {
	files, err := filepath.Glob("testdata/text/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		rs, _ := nftables.ReadText(string(a.Files[0].Data), 1)
		walkModel(reflect.ValueOf(rs.Tables), func(v reflect.Value) { seen[v.Type().Name()] = true })
	}
	names := modelTypes(t)
	if len(names) < 30 {
		t.Fatalf("only %v found in types.go", names)
	}
	for _, name := range names {
		if !seen[name] {
			t.Errorf("no golden file has a %s", name)
		}
	}
}

// modelTypes are the types of types.go that have a method statement or expr.
func modelTypes(t *testing.T) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Recv == nil || f.Name.Name != "statement" && f.Name.Name != "expr" {
			continue
		}
		names = append(names, f.Recv.List[0].Type.(*ast.Ident).Name)
	}
	slices.Sort(names)
	return names
}

// walkModel visits every struct that is in a model.
func walkModel(v reflect.Value, visit func(reflect.Value)) {
	switch v.Kind() {
	case reflect.Interface, reflect.Pointer:
		if !v.IsNil() {
			walkModel(v.Elem(), visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			walkModel(v.Index(i), visit)
		}
	case reflect.Struct:
		visit(v)
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				walkModel(v.Field(i), visit)
			}
		}
	}
}
