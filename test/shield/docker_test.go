package shield_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/dockerd"
	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
)

// dockerRounds in each variant; one is a start, a restart, a network that comes
// and goes, and a stop.
const dockerRounds = 20

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
	w := newWorld(t, "docker0")
	d := w.startDocker(t, v)
	w.attach(t)
	got, err := w.traffic.flows(byOthers, flowsPerPhase)
	must(t, err)
	got.check(t, "docker without unmasq")
	w.startAgent(t, binary)

	checked, lost := 0, 0
	start := time.Now()
	for round := range dockerRounds {
		must(t, w.forget()) // the next flows find room in the table
		got, err := w.traffic.while(byPolicy, flowsPerPhase, func() error { return dockerRound(t.Context(), d, round) })
		if err != nil {
			t.Fatalf("round %d: %v", round+1, err)
		}
		got.check(t, fmt.Sprintf("round %d", round+1))
		checked, lost = checked+got.seen, lost+got.sent-got.seen
	}
	if !t.Failed() {
		t.Logf("checked: docker daemon/%s: %d rounds of stop, start, restart, network create and remove: %d connections, 0 wrong sources, %d lost, %.0f new ones a second",
			v, dockerRounds, checked, lost, float64(checked)/time.Since(start).Seconds())
	}
	return checked
}

// startDocker starts the daemon with docker0 as the pods' bridge.
func (w *world) startDocker(t *testing.T, v foreign.Variant) *dockerd.Daemon {
	t.Helper()
	d, err := dockerd.Start(t.Context(), w.node, dockerd.Options{
		Variant: v,
		Bridge:  addressesOf(packet.IPv4Family).bridge,
		IPv6:    addressesOf(packet.IPv6Family).local,
	})
	must(t, err)
	t.Cleanup(func() {
		if err := d.Stop(); err != nil {
			t.Error(err)
		}
	})
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
