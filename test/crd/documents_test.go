package crd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"golang.org/x/tools/txtar"
)

const root = "../.."

// document is one SourcePolicy, or what is meant to be one.
type document struct {
	name string
	text []byte
	// common: it has nothing that the API server is stricter about.
	common bool
}

// examples are the documents of the documentation, the lab and internal/policy's
// tests, as a cluster can have them: without spec.facts, and without those that
// state facts alone.
func examples(t *testing.T) []document {
	t.Helper()
	var out []document
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || path == "deploy/crd" || path == "deploy/chart"): // test/deploy has what the chart renders
			return fs.SkipDir
		case d.IsDir() || strings.Contains(path, "testdata/bad/"):
			return nil
		}
		content, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			return err
		}
		for i, text := range policyTexts(path, content) {
			out = append(out, split(fmt.Sprintf("%s#%d", path, i+1), text)...)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range out {
		out[i].text = withoutFacts(t, out[i].text)
	}
	out = slices.DeleteFunc(out, func(d document) bool { return d.text == nil })
	if len(out) < 15 {
		t.Errorf("only %d examples", len(out))
	}
	return out
}

var fenced = regexp.MustCompile("(?s)```yaml\n(.*?)```")

// policyTexts are the parts of a file that hold policies.
func policyTexts(path string, content []byte) [][]byte {
	var parts [][]byte
	switch filepath.Ext(path) {
	case ".yaml":
		parts = append(parts, content)
	case ".md":
		for _, m := range fenced.FindAllSubmatch(content, -1) {
			parts = append(parts, m[1])
		}
	case ".txtar":
		if strings.Contains(path, "policy/testdata/good/") {
			for _, f := range txtar.Parse(content).Files {
				if f.Name != "want" && f.Name != "node-labels" {
					parts = append(parts, f.Data)
				}
			}
		}
	}
	return slices.DeleteFunc(parts, func(part []byte) bool {
		return !regexp.MustCompile(`(?m)kind"?: "?SourcePolicy"?,?$`).Match(part) && !bytes.Contains(part, []byte("kind: SourcePolicy "))
	})
}

// split makes a document of each in a text; the rest of one that is no YAML is one.
func split(name string, text []byte) []document {
	var out []document
	for i, part := range regexp.MustCompile(`(?m)^---$`).Split(string(text), -1) {
		if strings.TrimSpace(part) != "" {
			out = append(out, document{name: fmt.Sprintf("%s/%d", name, i+1), text: []byte(part)})
		}
	}
	return out
}

// withoutFacts takes spec.facts and status out; nil where no rules are left.
func withoutFacts(t *testing.T, text []byte) []byte {
	t.Helper()
	object := map[string]any{}
	err := json.Unmarshal(text, &object) // JSON, whose escapes YAML doesn't know
	if err != nil {
		err = yaml.Unmarshal(text, &object)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	delete(object, "status")
	spec, _ := object["spec"].(map[string]any)
	delete(spec, "facts")
	if spec["rules"] == nil {
		return nil
	}
	out, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// bad are the documents that internal/policy's tests want refused, and those in
// testdata/bad here, which differ from good ones in one thing.
func bad(t *testing.T) []document {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "internal", "policy", "testdata", "bad", "*.txtar"))
	if err != nil || len(files) < 45 {
		t.Fatalf("%d files with bad documents: %v", len(files), err)
	}
	var out []document
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range archive.Files {
			if f.Name != "want" && f.Name != "node-labels" {
				out = append(out, split(filepath.Base(file)+"/"+f.Name, f.Data)...)
			}
		}
	}
	return out
}

// isYAML says that a text can be sent at all.
func isYAML(text []byte) bool {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var tree map[string]any
	if err := d.Decode(&tree); err != nil || tree == nil {
		return false
	}
	return errors.Is(d.Decode(&tree), io.EOF)
}
