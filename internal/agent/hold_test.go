package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
)

// An agent that knows nothing yet keeps others from the table that one before it
// left, and enforces as soon as it knows.
func TestHeldUntilTheClusterIsKnown(t *testing.T) {
	n := netnstest.Test(t, "hold")
	must(t, n.Do(func() error {
		log := slog.New(slog.DiscardHandler)
		left, err := nft.Open(log)
		if err != nil {
			return err
		}
		left.UseOwnership(true)
		if err := errors.Join(left.Start(plan.Compile(&policy.Policy{}, &policy.Facts{}, plan.Options{})), left.Close()); err != nil {
			return err
		}
		f := &fakeCluster{changed: make(chan struct{})}
		a, err := New(Options{Cluster: f, Log: log})
		if err != nil {
			return err
		}
		defer a.closeTable()
		ctx, cancel := context.WithCancel(t.Context())
		done := a.followCluster(ctx, &inputs{})
		defer func() { cancel(); <-done }()
		a.reloadCluster()
		if _, err := n.Run("", "nft", "delete", "table", "inet", plan.TableName); err == nil || !strings.Contains(err.Error(), "not permitted") {
			return fmt.Errorf("another process deletes the table: %v", err)
		}
		if _, problem := a.status.ready(); problem == nil {
			return errors.New("ready, though nothing is known")
		}
		f.view = cluster.Join(large(3, 2))
		a.reloadCluster()
		if s, err := nft.Read(); err != nil || s.Owner != a.table.Port() || len(s.Counts) != 2 {
			return fmt.Errorf("known: %+v, %v", s, err)
		}
		return nil
	}))
}
