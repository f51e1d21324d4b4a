package shield_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/rig"
)

// Ports of pods: above those of the policy's Masquerade.
const firstPort, portCount = 30000, 30011

// flow is flow n of the world, and the action that the policy has for it. No
// two of the first 10 million have the same destination, its port and source
// port, so that no translation ever finds its tuple taken.
func (w *world) flow(n uint64) (packet.Flow, action) {
	a := &w.of[n%2]
	act := action(n / 2 % uint64(actions))
	f := packet.Flow{Protocol: packet.UDP}
	n /= 6
	if n%3 == 0 {
		f.Protocol = packet.TCP
	}
	f.Source, f.SourcePort = a.pods[n/3%uint64(len(a.pods))], uint16(firstPort+n%portCount)
	host := a.destinations[act].Addr().AsSlice()
	host[len(host)-1] = byte(1 + n/20000%250)
	f.Destination, _ = netip.AddrFromSlice(host)
	f.DestinationPort = uint16(1 + n%20000)
	return f, act
}

// expectation says whether the source of a flow is the right one.
type expectation func(w *world, f packet.Flow, act action, s rig.Seen) bool

// byPolicy is what policyText means. No tuple is ever taken, so that ports stay
// but for Masquerade's, which has a range of its own.
func byPolicy(w *world, f packet.Flow, act action, s rig.Seen) bool {
	switch act {
	case keep:
		return s.Source == f.Source && s.SourcePort == f.SourcePort
	case masquerade:
		return s.Source == w.hiding(f) && s.SourcePort >= 20000 && s.SourcePort <= 29999
	default:
		return s.Source == addressesOf(f.Family()).snat && s.SourcePort == f.SourcePort
	}
}

// byOthers is what the others do without unmasq: every pod is hidden behind the
// node. Ports tell this from policyText's Masquerade, all but by chance.
func byOthers(w *world, f packet.Flow, _ action, s rig.Seen) bool { return s.Source == w.hiding(f) }

// untouched is a node on which nobody translates.
func untouched(_ *world, f packet.Flow, _ action, s rig.Seen) bool {
	return s.Source == f.Source && s.SourcePort == f.SourcePort
}

// hiding is the address that masquerading takes.
func (w *world) hiding(f packet.Flow) netip.Addr {
	return rig.AddressOf(w.OutInterface(f.Destination), f.Source.Is6())
}

// tally is what came out in one phase.
type tally struct {
	rig.Report
	// checked connections in each family and action, IPv4 first.
	checked [2][actions]int
}

// load makes new connections at a rate as long as fn runs, and for as many as
// given, and looks at each that comes out.
func (w *world) load(expect expectation, rate, least int, fn func() error) (tally, error) {
	var ta tally
	base := w.next
	traffic := rig.Traffic{
		Rate: rate,
		Flow: func(i uint64) packet.Flow { f, _ := w.flow(base + i); return f },
		Check: func(i uint64, s rig.Seen) string {
			f, act := w.flow(base + i)
			ta.checked[(base+i)%2][act]++
			if expect(w, f, act, s) {
				return ""
			}
			return fmt.Sprintf("%s %s, protocol %d: %s → %s was seen as %s", act, f.Family(), f.Protocol,
				netip.AddrPortFrom(f.Source, f.SourcePort), netip.AddrPortFrom(f.Destination, f.DestinationPort),
				netip.AddrPortFrom(s.Source, s.SourcePort))
		},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		enough := time.After(time.Duration(least) * time.Second / time.Duration(rate))
		err := fn()
		<-enough
		cancel()
		done <- err
	}()
	var err error
	ta.Report, err = w.Load(ctx, traffic)
	cancel()
	if fnErr := <-done; fnErr != nil {
		err = fnErr
	}
	w.next += ta.Sent
	return ta, err
}

// check fails on wrong sources, on a cell that saw nothing, and where more than
// one connection of a hundred was lost.
func (ta *tally) check(t *testing.T, when string) {
	t.Helper()
	ta.checkSources(t, when)
	for _, f := range packet.Families {
		ta.checkLoss(t, when, f)
	}
}

func (ta *tally) checkSources(t *testing.T, when string) {
	t.Helper()
	if ta.Wrong > 0 {
		t.Errorf("%s: %d of %d connections with a wrong source, such as:", when, ta.Wrong, ta.Seen)
		for _, w := range ta.Examples {
			t.Error("  " + w)
		}
	}
	for i, f := range packet.Families {
		for a, n := range ta.checked[i] {
			if n == 0 {
				t.Errorf("%s: no %s connection of %s was seen", when, f, action(a))
			}
		}
	}
}

func (ta *tally) checkLoss(t *testing.T, when string, f packet.Family) {
	t.Helper()
	if lost, sent := ta.lost(f), int(ta.Sent/2); lost > sent/100 {
		t.Errorf("%s: %d of %d connections of %s never came out", when, lost, sent, f)
	}
}

// lost are the connections of a family that never came out; half of all are
// made in each.
func (ta *tally) lost(f packet.Family) int {
	i := 0
	if f == packet.IPv6Family {
		i = 1
	}
	lost := int(ta.Sent / 2)
	for _, n := range ta.checked[i] {
		lost -= n
	}
	return lost
}
