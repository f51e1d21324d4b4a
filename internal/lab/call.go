package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/probe"
)

const (
	// patience with a call that must be answered; it covers neighbour discovery
	// and a busy machine.
	patience = 5 * time.Second
	// silence is how long a call is waited for that must get no answer.
	silence = 800 * time.Millisecond
	// atOnce bounds the calls under way.
	atOnce = 32
	// tries and rounds of calls to a service until one reaches a certain backend; of
	// two, 30 calls miss one in a thousand million runs.
	tries, rounds = 6, 5
)

// Sighting is one call and what became of it.
type Sighting struct {
	Call
	Family   packet.Family
	Protocol string
	// Source is the caller's own address and port (0 for ICMP).
	Source netip.AddrPort
	// Target is the address and port that was called.
	Target netip.AddrPort
	// Seen is what the peer saw; invalid where nothing arrived.
	Seen netip.AddrPort
	// Replied: the caller got the peer's answer.
	Replied bool
	// Sight is Seen in words.
	Sight Sight
	// Expected in this stage; "" where nothing is.
	Expected Sight
	// Note says why there was no reply, as far as it shows.
	Note string
	// reached is the space of the peer that the call came to; "" if none.
	reached string
}

// OK says whether the call was seen as expected.
func (s *Sighting) OK() bool { return s.Expected == "" || s.Sight == s.Expected }

// Caller makes calls.
type Caller struct {
	*probe.Caller
	// Patience with a call of which nothing is expected.
	Patience time.Duration
}

func newCaller() *Caller { return &Caller{Caller: probe.NewCaller(), Patience: patience} }

// wait is how long a call is waited for.
func (c *Caller) wait(expected Sight) time.Duration {
	switch expected {
	case NoReply:
		return silence
	case "":
		return c.Patience
	}
	return patience
}

// measure makes every call of the stage in both families and all protocols.
func (w *World) measure(ctx context.Context, c *Caller, peers map[string]*probe.Peer, expect map[Call]Expect) ([]Sighting, error) {
	var all []Sighting
	for _, call := range w.Scenario.Calls {
		for _, f := range packet.Families {
			for _, protocol := range call.Protocols() {
				all = append(all, Sighting{Call: call, Family: f, Protocol: protocol, Expected: expect[call].Of(f)})
			}
		}
	}
	errs := make([]error, len(all))
	var group sync.WaitGroup
	tokens := make(chan struct{}, atOnce)
	for i := range all {
		group.Go(func() {
			tokens <- struct{}{}
			defer func() { <-tokens }()
			if err := w.call(ctx, c, peers, &all[i]); err != nil {
				errs[i] = fmt.Errorf("%s from %s: %w", all[i].Protocol, all[i].Call, err)
			}
		})
	}
	group.Wait()
	return all, errors.Join(errs...)
}

// call makes one call, or as many as it takes to reach the backend that is meant,
// and fills in what became of it.
func (w *World) call(ctx context.Context, c *Caller, peers map[string]*probe.Peer, s *Sighting) error {
	switch endpoints := w.Scenario.endpoints(s.Call); len(endpoints) {
	case 0:
		return w.ping(ctx, c, s)
	case 1:
		return w.attempt(ctx, c, peers, s)
	}
	for range rounds {
		reached, err := w.round(ctx, c, peers, s)
		if reached || err != nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("none of %d calls reached %s", rounds*tries, s.To)
}

// round makes calls side by side, since each reaches a backend by chance and may get
// no answer; it is over when one has reached the one that is meant, or where none
// reaches any.
func (w *World) round(ctx context.Context, c *Caller, peers map[string]*probe.Peer, s *Sighting) (bool, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		made  [tries]Sighting
		errs  [tries]error
		group sync.WaitGroup
		first atomic.Pointer[Sighting]
	)
	for i := range made {
		made[i] = *s
		group.Go(func() {
			err := w.attempt(ctx, c, peers, &made[i])
			if ctx.Err() == nil { // else another was quicker
				errs[i] = err
			}
			if made[i].reached == s.To && first.CompareAndSwap(nil, &made[i]) {
				cancel()
			}
		})
	}
	group.Wait()
	lost := !slices.ContainsFunc(made[:], func(m Sighting) bool { return m.reached != "" })
	if lost {
		first.Store(&made[0])
	}
	if found := first.Load(); found != nil {
		*s = *found
		return true, errors.Join(errs[:]...)
	}
	return false, errors.Join(errs[:]...)
}

