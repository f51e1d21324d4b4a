package others_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/conflict"
	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func facts() *policy.Facts {
	return &policy.Facts{PodCIDRs: prefixes("10.244.0.0/16", "fd00:10:244::/48"), LocalPodCIDRs: prefixes("10.244.1.0/24"), ServiceCIDRs: prefixes("10.96.0.0/16"),
		NodeAddresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, TunnelPorts: []uint16{4790}}
}

// found as "REASON OWNER", with "?" where it can't be told.
func found(all []conflict.Finding) (out []string) {
	for _, f := range all {
		text := f.Reason + " " + f.Owner
		if f.Maybe {
			text += " ?"
		}
		out = append(out, text)
	}
	return out
}

const (
	raw = "table inet x { chain c { type filter hook prerouting priority raw; %s; }; }"
	nat = "table inet x { chain c { type nat hook postrouting priority -199; %s; }; }"
)

// Which rules win over a policy, as nft and iptables-nft write them.
func TestRules(t *testing.T) {
	for _, tt := range []struct {
		name, nft, iptables, ip6tables string
		want                           []string
	}{
		{name: "pods untracked", nft: fmt.Sprintf(raw, "ip saddr 10.244.0.0/16 counter notrack"), want: []string{"Untracked unknown"}},
		{name: "pods of IPv6 untracked", nft: fmt.Sprintf(raw, "ip6 saddr fd00:10:244::/48 notrack"), want: []string{"Untracked unknown"}},
		{name: "everything untracked", nft: fmt.Sprintf(raw, "notrack"), want: []string{"Untracked unknown"}},
		{name: "a family untracked", nft: fmt.Sprintf(raw, "meta nfproto ipv6 notrack"), want: []string{"Untracked unknown"}},
		{name: "a wide network", nft: fmt.Sprintf(raw, "ip saddr 10.0.0.0/8 ip daddr 203.0.113.0/24 notrack"), want: []string{"Untracked unknown"}},
		{name: "odd prefixes", nft: fmt.Sprintf(raw, "ip saddr 10.244.128.0/17 udp dport 53 notrack; ip6 saddr fd00::/9 notrack"), want: []string{"Untracked unknown", "Untracked unknown"}},
		{name: "behind a jump", nft: "table ip x { chain d { ip daddr 198.51.100.0/24 notrack; }; chain c { type filter hook prerouting priority -300; ip saddr 10.244.0.0/16 jump d; }; }",
			want: []string{"Untracked unknown"}},
		{name: "Cilium without conntrack", iptables: "*raw\n:CILIUM_PRE_raw - [0:0]\n-A PREROUTING -m comment --comment \"cilium-feeder: CILIUM_PRE_raw\" -j CILIUM_PRE_raw\n" +
			"-A CILIUM_PRE_raw -s 10.244.0.0/16 -m comment --comment \"cilium: NOTRACK for pod traffic\" -j CT --notrack\nCOMMIT\n", want: []string{"Untracked cilium"}},
		{name: "iptables' NOTRACK", iptables: "*raw\n-A PREROUTING -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -j NOTRACK\nCOMMIT\n", want: []string{"Untracked unknown"}},
		{name: "ip6tables' NOTRACK", ip6tables: "*raw\n-A PREROUTING -s fd00::/8 -j NOTRACK\nCOMMIT\n", want: []string{"Untracked unknown"}},
		{name: "translated at the same priority", nft: fmt.Sprintf(nat, "ip saddr 10.0.0.0/8 masquerade"), want: []string{"ForeignTable unknown"}},
		{name: "translated by what isn't read", nft: fmt.Sprintf(nat, "meta mark 1 snat ip to 192.0.2.7"), want: []string{"ForeignTable unknown ?"}},

		{name: "a DNS cache", iptables: "*raw\n-A PREROUTING -d 169.254.20.10/32 -p udp -m udp --dport 53 -m comment --comment \"NodeLocal DNS Cache: skip conntrack\" -j NOTRACK\n" +
			"-A PREROUTING -d 10.96.0.10/32 -p udp -m udp --dport 53 -m comment --comment \"NodeLocal DNS Cache: skip conntrack\" -j NOTRACK\n" +
			"-A OUTPUT -s 169.254.20.10/32 -p udp -m udp --sport 53 -j NOTRACK\nCOMMIT\n"},
		{name: "outer packets of tunnels", iptables: "*raw\n-A PREROUTING -p udp -m udp --dport 4789 -j NOTRACK\n-A PREROUTING -p udp -m udp --dport 4790 -j NOTRACK\nCOMMIT\n"},
		{name: "proxies", iptables: "*raw\n-A PREROUTING -m mark --mark 0x200/0xf00 -m comment --comment \"cilium: NOTRACK for proxy traffic\" -j CT --notrack\n-A PREROUTING -i lo -j NOTRACK\nCOMMIT\n"},
		{name: "the node's own", nft: "table inet x { chain c { type filter hook output priority raw; notrack; }; }"},
		{name: "other networks", nft: fmt.Sprintf(raw, "ip saddr 192.168.0.0/16 notrack; ip daddr 224.0.0.0/4 notrack; ip daddr 192.0.2.1 notrack; iifname lo notrack; icmpv6 type nd-neighbor-solicit notrack")},
		{name: "sets and maps", nft: fmt.Sprintf(raw, "ip saddr { 192.168.1.1, 192.168.1.7 } notrack; ip saddr != 10.244.0.0/16 notrack")},
		{name: "NAT of others at the same priority", nft: fmt.Sprintf(nat, "ip saddr 192.168.122.0/24 masquerade")},
		{name: "NAT behind", nft: "table inet x { chain c { type nat hook postrouting priority -198; masquerade; }; }"},
		{name: "a CT target that tracks", iptables: "*raw\n-A PREROUTING -p tcp -m tcp --dport 21 -j CT --zone 1\nCOMMIT\n"},
		{name: "conntrack is behind", nft: "table inet x { chain c { type filter hook prerouting priority mangle; accept; }; }"},
		{name: "pods taken out before", nft: fmt.Sprintf(raw, "ip saddr 10.244.0.0/16 accept; ip6 saddr fd00:10:244::/48 return; notrack")},
		{name: "pods taken out before by iptables", iptables: "*raw\n-A PREROUTING -s 10.244.0.0/16 -j ACCEPT\n-A PREROUTING -j NOTRACK\nCOMMIT\n"},
		{name: "some pods taken out before", nft: fmt.Sprintf(raw, "ip saddr 10.244.1.0/24 accept; ip saddr 10.244.0.0/16 tcp dport 80 return; ip saddr 10.0.0.0/8 notrack"), want: []string{"Untracked unknown"}},
		{name: "our own", nft: "table inet unmasq { chain postrouting { type nat hook postrouting priority -199; masquerade; }; }"},
	} {
		variants := []string{"nft", "legacy"}
		if tt.nft != "" {
			variants = variants[:1]
		}
		for _, v := range variants {
			t.Run(tt.name+"/"+v, func(t *testing.T) {
				n := netnstest.Test(t, "rules")
				r := open(t, n)
				for _, x := range [][]string{{tt.nft, "nft", "-f", "-"}, {tt.iptables, "iptables-" + v + "-restore"}, {tt.ip6tables, "ip6tables-" + v + "-restore"}} {
					if x[0] == "" {
						continue
					}
					if out, err := n.Run(x[0], x[1], x[2:]...); err != nil {
						t.Fatal(out, err)
					}
				}
				all := conflict.Of(rules(t, n, r), facts())
				if diff := cmp.Diff(tt.want, found(all)); diff != "" {
					t.Errorf("-want +got:\n%s\n%v", diff, all)
				}
			})
		}
	}
}

