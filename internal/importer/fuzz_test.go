package importer

import (
	"bytes"
	"path/filepath"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/policy"
)

// FuzzImport: whatever the text, no kind panics; an error comes without a result, and
// what is printed without one is a valid policy.
func FuzzImport(f *testing.F) {
	paths, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(paths) < 20 {
		f.Fatalf("%d seeds: %v", len(paths), err)
	}
	for _, path := range paths {
		a, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, part := range a.Files {
			if part.Name != "stdout" && part.Name != "stderr" {
				f.Add(part.Data, false)
				f.Add(part.Data, true)
			}
		}
	}
	opts := Options{VPCCIDRs: prefixes("10.0.0.0/16"), ServiceCIDRs: prefixes("10.96.0.0/16")}
	f.Fuzz(func(t *testing.T, data []byte, cluster bool) {
		files, opts := []File{{"fuzz", data}}, opts
		opts.Cluster = cluster
		_, _ = Recognise(files)
		for _, k := range Kinds() {
			result, err := Run(k, files, opts)
			if err != nil {
				if result != nil {
					t.Errorf("%s: an error and a result", k.Name)
				}
				continue
			}
			readPrinted(t, k, result)
		}
	})
}

// readPrinted reads what is printed, of documents that stand together.
func readPrinted(t *testing.T, k Kind, result *Result) {
	var text bytes.Buffer
	if err := result.WriteYAML(&text); err != nil {
		t.Errorf("%s: %v", k.Name, err)
	}
	on := 0
	for _, d := range result.Documents {
		if !d.Off {
			on++
		}
	}
	if on == 0 {
		return
	}
	opts := policy.Options{ServiceCIDRsKnown: true, ServicesKnown: true, PodsKnown: true, NodeLabels: map[string]string{}}
	loaded, err := policy.Load([]policy.Source{{Name: "printed.yaml", Content: text.Bytes()}}, opts)
	if err != nil || len(loaded.Documents) > on {
		t.Errorf("%s: printed %d documents: %v\n%s", k.Name, on, err, text.Bytes())
	}
}
