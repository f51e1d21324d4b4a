package nft

import (
	"context"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/plan"
)

// Intrusion is a change to unmasq's table that this process did not make.
type Intrusion struct {
	// PID and Name of the thread that committed it, as the kernel tells them with
	// the new generation; 0 and "" where Lost.
	PID  int
	Name string
	// Lost: events were lost, so that anything may have happened.
	Lost bool
}

func (i Intrusion) String() string {
	if i.Lost {
		return "somebody (the kernel dropped events)"
	}
	return fmt.Sprintf("process %d (%s)", i.PID, i.Name)
}

// watchBuffer is the socket's receive buffer in bytes: a flush of a ruleset of
// 50,000 rules is some 10 MB of events.
const watchBuffer = 16 << 20

// Watcher listens to the kernel's nftables events. It misses nothing from
// Listen on.
type Watcher struct {
	conn *netlink.Conn
	own  func(port uint32) bool
	// touched: the transaction being told concerns our table.
	touched bool
}

// Listen joins the events of this network namespace. own says which netlink
// ports are ours.
func Listen(own func(port uint32) bool) (*Watcher, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("listen to nftables events: %w", err)
	}
	_ = c.SetReadBuffer(watchBuffer) // a smaller one loses events sooner, and says so
	if err := c.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		c.Close()
		return nil, fmt.Errorf("listen to nftables events: %w", err)
	}
	return &Watcher{conn: c, own: own}, nil
}

// Run calls seen for each transaction by others that touches unmasq's table,
// until the context ends, and closes the watcher.
func (w *Watcher) Run(ctx context.Context, seen func(Intrusion)) error {
	stop := context.AfterFunc(ctx, func() { w.conn.Close() })
	defer func() {
		if stop() {
			w.conn.Close()
		}
	}()
	for {
		messages, err := w.conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			w.touched = false
			seen(Intrusion{Lost: true})
		case err != nil:
			return fmt.Errorf("listen to nftables events: %w", err)
		}
		for i := range messages {
			if who, ok := w.event(&messages[i]); ok {
				seen(who)
			}
		}
	}
}

// event reads one message. A transaction's changes come first, then the message
// of the generation that it made.
func (w *Watcher) event(m *netlink.Message) (who Intrusion, foreign bool) {
	if m.Header.Type>>8 != unix.NFNL_SUBSYS_NFTABLES || len(m.Data) < 4 {
		return who, false
	}
	if m.Header.Type&0xff == unix.NFT_MSG_NEWGEN {
		foreign = w.touched && !w.own(m.Header.PID)
		w.touched = false
		return intruder(m.Data[4:]), foreign
	}
	if w.touched || m.Data[0] != unix.NFPROTO_INET {
		return who, false
	}
	for typ, data := range attrs(m.Data[4:]) {
		const tableName = 1 // NFTA_*_TABLE and NFTA_TABLE_NAME alike
		if typ == tableName {
			w.touched = text(data) == plan.TableName
			break
		}
	}
	return who, false
}

func intruder(attributes []byte) Intrusion {
	var i Intrusion
	for typ, data := range attrs(attributes) {
		switch typ {
		case unix.NFTA_GEN_PROC_PID:
			i.PID = int(u32(data))
		case unix.NFTA_GEN_PROC_NAME:
			i.Name = text(data)
		}
	}
	return i
}
