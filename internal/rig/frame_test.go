package rig

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
			frame := appendPacket(ethernet, f, want.ID)
			if got, ok := parsePacket(frame); !ok || got != want {
				t.Errorf("protocol %d: read %+v, %v, want %+v", protocol, got, ok, want)
			}
			for n := range frame {
				if got, ok := parsePacket(frame[:n]); ok {
					t.Errorf("protocol %d, cut to %d bytes: read %+v", protocol, n, got)
				}
			}
		}
	}
}

// A flow that comes out twice is seen once, so that it doesn't hide one that was lost.
func TestBitset(t *testing.T) {
	var b bitset
	for _, tt := range []struct {
		n    uint64
		want bool
	}{{0, true}, {0, false}, {63, true}, {64, true}, {1000, true}, {64, false}, {999, true}} {
		if got := b.add(tt.n); got != tt.want {
			t.Errorf("add(%d) = %v, want %v", tt.n, got, tt.want)
		}
	}
}
