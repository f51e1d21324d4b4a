package guards_test

import (
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/rig"
)

// The guard for IPsec stands in the table, and doesn't where it is left out.
//
// No packet is sent for it. `rt ipsec exists` asks whether the packet's route is
// a bundle; a bundle needs a state, and a state a type (ESP, AH, IPComp), which
// not every kernel that tests run on has. TestNoBundleWithoutState shows that a
// policy alone doesn't do.
func TestIPsec(t *testing.T) {
	r := rig.New(t)
	table := openTable(t, r)
	p := proof{rule: keepAll()}
	for _, tt := range []struct {
		without policy.Guard
		want    int // once in each family
	}{{"", 2}, {policy.GuardIPsec, 0}} {
		p.install(t, table, plan.Options{Without: tt.without})
		rules := r.Run(t, "", "nft", "list", "table", "inet", plan.TableName)
		if got := strings.Count(rules, "rt ipsec exists accept"); got != tt.want {
			t.Errorf("without guard %q: `rt ipsec exists accept` stands %d times, want %d\n%s", tt.without, got, tt.want, rules)
		}
	}
}

// Without a state, a policy that requires the transformation holds packets back
// before postrouting, and one that allows it gives them an ordinary route.
func TestNoBundleWithoutState(t *testing.T) {
	const counters = `table inet seen {
	chain postrouting {
		type filter hook postrouting priority 0;
		ip daddr 10.77.0.5 counter comment "arrived"
		ip daddr 10.77.0.5 rt ipsec exists counter comment "bundle"
	}
}
`
	for _, tt := range []struct {
		name, mode, level string
		arrived           bool
	}{{"required", "tunnel", "required", false}, {"allowed", "transport", "use", true}} {
		t.Run(tt.name, func(t *testing.T) {
			r := rig.New(t)
			r.NFT(t, counters)
			template := []string{"xfrm", "policy", "add", "src", "10.244.1.0/24", "dst", "10.77.0.0/16", "dir", "fwd"}
			r.Run(t, "", "ip", template...)
			template[len(template)-1] = "out"
			template = append(template, "tmpl")
			if tt.mode == "tunnel" {
				template = append(template, "src", "192.0.2.1", "dst", "192.0.2.2")
			}
			r.Run(t, "", "ip", append(template, "proto", "esp", "mode", tt.mode, "level", tt.level)...)
			seen, err := r.SendAll([]packet.Flow{{Source: client, Destination: addr("10.77.0.5"), Protocol: packet.UDP, SourcePort: 40000, DestinationPort: 53}})
			if err != nil {
				t.Fatal(err)
			}
			rules := r.Run(t, "", "nft", "list", "table", "inet", "seen")
			arrived := strings.Contains(rules, `packets 1 bytes 40 comment "arrived"`)
			if bundle := !strings.Contains(rules, `packets 0 bytes 0 comment "bundle"`); arrived != tt.arrived || bundle || (seen[0] != nil) != tt.arrived {
				t.Errorf("arrived %v, came out %v, want %v; bundle %v, want none\n%s", arrived, seen[0] != nil, tt.arrived, bundle, rules)
			}
		})
	}
}