// attempt makes one call.
func (w *World) attempt(ctx context.Context, c *Caller, peers map[string]*probe.Peer, s *Sighting) error {
	var o probe.Outcome
	err := w.dial(s, func(from netip.Addr, to netip.AddrPort) (err error) {
		ctx, cancel := context.WithTimeout(ctx, c.wait(s.Expected))
		defer cancel()
		o, err = c.Call(ctx, s.Protocol, from, to)
		return err
	})
	if err != nil {
		return err
	}
	return w.fill(peers, s, o)
}

// dial calls back in the caller's namespace, with its address and the target.
func (w *World) dial(s *Sighting, call func(from netip.Addr, to netip.AddrPort) error) error {
	from, err := w.Scenario.Space(s.From)
	if err != nil {
		return err
	}
	if s.Target, err = w.Scenario.Target(s.Call, s.Family); err != nil {
		return err
	}
	return w.NS(s.From).Do(func() error { return call(from.Address(s.Family), s.Target) })
}

// fill compares what the caller was told with what the peers recorded.
func (w *World) fill(peers map[string]*probe.Peer, s *Sighting, o probe.Outcome) error {
	seen, at := w.arrived(peers, s.Call, o)
	// The peer's kernel replies to an echo, whatever our recorder is doing.
	echoed := o.Replied && !o.Told.IsValid()
	for end := time.Now().Add(patience); echoed && at == "" && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
		seen, at = w.arrived(peers, s.Call, o)
	}
	// By TCP the record goes by the port, which may be another call's after translation.
	if at != "" && o.Told.IsValid() && seen != o.Told && s.Protocol != probe.TCP {
		return fmt.Errorf("%s answered %v and recorded %v", at, o.Told, seen)
	}
	s.Source, s.Replied, s.Seen, s.reached = o.Source, o.Replied, seen, at
	if o.Told.IsValid() {
		if !slices.Contains(w.Scenario.endpoints(s.Call), o.Name) {
			return fmt.Errorf("%s answered", o.Name)
		}
		s.Seen, s.reached = o.Told, o.Name
	}
	s.Sight = w.sight(s)
	switch {
	case s.Replied:
	case o.Refused():
		s.Note = "refused"
	default:
		s.Note = w.whyNoReply(s)
	}
	return nil
}

// arrived is what was recorded of a call, and where; "" where nothing came.
func (w *World) arrived(peers map[string]*probe.Peer, call Call, o probe.Outcome) (netip.AddrPort, string) {
	for _, name := range w.Scenario.endpoints(call) {
		if seen, ok := peers[name].Arrived(o.Key); ok {
			return seen, name
		}
	}
	return netip.AddrPort{}, ""
}

// sight puts what the peer saw into words.
func (w *World) sight(s *Sighting) Sight {
	switch owner := w.owner[s.Seen.Addr()]; {
	case !s.Replied:
		return NoReply
	case owner == s.From:
		return Itself
	case owner == "":
		return Stranger
	default:
		return Sight(owner)
	}
}

// whyNoReply tells what the peer recorded, and whether its namespace has a route back.
func (w *World) whyNoReply(s *Sighting) string {
	if s.reached == "" {
		return "nothing was seen at " + strings.Join(w.Scenario.endpoints(s.Call), " or ")
	}
	if s.Service != "" {
		return fmt.Sprintf("it reached %s, the answer didn't come back", s.reached)
	}
	note := fmt.Sprintf("it reached %s as %s", s.To, s.Seen.Addr())
	err := w.NS(s.To).Do(func() error {
		conn, err := net.Dial(probe.UDP, s.Seen.String())
		if err == nil {
			conn.Close() //nolint:errcheck // nothing was sent
		}
		return err
	})
	if errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH) {
		note += ", and there is no route back to that"
		if gateway := w.between(s); gateway != "" {
			note += fmt.Sprintf(" (%s didn't translate it)", gateway)
		}
	}
	return note
}

// between names the router that the peer is plugged into, if it has NAT rules of its own.
func (w *World) between(s *Sighting) string {
	to, err := w.Scenario.Space(s.To)
	if err != nil {
		return ""
	}
	for _, p := range to.Ports {
		for _, r := range w.Form.Rules {
			if r.On == p.Space {
				return p.Space
			}
		}
	}
	return ""
}
