package sim

import (
	"fmt"
	"net/netip"

	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// matches says whether a rule matches the packet. What is certain is asked
// first: only where nothing rules the rule out, something open is chosen.
func (r *run) matches(rule *ruleset.Rule) bool {
	if !matchesAddress(rule.Source, r.src) || !matchesAddress(rule.Destination, r.dst) || !r.matchesProtocol(rule.Protocol) {
		return false
	}
	if r.ruledOut(&r.in, rule.In) || r.ruledOut(&r.out, rule.Out) {
		return false
	}
	open := 0
	for _, m := range rule.Matches {
		switch r.certainly(m) {
		case ipset.No:
			return false
		case ipset.Unknown:
			open++
		}
	}
	if !r.chooseInterfaces(rule) {
		return false
	}
	if open == 0 {
		return true
	}
	return r.chooseMatches(rule)
}

func matchesAddress(a ruleset.Address, ip netip.Addr) bool {
	return !a.Prefix.IsValid() || a.Prefix.Contains(ip) != a.Not
}

func (r *run) matchesProtocol(p ruleset.Protocol) bool {
	return !p.Is || (p.Number == r.protocol) != p.Not
}

// ruledOut says whether an interface that is known doesn't match.
func (r *run) ruledOut(i *openInterface, p ruleset.Interface) bool {
	return i.known && p != (ruleset.Interface{}) && matchesName(p, i.name) == p.Not
}

func answer(yes bool) ipset.Answer {
	if yes {
		return ipset.Yes
	}
	return ipset.No
}

// certainly answers a match without choosing anything.
func (r *run) certainly(match ruleset.Match) ipset.Answer {
	switch m := match.(type) {
	case ruleset.Ports:
		return r.certainPorts(m)
	case ruleset.Mark:
		return r.certainMark(m)
	case ruleset.Set:
		a, _ := r.inSet(m)
		return inverted(a, m.Not)
	case ruleset.Conntrack:
		return answer(r.conntrack(m))
	case ruleset.AddressType:
		return r.certainTypes(m)
	case ruleset.TCPFlags:
		return r.certainFlags(m)
	case ruleset.ICMPType:
		return answer(r.icmpType(m) != m.Not)
	case ruleset.MaskedAddress:
		return answer(masked(m, r.sideOf(m.Side)) != m.Not)
	case ruleset.IPRange:
		a := r.sideOf(m.Side)
		return answer((m.First.Compare(a) <= 0 && a.Compare(m.Last) <= 0) != m.Not)
	case ruleset.PhysDev:
		return r.certainPhysDev(m)
	case ruleset.Owner:
		return r.certainOwner(m)
	case ruleset.RPFilter:
		return r.certainRPFilter(m)
	case ruleset.PacketType:
		return inverted(r.certainPacketType(m), m.Not)
	case ruleset.Always:
		return ipset.Yes
	case ruleset.Statistic:
		if m.Every == 0 && (m.Probability <= 0 || m.Probability >= 1) {
			return answer((m.Probability >= 1) != m.Not)
		}
		return ipset.Unknown
	case ruleset.Stateful, ruleset.Unknown:
		return ipset.Unknown
	}
	panic(fmt.Sprintf("no case for match %T", match))
}

func inverted(a ipset.Answer, not bool) ipset.Answer {
	if a == ipset.Unknown || !not {
		return a
	}
	return answer(a == ipset.No)
}

func (r *run) sideOf(s ruleset.Side) netip.Addr {
	if s == ruleset.Source {
		return r.src
	}
	return r.dst
}

func masked(m ruleset.MaskedAddress, a netip.Addr) bool {
	have, mask, want := a.AsSlice(), m.Mask.AsSlice(), m.Address.AsSlice()
	if len(have) != len(mask) || len(have) != len(want) {
		return false
	}
	for i := range have {
		if have[i]&mask[i] != want[i] {
			return false
		}
	}
	return true
}

// certainPorts answers where ports are known.
func (r *run) certainPorts(m ruleset.Ports) ipset.Answer {
	if !r.hasPorts() {
		return ipset.No // an extension asks only packets of its protocol
	}
	source, destination := r.certainPort(&r.sport, m.Ranges), r.certainPort(&r.dport, m.Ranges)
	switch m.Side {
	case ruleset.Source:
		return inverted(source, m.Not)
	case ruleset.Destination:
		return inverted(destination, m.Not)
	}
	switch {
	case source == ipset.Yes || destination == ipset.Yes:
		return answer(!m.Not)
	case source == ipset.No && destination == ipset.No:
		return answer(m.Not)
	}
	return ipset.Unknown
}

func (r *run) certainPort(p *openPort, ranges []ruleset.PortRange) ipset.Answer {
	if p.known {
		return answer(inRanges(p.port, ranges))
	}
	inside, outside := split(p.left, ranges)
	switch {
	case len(inside) == 0:
		return ipset.No
	case len(outside) == 0:
		return ipset.Yes
	}
	return ipset.Unknown
}

func inRanges(port uint16, ranges []ruleset.PortRange) bool {
	for _, g := range ranges {
		if g.First <= port && port <= g.Last {
			return true
		}
	}
	return false
}

func (r *run) certainMark(m ruleset.Mark) ipset.Answer {
	mark := r.mark
	if m.Connection {
		if !r.tracked || r.noTrack {
			return ipset.No
		}
		mark = r.connMark
	} else if r.markOpen {
		return ipset.Unknown
	}
	return answer((mark&m.Mask == m.Value) != m.Not)
}

// inSet asks a set.
func (r *run) inSet(m ruleset.Set) (ipset.Answer, string) {
	if m.Options != "" {
		return ipset.Unknown, "options of the set match aren't followed: " + m.Options
	}
	set, ok := r.node.host.Sets[m.Name]
	if !ok {
		return ipset.Unknown, "its members weren't given"
	}
	r.work += len(set.Members)
	p := ipset.Packet{
		Source: r.src, Destination: r.dst, Protocol: r.protocol,
		SourcePort: r.sport.number(), DestinationPort: r.dport.number(), Mark: r.mark,
	}
	if r.protocol == packet.ICMP {
		p.SourcePort, p.DestinationPort = 8<<8, 8<<8
	} else if r.protocol == packet.ICMPv6 {
		p.SourcePort, p.DestinationPort = 128<<8, 128<<8
	}
	if r.in.known {
		p.InInterface, p.NoIn = r.in.name, r.in.name == ""
	}
	if r.out.known {
		p.OutInterface, p.NoOut = r.out.name, r.out.name == ""
	}
	directions := make([]bool, len(m.Directions))
	for i, d := range m.Directions {
		directions[i] = d == ruleset.Source
	}
	return set.Contains(r.node.host.Sets, p, directions)
}

// certainFlags: the first packet of a connection has SYN alone.
func (r *run) certainFlags(m ruleset.TCPFlags) ipset.Answer {
	if r.protocol != packet.TCP {
		return ipset.No
	}
	if r.connection != nil {
		return ipset.Unknown
	}
	const syn = 2
	return answer((syn&m.Mask == m.Set) != m.Not)
}

// icmpType: an ICMP flow is an echo request.
func (r *run) icmpType(m ruleset.ICMPType) bool {
	if m.Any {
		return true
	}
	request := uint8(8)
	if r.family == packet.IPv6Family {
		request = 128
	}
	return m.Type == request && (m.AnyCode || m.Code == 0)
}
