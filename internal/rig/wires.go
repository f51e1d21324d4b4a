package rig

import (
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/wires"
)

// What package wires is for tests too.
type (
	Wire  = wires.Wire
	Wires = wires.Set
	Fate  = wires.Fate
	Seen  = wires.Seen
)

// Open is [wires.Open] until the test ends.
func Open(t testing.TB, node *netns.NS, ends ...Wire) *Wires {
	t.Helper()
	w, err := wires.Open(node, netnstest.Test(t, "sentinel"), ends...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Close)
	return w
}
