package readme_test

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/cli"
	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/owner"
)

const reference = "docs/explain.md"

var update = flag.Bool("update", false, "write what examples print into the documents")

// example is a command of a console block with what a document says it prints.
type example struct{ document, command, output string }

// examples are the lines that begin with "$ ", up to the next such line. Those
// of root ("# ") change a host; they aren't run here.
func examples(t *testing.T) (all []example) {
	t.Helper()
	for _, name := range documents {
		for _, session := range blocks(read(t, name), "console") {
			for _, part := range strings.Split("\n"+session, "\n$ ")[1:] {
				command, output, _ := strings.Cut(part, "\n")
				all = append(all, example{name, command, strings.TrimSuffix(output, "\n")})
			}
		}
	}
	return all
}

// TestExamplesPrintWhatIsShown runs each example from the repository's root. A
// line "…" stands for any number of lines. With -update, the document gets what
// is printed now, as many lines as were shown.
func TestExamplesPrintWhatIsShown(t *testing.T) {
	all := examples(t)
	t.Chdir("../..")
	ran := map[string]int{}
	for _, e := range all {
		ran[e.document]++
		got, err := run(e.command)
		if err != nil {
			t.Errorf("%s: $ %s: %v", e.document, e.command, err)
			continue
		}
		if e.prints(got) {
			continue
		}
		if *update {
			e.rewrite(t, got)
			continue
		}
		t.Errorf("%s: $ %s\n-document +program\n%s", e.document, e.command, cmp.Diff(e.output+"\n", got))
	}
	if ran["README.md"] < 5 || ran[reference] < 2 {
		t.Errorf("examples found: %v", ran)
	}
}

const ellipsis = "…"

// prints says whether a program's output is what the document shows.
func (e example) prints(got string) bool {
	var pattern strings.Builder
	for line := range strings.SplitSeq(e.output, "\n") {
		if line == ellipsis {
			pattern.WriteString("(?:.*\n)*")
			continue
		}
		pattern.WriteString(regexp.QuoteMeta(line) + "\n")
	}
	return regexp.MustCompile("^" + pattern.String() + "$").MatchString(got)
}

