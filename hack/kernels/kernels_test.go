package main

import (
	"slices"
	"strings"
	"testing"
)

func TestNewestIsLast(t *testing.T) {
	names := []string{
		"linux-image-6.12.9+deb12-cloud-amd64", "linux-image-6.12.117+deb12-cloud-amd64",
		"linux-image-6.12.22+bpo-cloud-amd64", "linux-image-6.12.100+deb12-cloud-amd64",
	}
	slices.SortFunc(names, compareVersions)
	if want := "linux-image-6.12.117+deb12-cloud-amd64"; names[len(names)-1] != want {
		t.Errorf("the newest of %q is not %s", names, want)
	}
}

func TestReport(t *testing.T) {
	const head = "### kernel ownership=false ipsec=true\n### start a/b\n=== RUN   TestOne\n"
	jobs := []Job{{Package: "a/b"}}
	tests := []struct {
		name, text string
		ok         bool
		cell       string
		shown      string // must be printed
		hidden     string // must not
	}{
		{
			"passed", head + "    x_test.go:1: checked: 3 packets\r\n    x_test.go:2: secret\n--- PASS: TestOne (0.1s)\n    --- PASS: TestOne/sub (0.1s)\nPASS\n### end a/b 7 ok\n### done\n",
			true, "2 passed (7 s)", "checked: 3 packets\n", "secret",
		},
		{
			"failed", head + "    x_test.go:2: why\n--- FAIL: TestOne (0.1s)\n=== RUN   TestTwo\n--- PASS: TestTwo (0.1s)\nFAIL\n### end a/b 7 exit status 1\n### done\n",
			false, "1 passed, 1 FAILED (7 s)", "x_test.go:2: why\n", "TestTwo",
		},
		{
			"skipped", head + "--- SKIP: TestOne (0.1s)\nPASS\n### end a/b 7 ok\n### done\n",
			false, "0 passed, 1 SKIPPED (7 s)", "--- SKIP: TestOne", "PASS",
		},
		{
			"crashed", head + "panic: at once\n### end a/b 7 exit status 2\n### done\n",
			false, "0 passed, CUT SHORT (7 s)", "panic: at once\n", "PASS",
		},
		{"nothing ran", "### kernel ownership=false\n### done\n", false, "not run", "ownership=false", "PASS"},
		{
			"the machine stopped", head + "--- PASS: TestOne (0.1s)\n",
			false, "1 passed, CUT SHORT (0 s)", "ownership=false", "PASS",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			r := newReport("6.1")
			r.read(strings.NewReader(tt.text), &out)
			if r.ok(jobs) != tt.ok || r.results["a/b"].String() != tt.cell {
				t.Errorf("ok %t, %q; want %t, %q", r.ok(jobs), r.results["a/b"], tt.ok, tt.cell)
			}
			if !strings.Contains(out.String(), tt.shown) || strings.Contains(out.String(), tt.hidden) {
				t.Errorf("want %q shown and %q not:\n%s", tt.shown, tt.hidden, &out)
			}
		})
	}
}

// The kernel reads an archive by offsets of four bytes.
func TestArchive(t *testing.T) {
	a := newArchive()
	a.node("/a/b", modeFile, 0, 0, []byte("12345"))
	a.node("/a/b", modeFile, 0, 0, []byte("another"))
	a.end()
	text := a.b.String()
	if len(text)%4 != 0 || strings.Count(text, "070701") != 3 || strings.Contains(text, "another") {
		t.Errorf("want a, a/b once, and the end: %q", text)
	}
	if at := strings.Index(text, "12345"); at%4 != 0 {
		t.Errorf("the file's data is at %d", at)
	}
}
