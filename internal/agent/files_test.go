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

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
