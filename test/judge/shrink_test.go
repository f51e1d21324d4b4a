package judge_test

import (
	"fmt"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
)

// fail looks for the smallest ruleset that still disagrees, and shows it.
func (c *testcase) fail(t *testing.T, f packet.Flow, first string) {
	t.Helper()
	small, said := c.rules, c.disagreement(c.rules, f)
	for shrunk := said != ""; shrunk; {
		shrunk = false
		for _, r := range small.smaller() {
			if text := c.disagreement(r, f); text != "" {
				small, said, shrunk = r, text, true
				break
			}
		}
	}
	if said == "" {
		said = "not seen again"
	}
	t.Errorf("%s\n%sfirst: %s\n%s%s", c, c.situation, first, small, said)
}

// disagreement loads rules and sends a packet some times; empty where all agrees.
func (c *testcase) disagreement(r *ruleset, f packet.Flow) string {
	predict, err := c.load(r)
	if err != nil {
		return ""
	}
	outcomes := predict(f)
	times := 1
	if len(outcomes) > 1 {
		times = 20
	}
	for range times {
		fates, err := c.send([]packet.Flow{f})
		if err == nil && compare(f, fates[0], outcomes, mayBeLost) == wrong {
			return fmt.Sprintf("%s\nthe kernel: %s\npredicted:%s", flowText(f), fateText(fates[0]), outcomesText(outcomes))
		}
	}
	return ""
}
