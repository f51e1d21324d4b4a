package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/unmasq/unmasq/internal/kernel/nft"
)

// removed says whether the agent leaves for good: nobody comes after it who would
// change or remove its table.
func (a *Agent) removed(ctx context.Context) bool {
	if a.opts.Removed == nil {
		return false
	}
	removed, why := a.opts.Removed(ctx)
	if removed {
		a.opts.Log.Info("leaving for good, with the table", "because", why)
	} else {
		a.opts.Log.Info("the table stays", "because", why)
	}
	return removed
}

// clear leaves nothing in force. A table that another agent owns by now is that one's.
func (a *Agent) clear() error {
	if err := a.openTable(); err != nil {
		return err
	}
	defer a.closeTable()
	var owned *nft.OwnedError
	removed, err := a.table.Clear()
	switch {
	case errors.As(err, &owned):
		return nil
	case err != nil:
		return fmt.Errorf("clear on exit: %w", err)
	case removed:
		a.opts.Log.Info("removed the rules")
	}
	if a.opts.Cleared != nil {
		a.opts.Cleared()
	}
	return nil
}

// handOver leaves the policy in force as a plain table.
func (a *Agent) handOver() error {
	defer a.closeTable()
	if a.table == nil {
		return nil
	}
	if err := a.table.Release(); err != nil {
		return fmt.Errorf("hand the table over: %w", err)
	}
	a.opts.Log.Info("the policy stays in force; `unmasq clear` removes it")
	return nil
}
