package policyfile

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// files makes a directory of files, by name; a content of "-> X" is a symbolic link to X.
func files(t *testing.T, contents map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range contents {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, link := strings.CutPrefix(content, "-> "); link {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRead(t *testing.T) {
	for _, c := range []struct {
		name  string
		files map[string]string
		paths []string
		// want are lines "NAME CONTENT", or the error; DIR stands for the directory.
		want string
	}{
		{"a file, whatever its name", map[string]string{"policy.txt": "a"}, []string{"DIR/policy.txt"}, "DIR/policy.txt a\n"},
		{"a directory", map[string]string{"b.yml": "b", "a.json": "a", "c.yaml": "c", "README": "no", "d.yaml.bak": "no", ".hidden.yaml": "no", "sub/e.yaml": "no", "sub.yaml/f.yaml": "no"},
			[]string{"DIR"}, "DIR/a.json a\nDIR/b.yml b\nDIR/c.yaml c\n"},
		{"a mounted ConfigMap", map[string]string{"..2026_11_21/policy.yaml": "a", "..data": "-> ..2026_11_21", "policy.yaml": "-> ..data/policy.yaml"},
			[]string{"DIR"}, "DIR/policy.yaml a\n"},
		{"standard input and a file", map[string]string{"a.yaml": "a"}, []string{"-", "DIR/a.yaml"}, "stdin input\nDIR/a.yaml a\n"},
		{"nothing", nil, nil, ""},
		{"an empty directory", nil, []string{"DIR"}, "read policy directory DIR: no file in it ends in .yaml, .yml or .json"},
		{"absent", nil, []string{"DIR/a.yaml", "DIR/b.yaml"}, "read policy: stat DIR/a.yaml: no such file or directory\nread policy: stat DIR/b.yaml: no such file or directory"},
		{"a broken link", map[string]string{"a.yaml": "-> nowhere", "b.yaml": "b"}, []string{"DIR"}, "read policy: open DIR/a.yaml: no such file or directory"},
		{"a file that never ends", map[string]string{"a.yaml": "-> /dev/zero", "b.yaml": "b"}, []string{"DIR"}, "read policy directory: DIR/a.yaml is not a regular file"},
		{"twice", map[string]string{"a.yaml": "a"}, []string{"DIR/a.yaml", "DIR/./a.yaml"}, "DIR/./a.yaml is given twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := files(t, c.files)
			var paths []string
			for _, p := range c.paths {
				paths = append(paths, strings.Replace(p, "DIR", dir, 1))
			}
			sources, err := Read(paths, strings.NewReader("input"))
			got := ""
			if err != nil {
				got = err.Error()
				if sources != nil {
					t.Error("an error and sources")
				}
			}
			for _, s := range sources {
				got += s.Name + " " + string(s.Content) + "\n"
			}
			if diff := cmp.Diff(c.want, strings.ReplaceAll(got, dir, "DIR")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestStandardInputFails(t *testing.T) {
	broken := errors.New("broken pipe")
	if _, err := Read([]string{Stdin}, iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}
