// Package policytest makes random policies, facts and flows for tests that hold
// something against policy.Decide. Addresses come from a small world, so that
// rules overlap and flows hit their borders.
//
//	g := policytest.New(rand.New(rand.NewPCG(seed, 0)))
//	p, facts := g.Policy(), g.Facts()
//	flow := g.Flow(facts)
package policytest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// World is where addresses and interfaces come from. Sources are what pods and
// other forwarded senders may have, Destinations where packets may go.
type World struct {
	Sources, Destinations []netip.Prefix
	NodeAddresses         []netip.Addr
	OutInterfaces         []string
	SNAT                  []netip.Addr
}

// DefaultWorld has addresses for documentation and private use.
func DefaultWorld() World {
	return World{
		Sources:       Prefixes("10.244.0.0/22", "172.30.0.0/24", "fd00:10:244::/62", "fd00:172:30::/64"),
		Destinations:  Prefixes("10.244.0.0/22", "192.168.200.0/24", "203.0.113.0/24", "fd00:10:244::/62", "2001:db8:113::/64"),
		NodeAddresses: Addrs("192.0.2.1", "198.51.100.1", "2001:db8::1", "2001:db8:1::1"),
		OutInterfaces: []string{"eth0", "eth1"},
		SNAT:          Addrs("192.0.2.77", "192.0.2.78", "192.0.2.79", "2001:db8::77", "2001:db8::78"),
	}
}

// Generator draws from a World.
type Generator struct {
	*rand.Rand
	World World
}

// New draws from the default world.
func New(r *rand.Rand) *Generator { return &Generator{r, DefaultWorld()} }

func (g *Generator) chance(oneIn int) bool { return g.IntN(oneIn) == 0 }

func pick[T any](g *Generator, from []T) T { return from[g.IntN(len(from))] }

// Prefix is a random subnet of one of the prefixes, often a border's neighbour.
func (g *Generator) Prefix(within []netip.Prefix) netip.Prefix {
	p := pick(g, within)
	bits := p.Bits() + g.IntN(min(p.Addr().BitLen()-p.Bits(), 12)+1)
	if g.chance(6) {
		bits = p.Addr().BitLen()
	}
	return netip.PrefixFrom(g.Addr(p), bits).Masked()
}

