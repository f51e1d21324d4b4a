package shield_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/foreign"
)

const (
	// flowsPerPhase go into 6 cells: two families, three actions.
	flowsPerPhase = 6000
	// Rules come and go while connections are made, this long and this often at least.
	againFor    = time.Second
	againRounds = 5
)

// TestMatrix: {each component} × {legacy, nft} × {IPv4, IPv6} × {its rules there
// before unmasq, added after, added again and again while connections are
// made} × {Keep, Masquerade, SNAT}. Each subtest first shows that without
// unmasq the component does change the source. Components that speak nftables
// themselves meet kube-proxy's rules of the variant.
func TestMatrix(t *testing.T) {
	binary := build(t)
	total, cells := 0, 0
	for _, c := range foreign.Components() {
		for _, v := range foreign.Variants {
			t.Run(c.Name+"/"+string(v), func(t *testing.T) {
				n, k := shield(t, binary, c, v)
				total, cells = total+n, cells+k
			})
		}
	}
	if t.Failed() {
		return
	}
	t.Logf("checked: shield matrix: %d connections in %d cells, 0 wrong sources", total, cells)
}

// shield leads one component through all times of its rules. It returns how
// many connections were checked, in how many cells.
func shield(t *testing.T, binary string, c foreign.Component, v foreign.Variant) (connections, cells int) {
	bridge := "cni0"
	if c.Name == "docker" {
		bridge = "docker0"
	}
	w := newWorld(t, bridge)
	w.makeBridge(t)
	w.attach(t)
	var groups []string
	phase := func(when string, expect expectation, fn func() error) {
		t.Helper()
		got, err := w.traffic.while(expect, flowsPerPhase, fn)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		got.check(t, when)
		groups = append(groups, fmt.Sprintf("%s %d", when, got.seen))
		connections += got.seen
		cells += 2 * int(actions)
	}
	execute := func(steps foreign.Steps) {
		t.Helper()
		must(t, w.execute(t.Context(), steps, v))
	}
	nothing := func() error { return nil }

	execute(foreign.KubeProxy().Write)
	execute(c.Write)
	phase("without unmasq", byOthers, nothing)
	connections, cells, groups = 0, 0, nil
	w.startAgent(t, binary)
	phase("there before", byPolicy, nothing)
	execute(c.Remove)
	execute(c.Write)
	phase("added after", byPolicy, nothing)
	phase("again and again", byPolicy, func() error { return againAndAgain(t.Context(), w, c, v) })
	if t.Failed() {
		return connections, cells
	}
	t.Logf("checked: %s/%s, IPv4 and IPv6, Keep, Masquerade and SNAT: rules %s connections", c.Name, v, strings.Join(groups, ", "))
	return connections, cells
}

// againAndAgain restarts the component, and takes its rules away and writes
// them anew.
func againAndAgain(ctx context.Context, w *world, c foreign.Component, v foreign.Variant) error {
	for start, n := time.Now(), 0; n < againRounds || time.Since(start) < againFor; n++ {
		for _, steps := range []foreign.Steps{c.Restart, c.Remove, c.Write} {
			if err := w.execute(ctx, steps, v); err != nil {
				return err
			}
		}
	}
	return nil
}

// TestTraffic: what the matrix relies on. Without anybody's rules every source
// stays, and the expectations can tell right from wrong.
func TestTraffic(t *testing.T) {
	w := newWorld(t, "cni0")
	w.makeBridge(t)
	w.attach(t)
	got, err := w.traffic.flows(untouched, flowsPerPhase)
	must(t, err)
	got.check(t, "untouched")
	for _, c := range []struct {
		name   string
		expect expectation
		wrong  int
	}{
		// Keep's third looks as the policy says without unmasq too.
		{"byPolicy", byPolicy, flowsPerPhase * 2 / 3}, {"byOthers", byOthers, flowsPerPhase},
	} {
		got, err := w.traffic.flows(c.expect, flowsPerPhase)
		must(t, err)
		if got.wrong != c.wrong {
			t.Errorf("%s: %d wrong on an untouched node, want %d", c.name, got.wrong, c.wrong)
		}
	}
}
