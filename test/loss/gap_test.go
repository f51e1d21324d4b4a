package loss_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/rig"
)

const (
	removals = 16
	// restored is the time that the watch is meant to need at most; longest is
	// when a test gives up.
	restored = 100 * time.Millisecond
	longest  = 5 * time.Second
)

// touched is a transaction on unmasq's table, whoever made it.
type touched struct {
	at time.Time
	by nft.Intrusion
}

// follow tells every transaction on unmasq's table until the test ends.
func follow(t *testing.T, r *rig.Rig) <-chan touched {
	t.Helper()
	var w *nft.Watcher
	err := r.Node.Do(func() (err error) {
		w, err = nft.Listen(func(uint32) bool { return false })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan touched, 1000)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- w.Run(ctx, func(i nft.Intrusion) { events <- touched{time.Now(), i} })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return events
}

// quiet is how long nothing must happen to the table for it to be as it stays.
const quiet = 50 * time.Millisecond

// next returns when the table was changed by a process, as the kernel says, and
// when the last of what followed was done. What the agent did still before that
// is none of it: on a slow machine the agent pauses for longer than quiet.
func next(t *testing.T, events <-chan touched, by int) (first, last time.Time) {
	t.Helper()
	deadline := time.After(longest)
	var before []string
	for others := 0; ; {
		var idle <-chan time.Time
		if others > 0 {
			idle = time.After(quiet)
		}
		select {
		case e := <-events:
			switch {
			case !first.IsZero():
				others++
			case e.by.PID == by && e.by.Name == "nft":
				first = e.at
			default:
				before = append(before, e.by.String())
				continue
			}
			last = e.at
		case <-idle:
			return first, last
		case <-deadline:
			t.Fatalf("within %s the kernel did not say that process %d (nft) removed the table, or it was not restored; before: %q", longest, by, before)
		}
	}
}

// Without ownership others can remove the table; the agent puts it back, says
// who it was, and what went out wrong meanwhile is measured.
func removed(t *testing.T, m mode) {
	r := newRig(t)
	a := m.start(t, r.Node, config(t))
	events := follow(t, r)
	var wrong atomic.Int64
	counted := rig.Traffic{Flow: flow, Check: func(i uint64, s rig.Seen) string {
		said := check(i, s)
		if said != "" {
			wrong.Add(1)
		}
		return said
	}}
	var gaps []time.Duration
	var wrongs []int64
	report := underLoad(t, r, counted, func() {
		for n := range removals {
			before := wrong.Load()
			by := remove(t, r, n)
			first, last := next(t, events, by)
			gaps = append(gaps, last.Sub(first))
			says := fmt.Sprintf("pid=%d process=nft", by)
			a.await(t, "telling who it was: "+says, func() bool { return strings.Contains(a.log.String(), says) })
			wrongs = append(wrongs, wrong.Load()-before)
		}
	})
	slices.Sort(gaps)
	slices.Sort(wrongs)
	median := gaps[len(gaps)/2]
	t.Logf("checked: %s; all wrong ones in %d gaps", report, removals)
	t.Logf("checked: time from removal to restored: median %s, max %s (median below %s: %t)", median, gaps[len(gaps)-1], restored, median < restored)
	t.Logf("checked: wrong sources in a gap: median %d, max %d", wrongs[len(wrongs)/2], wrongs[len(wrongs)-1])
	if got := a.metric(`unmasq_table_repairs_total{process="nft"}`); got != removals {
		t.Errorf("unmasq_table_repairs_total{process=\"nft\"} is %v, want %d", got, removals)
	}
	report = underLoad(t, r, load, func() { time.Sleep(time.Second) })
	noneWrong(t, report, "afterwards")
}

// remove deletes or empties the table in one of the ways there are, and returns nft's pid.
func remove(t *testing.T, r *rig.Rig, n int) (pid int) {
	t.Helper()
	stdin := [...]string{
		"delete table inet unmasq\n",
		"flush ruleset\n" + foreign,
		"flush chain inet unmasq postrouting\n",
		"flush table inet unmasq\n",
	}[n%4]
	c := r.Node.Command(context.Background(), "nft", "-f", "-")
	c.Stdin = strings.NewReader(stdin)
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	return c.Process.Pid
}
