package matrix

import (
	"slices"

	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// With is the node as it would be with another table of unmasq's in force.
func (n Node) With(table *nftables.Table) Node {
	host := *n.Host
	host.Rules.Tables = slices.DeleteFunc(slices.Clone(host.Rules.Tables), func(t *ruleset.Table) bool {
		return t.Native != nil && t.Native.Family == table.Family && (t.Name == plan.TableName || t.Name == plan.HandoverName)
	})
	host.Rules.Tables = append(host.Rules.Tables, ruleset.FromNative(table))
	n.Host = &host
	return n
}

// Since marks the cells that were otherwise before, and returns their number. Both
// matrices are of one situation, but for the rules.
func (m *Matrix) Since(before *Matrix) (changed int) {
	type place struct{ row, column, family string }
	old := map[place]*Cell{}
	for i := range before.Cells {
		c := &before.Cells[i]
		old[place{c.Row, c.Column, c.Family}] = c
	}
	for i := range m.Cells {
		c := &m.Cells[i]
		was := old[place{c.Row, c.Column, c.Family}]
		if was != nil && len(was.Predicted) > 0 && Words(was.Predicted) != Words(c.Predicted) {
			c.Before = was.Predicted
			changed++
		}
	}
	return changed
}