// What others write beside a policy that loses against a pin is none of its enemies.
func TestNeighboursAreSilent(t *testing.T) {
	node := foreign.Node{Bridge: "cni0",
		IPv4: foreign.Addresses{ClusterPods: prefixes("10.244.0.0/16")[0], LocalPods: prefixes("10.244.1.0/24")[0], Pods: []netip.Addr{netip.MustParseAddr("10.244.1.2")}},
		IPv6: foreign.Addresses{ClusterPods: prefixes("fd00:10:244::/48")[0], LocalPods: prefixes("fd00:10:244:1::/64")[0], Pods: []netip.Addr{netip.MustParseAddr("fd00:10:244:1::2")}}}
	for _, v := range foreign.Variants {
		t.Run(string(v), func(t *testing.T) {
			n := netnstest.Test(t, "silent")
			r := open(t, n)
			for _, c := range append(foreign.Components(), foreign.KubeProxy()) {
				for _, f := range packet.Families {
					if err := foreign.Run(t.Context(), foreign.In(n), c.Write(node, v, f)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if all := conflict.Of(rules(t, n, r), facts()); len(all) != 0 {
				t.Errorf("alarms: %v", all)
			}
		})
	}
}

// Of iptables-legacy no table is made by asking for it; chains and jumps are followed,
// and Cilium's rule is looked for where Cilium is.
func TestLegacyRules(t *testing.T) {
	n := netnstest.Test(t, "legacy")
	r := open(t, n)
	names := func() string {
		out, err := n.Run("", "cat", "/proc/thread-self/net/ip_tables_names", "/proc/thread-self/net/ip6_tables_names")
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	ip(t, n, "link add cilium_host type veth peer name cilium_net")
	programs(t, n, r)
	if found := rules(t, n, r); len(found.Rules) != 0 || names() != "" {
		t.Errorf("tables %q, found %+v", names(), found)
	}
	for _, x := range [][2]string{{"iptables-legacy-restore", "*raw\n:A - [0:0]\n:B - [0:0]\n-A PREROUTING -s 10.0.0.0/8 -p udp -j B\n-A B -d 198.51.100.0/24 -j A\n-A B -j RETURN\n-A B -j NOTRACK\n" +
		"-A A -m comment --comment why -j CT --notrack\nCOMMIT\n*nat\n:CILIUM_POST_nat - [0:0]\n-A CILIUM_POST_nat -s 10.244.2.0/24 -m comment --comment \"" + conflict.CiliumMasquerade + "\" -j MASQUERADE\nCOMMIT\n"},
		{"ip6tables-legacy-restore", "*raw\n-A PREROUTING -d 2001:db8::/32 -j NOTRACK\nCOMMIT\n"}} {
		if out, err := n.Run(x[1], x[0]); err != nil {
			t.Fatal(out, err)
		}
	}
	found := rules(t, n, r)
	want := []conflict.Rule{
		{Legacy: true, Family: "ip", Table: "raw", Chain: "A", Hook: "prerouting", Priority: -300, Comment: "why", Effect: conflict.Untracks,
			Source: prefixes("10.0.0.0/8")[0], Destination: prefixes("198.51.100.0/24")[0], Protocol: 17},
		{Legacy: true, Family: "ip6", Table: "raw", Chain: "PREROUTING", Hook: "prerouting", Priority: -300, Effect: conflict.Untracks,
			Source: prefixes("::/0")[0], Destination: prefixes("2001:db8::/32")[0]},
	}
	if diff := cmp.Diff(want, found.Rules, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" || !found.CiliumMasquerades {
		t.Errorf("-want +got:\n%s\nCilium %t", diff, found.CiliumMasquerades)
	}
	if rules(t, n, r) != found {
		t.Error("the same is another")
	}
}

// Rules are read again when somebody changed any, and only then.
func TestRulesAreReadOnChange(t *testing.T) {
	n := netnstest.Test(t, "again")
	r := open(t, n)
	first := rules(t, n, r)
	if rules(t, n, r) != first {
		t.Error("read again without a change")
	}
	if out, err := n.Run("*nat\n:CILIUM_POST_nat - [0:0]\n-A POSTROUTING -j CILIUM_POST_nat\n"+
		"-A CILIUM_POST_nat -s 10.244.2.0/24 ! -d 10.244.0.0/16 ! -o cilium_+ -m comment --comment \""+conflict.CiliumMasquerade+"\" -j MASQUERADE\nCOMMIT\n", "iptables-nft-restore"); err != nil {
		t.Fatal(out, err)
	}
	if first.CiliumMasquerades || !rules(t, n, r).CiliumMasquerades {
		t.Error("Cilium's rule isn't seen")
	}
	nft(t, n, "flush chain ip nat CILIUM_POST_nat")
	if rules(t, n, r).CiliumMasquerades {
		t.Error("Cilium's rule is seen, though it's gone")
	}
	nft(t, n, "add table inet x\nadd chain inet x c { type filter hook prerouting priority raw; }\n")
	for i := range 20 { // many at once are too long a message for who isn't root
		var some strings.Builder
		for j := range 250 {
			fmt.Fprintf(&some, "add rule inet x c ip saddr 192.168.%d.%d notrack\n", i, j)
		}
		nft(t, n, some.String())
	}
	if got := rules(t, n, r); !got.Cut || len(got.Rules) != 4096 {
		t.Errorf("%d rules were read, cut %t", len(got.Rules), got.Cut)
	}
}
