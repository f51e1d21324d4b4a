package readme_test

import (
	"os"
	"strings"
	"testing"
)

// TestDrawing: the drawing in docs/matrix.md is what its command draws.
func TestDrawing(t *testing.T) {
	const file, start = "docs/matrix.svg", "`unmasq matrix --snapshot "
	_, rest, _ := strings.Cut(read(t, "docs/matrix.md"), "](matrix.svg)")
	_, rest, _ = strings.Cut(rest, start)
	options, _, found := strings.Cut(rest, "`")
	if !found {
		t.Fatalf("no %s…` below the drawing", start)
	}
	t.Chdir("../..")
	want, err := run(start[1:] + options)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("%s isn't what %s%s draws", file, start[1:], options)
	}
}
