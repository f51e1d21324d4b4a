package sim_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// TestHostileRules: rules whose ways are more than anybody could follow end as
// unknown, which says so; those that are only many are followed.
func TestHostileRules(t *testing.T) {
	const deep = 40
	// tree has chains that each have the rule twice; %d is the next chain.
	tree := func(rule string) string {
		var chains, rules strings.Builder
		for i := range deep {
			fmt.Fprintf(&chains, ":C%d - [0:0]\n", i)
			fmt.Fprintf(&rules, "-A C%d "+rule+"\n-A C%d "+rule+"\n", i, i+1, i, i+1)
		}
		return chains.String() + ":C40 - [0:0]\n-A POSTROUTING -j C0\n" + rules.String() + "-A C40 -s 192.0.2.99/32 -j ACCEPT\n"
	}
	many := func(count int, match string) string {
		var b strings.Builder
		for i := range count {
			fmt.Fprintf(&b, "-A POSTROUTING "+match+" -j SNAT --to-source 198.18.%d.%d\n", i, i>>8, i&255)
		}
		return b.String()
	}
	for _, tt := range []struct {
		name, rules string
		outcomes    int // at least
		unknown     bool
	}{
		{"each chain jumps twice to the next", tree("-j C%d"), 1, true},
		{"by dice", tree("-m statistic --mode random --probability 0.5 -j C%d"), 2, true},
		{"where a match isn't known", tree("-m what --ever -j C%d"), 2, true},
		{"a chain that calls itself", ":C0 - [0:0]\n-A POSTROUTING -j C0\n-A C0 -j C0\n-A C0 -j C0\n", 1, true},
		{"chains that go to each other", ":C0 - [0:0]\n:C1 - [0:0]\n-A POSTROUTING -j C0\n-A C0 -g C1\n-A C1 -g C0\n", 1, true},
		{"2000 backends", many(2000, "-m statistic --mode random --probability 0.%04d"), 2000, false},
		{"10000 backends", many(10_000, "-m statistic --mode random --probability 0.%04d"), 4000, true},
		{"10000 unknown matches", many(10_000, "-m what --number %d"), 1000, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n" + tt.rules + "COMMIT\n"
			host, err := snapshot.FromFiles(map[string][]byte{snapshot.FileIPTables: []byte(text)})
			if err != nil {
				t.Fatal(err)
			}
			question := sim.Question{
				Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("192.0.2.1"), Protocol: 6, SourcePort: 4000, DestinationPort: 80,
			}
			outcomes := sim.New(host).Run(question, sim.Options{})
			unknown := false
			for _, o := range outcomes {
				if o.Verdict == sim.VerdictUnknown {
					unknown = true
					if len(o.DependsOn) == 0 {
						t.Error("an unknown outcome that doesn't say why")
					}
				}
			}
			if len(outcomes) < tt.outcomes || unknown != tt.unknown {
				t.Errorf("%d outcomes, unknown %t", len(outcomes), unknown)
			}
		})
	}
}
