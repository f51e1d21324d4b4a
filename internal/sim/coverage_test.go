package sim

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestEveryTypeHasACase: a match or target that package ruleset knows and that
// has no case here would panic on somebody's rules.
func TestEveryTypeHasACase(t *testing.T) {
	var source strings.Builder
	for _, file := range []string{"match.go", "chain.go"} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		source.Write(content)
	}
	n := 0
	for _, name := range modelTypes(t) {
		n++
		if !strings.Contains(source.String(), "ruleset."+name+":") && !strings.Contains(source.String(), "ruleset."+name+",") {
			t.Errorf("ruleset.%s has no case in match.go or chain.go", name)
		}
	}
	if n < 30 {
		t.Errorf("only %d types were found", n)
	}
}

// modelTypes are the types with a method match or target.
func modelTypes(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("../ruleset/*.go")
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
			if ok && method.Recv != nil && (method.Name.Name == "match" || method.Name.Name == "target") {
				names = append(names, method.Recv.List[0].Type.(*ast.Ident).Name)
			}
		}
	}
	return names
}
