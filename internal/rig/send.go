package rig

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/wires"
	"github.com/unmasq/unmasq/internal/packet"
)

// wait is how long a packet may take through the node.
const wait = 2 * time.Second

// Send sends the first packet of a flow, as its Local says, and waits until it
// comes out. The flow's mark, DNAT and interfaces are the node's affair.
func (r *Rig) Send(f packet.Flow) (Seen, error) {
	got, err := r.SendAll([]packet.Flow{f})
	if err != nil {
		return Seen{}, err
	}
	if got[0] == nil {
		return Seen{}, fmt.Errorf("nothing came out of %s → %s", f.Source, f.Destination)
	}
	return *got[0], nil
}

// SendAll sends flows and returns what came out of each; nil: nothing.
func (r *Rig) SendAll(flows []packet.Flow) ([]*Seen, error) {
	first := r.nextID
	r.nextID += uint64(len(flows))
	out := make([]*Seen, len(flows))
	missing := len(flows)
	take := func(s Seen) bool {
		if s.ID >= first && s.ID < first+uint64(len(flows)) && out[s.ID-first] == nil {
			out[s.ID-first] = &s
			missing--
		}
		return missing > 0
	}
	for i, f := range flows {
		var err error
		if f.Local {
			err = r.local.Send(f, first+uint64(i))
		} else {
			err = r.inject.Send(flows[i:i+1], first+uint64(i))
		}
		if err != nil {
			return nil, err
		}
		if i%256 == 255 {
			if err := r.capture.each(time.Now(), take); err != nil {
				return nil, err
			}
		}
	}
	if missing == 0 {
		return out, nil
	}
	return out, r.capture.each(time.Now().Add(wait), take)
}

// Traffic is a stream of new flows.
type Traffic struct {
	// Rate of new flows a second that is aimed at.
	Rate int
	// Flow is the first packet of flow i, forwarded; a five-tuple must not come
	// back within two seconds.
	Flow func(i uint64) packet.Flow
	// Check says what is wrong with what came out of flow i; "" if nothing.
	Check func(i uint64, s Seen) string
}

// Report is what became of a load.
type Report struct {
	// Seen counts each flow once, Wrong each packet that Check refused.
	Sent, Seen, Wrong uint64
	// Examples of what was wrong.
	Examples []string
	// FirstWrong and LastWrong are when wrong packets came out.
	FirstWrong, LastWrong time.Time
	Took                  time.Duration
}

// Lost is how many flows never came out.
func (r Report) Lost() uint64 { return r.Sent - r.Seen }

// PerSecond is the rate of new flows.
func (r Report) PerSecond() float64 { return float64(r.Sent) / r.Took.Seconds() }

func (r Report) String() string {
	return fmt.Sprintf("%d new flows (%.0f/s), %d seen, %d lost, %d wrong", r.Sent, r.PerSecond(), r.Seen, r.Lost(), r.Wrong)
}

// Load keeps traffic going until the context ends, then waits for what is on its
// way. One Load at a time.
func (r *Rig) Load(ctx context.Context, l Traffic) (Report, error) {
	base := r.nextID
	var sent atomic.Uint64
	done := make(chan error, 1)
	start := time.Now()
	go func() { done <- r.pump(ctx, l, base, &sent) }()

	var report Report
	var once bitset
	take := func(s Seen) bool {
		if s.ID < base {
			return true
		}
		if once.add(s.ID - base) {
			report.Seen++
		}
		if wrong := l.Check(s.ID-base, s); wrong != "" {
			report.wrong(wrong)
		}
		return true
	}
	var pumpErr error
	for running := true; running; {
		select {
		case pumpErr = <-done:
			running = false
		default:
		}
		if err := r.capture.each(time.Now().Add(5*time.Millisecond), take); err != nil {
			return report, err
		}
	}
	report.Took, report.Sent = time.Since(start), sent.Load()
	r.nextID = base + report.Sent
	err := r.capture.each(time.Now().Add(100*time.Millisecond), take)
	if pumpErr != nil {
		err = pumpErr
	}
	return report, err
}

// bitset remembers flows by their numbers, which come without large gaps.
type bitset []uint64

// add says whether n is new.
func (b *bitset) add(n uint64) bool {
	for uint64(len(*b)) <= n/64 {
		*b = append(*b, 0)
	}
	word, bit := &(*b)[n/64], uint64(1)<<(n%64)
	isNew := *word&bit == 0
	*word |= bit
	return isNew
}

func (r *Report) wrong(what string) {
	r.Wrong++
	r.LastWrong = time.Now()
	if r.FirstWrong.IsZero() {
		r.FirstWrong = r.LastWrong
	}
	const most = 5
	if len(r.Examples) < most {
		r.Examples = append(r.Examples, what)
	}
}

// pump sends at the rate, in bursts.
func (r *Rig) pump(ctx context.Context, l Traffic, base uint64, sent *atomic.Uint64) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := time.Now()
	flows := make([]packet.Flow, wires.Burst)
	for n := uint64(0); ctx.Err() == nil; {
		for i := range flows {
			flows[i] = l.Flow(n + uint64(i))
		}
		if err := r.inject.Send(flows, base+n); err != nil {
			return err
		}
		n += wires.Burst
		sent.Store(n)
		if ahead := time.Duration(n)*time.Second/time.Duration(l.Rate) - time.Since(start); ahead > time.Millisecond {
			time.Sleep(ahead)
		}
	}
	return nil
}

// UDPFlow is flow i of a simple load: pods of 10.244.0.0/16 to a few thousand
// addresses, no five-tuple twice within minutes.
func UDPFlow(i uint64) packet.Flow {
	return packet.Flow{
		Source:      netip.AddrFrom4([4]byte{10, 244, 1, byte(2 + i%250)}),
		Destination: netip.AddrFrom4([4]byte{203, byte(i >> 16), byte(i >> 8), byte(i)}),
		Protocol:    packet.UDP, SourcePort: uint16(1024 + i/250%60000), DestinationPort: 53,
	}
}
