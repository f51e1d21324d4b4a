package wires

import (
	"net/netip"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
)

// What is sent is read again, and nothing else is taken for it.
func TestFrames(t *testing.T) {
	for _, protocol := range []uint8{packet.TCP, packet.UDP, packet.ICMP, packet.ICMPv6, packet.SCTP, packet.GRE} {
		for _, addrs := range [][2]string{{"10.244.1.7", "203.0.113.5"}, {"fd00:10:244:1::7", "2001:db8:113::5"}} {
			f := packet.Flow{Source: netip.MustParseAddr(addrs[0]), Destination: netip.MustParseAddr(addrs[1]), Protocol: protocol}
			want := Seen{Source: f.Source, Destination: f.Destination, Protocol: protocol, ID: 1<<63 | 77}
			if f.HasPorts() {
				f.SourcePort, f.DestinationPort = 40000, 443
				want.SourcePort, want.DestinationPort = 40000, 443
			}
			ethernet := append(make([]byte, 12), 0x08, 0x00)
			if f.Source.Is6() {
				ethernet = append(make([]byte, 12), 0x86, 0xdd)
			}
			frame := AppendPacket(ethernet, f, want.ID)
			if got, ok := ParsePacket(frame); !ok || got != want {
				t.Errorf("protocol %d: read %+v, %v, want %+v", protocol, got, ok, want)
			}
			for n := range frame {
				if got, ok := ParsePacket(frame[:n]); ok {
					t.Errorf("protocol %d, cut to %d bytes: read %+v", protocol, n, got)
				}
			}
		}
	}
}
