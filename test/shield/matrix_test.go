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
	// flowsPerPhase at least go into 6 cells: two families, three actions.
	flowsPerPhase = 6000
	// matrixRate of new connections a second.
	matrixRate = 30000
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
	w := newWorld(t)
	var groups []string
	phase := func(when string, expect expectation, fn func() error) {
		t.Helper()
		got, err := w.load(expect, matrixRate, flowsPerPhase, fn)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		got.check(t, when)
		groups = append(groups, fmt.Sprintf("%s %d", when, got.Seen))
		connections += int(got.Seen)
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

// TestLoad: what the matrix relies on. Without anybody's rules every source
// stays, and the expectations can tell right from wrong.
func TestLoad(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		name   string
		expect expectation
		// wrong are the actions whose connections must be counted as wrong: Keep's
		// look as the policy says without unmasq too.
		wrong []action
	}{
		{"untouched", untouched, nil}, {"byPolicy", byPolicy, []action{masquerade, snat}},
		{"byOthers", byOthers, []action{keep, masquerade, snat}},
	} {
		got, err := w.load(c.expect, matrixRate, flowsPerPhase, func() error { return nil })
		must(t, err)
		want := 0
		for _, checked := range got.checked {
			for _, a := range c.wrong {
				want += checked[a]
			}
		}
		if got.Seen == 0 || got.Wrong != uint64(want) {
			t.Errorf("%s: %d wrong of %d on an untouched node, want %d", c.name, got.Wrong, got.Seen, want)
		}
	}
}