// rewrite puts the output into the document, which is read from the repository's
// root. What stands between two ellipses is found by its first line's likeness.
func (e example) rewrite(t *testing.T, got string) {
	lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	parts := strings.Split("\n"+e.output+"\n", "\n"+ellipsis+"\n")
	for i, part := range parts {
		old := strings.Split(strings.Trim(part, "\n"), "\n")
		from := len(lines) - len(old)
		switch {
		case strings.Trim(part, "\n") == "":
			continue
		case len(parts) == 1:
			old = lines
			from = 0
		case i == 0:
			from = 0
		case i < len(parts)-1:
			from = likest(lines, old[0])
		}
		parts[i] = strings.Join(lines[max(from, 0):min(max(from, 0)+len(old), len(lines))], "\n")
	}
	output := strings.Trim(strings.Join(parts, "\n"+ellipsis+"\n"), "\n")
	text, err := os.ReadFile(e.document)
	if err != nil {
		t.Fatal(err)
	}
	before := "$ " + e.command + "\n"
	changed := strings.Replace(string(text), before+e.output+"\n", before+output+"\n", 1)
	if err := os.WriteFile(e.document, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
}

// likest is the index of the line that has the longest beginning in common.
func likest(lines []string, with string) int {
	best, most := 0, -1
	for i, line := range lines {
		n := 0
		for n < min(len(line), len(with)) && line[n] == with[n] {
			n++
		}
		if n > most {
			best, most = i, n
		}
	}
	return best
}

// run runs "unmasq …" or "cat FILE | unmasq …".
func run(command string) (string, error) {
	input := ""
	if file, rest, piped := strings.Cut(command, " | "); piped {
		name, ok := strings.CutPrefix(file, "cat ")
		text, err := os.ReadFile(name)
		if !ok || err != nil {
			return "", fmt.Errorf("before the pipe, expected cat FILE: %w", err)
		}
		input, command = string(text), rest
	}
	words := strings.Fields(command)
	if words[0] != "unmasq" {
		return "", fmt.Errorf("expected unmasq, found %s", words[0])
	}
	var out, errs bytes.Buffer
	cli.Main("test", words[1:], strings.NewReader(input), &out, &errs)
	return out.String() + errs.String(), nil
}

// section is what stands below a heading, up to the next heading of any level.
func section(t *testing.T, document, heading string) string {
	t.Helper()
	_, rest, ok := strings.Cut(read(t, document), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("%s has no heading %q", document, heading)
	}
	text, _, _ := strings.Cut(rest, "\n#")
	return text
}

// TestJSONFieldsAreDocumented: each field stands in the section of its type, in
// bold where it is never absent, and nothing else is said to be a field.
func TestJSONFieldsAreDocumented(t *testing.T) {
	found := 0
	for _, x := range []struct {
		heading string
		types   []any
	}{
		{"## JSON", []any{explain.Answer{}}},
		{"### flow", []any{explain.Flow{}}},
		{"### outcome", []any{explain.Outcome{}, explain.Dependency{}, explain.Encapsulated{}, explain.Next{}}},
		{"### decidedBy", []any{explain.Decider{}}},
		{"### step", []any{explain.Step{}}},
		{"### replay", []any{explain.Replay{}}},
		{"### fate", []any{explain.Fate{}}},
		{"### Ranges", []any{explain.Ranges{}, explain.Range{}}},
	} {
		text := section(t, reference, x.heading)
		fields := jsonFields(x.types)
		found += len(fields)
		for name, always := range fields {
			bold := strings.Contains(text, "**`"+name+"`**")
			switch {
			case !bold && !strings.Contains(text, "`"+name+"`"):
				t.Errorf("%s, %s: field %s isn't there", reference, x.heading, name)
			case bold != always:
				t.Errorf("%s, %s: field %s: bold %t, never absent %t", reference, x.heading, name, bold, always)
			}
		}
		for _, name := range firstColumn(text) {
			if _, ok := fields[name]; !ok {
				t.Errorf("%s, %s: %s is no field", reference, x.heading, name)
			}
		}
	}
	if found < 55 {
		t.Errorf("only %d fields found", found)
	}
}

// jsonFields are the names of the types' fields; true where never absent.
func jsonFields(types []any) map[string]bool {
	fields := map[string]bool{}
	for _, x := range types {
		for _, f := range reflect.VisibleFields(reflect.TypeOf(x)) {
			if name, option, _ := strings.Cut(f.Tag.Get("json"), ","); f.IsExported() {
				fields[name] = option == ""
			}
		}
	}
	return fields
}

var code = regexp.MustCompile("`([^`]+)`")

// firstColumn is what stands as code in the first column of a section's tables.
func firstColumn(text string) (all []string) {
	for line := range strings.SplitSeq(text, "\n") {
		if cell, ok := strings.CutPrefix(line, "| "); ok {
			cell, _, _ = strings.Cut(cell, " |")
			for _, m := range code.FindAllStringSubmatch(cell, -1) {
				all = append(all, m[1])
			}
		}
	}
	return all
}

// TestFlagsAreDocumented: the tables of flags have what --help has.
func TestFlagsAreDocumented(t *testing.T) {
	long := regexp.MustCompile(`--[a-z][a-z-]+`)
	for _, x := range []struct{ command, heading string }{{"explain", "## The question"}, {"snapshot", "## snapshot"}} {
		var want, got []string
		_, flags, _ := strings.Cut(helpOf(t, []string{x.command}), "\nFlags:\n")
		for line := range strings.Lines(flags) {
			if flag := long.FindString(line); flag != "" && flag != "--help" {
				want = append(want, flag)
			}
		}
		for _, word := range firstColumn(section(t, reference, x.heading)) {
			if flag := long.FindString(word); flag != "" && !slices.Contains(got, flag) {
				got = append(got, flag)
			}
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" || len(want) < 3 {
			t.Errorf("flags of unmasq %s, -program +%s\n%s", x.command, reference, diff)
		}
	}
}

// TestOwnersAreDocumented: the section's last paragraph is the list of owners.
func TestOwnersAreDocumented(t *testing.T) {
	text := section(t, reference, "### Owners")
	paragraphs := strings.Split(strings.TrimSpace(text), "\n\n")
	var got []string
	for _, m := range code.FindAllStringSubmatch(paragraphs[len(paragraphs)-1], -1) {
		got = append(got, m[1])
	}
	if diff := cmp.Diff(owner.Names(), got); diff != "" {
		t.Errorf("-owner.Names +%s\n%s", reference, diff)
	}
}

// TestSnapshotFilesAreDocumented: the table of files has each that a snapshot may have.
func TestSnapshotFilesAreDocumented(t *testing.T) {
	var want, got []string
	for _, m := range regexp.MustCompile(`(?m)^\tFile\w+ += "([^"]+)"`).FindAllStringSubmatch(read(t, "internal/snapshot/types.go"), -1) {
		want = append(want, m[1])
	}
	for _, word := range firstColumn(section(t, reference, "## snapshot")) {
		if strings.Contains(word, ".") {
			got = append(got, word)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(want) < 20 {
		t.Errorf("-package snapshot +%s\n%s", reference, diff)
	}
}

// TestExitStatuses of the table are those of the program.
func TestExitStatuses(t *testing.T) {
	rules := map[string]string{
		"0": "-A FORWARD -s 10.0.0.0/8 -j ACCEPT\n",
		"1": "-A FORWARD -s 10.0.0.0/8 -j HIDDEN\n", // what that chain does isn't known
		"2": "no rules\n",
	}
	text := section(t, reference, "## The question")
	for status, input := range rules {
		var out, errs bytes.Buffer
		got := cli.Main("test", strings.Fields("explain --snapshot - 10.0.0.1 192.0.2.1:80"), strings.NewReader(input), &out, &errs)
		if fmt.Sprint(got) != status || !strings.Contains(text, "\n| "+status+" | ") {
			t.Errorf("status %d, want %s: %s%s", got, status, out.String(), errs.String())
		}
	}
}

// TestDependenciesAreDocumented: each word that package sim names a dependency
// by stands in the table, but for what dice decide, which is none; and each word
// of the table occurs in the source.
func TestDependenciesAreDocumented(t *testing.T) {
	documented := firstColumn(section(t, reference, "## Depends on"))
	words, literals := dependencyWords(t)
	for _, word := range words {
		if slices.Contains([]string{"dice", "IPVS scheduler", "multipath route"}, word) {
			continue
		}
		if !slices.ContainsFunc(documented, func(d string) bool { return d == word || strings.HasSuffix(word, " ") && strings.HasPrefix(d, word) }) {
			t.Errorf("%q isn't in the table of %s", word, reference)
		}
	}
	for _, d := range documented {
		fixed := strings.TrimRight(d, "ABCDEFGHIJKLMNOPQRSTUVWXYZ ") // chain NAME
		switch {
		case fixed == "":
			fixed = d // IPVS
		case strings.HasPrefix(d, "order of "):
			fixed = "order of"
		}
		if !slices.ContainsFunc(literals, func(l string) bool { return strings.TrimSpace(l) == fixed || strings.HasPrefix(l, fixed+" ") }) {
			t.Errorf("%s: nothing depends on what it calls %q", reference, d)
		}
	}
	if len(words) < 20 {
		t.Errorf("only %d words found: %q", len(words), words)
	}
}

// dependencyWords are the literals that package sim gives the functions for what
// is missing, up to the first variable; and all literals of sim and explain.
func dependencyWords(t *testing.T) (words, literals []string) {
	t.Helper()
	place := map[string]int{"lacks": 0, "assume": 1, "choose": 1, "chooseText": 1}
	for _, dir := range []string{"sim", "explain"} {
		files, err := filepath.Glob("../../internal/" + dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if literal := leading(n); literal != "" {
					literals = append(literals, literal)
				}
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if method, ok := call.Fun.(*ast.SelectorExpr); ok {
					if i, ok := place[method.Sel.Name]; ok && i < len(call.Args) && leading(call.Args[i]) != "" {
						words = append(words, leading(call.Args[i]))
					}
				}
				return true
			})
		}
	}
	return words, literals
}

// leading is the literal that a string expression begins with, empty without.
func leading(n ast.Node) string {
	switch x := n.(type) {
	case *ast.BinaryExpr:
		return leading(x.X)
	case *ast.BasicLit:
		if text, err := strconv.Unquote(x.Value); err == nil && x.Kind == token.STRING {
			return text
		}
	}
	return ""
}

// TestFlagsOfREADME: a flag that README names by itself is one of a command's.
func TestFlagsOfREADME(t *testing.T) {
	var all strings.Builder
	for _, command := range []string{"agent", "apply", "status", "validate", "render", "clear", "explain", "snapshot", "doctor", "flows", "matrix", "takeover", "import", "export", "ip-masq-agent"} {
		all.WriteString(helpOf(t, []string{command}))
	}
	flags := regexp.MustCompile("`(--[a-z][a-z-]+)[^`]*`").FindAllStringSubmatch(read(t, "README.md"), -1)
	for _, m := range flags {
		if !regexp.MustCompile(`\s` + m[1] + `\s`).MatchString(all.String()) {
			t.Errorf("README.md: no command has flag %s", m[1])
		}
	}
	if len(flags) < 5 {
		t.Errorf("%d flags found", len(flags))
	}
}
