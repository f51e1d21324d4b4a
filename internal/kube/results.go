package kube

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/cni/results"
)

const (
	// lookForIt is how often it is looked for a directory that isn't there, lookAgain
	// how often one is read without being told to.
	lookForIt = 5 * time.Second
	lookAgain = 30 * time.Second
	// halfWritten is how soon a file is read again that made no sense.
	halfWritten = 100 * time.Millisecond
	// givenBack is how long a removed result outweighs the API, which tells the same
	// in moments. Where somebody cleans the directory up the API is right.
	givenBack = 2 * time.Minute
)

// foundResults are the network plugins' results as they were last read.
type foundResults struct {
	results []results.Result
	// missing says why they aren't known.
	missing string
	// released are the keys of results that were there, until when they count.
	released map[string]bool
}

// notLooked is why results are missing before the first look.
const notLooked = "not looked for yet"

// resultsReader remembers what was read before.
type resultsReader struct {
	dir      *results.Dir
	seen     map[string]bool
	released map[string]time.Time // until when
}

// followResults reads the results whenever they change, until the context ends.
func (w *Watch) followResults(ctx context.Context) {
	r := &resultsReader{dir: results.Open(w.opts.Results), seen: map[string]bool{}, released: map[string]time.Time{}}
	changed, add, stop := w.watchDirectory()
	defer stop()
	for {
		add() // it may have come, or come anew
		again := w.readResults(r, time.Now())
		if changed == nil {
			again = min(again, lookForIt)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-time.After(again):
		}
	}
}

// watchDirectory tells of changes; without inotify nothing does, and the results
// are read every few seconds.
func (w *Watch) watchDirectory() (changed <-chan struct{}, add, stop func()) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		w.opts.Log.Warn("could not watch the network plugins' results; reading them every few seconds", "error", err)
		return nil, func() {}, func() {}
	}
	token := make(chan struct{}, 1)
	go func() {
		for {
			select {
			case _, open := <-watcher.Events:
				if !open {
					return
				}
			case _, open := <-watcher.Errors: // lost events: look again
				if !open {
					return
				}
			}
			wake(token)
		}
	}()
	return token, func() { _ = watcher.Add(w.opts.Results) }, func() { watcher.Close() }
}

// readResults says when to read again at the latest.
func (w *Watch) readResults(r *resultsReader, now time.Time) time.Duration {
	read, err := r.dir.Read()
	for _, warning := range read.Warnings {
		w.opts.Log.Warn(warning)
	}
	found := foundResults{results: read.Results, missing: missing(w.opts.Results, err)}
	if err == nil {
		r.release(read.Results, now)
	}
	found.released = map[string]bool{}
	for key, until := range r.released {
		if now.After(until) {
			delete(r.released, key)
			continue
		}
		found.released[key] = true
	}
	w.mu.Lock()
	before := w.found
	same := before.missing == found.missing && equalResults(before.results, found.results) && maps.Equal(before.released, found.released)
	w.found = found
	w.mu.Unlock()
	if !same {
		if before.missing != found.missing && found.missing != "" {
			w.opts.Log.Warn("new pods' first packets may come before their labels are known", "because", found.missing)
		}
		wake(w.input)
	}
	switch {
	case read.Unread:
		return halfWritten
	case err != nil || len(found.released) > 0:
		return lookForIt
	}
	return lookAgain
}

// release notes the results that are gone.
func (r *resultsReader) release(now []results.Result, at time.Time) {
	keys := map[string]bool{}
	for _, result := range now {
		key := cluster.Key(result)
		keys[key] = true
		delete(r.released, key)
	}
	for key := range r.seen {
		if !keys[key] {
			r.released[key] = at.Add(givenBack)
		}
	}
	r.seen = keys
}

func missing(path string, err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, fs.ErrNotExist):
		return "no directory " + path + ": mount where the container runtime keeps network plugins' results"
	}
	return fmt.Sprintf("network plugins' results: %v", err)
}

// equalResults: a sandbox's result of a network never changes.
func equalResults(a, b []results.Result) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Sandbox != b[i].Sandbox || a[i].Network != b[i].Network || a[i].Interface != b[i].Interface || a[i].Added != b[i].Added {
			return false
		}
	}
	return true
}
