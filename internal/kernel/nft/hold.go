package nft

import (
	"fmt"

	"github.com/unmasq/unmasq/internal/plan"
)

// Hold owns a table that an agent left, as it stands, so that nobody else can alter
// it until Start or Sync. Nothing happens where there is none, or a plain one, which
// the kernel lets nobody own, or where somebody owns it.
func (t *Table) Hold() (held bool, err error) {
	if !t.ownership {
		return false, nil
	}
	s, err := t.conn.state(plan.TableName)
	if err != nil || !s.Orphan() {
		return false, err
	}
	if err := t.adopt(); err != nil {
		return false, fmt.Errorf("hold table %s: %w", plan.TableName, t.explain(err))
	}
	return true, nil
}
