package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Every way in which a document is replaced is noticed; neighbours are not.
func TestWatchFiles(t *testing.T) {
	write := func(t *testing.T, path string) {
		t.Helper()
		if err := os.WriteFile(path, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name   string
		config string // below the test's directory
		setUp  func(t *testing.T, dir string)
		change func(t *testing.T, dir string)
		want   bool
	}{
		{"a file is written", "p.yaml", func(t *testing.T, d string) { write(t, d+"/p.yaml") }, func(t *testing.T, d string) { write(t, d+"/p.yaml") }, true},
		{"a file appears", "p.yaml", func(*testing.T, string) {}, func(t *testing.T, d string) { write(t, d+"/p.yaml") }, true},
		{"a file is replaced by an editor", "p.yaml", func(t *testing.T, d string) { write(t, d+"/p.yaml"); write(t, d+"/.p.swp") },
			func(t *testing.T, d string) { must(t, os.Rename(d+"/.p.swp", d+"/p.yaml")) }, true},
		{"a neighbour of a file", "p.yaml", func(t *testing.T, d string) { write(t, d+"/p.yaml") }, func(t *testing.T, d string) { write(t, d+"/agent.log") }, false},
		{"a file in a directory", "policies", func(t *testing.T, d string) { must(t, os.Mkdir(d+"/policies", 0o755)) },
			func(t *testing.T, d string) { write(t, d+"/policies/new.yaml") }, true},
		{"a directory appears", "policies", func(*testing.T, string) {}, func(t *testing.T, d string) { must(t, os.Mkdir(d+"/policies", 0o755)) }, true},
		{"a directory appears late", "a/b/policies/p.yaml", func(*testing.T, string) {}, func(t *testing.T, d string) { must(t, os.MkdirAll(d+"/a/b/policies", 0o755)) }, true},
		{"something else appears above", "a/b/policies/p.yaml", func(t *testing.T, d string) { must(t, os.MkdirAll(d+"/a/b/policies", 0o755)) },
			func(t *testing.T, d string) { write(t, d+"/a/x") }, false},
		{"a ConfigMap's link is exchanged", "map", func(t *testing.T, d string) {
			must(t, os.MkdirAll(d+"/map/..1", 0o755))
			must(t, os.MkdirAll(d+"/map/..2", 0o755))
			write(t, d+"/map/..1/p.yaml")
			write(t, d+"/map/..2/p.yaml")
			must(t, os.Symlink("..1", d+"/map/..data"))
			must(t, os.Symlink("..data/p.yaml", d+"/map/p.yaml"))
		}, func(t *testing.T, d string) {
			must(t, os.Symlink("..2", d+"/map/..tmp"))
			must(t, os.Rename(d+"/map/..tmp", d+"/map/..data"))
		}, true},
		{"a ConfigMap's single file", "map/p.yaml", func(t *testing.T, d string) {
			must(t, os.MkdirAll(d+"/map/..1", 0o755))
			must(t, os.MkdirAll(d+"/map/..2", 0o755))
			write(t, d+"/map/..1/p.yaml")
			write(t, d+"/map/..2/p.yaml")
			must(t, os.Symlink("..1", d+"/map/..data"))
			must(t, os.Symlink("..data/p.yaml", d+"/map/p.yaml"))
		}, func(t *testing.T, d string) {
			must(t, os.Symlink("..2", d+"/map/..tmp"))
			must(t, os.Rename(d+"/map/..tmp", d+"/map/..data"))
		}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.setUp(t, dir)
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			changed := make(chan struct{}, 100)
			if err := watchFiles(ctx, []string{filepath.Join(dir, tt.config)}, func() { changed <- struct{}{} }); err != nil {
				t.Fatal(err)
			}
			tt.change(t, dir)
			patience := 5 * time.Second
			if !tt.want {
				patience = 3 * settle
			}
			select {
			case <-changed:
				if !tt.want {
					t.Error("it was taken for a change")
				}
			case <-time.After(patience):
				if tt.want {
					t.Error("it was not noticed")
				}
			}
		})
	}
}

// A directory that is removed and made again is followed further.
func TestWatchAfterRemoval(t *testing.T) {
	for _, tt := range []struct{ name, config, removed, file string }{
		{"a file's directory", "etc/p.yaml", "etc", "etc/p.yaml"},
		{"a directory of documents", "etc/um", "etc/um", "etc/um/p.yaml"},
		{"all above it", "a/b/c/p.yaml", "a", "a/b/c/p.yaml"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			changed := make(chan struct{}, 100)
			write := func() {
				t.Helper()
				file := filepath.Join(dir, tt.file)
				must(t, os.MkdirAll(filepath.Dir(file), 0o755))
				must(t, os.WriteFile(file, []byte("x"), 0o644))
			}
			noticed := func(what string) {
				t.Helper()
				select {
				case <-changed:
				case <-time.After(5 * time.Second):
					t.Fatalf("%s was not noticed", what)
				}
			}
			write()
			must(t, watchFiles(t.Context(), []string{filepath.Join(dir, tt.config)}, func() { changed <- struct{}{} }))
			must(t, os.RemoveAll(filepath.Join(dir, tt.removed)))
			noticed("the removal")
			write()
			noticed("the new directory")
			write()
			noticed("a change in it")
		})
	}
}

// A neighbour that is written all the time doesn't keep documents from being read.
func TestWatchBusyDirectory(t *testing.T) {
	dir := t.TempDir()
	changed := make(chan struct{}, 100)
	must(t, watchFiles(t.Context(), []string{dir}, func() { changed <- struct{}{} }))
	end := time.After(5 * time.Second)
	for {
		must(t, os.WriteFile(filepath.Join(dir, "log"), []byte("x"), 0o644))
		select {
		case <-changed:
			return
		case <-end:
			t.Fatal("nothing was read while the directory was busy")
		case <-time.After(settle / 5):
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
