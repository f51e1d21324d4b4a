package guards_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/rig"
)

// The guard for IPsec stands in the table, and doesn't where it is left out.
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

// What IPsec is to encapsulate keeps its source: with another, no IPsec policy
// would match it any more, and it would leave in the clear.
//
// `rt ipsec exists` asks whether the packet's route is a bundle; a bundle needs a
// state, and a state a type of transformation (ESP, AH, IPComp), none of which
// every kernel has. Where the kernel has no ESP, it must say just that ("Requested
// type not found"), and no packet is sent: there can be none that the guard
// concerns. TestNoBundleWithoutState shows that a policy alone doesn't do.
func TestIPsecPackets(t *testing.T) {
	packets := 0
	for _, f := range packet.Families {
		t.Run(f.String(), func(t *testing.T) {
			r := rig.New(t)
			if !encapsulate(t, r, f) {
				t.Log("this kernel has no ESP: the guard for IPsec has nothing to guard")
				return
			}
			table := openTable(t, r)
			p := proof{rule: moveAll()}
			flow := packet.Flow{Source: choose(f, client, client6), Destination: choose(f, addr("10.77.0.5"), addr("2001:db8:77::5")),
				Protocol: packet.UDP, SourcePort: 40000, DestinationPort: 53}
			for _, tt := range []struct {
				without policy.Guard
				kept    bool
			}{{"", true}, {policy.GuardIPsec, false}} {
				packets++
				p.install(t, table, plan.Options{Without: tt.without})
				r.Forget(t)
				r.NFT(t, "table inet seen\ndelete table inet seen\n"+fmt.Sprintf(encapsulated, choose(f, "ip", "ip6"), choose(f, client, client6)))
				if _, err := r.SendAll([]packet.Flow{flow}); err != nil {
					t.Fatal(err)
				}
				rules := r.Run(t, "", "nft", "list", "table", "inet", "seen")
				if kept := strings.Contains(rules, `packets 1 bytes 40 comment "kept"`) || strings.Contains(rules, `packets 1 bytes 60 comment "kept"`); kept != tt.kept {
					t.Errorf("without guard %q: kept for IPsec %v, want %v\n%s", tt.without, kept, tt.kept, rules)
				}
			}
		})
	}
	if packets > 0 {
		t.Logf("checked: %d packets through IPsec", packets)
	}
}

// encapsulated counts what keeps its source behind all NAT: ip or ip6, and the source.
const encapsulated = `table inet seen {
	chain last {
		type filter hook postrouting priority 200;
		%s saddr %s rt ipsec exists counter comment "kept"
	}
}
`

// encapsulate sends what goes to 10.77.0.0/16 or 2001:db8:77::/48 through an ESP
// tunnel without a cipher; false where the kernel has no ESP.
func encapsulate(t *testing.T, r *rig.Rig, f packet.Family) bool {
	t.Helper()
	v6 := f == packet.IPv6Family
	ends := []string{"src", rig.AddressOf(rig.Eth0, v6).String(), "dst", choose(f, addr("192.0.2.2"), addr("2001:db8::2")).String(), "proto", "esp"}
	state := append([]string{"xfrm", "state", "add"}, ends...)
	state = append(state, "spi", "0x100", "mode", "tunnel", "auth", "digest_null", "", "enc", "cipher_null", "")
	if _, err := r.Node.Run("", "ip", state...); err != nil {
		if strings.Contains(err.Error(), "Requested type not found") {
			return false
		}
		t.Fatal(err)
	}
	selector := []string{"xfrm", "policy", "add", "src", "10.244.1.0/24", "dst", "10.77.0.0/16"}
	if v6 {
		selector = []string{"xfrm", "policy", "add", "src", "fd00:10:244:1::/64", "dst", "2001:db8:77::/48"}
	}
	r.Run(t, "", "ip", append(selector, "dir", "fwd")...)
	r.Run(t, "", "ip", append(append(selector, "dir", "out", "tmpl"), append(ends, "mode", "tunnel")...)...)
	return true
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
