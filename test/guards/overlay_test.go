package guards_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/policy/policytest"
	"github.com/unmasq/unmasq/internal/rig"
)

// A rule that overrides the service mark takes it off the packet. Left there it
// would travel into the VXLAN packet, and kube-proxy would translate that one.
func TestClearedMarkDoesNotTravel(t *testing.T) {
	for _, v := range foreign.Variants {
		t.Run(string(v), func(t *testing.T) {
			r := rig.New(t)
			// The tunnel's address is another than the one that its packets would be
			// masqueraded to.
			addVXLAN(t, r, rig.Eth1Addr, addr("192.0.2.2"), 8472)
			kubeMasquerade(v, packet.IPv4Family)(t, r)
			load(strings.ReplaceAll(kubeService, web.String(), "10.99.0.5"), v, packet.IPv4Family)(t, r)
			p := proof{flow: toService(vpn), source: rig.Eth1Addr}

			table := openTable(t, r)
			want := plan.Compile(policyOf(policy.Rule{
				From: policy.From{CIDRs: policytest.Prefixes("172.30.0.0/16")}, Action: policy.Keep, OverrideServiceMasquerade: true,
			}), facts(), plan.Options{})
			sync(t, table, want)
			if wrong := p.wrong(t, r, patient); wrong != "" {
				t.Errorf("mark cleared: %s", wrong)
			}
			sync(t, table, withoutClearing(want))
			if p.wrong(t, r, patient) == "" {
				t.Error("with the mark left on, the VXLAN packet is not translated: this proves nothing")
			}
		})
	}
}

// withoutClearing is the table without the statements that clear marks.
func withoutClearing(t *plan.Table) *plan.Table {
	out := *t
	out.Chains = slices.Clone(t.Chains)
	for i := range out.Chains {
		chain := &out.Chains[i]
		chain.Rules = slices.DeleteFunc(slices.Clone(chain.Rules), func(r plan.Rule) bool {
			_, clears := r.Statements[0].(plan.ClearMark)
			return clears
		})
	}
	return &out
}

// vxlan is a pod's packet through a real VXLAN link. 4790 is no known port: it
// stands for one that was read from the link. The outer packet is the node's own,
// though at postrouting its input interface is the VXLAN link ("netfilter: Support
// iif matches in POSTROUTING", 2019): rules for forwarded packets must not see it.
func vxlan(port uint16, f packet.Family) proof {
	own, remote := rig.AddressOf(rig.Eth0, f == packet.IPv6Family), choose(f, addr("192.0.2.2"), addr("2001:db8::2"))
	return proof{
		name: fmt.Sprintf("vxlan link, port %d %s", port, f), guard: policy.GuardTunnel, rule: moveAll(),
		foreign: func(t *testing.T, r *rig.Rig) { t.Helper(); addVXLAN(t, r, own, remote, port) },
		facts:   func(facts *policy.Facts) { facts.TunnelPorts = []uint16{4790} },
		flow:    packet.Flow{Source: client, Destination: addr("10.99.0.5"), Protocol: packet.UDP, SourcePort: 40000, DestinationPort: 53},
		source:  own,
	}
}

// addVXLAN puts 10.99.0.0/16 behind a VXLAN link.
func addVXLAN(t *testing.T, r *rig.Rig, local, remote netip.Addr, port uint16) {
	t.Helper()
	r.Run(t, "", "ip", "link", "add", "vxlan0", "type", "vxlan", "id", "1", "dev", rig.Eth0,
		"local", local.String(), "remote", remote.String(), "dstport", fmt.Sprint(port), "nolearning")
	r.Run(t, "", "ip", "link", "set", "vxlan0", "arp", "off", "up")
	r.Run(t, "", "ip", "route", "add", "10.99.0.0/16", "dev", "vxlan0")
}

// A marked packet into a tunnel is translated inside and not outside: by who
// marked it, or by a rule that overrides the mark.
func TestMarkedPacketIntoTunnel(t *testing.T) {
	const seen = `table inet seen {
	chain set-marks {
		type filter hook prerouting priority mangle;
		ip daddr 10.99.0.0/16 meta mark set 0x4000
	}
	chain last {
		type filter hook postrouting priority 200;
		oifname "vxlan0" ip daddr 10.99.0.5 ip saddr != 10.244.1.8 counter comment "translated"
	}
}
`
	connections := 0
	for _, tt := range []struct {
		name string
		rule policy.Rule
	}{{"by kube-proxy", moveAll()}, {"by a rule", overriding(moveAll())}} {
		for _, v := range foreign.Variants {
			connections++
			t.Run(tt.name+" "+string(v), func(t *testing.T) {
				r := rig.New(t)
				p := vxlan(4790, packet.IPv4Family)
				p.foreign(t, r)
				r.NFT(t, seen)
				kubeMasquerade(v, packet.IPv4Family)(t, r)
				p.rule = tt.rule
				table := openTable(t, r)
				p.install(t, table, plan.Options{})
				if wrong := p.wrong(t, r, patient); wrong != "" {
					t.Errorf("outside: %s", wrong)
				}
				if rules := r.Run(t, "", "nft", "list", "table", "inet", "seen"); !strings.Contains(rules, "counter packets 1 ") {
					t.Errorf("inside nothing is translated\n%s", rules)
				}
				p.install(t, table, plan.Options{Without: policy.GuardTunnel})
				if p.wrong(t, r, impatient) == "" {
					t.Error("without the guard the tunnel's packet leaves as it should: this proves nothing")
				}
			})
		}
	}
	t.Logf("checked: %d packets in packets", connections)
}
