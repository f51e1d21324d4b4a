package conntrack

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	ct "github.com/unmasq/unmasq/internal/conntrack"
)

// Kind of an event.
type Kind uint8

const (
	// New connections: the first packet has left, with all its translations.
	New Kind = iota + 1
	Ended
	// Lost: the kernel dropped events; the table tells what is there now.
	Lost
)

// Event of a connection. Lost has no entry.
type Event struct {
	Kind  Kind
	Entry ct.Entry
}

// eventBuffer in bytes is what may wait while nobody reads: some 30,000 events. It
// takes memory only then.
const eventBuffer = 32 << 20

// Listener hears of connections that begin after [Listen].
type Listener struct {
	*socket
}

// Listen joins the kernel's events. Whoever must miss nothing listens first and
// reads the table then.
func Listen() (*Listener, error) {
	s, err := dial()
	if err != nil {
		return nil, fmt.Errorf("listen to connections: %w", err)
	}
	err = s.raw.Control(func(fd uintptr) {
		// Outside the first user namespace the buffer stays small, and events are lost sooner.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, eventBuffer)
	})
	for _, group := range [...]int{unix.NFNLGRP_CONNTRACK_NEW, unix.NFNLGRP_CONNTRACK_DESTROY} {
		err = errors.Join(err, s.join(group))
	}
	if err != nil {
		s.Close()
		if errors.Is(err, unix.EPERM) {
			return nil, ErrPermission
		}
		return nil, fmt.Errorf("listen to connections: %w", err)
	}
	return &Listener{socket: s}, nil
}

func (s *socket) join(group int) error {
	var joined error
	err := s.raw.Control(func(fd uintptr) {
		joined = unix.SetsockoptInt(int(fd), unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
	})
	return errors.Join(err, joined)
}

// Run calls each for every event, in their order, until the context ends: nil then.
// It closes the listener.
func (l *Listener) Run(ctx context.Context, each func(Event)) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer l.Close()
	defer stop()
	for {
		datagram, err := l.receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			each(Event{Kind: Lost})
			continue
		case err != nil:
			return fmt.Errorf("listen to connections: %w", err)
		}
		for m := range messages(datagram) {
			if e, ok := event(m); ok {
				each(e)
			}
		}
	}
}

// event reads a message; one that isn't understood is as good as lost.
func event(m message) (e Event, ok bool) {
	switch m.typ {
	case unix.NFNL_SUBSYS_CTNETLINK<<8 | msgNew:
		e.Kind = New
	case unix.NFNL_SUBSYS_CTNETLINK<<8 | msgDelete:
		e.Kind = Ended
	default:
		return e, false
	}
	if parse(m.body, &e.Entry) != nil {
		return Event{Kind: Lost}, true
	}
	return e, true
}
