package shield_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/unmasq/unmasq/internal/dockerd"
	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/rig"
)

// dockerRounds in each variant; one is a stop or a kill, a start, and a network
// that comes and goes.
const dockerRounds = 20

// dockerRate of new connections a second leaves the daemon some CPU.
const dockerRate = 20000

// TestDocker starts, restarts and stops the real docker daemon under load, and
// creates and removes networks.
func TestDocker(t *testing.T) {
	binary := build(t)
	total := 0
	for _, v := range foreign.Variants {
		t.Run(string(v), func(t *testing.T) { total += underDocker(t, binary, v) })
	}
	if !t.Failed() {
		t.Logf("checked: docker daemon: %d connections, 0 wrong sources", total)
	}
}

func underDocker(t *testing.T, binary string, v foreign.Variant) int {
	w := newWorld(t)
	d := w.startDocker(t, v)
	got, err := w.load(byOthers, dockerRate, flowsPerPhase, func() error { return nil })
	must(t, err)
	got.check(t, "docker without unmasq")
	// What a restart does to connections that are made meanwhile: docker's rule is
	// gone for a moment. Nothing is asserted of it.
	alone, err := w.load(byOthers, dockerRate, flowsPerPhase, func() error { return dockerRound(t.Context(), d, 0) })
	must(t, err)
	w.startAgent(t, binary)

	checked, lost := 0, 0
	phase := func(when string, fn func() error) {
		t.Helper()
		w.Forget(t) // the next connections find room in the table
		got, err := w.load(byPolicy, dockerRate, flowsPerPhase, fn)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		got.checkSources(t, when)
		// Docker cuts IPv6 from docker0 off for a moment when it starts, with or without unmasq.
		got.checkLoss(t, when, packet.IPv4Family)
		checked, lost = checked+int(got.Seen), lost+got.lost(packet.IPv6Family)
	}
	for round := range dockerRounds {
		phase(fmt.Sprintf("round %d", round+1), func() error { return dockerRound(t.Context(), d, round) })
	}
	phase("last stop", d.Stop)
	if !t.Failed() {
		t.Logf("checked: docker daemon/%s, %d times stopped, started, networks created and removed: %d connections, 0 wrong sources, "+
			"%d of IPv6 cut off by docker (one restart without unmasq: %d of %d left with another source than before, %d lost)",
			v, dockerRounds, checked, lost, alone.Wrong, alone.Seen, alone.lost(packet.IPv6Family))
	}
	return checked
}

// startDocker starts the daemon. The rig's link to the pods, which has docker's
// name, becomes a port of the bridge that docker makes.
func (w *world) startDocker(t *testing.T, v foreign.Variant) *dockerd.Daemon {
	t.Helper()
	const port = "veth-pods"
	w.Run(t, "", "ip", "link", "set", rig.Bridge, "down")
	w.Run(t, "", "ip", "addr", "flush", "dev", rig.Bridge)
	w.Run(t, "", "ip", "link", "set", rig.Bridge, "name", port)
	d, err := dockerd.Start(t.Context(), w.Node, dockerd.Options{Variant: v, Bridge: w.of[0].bridge, IPv6: w.of[1].local})
	must(t, err)
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
	must(t, w.Node.Enslave(port, rig.Bridge))
	return d
}

// dockerRound leads the daemon through what operators do with it. Every fourth
// time it is killed instead of stopped.
func dockerRound(ctx context.Context, d *dockerd.Daemon, round int) error {
	if round%4 == 3 {
		if err := d.Kill(); err != nil {
			return err
		}
	}
	if err := d.Restart(ctx); err != nil {
		return err
	}
	const name = "blue"
	if err := d.CreateNetwork(ctx, name, netip.MustParsePrefix("10.244.77.0/24"), netip.MustParsePrefix("fd00:10:244:77::/64")); err != nil {
		return err
	}
	return d.RemoveNetwork(ctx, name)
}
