package probe

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Order is a call that is to be made, as one process asks another for it (JSON).
type Order struct {
	Protocol string `json:"protocol"`
	// Source address; absent: the kernel chooses.
	Source netip.Addr     `json:"source,omitzero"`
	Target netip.AddrPort `json:"target"`
	// Patience with silence, in milliseconds.
	Patience int `json:"patience"`
}

// Report is what became of an order.
type Report struct {
	// Source is the caller's own address and port; the address is unspecified where no
	// packet was sent.
	Source netip.AddrPort `json:"source,omitzero"`
	// Seen is what the peer saw, and By its name.
	Seen netip.AddrPort `json:"seen,omitzero"`
	By   string         `json:"by,omitempty"`
	// Answered: somebody did; without Seen, one who is no peer.
	Answered bool `json:"answered,omitempty"`
	// No says who said no, if somebody did, else it is empty after a silence.
	No No `json:"no,omitempty"`
	// Key by which a peer that recorded the call has it.
	Key Arrival `json:"key,omitempty"`
	// Error is one that says nothing of the network.
	Error string `json:"error,omitempty"`
}

// No is a refusal.
type No string

// Refusals, by what programs see of them.
const (
	Refused     No = "refused"     // by who listens there, or a rule in his name
	Unreachable No = "unreachable" // by a router, a rule in its name, or for want of a route
	Denied      No = "denied"      // the caller's own kernel, by a rule that drops or rejects
)

// atOnce bounds the calls under way.
const atOnce = 16

// Run makes all calls, many at a time, by way of in, which runs a function where the
// calls come from; nil: here. The reports are in the order of the orders.
func (c *Caller) Run(ctx context.Context, in func(func() error) error, orders []Order) ([]Report, error) {
	if in == nil {
		in = func(f func() error) error { return f() }
	}
	reports := make([]Report, len(orders))
	var all sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for i, o := range orders {
		all.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			err := in(func() error { reports[i] = c.report(ctx, o); return nil })
			if err != nil {
				reports[i].Error = err.Error()
			}
		})
	}
	all.Wait()
	return reports, ctx.Err()
}

func (c *Caller) report(ctx context.Context, order Order) Report {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(order.Patience)*time.Millisecond)
	defer cancel()
	o, err := c.Call(ctx, order.Protocol, order.Source, order.Target)
	r := Report{Source: o.Source, Seen: o.Told, By: o.Name, Answered: o.Replied || o.Connected, No: o.no(), Key: o.Key}
	switch {
	case errors.Is(err, ErrNoPeer):
		r.Answered = true
	case err != nil:
		r.Error = err.Error()
	}
	return r
}

func (o *Outcome) no() No {
	switch {
	case o.Err == nil:
		return ""
	case errors.Is(o.Err, syscall.EPERM):
		return Denied
	case errors.Is(o.Err, syscall.ECONNREFUSED), errors.Is(o.Err, syscall.ECONNRESET):
		return Refused
	}
	return Unreachable
}

// Obey reads orders (JSON), makes the calls and writes the reports: the side of a
// process that is told to.
func Obey(ctx context.Context, in io.Reader, out io.Writer) error {
	var orders []Order
	if err := json.NewDecoder(in).Decode(&orders); err != nil {
		return fmt.Errorf("read calls: %w", err)
	}
	reports, err := NewCaller().Run(ctx, nil, orders)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(reports)
}
