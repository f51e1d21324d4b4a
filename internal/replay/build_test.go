package replay

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// everything that a node's network may have, and a replay builds again.
const everything = `link add eth0 type veth peer name eth0x
link add eth1 type veth peer name eth1x
link add wifi type veth peer name wifix
link add br.1 type bridge
link set eth0 up
link set eth0x up
link set eth1 up
link set eth1x up
link set br.1 up
addr add 192.0.2.1/24 dev eth0
addr add 192.0.2.7/24 dev eth0
addr add 192.0.2.200/32 dev eth0 scope link
addr add 10.9.0.1/16 broadcast 10.9.0.255 dev eth0
addr add 10.8.0.1 peer 10.8.0.2/32 dev eth1
addr add 198.51.100.1/24 dev eth1 noprefixroute
addr add 10.1.1.1/32 dev lo
addr add 10.244.0.1/16 dev br.1
addr add 10.3.0.1/24 dev wifi
addr add 2001:db8::1/64 dev eth0 nodad
addr add 2001:db8::7/64 dev eth0 nodad valid_lft forever preferred_lft 0
addr add 2001:db8:1::1/64 dev eth1 nodad
route add default via 192.0.2.2 dev eth0 src 192.0.2.7
route add default via 192.0.2.3 dev eth0 metric 50
route add 203.0.113.0/24 via 198.51.100.2 dev eth1 onlink
route add 203.0.113.64/26 via inet6 2001:db8::2 dev eth0
route add blackhole 10.66.0.0/24
route add unreachable 10.66.1.0/24
route add prohibit 10.66.2.0/24 metric 7
route add 8.8.0.0/16 nexthop via 192.0.2.2 dev eth0 weight 1 nexthop dev eth1 weight 2
route add default via 192.0.2.9 dev eth0 table 100
route add throw 8.8.8.8 table 100
route add 10.4.0.0/16 dev eth1 tos 0x10
route add local 203.0.113.70 dev lo
route add local 203.0.113.128/25 dev lo table 100
route add ::/0 via 2001:db8::2 dev eth0
route add 2001:db8:7::/48 nexthop via 2001:db8::2 dev eth0 nexthop via 2001:db8:1::2 dev eth1
route add fd00:66::/64 dev eth1 metric 7 pref high
route add unreachable fd00:67::/64
rule del priority 0
rule add priority 5 lookup local
rule add fwmark 0x100/0x100 lookup 100 priority 50
rule add not from 10.244.0.0/16 to 203.0.113.64/26 lookup 100 priority 51
rule add iif eth0 sport 1024-65000 ipproto tcp fwmark 0x1 lookup 100 priority 52
rule add iif br.1 ipproto udp dport 53 goto 100 priority 53
rule add oif eth1 to 10.96.0.0/12 blackhole priority 54
rule add to 8.8.4.4 prohibit priority 55
rule add from all lookup main suppress_prefixlength 0 priority 100
rule add uidrange 5-7 tos 0x10 unreachable priority 101
`

// A node that was built reads back as the snapshot that it was built from.
func TestBuild(t *testing.T) {
	n := netnstest.Test(t, "node")
	if _, err := n.Run(everything, "ip", "-batch", "-"); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Run("", "ip", "-6", "rule", "add", "to", "2001:db8:9::/48", "lookup", "100", "priority", "60"); err != nil {
		t.Fatal(err)
	}
	for key, value := range map[string]string{"net.ipv4.ip_forward": "1", "net.ipv4.conf.eth1.rp_filter": "2", "net.ipv6.conf.all.forwarding": "1", "net.ipv4.conf.br/1.forwarding": "0"} {
		if err := n.Sysctl(key, value); err != nil {
			t.Fatal(err)
		}
	}
	given := read(t, n)
	s, err := newScratch()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	if err := s.build(t.Context(), Node{Host: given}, nil); err != nil {
		t.Fatal(err)
	}
	if len(s.missing) > 0 {
		t.Errorf("left out: %q", s.missing)
	}
	if lines := network(given); len(lines) < 50 {
		t.Fatalf("the node has only %d lines", len(lines))
	}
	if diff := cmp.Diff(network(given), network(read(t, s.node))); diff != "" {
		t.Errorf("-given +built\n%s", diff)
	}
}

func read(t *testing.T, n *netns.NS) *snapshot.Host {
	t.Helper()
	files, err := capture.Take(t.Context(), capture.Options{Namespace: n})
	if err != nil {
		t.Fatal(err)
	}
	host, err := snapshot.FromFiles(files)
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// network in lines, without what is no part of a decision: link-local addresses,
// which program made a route, what the kernel adds for each link.
func network(h *snapshot.Host) (lines []string) {
	for _, a := range h.Network.Addresses {
		if !a.Prefix.Addr().IsLinkLocalUnicast() {
			lines = append(lines, fmt.Sprintf("address %+v", a))
		}
	}
	for _, r := range h.Network.Routes {
		if r.Destination.Addr().IsLinkLocalUnicast() || r.Family == packet.IPv6Family && (r.Destination.Addr().IsMulticast() || r.Table == 255) {
			continue
		}
		r.Text, r.Protocol = "", ""
		for i := range r.Nexthops {
			r.Nexthops[i].OnLink, r.Nexthops[i].LinkDown = false, false
		}
		lines = append(lines, fmt.Sprintf("route %+v", r))
	}
	for _, r := range h.Network.Rules {
		ports := fmt.Sprint(deref(r.SourcePorts), deref(r.DestinationPorts), deref(r.UIDs))
		r.Text, r.SourcePorts, r.DestinationPorts, r.UIDs = "", nil, nil, nil
		lines = append(lines, fmt.Sprintf("rule %+v %s", r, ports))
	}
	for _, key := range []string{"net.ipv4.ip_forward", "net.ipv4.conf.eth1.rp_filter", "net.ipv6.conf.all.forwarding", "net.ipv4.conf.br/1.forwarding", "net.ipv4.conf.eth0.forwarding"} {
		lines = append(lines, key+" = "+h.Sysctls[key])
	}
	slices.Sort(lines)
	return lines
}

func deref[T any](p *[2]T) string {
	if p == nil {
		return "any"
	}
	return fmt.Sprint(*p)
}
