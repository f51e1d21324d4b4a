package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/probe"
)

// protocols in the order of output.
var protocols = [...]string{probe.TCP, probe.UDP, probe.ICMP}

const (
	// patience with a call that must be answered; it covers neighbour discovery
	// and a busy machine.
	patience = 5 * time.Second
	// silence is how long a call is waited for that must get no answer.
	silence = 800 * time.Millisecond
	// atOnce bounds the calls under way.
	atOnce = 16
)

// Sighting is one call and what became of it.
type Sighting struct {
	Call
	Family   packet.Family
	Protocol string
	// Source is the caller's own address and port (0 for ICMP).
	Source netip.AddrPort
	// Target is the address that was called.
	Target netip.Addr
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
			for _, protocol := range protocols {
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
			errs[i] = w.call(ctx, c, peers[all[i].To], &all[i])
		})
	}
	group.Wait()
	return all, errors.Join(errs...)
}

// call makes one call and fills in what became of it.
func (w *World) call(ctx context.Context, c *Caller, peer *probe.Peer, s *Sighting) error {
	from, err := w.Scenario.space(s.From)
	if err != nil {
		return err
	}
	to, err := w.Scenario.space(s.To)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.wait(s.Expected))
	defer cancel()
	s.Target = to.address(s.Family)
	var o probe.Outcome
	err = w.NS(s.From).Do(func() (err error) {
		o, err = c.Call(ctx, s.Protocol, from.address(s.Family), netip.AddrPortFrom(s.Target, probe.Port))
		return err
	})
	if err != nil {
		return fmt.Errorf("%s from %s to %s: %w", s.Protocol, s.From, s.To, err)
	}
	return w.fill(peer, s, o)
}

// fill compares what the caller was told with what the peer recorded.
func (w *World) fill(peer *probe.Peer, s *Sighting, o probe.Outcome) error {
	seen, arrived := peer.Arrived(o.Key)
	// The peer's kernel replies to an echo, whatever our recorder is doing.
	echoed := o.Replied && !o.Told.IsValid()
	for end := time.Now().Add(patience); echoed && !arrived && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
		seen, arrived = peer.Arrived(o.Key)
	}
	s.Source, s.Replied, s.Seen = o.Source, o.Replied, seen
	if o.Told.IsValid() {
		s.Seen = o.Told
	}
	if arrived && o.Told.IsValid() && seen != o.Told {
		return fmt.Errorf("%s from %s to %s: the peer answered %v and recorded %v", s.Protocol, s.From, s.To, o.Told, seen)
	}
	s.Sight = w.sight(s)
	if !s.Replied {
		s.Note = w.whyNoReply(s)
	}
	return nil
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
	if !s.Seen.IsValid() {
		return "nothing was seen at " + s.To
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
	to, err := w.Scenario.space(s.To)
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
