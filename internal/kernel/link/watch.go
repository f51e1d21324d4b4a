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

// Watch calls changed whenever something that Read shows may have changed:
// links, addresses, default routes. It returns as soon as the kernel's
// messages are subscribed to, so a Read after it misses nothing; the calls
// come from one goroutine, at least 50 ms apart, until ctx ends. None comes
// before a change. Lost messages count as a change.
//
// The error is of the first subscription; later ones are tried for ever. It follows the
// caller's network namespace, and after a lost socket the process's.
func Watch(ctx context.Context, changed func()) error {
	first, err := subscribe()
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	go watch(ctx, first, subscribe, changed)
	return nil
}

// events is a subscription; next blocks until something relevant happened.
// io.Closer ends a blocked next.
type events interface {
	next() error
	Close() error
}

// watch runs until ctx ends.
func watch(ctx context.Context, e events, again func() (events, error), changed func()) {
	pending := make(chan struct{}, 1)
	go receive(ctx, e, again, func() {
		select {
		case pending <- struct{}{}:
		default: // one is waiting already
		}
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-pending:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(debounce):
		}
		select {
		case <-pending: // came while we waited
		default:
		}
		changed()
	}
}

// receive calls notify at every event, and after each break of the subscription.
func receive(ctx context.Context, e events, again func() (events, error), notify func()) {
	for {
		drain(ctx, e, notify)
		e = resubscribe(ctx, again)
		if e == nil {
			return
		}
		notify()
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
