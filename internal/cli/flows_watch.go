package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	ct "github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/kernel/conntrack"
	"github.com/unmasq/unmasq/internal/kernel/nft"
)

// flowKey tells connections apart for as long as one is watched: ids are numbers of
// 32 bits.
type flowKey struct {
	id                          uint32
	sourcePort, destinationPort uint16
}

func keyOf(e *ct.Entry) flowKey {
	return flowKey{e.ID, e.Original.SourcePort, e.Original.DestinationPort}
}

// flowWatch follows connections: what is there first, then events. It listens
// before it reads the table, so that none is missed between, and none is told twice.
type flowWatch struct {
	*flowsOptions
	pipe   *flowPipe
	reader *conntrack.Reader
	events chan conntrack.Event
	// standing connections, as far as they were told.
	standing map[flowKey]struct{}
	// The rules were read at taken, which took cost, at that generation.
	taken      time.Time
	cost       time.Duration
	generation uint32
	// vain readings in a row: no generation was new.
	vain int
}

// waiting events, besides those in the socket, while the table is listed.
const waitingEvents = 4096

func (o *flowsOptions) watchLive(ctx context.Context, p *flowPipe) error {
	recorded := conntrack.Recorded()
	if recorded.Events == "0" {
		return fmt.Errorf("the kernel tells no events of connections: sysctl -w %s=1 makes it tell those of new ones", conntrack.SysctlEvents)
	}
	listener, err := conntrack.Listen()
	if err != nil {
		return err
	}
	w := &flowWatch{flowsOptions: o, pipe: p, events: make(chan conntrack.Event, waitingEvents), standing: map[flowKey]struct{}{}}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- listener.Run(ctx, func(e conntrack.Event) { w.queue(ctx, e) }) }()
	defer func() { stop(); <-ended }()
	if w.reader, err = conntrack.Open(); err != nil {
		return err
	}
	defer func() { w.reader.Close() }()
	if err := w.readRules(ctx); err != nil {
		return endOf(ctx, err)
	}
	if recorded.Events == "2" {
		p.note(fmt.Sprintf("of connections that were there already the end isn't told, unless somebody else listened; sysctl -w %s=1 makes the kernel tell it of all that begin from then on", conntrack.SysctlEvents))
	}
	if err := w.list(ctx, flowOpen, recorded.Count); err != nil {
		return endOf(ctx, err)
	}
	return endOf(ctx, w.follow(ctx, ended))
}

// endOf a watch that was interrupted is no error.
func endOf(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (w *flowWatch) queue(ctx context.Context, e conntrack.Event) {
	select {
	case w.events <- e:
	case <-ctx.Done():
	}
}

// list what the table has and wasn't told yet.
func (w *flowWatch) list(ctx context.Context, event string, expected int) error {
	p, there := w.pipe, map[flowKey]struct{}{}
	tell, read := reading(p.log, expected), 0
	var failed error
	stats, err := w.reader.Dump(ctx, p.filter.Family, func(e *ct.Entry) bool {
		if read++; read%1000 == 0 {
			tell(read)
		}
		key := keyOf(e)
		there[key] = struct{}{}
		if _, told := w.standing[key]; !told {
			failed = p.add(e, event, time.Now())
		}
		return failed == nil
	})
	if err = errors.Join(failed, err); err != nil {
		return err
	}
	if stats.Strange > 0 {
		p.note(fmt.Sprintf("%d entries weren't understood, and aren't listed", stats.Strange))
	}
	w.standing = there
	if err := p.flush(); err != nil {
		return err
	}
	return p.out.flush()
}

// follow events until the context, or the listener, ends.
func (w *flowWatch) follow(ctx context.Context, ended chan error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			ended <- err
			return err
		case e := <-w.events:
			if err := w.tell(ctx, e); err != nil {
				return err
			}
		}
	}
}

// tell an event and those that wait behind it, up to a batch.
func (w *flowWatch) tell(ctx context.Context, e conntrack.Event) error {
	if err := w.freshRules(ctx); err != nil {
		return err
	}
	for n := 1; ; n++ {
		if err := w.one(ctx, e); err != nil {
			return err
		}
		if n == flowBatch || len(w.events) == 0 {
			break
		}
		e = <-w.events
	}
	if err := w.pipe.flush(); err != nil {
		return err
	}
	return w.pipe.out.flush()
}

func (w *flowWatch) one(ctx context.Context, e conntrack.Event) error {
	key := keyOf(&e.Entry)
	_, told := w.standing[key]
	switch {
	case e.Kind == conntrack.Lost:
		return w.lost(ctx)
	case e.Kind == conntrack.Ended:
		delete(w.standing, key)
		return w.pipe.add(&e.Entry, flowEnded, time.Now())
	case told: // while the table was read
		return nil
	}
	w.standing[key] = struct{}{}
	return w.pipe.add(&e.Entry, flowNew, time.Now())
}

// lost events: the table tells what began meanwhile and is still there.
func (w *flowWatch) lost(ctx context.Context) error {
	p := w.pipe
	if err := p.flush(); err != nil {
		return err
	}
	if err := p.out.flush(); err != nil {
		return err
	}
	const text = "the kernel dropped events; connections that began and ended meanwhile aren't told. The table is read again"
	if err := p.out.event(flowLost, text, time.Now()); err != nil {
		return err
	}
	before := w.standing
	if err := w.list(ctx, flowNew, len(before)); err != nil {
		return err
	}
	gone := 0
	for key := range before {
		if _, still := w.standing[key]; !still {
			gone++
		}
	}
	if gone == 0 {
		return nil
	}
	return p.out.event(flowNote, fmt.Sprintf("ended meanwhile, untold: %d", gone), time.Now())
}

func (w *flowWatch) readRules(ctx context.Context) (err error) {
	start := time.Now()
	w.generation, _ = nft.Generation() // without nftables it stays 0
	w.pipe.judge, err = w.judgeNow(ctx, w.pipe)
	w.taken, w.cost, w.pipe.strange = time.Now(), time.Since(start), false
	return err
}

// freshRules reads the rules again where they changed, or where a new connection shows
// that they might have, which iptables-legacy doesn't tell otherwise. Reading takes at
// most a tenth of the time, or it is 20 s later; in vain, it is done ever more seldom.
func (w *flowWatch) freshRules(ctx context.Context) error {
	const least, most, seldom = time.Second, 20 * time.Second, 5 * time.Minute
	pause, since := max(least, min(10*w.cost, most)), time.Since(w.taken)
	if w.noRules || since < pause {
		return nil
	}
	generation, err := nft.Generation()
	switch {
	case err == nil && generation != w.generation:
		w.vain = 0
	case !w.pipe.strange || since < min(pause<<w.vain, seldom):
		return nil
	default:
		w.vain = min(w.vain+1, 16)
	}
	return w.readRules(ctx)
}
