package exporter_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/exporter"
	"github.com/unmasq/unmasq/internal/policy"
)

var update = flag.Bool("update", false, "write what comes out into testdata")

// anything that a cluster would say is taken for known.
var known = policy.Options{PodsKnown: true, ServicesKnown: true, ServiceCIDRsKnown: true, NodeLabels: map[string]string{}}

// TestExport: testdata/WHAT.txtar has a policy and, of each kind, what comes out and
// what is lost.
func TestExport(t *testing.T) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) == 0 {
		t.Fatalf("%d cases: %v", len(paths), err)
	}
	for _, path := range paths {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			loaded, err := policy.Load([]policy.Source{{Name: a.Files[0].Name, Content: a.Files[0].Data}}, known)
			if err != nil {
				t.Fatal(err)
			}
			got := &txtar.Archive{Comment: a.Comment, Files: a.Files[:1:1]}
			for _, k := range exporter.Kinds() {
				result := k.Export(loaded, exporter.Options{})
				var lost strings.Builder
				for _, l := range result.Losses {
					lost.WriteString(l.String() + "\n")
				}
				got.Files = append(got.Files, txtar.File{Name: k.Name, Data: result.Text}, txtar.File{Name: k.Name + " lost", Data: []byte(lost.String())})
			}
			if *update {
				if err := os.WriteFile(path, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(txtar.Format(a)), string(txtar.Format(got))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// FuzzExport: whatever the policy, no kind panics, and a text comes out.
func FuzzExport(f *testing.F) {
	paths, err := filepath.Glob("../policy/testdata/good/*")
	if err != nil || len(paths) == 0 {
		f.Fatalf("%d seeds: %v", len(paths), err)
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		loaded, err := policy.Load([]policy.Source{{Name: "fuzz", Content: text}}, known)
		if err != nil {
			return
		}
		for _, k := range exporter.Kinds() {
			if result := k.Export(loaded, exporter.Options{}); k.Name != "calico" && len(result.Text) == 0 {
				t.Errorf("%s: nothing comes out", k.Name)
			}
		}
	})
}
