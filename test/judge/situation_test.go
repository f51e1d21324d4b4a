package judge_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
)

// plainSituation is a node with two uplinks, pods behind docker0 and two links
// to one pod each, and a routing rule for a mark.
func plainSituation(f packet.Family) situation {
	s := situation{veths: []string{"eth0", "eth1", "docker0", "cali1a", "cali1b"}}
	addresses := []string{"192.0.2.1", "192.0.2.7", "10.9.0.1", "198.51.100.1", "10.244.0.1"}
	s.ip = []string{
		"addr add 192.0.2.1/24 dev eth0", "addr add 192.0.2.7/24 dev eth0", "addr add 10.9.0.1/16 dev eth0", "addr add 198.51.100.1/24 dev eth1",
		"addr add 10.244.0.1/16 dev docker0", "route add 10.245.1.2 dev cali1a", "route add 10.245.1.3 dev cali1b",
		"route add default via 192.0.2.2 dev eth0 src 192.0.2.7", "route add 203.0.113.0/24 via 198.51.100.2 dev eth1",
		"route add blackhole 10.66.0.0/24", "route add unreachable 10.66.1.0/24", "route add prohibit 10.66.2.0/24",
		"route add default via 198.51.100.2 dev eth1 table 100",
	}
	if f == packet.IPv6Family {
		s.v6 = true
		addresses = []string{"2001:db8::1", "2001:db8::7", "2001:db8:1::1", "fd00:10:244::1"}
		s.ip = []string{
			"addr add 2001:db8::1/64 dev eth0 nodad", "addr add 2001:db8::7/64 dev eth0 nodad", "addr add 2001:db8:1::1/64 dev eth1 nodad",
			"addr add fd00:10:244::1/48 dev docker0 nodad", "route add fd00:10:245:1::2 dev cali1a", "route add fd00:10:245:1::3 dev cali1b",
			"route add default via 2001:db8::2 dev eth0", "route add 2001:db8:113::/48 via 2001:db8:1::2 dev eth1",
			"route add blackhole fd00:66::/64", "route add unreachable fd00:66:1::/64", "route add prohibit fd00:66:2::/64",
			"route add default via 2001:db8:1::2 dev eth1 table 100",
		}
	}
	for _, a := range addresses {
		s.addresses = append(s.addresses, netip.MustParseAddr(a))
	}
	s.sysctls = map[string]string{}
	return s
}

// Routes and rules that a node may have besides; each world has some.
var moreRouting = map[packet.Family][]string{
	packet.IPv4Family: {
		"rule add fwmark 0x100/0x100 lookup 100",
		"rule add fwmark 0x100/0x100 lookup 100",
		"rule add from 10.244.1.0/24 lookup 100",
		"rule add from 192.0.2.7 lookup 100",
		"rule add iif cali1a to 8.8.0.0/13 lookup 100",
		"rule add iif docker0 ipproto udp dport 53 lookup 100",
		"rule add iif eth0 sport 1024-65000 ipproto tcp fwmark 0x1 lookup 100",
		"rule add not from 10.244.0.0/16 to 203.0.113.64/26 lookup 100",
		"rule add to 10.96.0.0/12 blackhole",
		"rule add to 8.8.4.4 prohibit",
		"rule add from all lookup main suppress_prefixlength 0 priority 100",
		"rule add fwmark 0x4000/0x4000 unreachable",
		"route add 8.8.0.0/16 nexthop via 192.0.2.2 dev eth0 weight 1 nexthop via 198.51.100.2 dev eth1 weight 2",
		"route add 10.96.0.0/16 via 10.244.0.9 dev docker0",
		"route add throw 8.8.8.8 table 100",
		"route add local 203.0.113.70 dev lo",
		"route add 10.9.7.0/24 dev eth1 metric 5",
		"route add 203.0.113.64/26 via 192.0.2.3 dev eth0 metric 10",
		"route add unreachable default metric 4000",
		"route add 198.51.100.128/25 dev cali1b scope link src 192.0.2.1",
	},
	packet.IPv6Family: {
		"rule add fwmark 0x100/0x100 lookup 100",
		"rule add fwmark 0x100/0x100 lookup 100",
		"rule add from fd00:10:244:1::/64 lookup 100",
		"rule add from 2001:db8::7 lookup 100",
		"rule add to 2001:4860::/32 iif cali1a lookup 100",
		"rule add to ::/0 iif docker0 ipproto udp dport 53 lookup 100",
		"rule add not from fd00:10:244::/48 to 2001:db8:113::40/122 lookup 100",
		"rule add to fd00:96::/108 blackhole",
		"rule add to 2001:4860::8844 prohibit",
		"route add 2001:4860::/48 nexthop via 2001:db8::2 dev eth0 weight 1 nexthop via 2001:db8:1::2 dev eth1 weight 2",
		"route add fd00:96::/64 via fd00:10:244::9 dev docker0",
		"route add local 2001:db8:113::46 dev lo",
		"route add 2001:db8:113::40/122 via 2001:db8::3 dev eth0 metric 10",
	},
}

// Settings that a node may have besides, each value as often as it's listed.
var moreSettings = []struct {
	key    string
	values []string
}{
	{"all.rp_filter", []string{"0", "0", "1", "2"}}, {"eth1.rp_filter", []string{"0", "0", "0", "1"}}, {"all.route_localnet", []string{"0", "1"}},
	{"docker0.accept_local", []string{"0", "0", "1"}}, {"all.src_valid_mark", []string{"0", "0", "1"}}, {"cali1b.forwarding", []string{"1", "1", "1", "0"}},
}

// randomSituation is a plain one with more.
func randomSituation(r *rand.Rand, f packet.Family) situation {
	s := plainSituation(f)
	if r.IntN(2) == 0 {
		s.veths = slices.DeleteFunc(s.veths, func(name string) bool { return name == "docker0" })
		s.bridges = []bridge{{"docker0", "vethd"}}
	}
	lines := moreRouting[f]
	have := map[string]bool{}
	for range r.IntN(6) {
		if line := lines[r.IntN(len(lines))]; !have[line] {
			have[line] = true
			s.ip = append(s.ip, line)
		}
	}
	if f == packet.IPv6Family {
		return s
	}
	for _, x := range moreSettings {
		s.sysctls["net.ipv4.conf."+x.key] = x.values[r.IntN(len(x.values))]
	}
	return s
}

func (s situation) String() string {
	text := ""
	for _, line := range s.ip {
		text += "ip " + line + "\n"
	}
	for _, key := range slices.Sorted(maps.Keys(s.sysctls)) {
		value := s.sysctls[key]
		if value != "0" || key == "net.ipv4.conf.cali1b.forwarding" {
			text += fmt.Sprintf("sysctl %s=%s\n", key, value)
		}
	}
	return text
}
