package sim

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
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

// chooseInterfaces asks for interfaces that aren't known.
func (r *run) chooseInterfaces(rule *ruleset.Rule) bool {
	if rule.NoInterfaces {
		// A listing without -v hides interfaces; whether it does is asked for
		// rules that do something.
		if !r.chooseHidden(rule) {
			return false
		}
	}
	for _, side := range []struct {
		open    *openInterface
		pattern ruleset.Interface
	}{{&r.in, rule.In}, {&r.out, rule.Out}} {
		p := side.pattern
		if p == (ruleset.Interface{}) || side.open.known {
			continue
		}
		if r.interfaceIs(side.open, p, !p.Not) == p.Not {
			return false
		}
	}
	return true
}

// chooseHidden asks whether a rule of a listing without interfaces matches.
func (r *run) chooseHidden(rule *ruleset.Rule) bool {
	switch rule.Target.(type) {
	case nil, ruleset.Inert:
		return true
	}
	const why = "the listing doesn't show them (iptables -v does)"
	return r.choose("", "interfaces",
		alternative{why: why, when: "the rule has none, or these: " + rule.Text},
		alternative{why: why, when: "the rule has others: " + rule.Text}) == 0
}

// chooseMatches asks what isn't certain, in the rule's order.
func (r *run) chooseMatches(rule *ruleset.Rule) bool {
	for _, m := range rule.Matches {
		if r.certainly(m) == ipset.Unknown && !r.chooseMatch(m) {
			return false
		}
	}
	return true
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

// chooseMatch answers a match that is open.
func (r *run) chooseMatch(match ruleset.Match) bool {
	switch m := match.(type) {
	case ruleset.Ports:
		return r.choosePorts(m)
	case ruleset.Set:
		return r.chooseSet(m)
	case ruleset.Mark:
		return r.chooseMark(m)
	case ruleset.AddressType:
		return r.chooseTypes(m)
	case ruleset.Statistic:
		return r.chooseStatistic(m)
	case ruleset.Owner:
		return r.assume(fmt.Sprintf("owner %+v", m), "the sending process", "its user and group aren't known", true)
	case ruleset.PhysDev:
		return r.assume(fmt.Sprintf("physdev %+v", m), "bridge ports", "the bridge port isn't known", true)
	case ruleset.RPFilter:
		return r.assume(fmt.Sprintf("rpfilter %+v", m), "routes", "the route back to the source isn't known", !m.Invert)
	case ruleset.TCPFlags:
		return r.assume(fmt.Sprintf("flags %+v", m), "TCP flags", "those of a later packet aren't known", true)
	case ruleset.PacketType:
		return r.assume("pkttype "+m.Type, "packet type", "whether "+r.dst.String()+" is "+m.Type+" isn't known", m.Type == "unicast") != m.Not
	case ruleset.Stateful:
		return r.assume("", "state", "what -m "+m.Name+" counts isn't in a dump ("+strings.TrimSpace(m.Text)+")", true)
	case ruleset.Unknown:
		why := m.Why
		if why == "" {
			why = "not understood"
		}
		return r.assume("unknown "+m.Text, "match "+m.Name, why+": "+strings.TrimSpace(m.Text), true)
	}
	panic(fmt.Sprintf("no choice for match %T", match))
}

// assume chooses whether something open holds, once a run for each key; first
// is what is followed first.
func (r *run) assume(key, what, why string, first bool) bool {
	return r.chooseText(key, what, why, "it matches", "it doesn't match", first)
}

func (r *run) chooseText(key, what, why, yes, no string, first bool) bool {
	if key != "" {
		if taken, ok := r.recall(key); ok {
			return (taken == 0) == first
		}
	}
	holds, doesnt := alternative{why: why, when: yes}, alternative{why: why, when: no}
	if !first {
		holds, doesnt = doesnt, holds
	}
	return (r.choose(key, what, holds, doesnt) == 0) == first
}

func (r *run) chooseSet(m ruleset.Set) bool {
	_, why := r.inSet(m)
	var ends []string
	for _, d := range m.Directions {
		ends = append(ends, r.sideOf(d).String())
	}
	asked := strings.Join(ends, ",")
	key := "set " + m.Name + " " + asked + fmt.Sprint(m.Directions) + m.Options
	return r.chooseText(key, "set "+m.Name, why, asked+" is in it", asked+" isn't in it", !m.Not) != m.Not
}

// chooseMark asks whether something in a chain that the excerpt lacks has
// marked the packet.
func (r *run) chooseMark(m ruleset.Mark) bool {
	as := r.mark&m.Mask == m.Value
	key := fmt.Sprintf("mark %#x/%#x", m.Value, m.Mask)
	why := "the chain that could mark it isn't in the dump"
	is := r.chooseText(key, "mark", why, fmt.Sprintf("it is %#x/%#x", m.Value, m.Mask), fmt.Sprintf("it isn't %#x/%#x", m.Value, m.Mask), as)
	if is {
		r.mark = r.mark&^m.Mask | m.Value
	}
	return is != m.Not
}

func (r *run) chooseStatistic(m ruleset.Statistic) bool {
	if m.Every > 0 {
		return r.assume("", "state", fmt.Sprintf("it is one packet in %d", m.Every), true)
	}
	p := m.Probability
	if m.Not {
		p = 1 - p
	}
	return r.choose("", "dice", alternative{weight: p}, alternative{weight: 1 - p}) == 0
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

func (r *run) choosePorts(m ruleset.Ports) bool {
	switch m.Side {
	case ruleset.Source:
		return r.within(&r.sport, m.Side, m.Ranges) != m.Not
	case ruleset.Destination:
		return r.within(&r.dport, m.Side, m.Ranges) != m.Not
	}
	return (r.within(&r.dport, ruleset.Destination, m.Ranges) || r.within(&r.sport, ruleset.Source, m.Ranges)) != m.Not
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

// certainTypes is -m addrtype.
func (r *run) certainTypes(m ruleset.AddressType) ipset.Answer {
	source := r.certainType(r.src, m.Source, r.limit(m), m.NotSource)
	destination := r.certainType(r.dst, m.Destination, r.limit(m), m.NotDestination)
	switch {
	case source == ipset.No || destination == ipset.No:
		return ipset.No
	case source == ipset.Yes && destination == ipset.Yes:
		return ipset.Yes
	}
	return ipset.Unknown
}

// limit is the interface that --limit-iface-in or -out asks for.
func (r *run) limit(m ruleset.AddressType) string {
	switch {
	case m.LimitIn && r.in.known:
		return r.in.name
	case m.LimitOut && r.out.known:
		return r.out.name
	}
	return ""
}

func (r *run) certainType(a netip.Addr, types ruleset.AddressTypes, dev string, not bool) ipset.Answer {
	if types == 0 {
		return ipset.Yes
	}
	has, known := r.node.host.Network.HasType(a, uint16(types), dev)
	if !known {
		t := route.Unicast
		if a.IsMulticast() || a.IsLoopback() || r.local && a == r.question.Source {
			t = route.Local
			if a.IsMulticast() {
				t = route.Multicast
			}
		} else {
			return ipset.Unknown
		}
		has = types&typeBit(t) != 0
	}
	return answer(has != not)
}

// typeBit is the bit of a route's type in a rule's set.
func typeBit(t route.Type) ruleset.AddressTypes {
	return [...]ruleset.AddressTypes{
		route.Unicast: ruleset.TypeUnicast, route.Local: ruleset.TypeLocal, route.Broadcast: ruleset.TypeBroadcast,
		route.Anycast: ruleset.TypeAnycast, route.Multicast: ruleset.TypeMulticast, route.Blackhole: ruleset.TypeBlackhole,
		route.Unreachable: ruleset.TypeUnreachable, route.Prohibit: ruleset.TypeProhibit, route.Throw: ruleset.TypeThrow,
	}[t]
}

// chooseTypes: what isn't known to be the node's own is either that or unicast.
func (r *run) chooseTypes(m ruleset.AddressType) bool {
	for _, side := range []struct {
		a     netip.Addr
		types ruleset.AddressTypes
		not   bool
	}{{r.src, m.Source, m.NotSource}, {r.dst, m.Destination, m.NotDestination}} {
		if side.types == 0 || r.certainType(side.a, side.types, r.limit(m), side.not) == ipset.Yes {
			continue
		}
		t := route.Unicast
		if r.isLocal(side.a) {
			t = route.Local
		}
		if (side.types&typeBit(t) != 0) == side.not {
			return false
		}
	}
	return true
}

// certainPhysDev: what isn't bridged has no bridge port to leave by; ports
// themselves aren't known.
func (r *run) certainPhysDev(m ruleset.PhysDev) ipset.Answer {
	if (m.IsBridged == ruleset.AskedYes) && !r.bridged || (m.IsBridged == ruleset.AskedNo) && r.bridged {
		return ipset.No
	}
	if !r.bridged && (m.IsOut == ruleset.AskedYes || m.Out != (ruleset.Interface{}) && !m.Out.Not) {
		return ipset.No
	}
	if r.in.known && r.in.name != "" && !r.bridged {
		if link := r.node.host.Network.Link(r.in.name); link != nil && link.Kind != "bridge" &&
			(m.IsIn == ruleset.AskedYes || m.In != (ruleset.Interface{}) && !m.In.Not) {
			return ipset.No
		}
	}
	if m.In == (ruleset.Interface{}) && m.Out == (ruleset.Interface{}) && m.IsIn == ruleset.Unasked && m.IsOut == ruleset.Unasked {
		return ipset.Yes
	}
	return ipset.Unknown
}

// certainOwner: a forwarded packet has no socket, so that only negations hold.
func (r *run) certainOwner(m ruleset.Owner) ipset.Answer {
	if r.local && r.hook == postrouting && r.isGroup() {
		return r.certainLoopedOwner(m)
	}
	if r.local {
		if m.SocketExists == ruleset.AskedNo {
			return ipset.No
		}
		if m.UID == nil && m.GID == nil {
			return ipset.Yes
		}
		return ipset.Unknown
	}
	return answer(holdsWithoutSocket(m))
}

func holdsWithoutSocket(m ruleset.Owner) bool {
	return m.SocketExists != ruleset.AskedYes && (m.UID == nil || m.NotUID) && (m.GID == nil || m.NotGID)
}

// isGroup says whether the packet goes to many, and maybe to the node itself too.
// What goes by lo has no copy.
func (r *run) isGroup() bool {
	if r.out.known && r.out.name == "lo" {
		return false
	}
	return r.dst.IsMulticast() || r.route.Type == route.Broadcast
}

// certainLoopedOwner: the copy of a broadcast that goes to the node itself passes
// POSTROUTING first, and without a socket (ip_mc_output). Whether a multicast
// has such a copy depends on who listens.
func (r *run) certainLoopedOwner(m ruleset.Owner) ipset.Answer {
	if r.dst.IsMulticast() {
		return ipset.Unknown
	}
	return answer(holdsWithoutSocket(m))
}

// certainRPFilter is -m rpfilter.
func (r *run) certainRPFilter(m ruleset.RPFilter) ipset.Answer {
	if !r.in.known {
		return ipset.Unknown
	}
	if r.in.name == "lo" {
		return answer(!m.Invert)
	}
	mark := uint32(0)
	if m.ValidMark {
		mark = r.mark
	}
	back, kind, found, known := r.node.host.Network.ReversePath(r.src, r.dst, r.in.name, mark)
	if !known {
		return ipset.Unknown
	}
	ok := found && (kind == route.Unicast || m.AcceptLocal && kind == route.Local) && (m.Loose || back == r.in.name)
	return answer(ok != m.Invert)
}

func (r *run) certainPacketType(m ruleset.PacketType) ipset.Answer {
	to := r.question.Destination // the link's address, which no rule changes
	if r.local {
		return answer(m.Type == "unicast")
	}
	if to.IsMulticast() {
		return answer(m.Type == "multicast")
	}
	if !r.in.known {
		return ipset.Unknown
	}
	// A broadcast of another link's subnet has come to this node as its router.
	t, known := r.node.host.Network.TypeOf(to, r.in.name)
	switch {
	case !known:
		return ipset.Unknown
	case t == route.Broadcast:
		return answer(m.Type == "broadcast")
	}
	return answer(m.Type == "unicast")
}
