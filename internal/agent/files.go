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
// several steps. Where something is never quiet, they are read after patience.
const (
	settle   = 100 * time.Millisecond
	patience = time.Second
	// lookAgain is how often documents are read that nobody tells about.
	lookAgain = 5 * time.Second
)

// watchFiles calls changed when documents may have changed. Directories are
// watched, not files: editors and ConfigMap mounts replace files and symbolic
// links rather than write them. Those above them are too, since they may be
// removed and made again. The error says why it calls changed every few seconds
// until they are watched: a user has 128 inotify instances on most machines, and
// on nodes others of root's may hold them all.
func watchFiles(ctx context.Context, paths []string, changed func()) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		go look(ctx, paths, changed)
		return fmt.Errorf("watch files: %w", err)
	}
	go follow(ctx, w, paths, watch(w, paths), changed)
	return nil
}

// look now and then, until they can be followed.
func look(ctx context.Context, paths []string, changed func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lookAgain):
		}
		w, err := fsnotify.NewWatcher()
		if err == nil {
			now := watch(w, paths)
			changed()
			follow(ctx, w, paths, now, changed)
			return
		}
		changed()
	}
}

// follow calls changed after events at the places where documents are now.
func follow(ctx context.Context, w *fsnotify.Watcher, paths []string, now places, changed func()) {
	defer w.Close()
	quiet := time.NewTimer(time.Hour)
	quiet.Stop()
	var since time.Time // of the first event that changed wasn't called for
	event := func() {
		if since.IsZero() {
			since = time.Now()
		}
		if left := patience - time.Since(since); left > 0 {
			quiet.Reset(min(settle, left))
		}
	}
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-w.Events:
			if e.Op != fsnotify.Chmod && now.relevant(e.Name) {
				event()
			}
		case <-w.Errors: // an overflow: look again
			event()
		case <-quiet.C:
			since = time.Time{}
			now = watch(w, paths)
			changed()
		}
	}
}

// places are where a change can mean another document.
type places struct {
	// names are the paths given, what links lead to, and the directories above.
	names map[string]bool
	// dirs are directories of documents: whatever is in them counts.
	dirs map[string]bool
}

// relevant leaves out neighbours of a path: the agent's own log may be one. A
// ConfigMap's files are links by way of its ..data, which is exchanged.
func (p places) relevant(name string) bool {
	name = filepath.Clean(name)
	return p.names[name] || p.dirs[filepath.Dir(name)] || filepath.Base(name) == "..data"
}

func placesOf(paths []string) places {
	out := places{names: map[string]bool{}, dirs: map[string]bool{}}
	for _, path := range paths {
		out.add(filepath.Clean(path))
		if real, err := filepath.EvalSymlinks(path); err == nil {
			out.add(real)
		}
	}
	return out
}

func (p places) add(path string) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		p.dirs[path] = true
	}
	for ; !p.names[path]; path = filepath.Dir(path) {
		p.names[path] = true
	}
}

// watch follows all places that are there. Those that are not come into being
// in one that is.
func watch(w *fsnotify.Watcher, paths []string) places {
	p := placesOf(paths)
	for path := range p.names {
		_ = w.Add(filepath.Dir(path))
	}
	for dir := range p.dirs {
		_ = w.Add(dir)
	}
	return p
}
