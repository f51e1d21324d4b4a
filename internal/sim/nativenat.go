package sim

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// nat makes a translation fit to run: net/netfilter/nft_nat.c, nft_masq.c,
// nft_redir.c.
func (t nativeTable) nat(s nftables.NAT) statement {
	var v4, v6 natTarget
	if t.table.Has(packet.IPv4Family) && s.Family != "ip6" {
		v4 = t.natTarget(s, nftables.Datatype{Name: "ipv4_addr", Bytes: 4}, packet.IPv4Family)
	}
	if t.table.Has(packet.IPv6Family) && s.Family != "ip" {
		v6 = t.natTarget(s, nftables.Datatype{Name: "ipv6_addr", Bytes: 16}, packet.IPv6Family)
	}
	return func(r *run, at RuleRef, depth int) (flow, verdict) {
		target := &v4
		if r.family == packet.IPv6Family {
			target = &v6
		}
		to := target.fixed
		if to == nil {
			if target.find == nil {
				return onward, fallThrough
			}
			var state state
			switch to, state = target.find(r); state {
			case broken:
				return mismatch, fallThrough
			case open:
				return unknownStatement(nftables.StatementText(s), "where it leads isn't known")(r, at, depth)
			}
		}
		r.translation, r.toText = to, target.text
		v, _ := r.translateBy(at, to)
		r.toText = ""
		return ended, v
	}
}

// natTarget is what a translation comes to: the same for all packets, or found
// for each. Without either, the translation isn't for the family.
type natTarget struct {
	fixed ruleset.Target
	find  func(r *run) (ruleset.Target, state)
	// text of a fixed one to one address and port: tens of thousands say it again
	// and again.
	text string
}

// withPort says whether an address is a concatenation of address and port, or a
// literal map of such: a named map has its own types.
func withPort(e nftables.Expr) bool {
	switch e := e.(type) {
	case nftables.Concat:
		return len(e.Parts) == 2
	case nftables.Lookup:
		m, ok := e.Map.(nftables.SetLiteral)
		return ok && len(m.Elements) > 0 && withPort(m.Elements[0].Data)
	}
	return false
}

var portType = nftables.Datatype{Name: "inet_service", Bytes: 2}

// natTarget makes fit to run where an address of a family and a port are taken from.
func (t nativeTable) natTarget(s nftables.NAT, addressType nftables.Datatype, f packet.Family) natTarget {
	var address, port func(r *run) ([]nftables.Interval, state)
	fixed := true
	if s.Address != nil {
		types := []nftables.Datatype{addressType}
		if withPort(s.Address) {
			types = append(types, portType)
		}
		address = t.data(s.Address, types)
		_, ok := constants(types, s.Address)
		fixed = fixed && ok
	}
	if s.Port != nil {
		types := []nftables.Datatype{portType}
		port = t.data(s.Port, types)
		_, ok := constants(types, s.Port)
		fixed = fixed && ok
	}
	find := func(r *run) (ruleset.Target, state) {
		g, state := natRange(r, address, port)
		return translationOf(s, g), state
	}
	if fixed {
		if to, state := find(&run{family: f}); state == known {
			return natTarget{fixed: to, text: textOf(to)}
		}
	}
	return natTarget{find: find}
}

// textOf is what bindDestination says of one address and port.
func textOf(to ruleset.Target) string {
	if t, ok := to.(ruleset.DNAT); ok && t.First.IsValid() && t.First == t.Last && t.Ports != nil && t.Ports.First == t.Ports.Last {
		return "dnat to " + netip.AddrPortFrom(t.First, t.Ports.First).String()
	}
	return ""
}

func natRange(r *run, address, port func(r *run) ([]nftables.Interval, state)) (g ruleset.NATRange, s state) {
	if address != nil {
		parts, s := address(r)
		if s != known {
			return g, s
		}
		if len(parts) == 0 || len(parts) > 2 {
			return g, open
		}
		first, okFirst := netip.AddrFromSlice([]byte(parts[0].First))
		last, okLast := netip.AddrFromSlice([]byte(parts[0].Last))
		if !okFirst || !okLast || packet.Of(first) != r.family {
			return g, open
		}
		g.First, g.Last = first, last
		if len(parts) == 2 {
			g.Ports = portRange(parts[1])
		}
	}
	if port != nil {
		parts, s := port(r)
		if s != known {
			return g, s
		}
		if len(parts) != 1 {
			return g, open
		}
		g.Ports = portRange(parts[0])
	}
	return g, known
}

func portRange(g nftables.Interval) *ruleset.PortRange {
	return &ruleset.PortRange{First: uint16(number(g.First)), Last: uint16(number(g.Last))}
}

func translationOf(s nftables.NAT, g ruleset.NATRange) ruleset.Target {
	flags := ruleset.NATFlags{Random: s.Random, RandomFully: s.FullyRandom, Persistent: s.Persistent}
	switch {
	case s.Prefix && g.First.IsValid():
		return ruleset.NetMap{To: commonPrefix(g.First, g.Last)}
	case s.Kind == nftables.SNAT:
		return ruleset.SNAT{NATRange: g, NATFlags: flags}
	case s.Kind == nftables.DNAT:
		return ruleset.DNAT{NATRange: g, NATFlags: flags}
	case s.Kind == nftables.Redirect:
		return ruleset.Redirect{Ports: g.Ports, NATFlags: flags}
	}
	return ruleset.Masquerade{Ports: g.Ports, NATFlags: flags}
}

// commonPrefix is the network that a range is: the bits in which its ends differ
// are the host's (nft_nat_setup_netmap).
func commonPrefix(first, last netip.Addr) netip.Prefix {
	a, b := first.AsSlice(), last.AsSlice()
	bits := 0
	for i := range a {
		for bit := byte(0x80); bit != 0; bit >>= 1 {
			if a[i]&bit != b[i]&bit {
				return netip.PrefixFrom(first, bits)
			}
			bits++
		}
	}
	return netip.PrefixFrom(first, bits)
}
