package nft

import (
	"context"
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/plan"
)

// noOwnership is TestOwnership on a kernel without the table flags owner and
// persist: it refuses them, nothing of the attempt stays, and a plain table on
// the same socket works. TestPlainTable shows what that is worth.
func noOwnership(t *testing.T) {
	t.Log("checked: this kernel has no table flags owner and persist; it refuses them")
	ns := netnstest.Test(t, "plain")
	table := open(t, ns)
	table.UseOwnership(true)
	want := compile(everything())
	if err := table.Start(want); !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatalf("a table with both flags: %v, want %v: or else Probe is wrong", err, unix.EOPNOTSUPP)
	}
	if out, _ := ns.Run("", "nft", "list", "ruleset"); out != "" {
		t.Fatalf("the refused table left\n%s", out)
	}
	table.UseOwnership(false)
	if err := table.Start(want); err != nil {
		t.Fatal(err)
	}
	if s := state(t, table); !s.Exists || s.Flags != 0 || s.Owned() {
		t.Errorf("the table is %+v, want a plain one", s)
	}
}

// Without ownership, on any kernel: others can write the table, the watch says
// who did, and the next Sync restores it.
func TestPlainTable(t *testing.T) {
	want := compile(everything())
	ns := netnstest.Test(t, "plain")
	table := open(t, ns)
	if err := table.Start(want); err != nil {
		t.Fatal(err)
	}
	if s := state(t, table); !s.Exists || s.Flags != 0 || s.Owned() {
		t.Fatalf("the table is %+v, want a plain one", s)
	}
	before := list(t, ns, plan.TableName)
	seen, stop := watch(t, ns, table)
	for _, args := range [][]string{{"delete", "table", "inet", plan.TableName}, {"flush", "chain", "inet", plan.TableName, plan.BaseChain}, {"flush", "ruleset"}} {
		if _, err := ns.Run("", "nft", args...); err != nil {
			t.Fatalf("nft %v: %v", args, err)
		}
		if i := <-seen; i.Name != "nft" || i.PID == 0 || i.PID == os.Getpid() || i.Lost {
			t.Errorf("after nft %v: it was %s, want nft", args, i)
		}
		table.Forget()
		if err := table.Sync(want); err != nil {
			t.Fatalf("after nft %v: %v", args, err)
		}
		if diff := cmp.Diff(before, withoutGenerations(list(t, ns, plan.TableName))); diff != "" {
			t.Errorf("after nft %v: -before +restored\n%s", args, diff)
		}
	}
	stop()
	if len(seen) > 0 {
		t.Errorf("our own change was taken for one by %s", <-seen)
	}
	if err := table.Release(); err != nil {
		t.Errorf("release: %v", err)
	}
	if s := state(t, table); !s.Exists {
		t.Error("after release there is no table")
	}
	if removed, err := open(t, ns).Clear(); !removed || err != nil {
		t.Errorf("clear by another: removed %t, %v", removed, err)
	}
	if out, _ := ns.Run("", "nft", "list", "ruleset"); out != "" {
		t.Errorf("after clear there is still\n%s", out)
	}
}

// watch tells what others do to the table, until stop is called.
func watch(t *testing.T, ns *netns.NS, table *Table) (seen chan Intrusion, stop func()) {
	t.Helper()
	var w *Watcher
	if err := ns.Do(func() (err error) {
		w, err = Listen(func(port uint32) bool { return port == table.Port() })
		return err
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	seen = make(chan Intrusion, 10)
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, func(i Intrusion) { seen <- i }) }()
	return seen, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
