package foreign_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
)

// recordedRules of a component for one destination, as the programs list them.
func recordedRules(native bool, destination string) map[packet.Family]string {
	text := `*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-SERVICES -d ` + destination + `/32 -j KUBE-MARK-MASQ
COMMIT
`
	if native {
		text = `table ip kube-proxy {
	comment "rules for kube-proxy"
	chain services {
		ip daddr ` + destination + ` meta mark set 0x00004000
	}

	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}
}
`
	}
	return map[packet.Family]string{packet.IPv4Family: text}
}

// What was recorded is there again after Write, and with other settings after
// Restart; jumps aren't doubled. Remove leaves nothing.
func TestRecorded(t *testing.T) {
	for _, c := range []struct {
		name    string
		variant foreign.Variant
		native  bool
		list    []string
	}{
		{"iptables-legacy", foreign.Legacy, false, []string{"iptables-legacy-save", "-t", "nat"}},
		{"iptables-nft", foreign.NFT, false, []string{"iptables-nft-save", "-t", "nat"}},
		{"nftables", foreign.NFT, true, []string{"nft", "list", "ruleset"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ns := netnstest.Test(t, "recorded")
			first, second := recordedRules(c.native, "10.96.0.10"), recordedRules(c.native, "10.96.0.11")
			component := func(rules map[packet.Family]string) foreign.Component {
				return foreign.Recorded("kube-proxy", c.native, rules)
			}
			node := foreign.Node{}
			for _, step := range []struct {
				name  string
				steps []foreign.Step
				want  string
			}{
				{"write", component(first).Write(node, c.variant, packet.IPv4Family), first[packet.IPv4Family]},
				{"restart", component(first).Restart(node, c.variant, packet.IPv4Family), first[packet.IPv4Family]},
				{"restart with other settings", component(second).Restart(node, c.variant, packet.IPv4Family), second[packet.IPv4Family]},
				{"remove", component(second).Remove(node, c.variant, packet.IPv4Family), ""},
				{"nothing of IPv6", component(first).Write(node, c.variant, packet.IPv6Family), ""},
			} {
				if err := foreign.Run(t.Context(), foreign.In(ns), step.steps); err != nil {
					t.Fatalf("%s: %v", step.name, err)
				}
				text, err := ns.Run("", c.list[0], c.list[1:]...)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(essence(step.want), essence(text)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", step.name, diff)
				}
			}
		})
	}
}

// essence is without remarks, counters, and the chains and table that the kernel has anyway.
func essence(text string) string {
	var b strings.Builder
	for line := range strings.Lines(changing.ReplaceAllString(text, "")) {
		if !strings.HasPrefix(line, "#") && !strings.HasSuffix(line, " ACCEPT\n") && line != "*nat\n" && line != "COMMIT\n" {
			b.WriteString(line)
		}
	}
	return b.String()
}
