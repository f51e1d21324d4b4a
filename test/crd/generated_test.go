package crd

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What `make generate` writes is what stands in the repository.
func TestGeneratedFilesAreCurrent(t *testing.T) {
	dir := t.TempDir()
	generate := exec.Command("go", "tool", "-modfile=tools/go.mod", "controller-gen", "object", "crd", "paths=./api/...",
		"output:object:dir="+dir, "output:crd:dir="+dir)
	generate.Dir = root
	if out, err := generate.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", generate, err, out)
	}
	written, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(written) != 3 {
		t.Fatalf("controller-gen wrote %q: %v", written, err)
	}
	for _, file := range written {
		place := filepath.Join(root, "deploy", "crd", filepath.Base(file))
		if filepath.Ext(file) == ".go" {
			place = filepath.Join(root, "api", "v1alpha1", filepath.Base(file))
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(place); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s isn't what the types say (%v); run `make generate`", place, err)
		}
	}
}
