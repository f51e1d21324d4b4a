package rig

import (
	"net/netip"
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
)

// Each fate a packet can have is told from the others, hundreds at once.
func TestFates(t *testing.T) {
	node, far := netnstest.Test(t, "node"), netnstest.Test(t, "far")
	for link, address := range map[string][2]string{"eth0": {"192.0.2.1/24", "2001:db8::1/64"}, "eth1": {"198.51.100.1/24", "2001:db8:1::1/64"}} {
		if err := netns.Veth(node, link, far, "to-"+link); err != nil {
			t.Fatal(err)
		}
		for _, a := range address {
			if err := node.Addr(link, netip.MustParsePrefix(a)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, command := range [][]string{
		{"ip", "link", "set", "eth0", "arp", "off"}, {"ip", "link", "set", "eth1", "arp", "off"},
		{"sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"},
	} {
		if _, err := node.Run("", command[0], command[1:]...); err != nil {
			t.Fatal(err)
		}
	}
	if err := awaitLocal(node, []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::1")}); err != nil {
		t.Fatal(err)
	}
	rules := func(prohibited, port string) string {
		return `*filter
-A INPUT -p udp --dport 1 -j DROP
-A INPUT -p udp --dport 2 -j REJECT --reject-with ` + prohibited + `
-A FORWARD -p udp --dport 1 -j DROP
-A FORWARD -p tcp --dport 2 -j REJECT --reject-with tcp-reset
-A FORWARD -p udp --dport 2 -j REJECT --reject-with ` + port + `
-A OUTPUT -p tcp --dport 1 -j DROP
-A OUTPUT -p tcp --dport 2 -j REJECT --reject-with tcp-reset
-A OUTPUT -p udp --dport 2 -j REJECT --reject-with ` + port + `
COMMIT
*nat
-A POSTROUTING -p tcp --dport 3 -j MASQUERADE
COMMIT
`
	}
	for program, text := range map[string]string{
		"iptables-nft-restore":  rules("icmp-admin-prohibited", "icmp-host-prohibited"),
		"ip6tables-nft-restore": rules("icmp6-adm-prohibited", "icmp6-addr-unreachable"),
	} {
		if _, err := node.Run(text, program); err != nil {
			t.Fatal(err)
		}
	}
	w := Open(t, node, Wire{Link: "eth0", Far: far, FarLink: "to-eth0"}, Wire{Link: "eth1", Far: far, FarLink: "to-eth1"})
	for _, c := range []struct{ client, node, server, node1, admin, host string }{
		{"192.0.2.9", "192.0.2.1", "198.51.100.9", "198.51.100.1", "icmp-admin-prohibited", "icmp-host-prohibited"},
		{"2001:db8::9", "2001:db8::1", "2001:db8:1::9", "2001:db8:1::1", "icmp6-adm-prohibited", "icmp6-addr-unreachable"},
	} {
		for i, x := range []struct {
			from, to string
			local    bool
			protocol uint8
			port     uint16
			want     string
		}{
			{c.client, c.server, false, packet.UDP, 1, "nothing"},
			{c.client, c.server, false, packet.TCP, 2, "tcp-reset"},
			{c.client, c.server, false, packet.UDP, 2, c.host},
			{c.client, c.server, false, packet.TCP, 3, "eth1 from " + c.node1},
			{c.client, c.server, false, packet.UDP, 4, "eth1 from " + c.client},
			{c.client, c.node, false, packet.UDP, 1, "nothing"},
			{c.client, c.node, false, packet.UDP, 2, c.admin},
			{c.client, c.node, false, packet.UDP, 3, "node from " + c.client},
			{c.client, c.node, false, packet.SCTP, 3, "node from " + c.client},
			{c.node, c.client, true, packet.TCP, 1, "nothing, refused"},
			{c.node, c.client, true, packet.TCP, 2, "tcp-reset, refused"},
			{c.node, c.client, true, packet.UDP, 2, c.host + ", refused"},
			{c.node, c.client, true, packet.TCP, 4, "eth0 from " + c.node},
			{c.node, c.node, true, packet.TCP, 4, "node from " + c.node},
		} {
			var flows []packet.Flow
			for n := range 100 {
				flows = append(flows, packet.Flow{Source: netip.MustParseAddr(x.from), Destination: netip.MustParseAddr(x.to), Protocol: x.protocol,
					SourcePort: uint16(2000 + 100*i + n), DestinationPort: x.port, Local: x.local, InInterface: "eth0"})
			}
			fates, err := w.Send(flows)
			if err != nil {
				t.Fatal(err)
			}
			for n, fate := range fates {
				if got := told(fate); got != x.want {
					t.Errorf("%d: %+v: %s, want %s", n, flows[n], got, x.want)
					break
				}
			}
		}
	}
}

func told(f Fate) string {
	text := "nothing"
	switch {
	case f.In != nil:
		text = "node from " + f.In.Source.String()
	case f.Out != nil:
		text = f.Out.Interface + " from " + f.Out.Source.String()
	case f.Error != "":
		text = f.Error
	}
	if f.Refused != nil {
		text += ", refused"
	}
	return text
}
