package rules

import (
	"fmt"
	"net/netip"
	"strings"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// iptables makes a step of a rule of iptables, but for the chain of a jump.
func (r *reader) iptables(f packet.Family, rule *ruleset.Rule) step {
	s := step{}
	for _, a := range [...]struct {
		ruleset.Address
		side ruleset.Side
	}{{rule.Source, ruleset.Source}, {rule.Destination, ruleset.Destination}} {
		if a.Prefix.IsValid() {
			s.addresses(f, a.side, []netip.Prefix{a.Prefix.Masked()}, nil, a.Not)
		}
	}
	if o := rule.Out; o != (ruleset.Interface{}) {
		pattern := o.Name
		if o.Wildcard {
			pattern += "*"
		}
		s.out(f, pattern, o.Not)
	}
	if rule.In != (ruleset.Interface{}) {
		s.unsaid = append(s.unsaid, "the interface that a packet came in by")
	}
	if rule.NoInterfaces {
		s.unsaid = append(s.unsaid, "interfaces, which this listing doesn't show (iptables-save does)")
	}
	if rule.Protocol.Is && !hasPorts(rule) {
		s.protocol(f, rule.Protocol.Number, nil, rule.Protocol.Not)
	}
	for _, m := range rule.Matches {
		r.match(&s, f, rule, m)
	}
	s.target(rule.Target)
	return s
}

// hasPorts: a match names destination ports, and with them the protocol.
func hasPorts(rule *ruleset.Rule) bool {
	for _, m := range rule.Matches {
		if p, ok := m.(ruleset.Ports); ok && p.Side == ruleset.Destination && !p.Not && !rule.Protocol.Not {
			return true
		}
	}
	return false
}

func (r *reader) match(s *step, f packet.Family, rule *ruleset.Rule, match ruleset.Match) {
	not := func(what string) { s.unsaid = append(s.unsaid, what) }
	switch m := match.(type) {
	case ruleset.Ports:
		if m.Side != ruleset.Destination || !rule.Protocol.Is || rule.Protocol.Not {
			not("source ports")
			return
		}
		s.protocol(f, rule.Protocol.Number, m.Ranges, m.Not)
	case ruleset.Mark:
		if m.Connection {
			not("the connection's mark")
			return
		}
		s.marks = append(s.marks, markTest{m.Value, m.Mask, m.Not})
	case ruleset.AddressType:
		s.addressType(f, m)
	case ruleset.Set:
		r.set(s, f, m)
	case ruleset.IPRange:
		s.addresses(f, m.Side, netipx.IPRangeFrom(m.First, m.Last).Prefixes(), nil, m.Not)
	case ruleset.Conntrack:
		s.conntrack(m)
	case ruleset.TCPFlags:
		s.flags(f, m)
	case ruleset.Statistic:
		if m.Every == 0 && m.Probability >= 1 && !m.Not {
			return
		}
		not("chance (-m statistic)")
	case ruleset.Unknown:
		s.extension(m)
	case ruleset.Always:
	case ruleset.Stateful:
		not("-m " + m.Name)
	case ruleset.Owner:
		s.where(f, false, func(r *Region) { r.Forwarded = false })
		not("who sends it on the node (-m owner)")
	case ruleset.MaskedAddress:
		not("an address under a mask")
	case ruleset.ICMPType:
		not("the type of ICMP")
	case ruleset.PhysDev:
		not("ports of a bridge (-m physdev)")
	case ruleset.RPFilter:
		not("the route back (-m rpfilter)")
	case ruleset.PacketType:
		not("-m pkttype")
	default:
		not(fmt.Sprintf("%T", match))
	}
}

// extension that the reader of rules doesn't know.
func (s *step) extension(m ruleset.Unknown) {
	if m.Name == "policy" && strings.Contains(m.Text, "--dir out") && !strings.Contains(m.Text, "!") {
		switch { // a policy leaves what IPsec will encapsulate alone
		case strings.Contains(m.Text, "--pol ipsec"):
			s.never = true
			return
		case strings.Contains(m.Text, "--pol none"):
			return
		}
	}
	s.unsaid = append(s.unsaid, "-m "+m.Name)
}

// addressType: policies leave alone what goes to the node itself, and broadcast.
func (s *step) addressType(f packet.Family, m ruleset.AddressType) {
	const left = ruleset.TypeLocal | ruleset.TypeBroadcast | ruleset.TypeMulticast
	switch {
	case m.Destination == 0:
	case m.Destination&^left != 0 && m.Destination != ruleset.TypeUnicast:
		s.unsaid = append(s.unsaid, "the destination's type of route")
	case (m.Destination == ruleset.TypeUnicast) == m.NotDestination:
		s.never = true
	}
	switch {
	case m.Source == 0:
	case m.Source != ruleset.TypeLocal:
		s.unsaid = append(s.unsaid, "the source's type of route")
	case m.LimitIn || m.LimitOut:
		s.unsaid = append(s.unsaid, "an address of that interface (--limit-iface)")
	default:
		s.where(f, m.NotSource, func(r *Region) { r.Forwarded = false })
	}
}

func (r *reader) set(s *step, f packet.Family, m ruleset.Set) {
	set := r.sets[m.Name]
	if set == nil {
		s.unsaid = append(s.unsaid, "set "+m.Name+", whose elements weren't given (ipset save)")
		return
	}
	in, except, why := set.Networks(r.sets)
	switch {
	case why == "" && (m.Options != "" || len(m.Directions) == 0 || m.Directions[0] == ruleset.Either):
		why = "options " + m.Options
	case why == "" && len(in) > mostElements:
		why = fmt.Sprintf("it has more than %d elements", mostElements)
	}
	if why != "" {
		s.unsaid = append(s.unsaid, "set "+m.Name+": "+why)
		return
	}
	if set.Family != 0 && set.Family != f {
		in, except = nil, nil // the kernel matches nothing
	}
	if in == nil {
		s.never = s.never || !m.Not
		return
	}
	s.addresses(f, m.Directions[0], in, except, m.Not)
	s.elements = append(s.elements, m.Name)
}

// conntrack: NAT rules see the first packets of connections.
func (s *step) conntrack(m ruleset.Conntrack) {
	states := m
	states.States, states.NotStates = 0, false
	const first = ruleset.StateNew | ruleset.StateRelated
	const others = ruleset.StateEstablished | ruleset.StateInvalid | ruleset.StateUntracked
	switch {
	case states != ruleset.Conntrack{}:
		s.unsaid = append(s.unsaid, "what conntrack knows of the connection")
	case m.States&ruleset.StateNew != 0 && m.States&^(first|others) == 0:
		s.never = s.never || m.NotStates
	case m.States&^others == 0:
		s.never = s.never || !m.NotStates
	default:
		s.unsaid = append(s.unsaid, "the connection's state")
	}
}

// flags: the first packet of a TCP connection has SYN alone of SYN, ACK, RST and FIN.
func (s *step) flags(f packet.Family, m ruleset.TCPFlags) {
	const syn, known = 2, 1 | 2 | 4 | 16
	if m.Mask&^known != 0 {
		s.unsaid = append(s.unsaid, "TCP flags")
		return
	}
	if (m.Mask&syn == m.Set) == m.Not {
		s.never = true
	}
}

func (s *step) target(t ruleset.Target) {
	switch t := t.(type) {
	case nil, ruleset.Inert:
	case ruleset.ConnMark:
		if t.Operation == ruleset.ConnMarkRestore { // that of a new connection is zero
			s.act, s.mark = setMark, ruleset.SetMark{Mask: t.PacketMask}
		}
	case ruleset.Accept:
		s.act = accept
	case ruleset.Return:
		s.act = goBack
	case ruleset.Jump:
		s.act = jump
		if t.Goto {
			s.act = leap
		}
	case ruleset.SetMark:
		s.act, s.mark = setMark, t
	case ruleset.Masquerade:
		s.act = translate
		s.entry = Entry{Action: "Masquerade", FullyRandom: t.Random || t.RandomFully, Ports: t.Ports}
	case ruleset.SNAT:
		s.snat(t.First, t.Last, t.Ports != nil, t.NATFlags)
	case ruleset.NetMap:
		s.act = stop
		s.losses = append(s.losses, "a policy has no NETMAP")
	case ruleset.UnknownTarget:
		s.act = stop
		s.losses = append(s.losses, "what it does isn't known")
	default:
		s.act = stop
		s.losses = append(s.losses, fmt.Sprintf("a policy doesn't %s", strings.ToLower(strings.TrimPrefix(fmt.Sprintf("%T", t), "ruleset."))))
	}
}

// mostAddresses of SNAT in a policy's rule.
const mostAddresses = 1024

func (s *step) snat(first, last netip.Addr, ports bool, flags ruleset.NATFlags) {
	s.act = translate
	s.entry = Entry{Action: "SNAT", FullyRandom: flags.Random || flags.RandomFully, First: first, Last: last}
	if !first.IsValid() {
		s.act = stop
		s.losses = append(s.losses, "it changes ports alone")
		return
	}
	for _, a := range []netip.Addr{first, last} {
		if a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.Is4In6() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
			s.act = stop
			s.losses = append(s.losses, "no packet comes from "+a.String())
			return
		}
	}
	if ports {
		s.losses = append(s.losses, "its range of source ports is left out: snat has none")
	}
	if first == last {
		return
	}
	n := 1
	for a := first; a != last && n <= mostAddresses; a = a.Next() {
		n++
	}
	if n > mostAddresses {
		s.act = stop
		s.losses = append(s.losses, fmt.Sprintf("snat takes at most %d addresses", mostAddresses))
		return
	}
	s.losses = append(s.losses, "which of its addresses a source gets is drawn another way: by a hash of the source alone")
}
