package loss_test

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/render"
	"github.com/unmasq/unmasq/internal/rig"
)

// What must lose packets is seen to lose them: else zero would say nothing.
func TestHarnessSeesLoss(t *testing.T) {
	text := standing(t)
	tests := []struct {
		name string
		// once makes a gap.
		once func(t *testing.T, r *rig.Rig)
	}{
		{"table deleted and created in one batch", func(t *testing.T, r *rig.Rig) {
			r.NFT(t, "delete table inet unmasq\n"+text)
		}},
		{"table away for 50 ms", func(t *testing.T, r *rig.Rig) {
			r.Run(t, "", "nft", "delete", "table", "inet", "unmasq")
			time.Sleep(50 * time.Millisecond)
			r.NFT(t, text)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.NFT(t, text)
			times := 0
			seen := make(chan struct{}, 1)
			watched := rig.Traffic{Flow: flow, Check: func(i uint64, s rig.Seen) string {
				said := check(i, s)
				if said != "" {
					select {
					case seen <- struct{}{}:
					default:
					}
				}
				return said
			}}
			report := underLoad(t, r, watched, func() {
				for start := time.Now(); time.Since(start) < 30*time.Second && len(seen) == 0; times++ {
					tt.once(t, r)
				}
			})
			t.Logf("checked: the harness sees loss: %s, %d times: %s", tt.name, times, report)
			if report.Wrong == 0 {
				t.Error("nothing was wrong: the harness is blind")
			}
		})
	}
}

// standing is policyText as a table in nft's language.
func standing(t *testing.T) string {
	t.Helper()
	loaded, err := policy.Load([]policy.Source{{Name: "policy.yaml", Content: []byte(policyText)}}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	facts := &policy.Facts{PodCIDRs: podCIDRs}
	var b bytes.Buffer
	if err := render.Table(&b, plan.Compile(&loaded.Policy, facts, plan.Options{})); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// ownership says whether the kernel has it. Where it doesn't, all tests run with
// plain tables.
func ownership(t *testing.T) bool {
	t.Helper()
	var f nft.Features
	err := netnstest.Test(t, "probe").Do(func() (err error) { f, err = nft.Probe(); return err })
	if err != nil {
		t.Fatal(err)
	}
	return f.Ownership
}

// open opens a table in the node, to be written without an agent. It is owned if
// it shall be and the kernel can.
func open(t *testing.T, r *rig.Rig, owned bool) *nft.Table {
	t.Helper()
	var table *nft.Table
	err := r.Node.Do(func() (err error) {
		table, err = nft.Open(slog.New(slog.DiscardHandler))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	table.UseOwnership(owned && ownership(t))
	t.Cleanup(func() { table.Close() })
	return table
}
