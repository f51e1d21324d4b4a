package main

import (
	"context"
	"sync"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/test/kube"
)

// tableEvents tells when unmasq's table in a namespace was changed, by the kernel's
// own events.
type tableEvents struct {
	mu          sync.Mutex
	first, last time.Time // since reset
	err         error
}

func listen(ctx context.Context, h *kube.Host) (*tableEvents, error) {
	t := &tableEvents{}
	var w *nft.Watcher
	err := h.NS.Do(func() (err error) {
		w, err = nft.Listen(func(uint32) bool { return false })
		return err
	})
	if err != nil {
		return nil, err
	}
	go func() {
		err := w.Run(ctx, func(nft.Intrusion) { t.note(time.Now()) })
		t.mu.Lock()
		t.err = err
		t.mu.Unlock()
	}()
	return t, nil
}

func (t *tableEvents) note(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.first.IsZero() {
		t.first = at
	}
	t.last = at
}

func (t *tableEvents) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.first, t.last = time.Time{}, time.Time{}
}

// lastChange is the zero time where there was none.
func (t *tableEvents) lastChange() (time.Time, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.last, t.err
}

// quiet is how long no change comes when all of it is there.
const quiet = 250 * time.Millisecond

// settle waits until each table was changed since its reset, and then no more.
func settle(ctx context.Context, all ...*tableEvents) error {
	for {
		newest, missing := time.Time{}, false
		for _, t := range all {
			last, err := t.lastChange()
			if err != nil {
				return err
			}
			if missing = missing || last.IsZero(); last.After(newest) {
				newest = last
			}
		}
		if !missing && time.Since(newest) > quiet {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
