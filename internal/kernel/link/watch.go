package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	// debounce is how long changes are gathered before they are reported.
	debounce = 50 * time.Millisecond
	// Waits between attempts to subscribe again.
	minBackoff, maxBackoff = 100 * time.Millisecond, 30 * time.Second
)

// Watch subscribes and runs until ctx ends: nil then. The error is of the first subscription.
// Whoever reads the state and must miss nothing after it calls Subscribe first,
// then Read, then Run.
func Watch(ctx context.Context, changed func()) error {
	s, err := Subscribe()
	if err != nil {
		return err
	}
	s.Run(ctx, changed)
	return nil
}

// Subscription to changes of what Read shows: links, addresses, default routes.
type Subscription struct {
	first events
	again func() (events, error)
}

// Subscribe joins the kernel's messages in the caller's network namespace.
func Subscribe() (*Subscription, error) {
	first, err := subscribe()
	if err != nil {
		return nil, fmt.Errorf("watch links: %w", err)
	}
	return &Subscription{first, subscribe}, nil
}

// Run calls changed after changes, those since Subscribe included, until ctx
// ends; then the subscription is closed. The calls come from the caller's
// goroutine, at least 50 ms apart; none comes before a change. Lost messages
// count as a change. A lost socket is opened again, for as long as it takes, in the
// namespace of the process.
func (s *Subscription) Run(ctx context.Context, changed func()) {
	pending := make(chan struct{}, 1)
	received := make(chan struct{})
	go func() {
		defer close(received)
		s.receive(ctx, func() {
			select {
			case pending <- struct{}{}:
			default: // one is waiting already
			}
		})
	}()
	for wait(ctx, pending, debounce) {
		select {
		case <-pending: // came while we waited
		default:
		}
		changed()
	}
	<-received
}

// wait for a token, and then for a while; false when ctx ends first.
func wait(ctx context.Context, token <-chan struct{}, while time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-token:
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(while):
		return true
	}
}

// events is a subscription; next blocks until something relevant happened.
// Close ends a blocked next.
type events interface {
	next() error
	Close() error
}

// receive calls notify at every event, and after each break of the subscription.
func (s *Subscription) receive(ctx context.Context, notify func()) {
	for e := s.first; e != nil; e = resubscribe(ctx, s.again) {
		if e != s.first {
			notify()
		}
		drain(ctx, e, notify)
	}
}

// drain receives until the subscription breaks or ctx ends, and closes it.
func drain(ctx context.Context, e events, notify func()) {
	stop := context.AfterFunc(ctx, func() { e.Close() })
	defer e.Close()
	defer stop()
	for {
		err := e.next()
		if err != nil && !errors.Is(err, unix.ENOBUFS) {
			return
		}
		notify() // ENOBUFS: messages were lost, the socket goes on
	}
}

// resubscribe tries until it succeeds; nil when ctx ends.
func resubscribe(ctx context.Context, again func() (events, error)) events {
	for wait := minBackoff; ; wait = min(2*wait, maxBackoff) {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if e, err := again(); err == nil {
			return e
		}
	}
}

// socket is a subscription to the kernel's route messages.
type socket struct{ *netlink.Conn }

func subscribe() (events, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR |
			unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE,
	})
	if err != nil {
		return nil, err
	}
	return socket{conn}, nil
}

func (s socket) next() error {
	for {
		messages, err := s.Receive()
		if err != nil {
			return err
		}
		for _, m := range messages {
			if relevant(m) {
				return nil
			}
		}
	}
}

// relevant leaves out routes that aren't default ones: a router's come and go
// by the thousand.
func relevant(m netlink.Message) bool {
	switch m.Header.Type {
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		// struct rtmsg: family, destination length, …
		return len(m.Data) > 1 && m.Data[1] == 0
	}
	return true
}
