package doctor_test

import (
	"slices"
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/others/otherstest"
)

// pathLessons are about settings of the kernel on more ways than lessons has.
var pathLessons = []lesson{
	{
		code: "rp-filter-strict", name: "answers to pods that leave by another link, for their mark",
		provoke: byVPN + byMark + "sysctl -qw net.ipv4.conf.eth1.rp_filter=1",
		alike: map[string]string{
			"loose":                     byVPN + byMark + "sysctl -qw net.ipv4.conf.eth1.rp_filter=1 net.ipv4.conf.all.rp_filter=2",
			"for their addresses":       byVPN + "ip rule add from 10.244.1.0/24 lookup 100 prio 1000; sysctl -qw net.ipv4.conf.eth1.rp_filter=1",
			"for where they come from":  byVPN + "ip rule add iif cni0 lookup 100 prio 1000; sysctl -qw net.ipv4.conf.eth1.rp_filter=1",
			"the mark is given back":    byVPN + byMark + "iptables -t mangle -A PREROUTING -i eth1 -j CONNMARK --restore-mark; sysctl -qw net.ipv4.conf.eth1.rp_filter=1 net.ipv4.conf.all.src_valid_mark=1",
			"strict on the other links": byVPN + byMark + "sysctl -qw net.ipv4.conf.eth0.rp_filter=1 net.ipv4.conf.cni0.rp_filter=0",
		},
		call: &call{from: pod1, to: out, address: "203.0.113.9:80", before: lost, after: "198.51.100.1"},
	},
	{
		code: "localnet-exposed", name: "of the uplink",
		provoke: "sysctl -qw net.ipv4.conf.eth0.route_localnet=1",
	},
	{
		code: "bridge-nf-call-off", name: "IPv6",
		provoke: service("ip6tables", "fd00:96::10", "[fd00:10:244:1::3]:8080") + "sysctl -qw net.bridge.bridge-nf-call-ip6tables=0",
		alike: map[string]string{
			"of the other family": service("ip6tables", "fd00:96::10", "[fd00:10:244:1::3]:8080") + "sysctl -qw net.bridge.bridge-nf-call-iptables=0",
		},
		call: &call{from: pod1, to: pod2, address: "[fd00:96::10]:80@8080", before: lost, after: "fd00:10:244:1::2"},
	},
}

const (
	// byVPN: a table by which eth1 is the way out.
	byVPN  = "ip route add default via 198.51.100.2 dev eth1 table 100; sysctl -qw net.ipv4.conf.all.rp_filter=0\n"
	byMark = "iptables -t mangle -A PREROUTING -i cni0 -j MARK --set-mark 7; ip rule add fwmark 7 lookup 100 prio 1000\n"
)

// TestBypassOtherwise: programs that translate nothing, or that no policy is in the way of.
func TestBypassOtherwise(t *testing.T) {
	policy := applied(`{name: all, from: {cidrs: [10.244.1.0/24]}, action: Masquerade}`)
	for name, c := range map[string]struct{ script, program string }{
		"a program that watches": {policy, "watch_packets"},
		"without a policy":       {"", "cil_to_netdev-eth0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, c.script)
			if otherstest.Root(t) { // in a user namespace no program can be loaded
				defer otherstest.TC(t, l.node, "eth0", otherstest.Egress, c.program)()
			}
			if r := l.examine(); slices.Contains(codes(&r), "bypassed-by-ebpf") {
				t.Errorf("found where it isn't:\n%s", text(&r))
			}
		})
	}
}
