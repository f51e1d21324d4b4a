//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/doctor"
)

// pluginDoctor: of a node that is in order nothing is said, through the agent's own
// rights; of all nodes those without an agent are told.
func pluginDoctor(t *testing.T, ctx context.Context, p *plugin) {
	one := p.diagnose(t, ctx, 0, "default/client")
	if len(one.Findings) > 0 {
		t.Errorf("found on a node that is in order: %+v", one.Findings)
	}
	all := p.diagnose(t, ctx, 1, "--all")
	without := ""
	for _, u := range all.NotLookedAt {
		if u.Why == "it has no agent" {
			without += u.Node + " "
		}
	}
	if len(all.Findings) > 0 || !strings.Contains(without, "n2 ") {
		t.Errorf("without an agent: %q, found: %+v", without, all.Findings)
	}
}

func (p *plugin) diagnose(t *testing.T, ctx context.Context, status int, args ...string) doctor.Report {
	t.Helper()
	s := p.run(t, ctx, "admin", append([]string{"doctor", "-o", "json"}, args...)...)
	var r doctor.Report
	if err := json.Unmarshal([]byte(s.out), &r); err != nil || s.status != status {
		t.Fatalf("doctor %v: status %d, %v\n%s%s", args, s.status, err, s.out, s.err)
	}
	return r
}
