package sim

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEveryTypeHasACase: a match or target that package ruleset knows and that
// has no case here would panic on somebody's rules.
func TestEveryTypeHasACase(t *testing.T) {
	for _, model := range []struct {
		dir, name string
		methods   []string
		files     []string
		least     int
	}{
		{"../ruleset", "ruleset", []string{"match", "target"}, []string{"match.go", "chain.go"}, 30},
		{"../ruleset/nftables", "nftables", []string{"statement"}, []string{"native.go"}, 12},
		{"../ruleset/nftables", "nftables", []string{"expr"}, []string{"subject.go", "nativematch.go"}, 20},
	} {
		var source strings.Builder
		for _, file := range model.files {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			source.Write(content)
		}
		names := modelTypes(t, model.dir, model.methods)
		for _, name := range names {
			if full := model.name + "." + name; !constantExpr[name] && !strings.Contains(source.String(), full+":") && !strings.Contains(source.String(), full+",") {
				t.Errorf("%s has no case in %v", full, model.files)
			}
		}
		if len(names) < model.least {
			t.Errorf("only %d types were found in %s", len(names), model.dir)
		}
	}
}

// constantExpr are values, which package nftables parses, and what nobody
// simulates: a raw payload is open.
var constantExpr = map[string]bool{
	"Literal": true, "Range": true, "Prefix": true, "List": true, "Any": true, "VerdictValue": true, "Concat": true, "RawPayload": true,
}

// modelTypes are the types of a package with one of the methods.
func modelTypes(t *testing.T, dir string, methods []string) []string {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			method, ok := d.(*ast.FuncDecl)
			if ok && method.Recv != nil && slices.Contains(methods, method.Name.Name) {
				if receiver, ok := method.Recv.List[0].Type.(*ast.Ident); ok {
					names = append(names, receiver.Name)
				}
			}
		}
	}
	return names
}
