package rules

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

var (
	prefix     = rapid.Map(rapid.SampledFrom([]string{"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/24", "128.0.0.0/1", "10.1.2.3/32"}), netip.MustParsePrefix)
	addressSet = rapid.Custom(func(t *rapid.T) Addresses {
		return Addresses{In: rapid.SliceOfN(prefix, 1, 3).Draw(t, "in"), Except: rapid.SliceOfN(prefix, 0, 2).Draw(t, "except")}
	})
	anyRegion = rapid.Custom(func(t *rapid.T) Region {
		return Region{
			Family: packet.IPv4Family, Forwarded: rapid.Bool().Draw(t, "forwarded"), Node: rapid.Bool().Draw(t, "node"),
			Source: addressSet.Draw(t, "source"), Destination: addressSet.Draw(t, "destination"),
			Out: rapid.SampledFrom([][]string{nil, {"eth0"}, {"eth*"}, {"eth1", "cni0"}, {"e*", "cni0"}}).Draw(t, "out"),
			Ports: rapid.SampledFrom([][]policy.PortMatch{
				nil, {{Protocol: packet.TCP, PortRange: policy.PortRange{First: 0, Last: 65535}}}, {{Protocol: packet.TCP, PortRange: policy.PortRange{First: 80, Last: 90}}},
				{{Protocol: packet.UDP, PortRange: policy.PortRange{First: 53, Last: 53}}, {Protocol: packet.TCP, PortRange: policy.PortRange{First: 85, Last: 85}}},
			}).Draw(t, "ports"),
		}
	})
)

// one packet, as regions see it.
type one struct {
	source, destination netip.Addr
	out                 string
	protocol            uint8
	port                uint16
	node                bool
}

func (r Region) has(p one) bool {
	out := r.Out == nil || slices.ContainsFunc(r.Out, func(pattern string) bool {
		begin, wild := strings.CutSuffix(pattern, "*")
		return pattern == p.out || wild && strings.HasPrefix(p.out, begin)
	})
	return (p.node && r.Node || !p.node && r.Forwarded) && r.Source.Contains(p.source) && r.Destination.Contains(p.destination) && out &&
		(r.Ports == nil || policy.AnyPort(r.Ports, p.protocol, p.port))
}

// TestRegions: regions are sets of packets, and what is said of them holds for each packet.
func TestRegions(t *testing.T) {
	var packets []one
	for _, a := range []string{"10.1.2.3", "10.1.2.4", "10.1.9.9", "10.9.9.9", "192.0.2.1", "8.8.8.8"} {
		for _, b := range []string{"10.1.2.3", "10.9.9.9", "192.0.2.1", "8.8.8.8"} {
			for _, out := range []string{"eth0", "eth1", "cni0"} {
				for _, port := range []one{{protocol: packet.TCP, port: 80}, {protocol: packet.TCP, port: 85}, {protocol: packet.UDP, port: 53}, {protocol: packet.ICMP}} {
					for _, node := range []bool{false, true} {
						packets = append(packets, one{netip.MustParseAddr(a), netip.MustParseAddr(b), out, port.protocol, port.port, node})
					}
				}
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyRegion.Draw(t, "a"), anyRegion.Draw(t, "b")
		both, some := a.and(b)
		within := a.within(b)
		for _, p := range packets {
			switch {
			case (a.has(p) && b.has(p)) != (some && both.has(p)):
				t.Fatalf("%+v: in a %v, in b %v, in both %v %+v", p, a.has(p), b.has(p), some && both.has(p), both)
			case within && a.has(p) && !b.has(p):
				t.Fatalf("%+v is in a, which is within b, and not in b", p)
			}
		}
	})
}
