package lab

import (
	"encoding/hex"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
)

func TestParseComplaint(t *testing.T) {
	const ipv4 = "45000054000040003e010000" + "c0a8c80a" + "0a60000a"
	const ipv6 = "60000000" + "0040" + "3a" + "3e" + "fd00019201680200" + "0000000000000010" + "fd00009600000000" + "0000000000000010"
	for _, c := range []struct {
		name, packet, what, to string
		family                 packet.Family
	}{
		{"IPv4, time to live", "0b00000000000000" + ipv4, "time to live exceeded", "10.96.0.10", packet.IPv4Family},
		{"IPv4, port", "0303000000000000" + ipv4, "port unreachable", "10.96.0.10", packet.IPv4Family},
		{"IPv4, host prohibited", "030a000000000000" + ipv4, "destination unreachable", "10.96.0.10", packet.IPv4Family},
		{"IPv4, cut off", "0b00000000000000" + ipv4[:20], "", "", packet.IPv4Family},
		{"IPv4, an echo reply", "0000000000000000" + ipv4, "", "", packet.IPv4Family},
		{"IPv6, hop limit", "0300000000000000" + ipv6, "time to live exceeded", "fd00:96::10", packet.IPv6Family},
		{"IPv6, port", "0104000000000000" + ipv6, "port unreachable", "fd00:96::10", packet.IPv6Family},
		{"IPv6, no route", "0100000000000000" + ipv6, "destination unreachable", "fd00:96::10", packet.IPv6Family},
		{"IPv6, packet too big", "0200000000000000" + ipv6, "", "", packet.IPv6Family},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := hex.DecodeString(c.packet)
			if err != nil {
				t.Fatal(err)
			}
			what, to, ok := parseComplaint(c.family, b)
			if what != c.what || ok != (c.what != "") || ok && to.String() != c.to {
				t.Errorf("got %q about %v, %v; want %q about %s", what, to, ok, c.what, c.to)
			}
		})
	}
}
