package policy

import (
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// FuzzParse: whatever the text, Load doesn't panic; an error comes without a
// result and names the source; without an error, every rule can decide.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*/*.txtar")
	if err != nil || len(files) < 45 {
		f.Fatalf("%d seeds: %v", len(files), err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range a.Files {
			if part.Name != "want" && part.Name != "node-labels" {
				f.Add(part.Data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		loaded, err := Load([]Source{{Name: "fuzz.yaml", Content: content}}, Options{NodeLabels: map[string]string{"zone": "a"}})
		if err != nil {
			if loaded != nil {
				t.Error("an error and a result")
			}
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "fuzz.yaml:") {
					t.Errorf("not a place and one line: %q in %q", line, err)
				}
			}
			return
		}
		for i := range loaded.Policy.Rules {
			r := &loaded.Policy.Rules[i]
			if r.Number != i+1 || r.Document == "" || r.Name == "" {
				t.Errorf("rule %d is %+v", i, r)
			}
			if from, to := Describe(r); from == "" || to == "" || len(from) > mostDescribed || len(to) > mostDescribed {
				t.Errorf("described as %q, %q", from, to)
			}
		}
		Warnings(&loaded.Policy, testFacts(), loaded.Stated)
		for _, flow := range []string{"tcp 10.244.1.7:1 192.0.2.1:443", "icmpv6 fd00:244::7 2001:db8::1"} {
			Decide(&loaded.Policy, testFacts(), flowOf(t, flow))
		}
	})
}