// Addr is a random address of the prefix; every fourth is at a border of one of
// its first subnets.
func (g *Generator) Addr(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	low := len(b) - 2
	r := uint16(g.Uint32())
	switch g.IntN(4) {
	case 0:
		r &= 0xff00
	case 1:
		r |= 0x00ff
	}
	for i := range 2 {
		bit := (low + i) * 8
		mask := byte(0xff)
		switch {
		case p.Bits() >= bit+8:
			mask = 0
		case p.Bits() > bit:
			mask = 0xff >> (p.Bits() - bit)
		}
		b[low+i] = b[low+i]&^mask | byte(r>>(8*(1-i)))&mask
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (g *Generator) prefixes(within []netip.Prefix, most int) []netip.Prefix {
	var out []netip.Prefix
	for range 1 + g.IntN(most) {
		out = append(out, g.Prefix(within))
	}
	return out
}

// Policy has up to eight rules.
func (g *Generator) Policy() *policy.Policy {
	p := &policy.Policy{}
	for i := range 1 + g.IntN(8) {
		r := policy.Rule{
			Document: "default", Name: fmt.Sprintf("rule-%d", i+1), Number: i + 1,
			From: g.from(), To: g.to(),
			OverrideServiceMasquerade: g.chance(5),
		}
		if g.chance(5) {
			r.OutInterfaces = []string{pick(g, append([]string{"eth*", "wlan0"}, g.World.OutInterfaces...))}
		}
		if i > 0 && g.chance(2) { // a run of rules that can share a lookup
			last := &p.Rules[i-1]
			r.From, r.OutInterfaces, r.To.Ports = last.From, last.OutInterfaces, last.To.Ports
			if last.To.Services != nil && r.To.Services != nil {
				r.To.Services.Backends = last.To.Services.Backends
				if g.chance(2) {
					r.To.Except = last.To.Except
				}
			}
		}
		g.action(&r)
		p.Rules = append(p.Rules, r)
	}
	return p
}

func (g *Generator) action(r *policy.Rule) {
	r.Action = pick(g, []policy.Action{policy.Keep, policy.Keep, policy.Masquerade, policy.SNAT, policy.Leave})
	switch r.Action {
	case policy.Masquerade:
		r.FullyRandom = g.chance(2)
		if g.chance(2) {
			first := uint16(1024 + g.IntN(30000))
			r.Ports = policy.PortRange{First: first, Last: first + uint16(g.IntN(2000))}
		}
	case policy.SNAT:
		r.FullyRandom = g.chance(2)
		for _, a := range g.World.SNAT {
			if g.chance(2) || len(r.Addresses) == 0 {
				r.Addresses = append(r.Addresses, a)
			}
		}
	}
}

func (g *Generator) from() policy.From {
	f := policy.From{}
	switch g.IntN(8) {
	case 0:
		f.Forwarded = true
	case 1, 2:
		f.PodCIDRs = true
	case 3:
		f.Pods = &policy.PodSelector{Pod: g.selector(), Namespace: labels.Everything()}
	case 4:
		f.Node = true
	case 5:
		f.Node, f.PodCIDRs = true, true
	case 6:
		f.CIDRs, f.Pods = g.prefixes(g.World.Sources, 2), &policy.PodSelector{Pod: g.selector(), Namespace: labels.Everything()}
	default:
		f.CIDRs = g.prefixes(g.World.Sources, 4)
	}
	if g.chance(4) {
		f.Except = g.prefixes(append(g.World.Sources, hostPrefixes(g.World.NodeAddresses)...), 2)
	}
	return f
}

func (g *Generator) selector() labels.Selector {
	return labels.SelectorFromSet(labels.Set{"app": pick(g, []string{"a", "b"})})
}

func (g *Generator) to() policy.To {
	t := policy.To{}
	switch g.IntN(10) {
	case 6, 7, 8, 9:
		t.Services = g.services()
		if g.chance(4) {
			t.CIDRs = g.prefixes(g.World.Destinations, 2)
		}
	case 0, 1:
		t.Everywhere = true
	case 2:
		t.PodCIDRs = true
	case 3:
		t.Nodes, t.CIDRs = true, g.prefixes(g.World.Destinations, 3)
	case 4:
		t.CIDRs = []netip.Prefix{pick(g, packet.Families[:]).Everywhere()}
	default:
		t.CIDRs = g.prefixes(g.World.Destinations, 6)
	}
	if g.chance(3) {
		t.Except = g.prefixes(g.World.Destinations, 3)
	}
	if g.chance(4) {
		for range 1 + g.IntN(3) {
			first := pick(g, Ports)
			t.Ports = append(t.Ports, policy.PortMatch{Protocol: pick(g, []uint8{packet.TCP, packet.UDP, packet.SCTP}),
				PortRange: policy.PortRange{First: first, Last: first + uint16(g.IntN(3))}})
		}
	}
	return t
}

// Ports that rules and flows use.
var Ports = []uint16{1, 53, 80, 443, 444, 445, 8080, 65530}

// Facts know pods one by one in half of all cases.
func (g *Generator) Facts() *policy.Facts {
	f := &policy.Facts{
		PodCIDRs: Prefixes("10.244.0.0/22", "fd00:10:244::/62"), LocalPodCIDRs: Prefixes("10.244.1.0/24", "fd00:10:244:1::/64"),
		NodeAddresses: g.World.NodeAddresses, Nodes: slices.Concat(g.World.NodeAddresses, Addrs("203.0.113.9", "2001:db8:113::9")),
		Broadcasts: Addrs("192.0.2.255", "192.168.200.255"), TunnelPorts: []uint16{4790},
		ServiceMark: policy.DefaultServiceMark, HostPortMark: policy.DefaultHostPortMark,
	}
	if g.chance(6) {
		f.PodCIDRs = f.PodCIDRs[:1]
	}
	g.addServices(f)
	if g.chance(3) {
		f.NodeCIDRs = g.prefixes(g.World.Destinations, 2)
	}
	if f.PodsKnown = g.chance(2); !f.PodsKnown {
		return f
	}
	for i := range 1 + g.IntN(6) {
		f.Pods = append(f.Pods, policy.Pod{
			Namespace: "default", Name: fmt.Sprintf("pod-%d", i), Labels: labels.Set{"app": pick(g, []string{"a", "b"})},
			Addresses: []netip.Addr{g.Addr(f.LocalPodCIDRs[0]), g.Addr(netip.MustParsePrefix("fd00:10:244:1::/64"))},
		})
	}
	return f
}

// Flow is forwarded in three of four cases.
func (g *Generator) Flow(facts *policy.Facts) packet.Flow {
	family := pick(g, packet.Families[:])
	f := packet.Flow{
		Source:       g.Addr(pick(g, of(g.World.Sources, family))),
		Destination:  g.Addr(pick(g, of(g.World.Destinations, family))),
		Protocol:     pick(g, []uint8{packet.TCP, packet.UDP, packet.ICMP}),
		OutInterface: pick(g, g.World.OutInterfaces),
		InInterface:  "docker0",
	}
	if len(facts.Pods) > 0 && g.chance(2) {
		f.Source = pick(g, ofAddrs(pick(g, facts.Pods).Addresses, family))
	}
	if g.chance(8) {
		f.Destination = pick(g, ofAddrs(facts.Nodes, family))
	}
	if g.chance(4) {
		f.Local, f.InInterface = true, ""
		f.Source = pick(g, ofAddrs(facts.NodeAddresses, family))
	}
	if f.Protocol == packet.ICMP && family == packet.IPv6Family {
		f.Protocol = packet.ICMPv6
	}
	if f.HasPorts() {
		f.SourcePort = uint16(1024 + g.IntN(60000))
		f.DestinationPort = pick(g, Ports) + uint16(g.IntN(2))
	}
	return f
}

func hostPrefixes(addrs []netip.Addr) []netip.Prefix {
	var out []netip.Prefix
	for _, a := range addrs {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

func of(prefixes []netip.Prefix, f packet.Family) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return packet.Of(p.Addr()) != f })
}

func ofAddrs(addrs []netip.Addr, f packet.Family) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return packet.Of(a) != f })
}

// Prefixes parses constants.
func Prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// Addrs parses constants.
func Addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}
