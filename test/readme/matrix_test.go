package readme_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/matrix"
)

const matrixReference = "docs/matrix.md"

// TestMatrixFieldsAreDocumented: each field of the JSON stands in the section of its
// type, in bold where it is never absent.
func TestMatrixFieldsAreDocumented(t *testing.T) {
	found := 0
	for _, x := range []struct {
		heading string
		types   []any
	}{
		{"## JSON", []any{matrix.Matrix{}}},
		{"### Row and column", []any{matrix.Row{}, matrix.Column{}, matrix.Target{}}},
		{"### Place", []any{matrix.Place{}}},
		{"### Cell", []any{matrix.Cell{}}},
		{"### Sight", []any{matrix.Sight{}, matrix.By{}}},
		{"## As a test", []any{matrix.Comparison{}, matrix.Difference{}}},
	} {
		text := section(t, matrixReference, x.heading)
		fields := jsonFields(x.types)
		found += len(fields)
		for name, always := range fields {
			bold := strings.Contains(text, "**`"+name+"`**")
			if !bold && !strings.Contains(text, "`"+name+"`") {
				t.Errorf("%s, %s: field %s isn't there", matrixReference, x.heading, name)
			}
			if !always && bold && name != "place" { // a row's is always there, a column's isn't
				t.Errorf("%s, %s: field %s may be absent", matrixReference, x.heading, name)
			}
		}
		for _, name := range firstColumn(text) {
			if _, ok := fields[name]; !ok {
				t.Errorf("%s, %s: %s is no field", matrixReference, x.heading, name)
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d fields found", found)
	}
}

// TestMatrixRolesAreDocumented: the table of rows and columns has each role.
func TestMatrixRolesAreDocumented(t *testing.T) {
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^\t\w+ +Role = "([^"]+)"`).FindAllStringSubmatch(read(t, "internal/matrix/types.go"), -1) {
		want = append(want, m[1])
	}
	got := firstColumn(section(t, matrixReference, "### Rows and columns"))
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) || len(want) < 15 {
		t.Errorf("package matrix has %v, %s %v", want, matrixReference, got)
	}
}

// TestMatrixFlagsAreDocumented: the table has the flags of --help.
func TestMatrixFlagsAreDocumented(t *testing.T) {
	text := section(t, matrixReference, "## Flags")
	long := regexp.MustCompile(`--[a-z][a-z-]+`)
	_, flags, _ := strings.Cut(helpOf(t, []string{"matrix"}), "\nFlags:\n")
	known := 0
	for line := range strings.Lines(flags) {
		flag := long.FindString(line)
		if flag == "" || flag == "--help" {
			continue
		}
		known++
		if !slices.ContainsFunc(firstColumn(text), func(word string) bool { return long.FindString(word) == flag }) {
			t.Errorf("%s doesn't have flag %s", matrixReference, flag)
		}
	}
	if known < 10 {
		t.Errorf("%d flags", known)
	}
}
