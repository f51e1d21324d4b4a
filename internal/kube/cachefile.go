package kube

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/unmasq/unmasq/internal/cluster"
)

// cachePause is how long changes are collected before the cache is written. After
// a kill the table may be younger than the cache; so the API is waited for first,
// for cacheWait.
const (
	cachePause = 2 * time.Second
	cacheWait  = 2 * time.Second
)

// cacheVersion is another where files of before can't be read.
const cacheVersion = 1

// cached is the file: the API's objects as they were last known. Network plugins'
// results aren't in it, since they are on the node.
type cached struct {
	Version int             `json:"version"`
	Node    string          `json:"node"`
	Objects cluster.Objects `json:"objects"`
	// Instead is what is in force in the place of policies that are refused, by their
	// names; nil: nothing is.
	Instead map[string]*cluster.Policy `json:"instead,omitempty"`
}

// inForce are the policies that were when the file was written.
func (c *cached) inForce() (out []cluster.Policy) {
	for _, p := range c.Objects.Policies {
		instead, refused := c.Instead[p.Name]
		switch {
		case !refused:
			out = append(out, p)
		case instead != nil:
			out = append(out, *instead)
		}
	}
	return out
}

// cacheFile is written when it would be another.
type cacheFile struct {
	path, node string
	log        *slog.Logger
	last       []byte
	failed     bool
}

func (c *cacheFile) write(objects *cluster.Objects, instead map[string]*cluster.Policy) {
	if c.path == "" || objects == nil {
		return
	}
	text, err := json.Marshal(cached{cacheVersion, c.node, *objects, instead})
	if err == nil && bytes.Equal(text, c.last) {
		return
	}
	if err == nil {
		err = Replace(c.path, text)
	}
	if err != nil && !c.failed {
		c.log.Warn("could not write the cache; a start without the API has none", "file", c.path, "error", err)
	}
	if c.failed = err != nil; !c.failed {
		c.last = text
	}
}

// Replace writes a file so that it is the old or the new one at any time. Other
// users can't read it: policies may not be everybody's to know.
func Replace(path string, text []byte) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(temporary(path)))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// readCache returns nil where there is none for this node.
func readCache(path, node string) (*cached, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c cached
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, fmt.Errorf("cache %s: %w", path, err)
	}
	if c.Version != cacheVersion || c.Node != node {
		return nil, fmt.Errorf("cache %s is of version %d and node %q, expected %d and %q", path, c.Version, c.Node, cacheVersion, node)
	}
	return &c, nil
}

// lastCache is the file as it is before this process writes it; nil: there is none.
// What was in force then is known from now on, whether the API answers or not.
func (w *Watch) lastCache() *cached {
	if w.opts.Cache == "" {
		return nil
	}
	c, err := readCache(w.opts.Cache, w.opts.NodeName)
	if err != nil {
		w.opts.Log.Warn("the cache can't be used", "error", err)
	}
	if c == nil {
		return nil
	}
	if c.Objects.ServicesKnown {
		w.services.remember(c.Objects.Services)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.before = c.inForce()
	if w.instead == nil { // until it is told
		w.instead = c.Instead
	}
	return c
}

// Forget removes a cache, and what a killed agent left beside it: what it says is of
// a time before. "" is none.
func Forget(path string) error {
	if path == "" {
		return nil
	}
	files, err := filepath.Glob(temporary(path) + "*")
	for _, file := range append(files, path) {
		if e := os.Remove(file); !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// temporary is how the names of files begin that become the cache.
func temporary(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"-")
}

// useCache until the API's objects are complete.
func (w *Watch) useCache(c *cached) {
	if c == nil {
		return
	}
	w.mu.Lock()
	w.cached = &c.Objects
	w.mu.Unlock()
	w.opts.Log.Info("using the cluster as it was last known until the API answers", "file", w.opts.Cache, "policies", len(c.Objects.Policies), "pods", len(c.Objects.Pods))
}

// Refused says which policies are, by their names, and what is in force in the
// place of each; nil: nothing is. It is kept for the next start.
func (w *Watch) Refused(instead map[string]*cluster.Policy) {
	w.mu.Lock()
	w.instead = instead
	w.mu.Unlock()
	wake(w.refused)
}

func (w *Watch) insteadOf() map[string]*cluster.Policy {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.instead
}
