package agent

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long files must be quiet before they are read: editors write in
// several steps.
const settle = 100 * time.Millisecond

// watchFiles calls changed when documents may have changed. Directories are
// watched, not files: editors and ConfigMap mounts replace files and symbolic
// links rather than write them.
func watchFiles(ctx context.Context, paths []string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the configuration: %w", err)
	}
	add := func() {
		for _, dir := range watchedDirs(paths) {
			_ = w.Add(dir) // one that isn't there yet is added when its parent changes
		}
	}
	add()
	go func() {
		defer w.Close()
		quiet := time.NewTimer(time.Hour)
		quiet.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-w.Events:
				if e.Op != fsnotify.Chmod && relevant(paths, e.Name) {
					quiet.Reset(settle)
				}
			case <-w.Errors: // an overflow: look again
				quiet.Reset(settle)
			case <-quiet.C:
				add()
				changed()
			}
		}
	}()
	return nil
}

// relevant leaves out neighbours of a path: the agent's own log may be one. A
// ConfigMap's files are links by way of its ..data, which is exchanged.
func relevant(paths []string, name string) bool {
	name = filepath.Clean(name)
	if filepath.Base(name) == "..data" {
		return true
	}
	dir := filepath.Dir(name)
	for _, p := range paths {
		p = filepath.Clean(p)
		if name == p || dir == p || dir != filepath.Dir(p) {
			return true // in a directory of documents, behind a link, or a path itself
		}
	}
	return false
}

// watchedDirs are the directories in which a change can mean another document:
// each path's own, its parent's, and those that symbolic links lead to.
func watchedDirs(paths []string) []string {
	var out []string
	seen := map[string]bool{}
	add := func(dir string) {
		if !seen[dir] {
			seen[dir] = true
			out = append(out, dir)
		}
	}
	for _, p := range paths {
		add(filepath.Dir(filepath.Clean(p)))
		if info, err := os.Stat(p); err == nil && info.IsDir() {
			add(p)
		}
		if real, err := filepath.EvalSymlinks(p); err == nil {
			add(filepath.Dir(real))
		}
	}
	return out
}
