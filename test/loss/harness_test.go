package loss_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/rig"
)

// What must lose packets is seen to lose them: else zero would say nothing.
//
// The first case is a large batch, so that packets come in its midst on a single
// processor too. Linux 6.1 and 6.12 lose some while a set of intervals is flushed and
// filled, 6.18 doesn't; deleting and creating a table loses those that another
// processor works off at the same moment.
func TestHarnessSeesLoss(t *testing.T) {
	elements := "198.18.0.0/17, " + strings.Join(many(0), ", ")
	text := "table inet unmasq {\nset kept {\ntype ipv4_addr; flags interval;\nelements = { " + elements + " }\n}\n" +
		"chain postrouting {\ntype nat hook postrouting priority -199;\nip daddr @kept snat to ip saddr\n}\n}\n"
	tests := []struct {
		name string
		// once makes a gap.
		once func(t *testing.T, r *rig.Rig, n int)
	}{
		{"a set flushed and filled, or a table deleted and created, in one batch", func(t *testing.T, r *rig.Rig, n int) {
			if n%2 == 0 {
				r.NFT(t, "flush set inet unmasq kept\nadd element inet unmasq kept { "+elements+" }\n")
				return
			}
			r.NFT(t, "delete table inet unmasq\n"+text)
		}},
		{"table away for 50 ms", func(t *testing.T, r *rig.Rig, _ int) {
			r.Run(t, "", "nft", "delete", "table", "inet", "unmasq")
			time.Sleep(50 * time.Millisecond)
			r.NFT(t, text)
		}},
	}
	const each = 6 // of the load's flows, those that the text keeps
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t)
			r.NFT(t, text)
			times := 0
			seen := make(chan struct{}, 1)
			watched := rig.Traffic{Flow: func(i uint64) packet.Flow { return flow(i * each) }, Check: func(i uint64, s rig.Seen) string {
				said := check(i*each, s)
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
					tt.once(t, r, times)
				}
			})
			t.Logf("checked: the harness sees loss: %s, %d times: %s", tt.name, times, report)
			if report.Wrong == 0 {
				t.Error("nothing was wrong: the harness is blind")
			}
		})
	}
}

// many destinations that no flow goes to, no two of them adjacent. Those of
// another number are others. All come after the load's destinations, as which nft
// and the kernel write them: what is added first is met half-way for longest.
func many(number int) []string {
	var out []string
	for i := range 4000 {
		at := 16*i + 4*(number%4)
		out = append(out, fmt.Sprintf("200.%d.%d.%d/31", 64+at>>16, at>>8&0xff, at&0xff))
	}
	return out
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
