package judge_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// hints are values at the boundaries of what a rule asks for: the first and
// last address of each prefix and the ones beside it, the same of ports.
type hints struct {
	sources, destinations         []netip.Addr
	sourcePorts, destinationPorts []uint16
	protocols                     []uint8
	in                            []string
	// out: an interface that the rule's packets leave by.
	out []string
	// targets of DNAT, which send packets too: those come back to them.
	targets []netip.Addr
}

// add puts others behind. It copies: hints of one rule stand in several places.
func (h *hints) add(o hints) {
	h.sources, h.destinations = slices.Concat(h.sources, o.sources), slices.Concat(h.destinations, o.destinations)
	h.sourcePorts, h.destinationPorts = slices.Concat(h.sourcePorts, o.sourcePorts), slices.Concat(h.destinationPorts, o.destinationPorts)
	h.protocols, h.in, h.out = slices.Concat(h.protocols, o.protocols), slices.Concat(h.in, o.in), slices.Concat(h.out, o.out)
	h.targets = slices.Concat(h.targets, o.targets)
}

// hintsOf reads a rule's text.
func hintsOf(rule string, sets []*set) (h hints) {
	words := strings.Fields(rule)
	for i := 0; i+1 < len(words); i++ {
		w := strings.Trim(words[i+1], `"`)
		switch words[i] {
		case "-s", "--src-range", "--ctorigsrc", "--ctrepldst":
			h.sources = append(h.sources, edges(w)...)
		case "-d", "--dst-range", "--ctorigdst", "--ctreplsrc":
			h.destinations = append(h.destinations, edges(w)...)
		case "--to-destination":
			address, port := target(w)
			h.destinations = append(h.destinations, edges(address)...)
			h.destinationPorts = append(h.destinationPorts, portEdges(port)...)
			h.aim(address)
		case "--dport", "--dports", "--ports", "--ctorigdstport", "--to-ports":
			h.destinationPorts = append(h.destinationPorts, portEdges(w)...)
		case "--sport", "--sports":
			h.sourcePorts = append(h.sourcePorts, portEdges(w)...)
		case "-p":
			h.protocols = append(h.protocols, protocolNumbers(w)...)
		case "-i":
			h.in = append(h.in, w)
		case "-o":
			h.out = append(h.out, w)
		case "--match-set":
			if i+2 < len(words) {
				h.add(setHints(w, strings.Split(words[i+2], ","), sets))
			}
		}
	}
	return h
}

// aim adds a target, or the first one of a range.
func (h *hints) aim(text string) {
	if all := edges(text); len(all) > 0 {
		h.targets = append(h.targets, all[0])
	}
}

// target splits what --to-destination has.
func target(w string) (address, port string) {
	if rest, ok := strings.CutPrefix(w, "["); ok {
		address, port, _ = strings.Cut(rest, "]:")
		return strings.NewReplacer("[", "", "]", "").Replace(address), port
	}
	if strings.Count(w, ":") == 1 {
		address, port, _ = strings.Cut(w, ":")
		return address, port
	}
	return w, ""
}

func protocolNumbers(w string) []uint8 {
	known := map[string]uint8{"tcp": packet.TCP, "udp": packet.UDP, "icmp": packet.ICMP, "ipv6-icmp": packet.ICMPv6, "icmpv6": packet.ICMPv6,
		"sctp": packet.SCTP, "gre": packet.GRE, "132": packet.SCTP, "17": packet.UDP}
	if p, ok := known[w]; ok {
		return []uint8{p}
	}
	return nil
}

// edges of an address, a prefix, a range, or a prefix with a mask.
func edges(w string) []netip.Addr {
	first, last := netip.Addr{}, netip.Addr{}
	if a, b, ok := strings.Cut(w, "-"); ok {
		first, _ = netip.ParseAddr(a)
		last, _ = netip.ParseAddr(b)
	} else if p, err := netip.ParsePrefix(w); err == nil {
		first, last = p.Masked().Addr(), lastOf(p)
	} else if a, _, masked := strings.Cut(w, "/"); masked || err != nil {
		first, _ = netip.ParseAddr(a)
		last = first
	}
	if !first.IsValid() || !last.IsValid() {
		return nil
	}
	all := []netip.Addr{first, last, last.Prev(), first.Next(), first.Prev(), last.Next()} // those inside first
	return slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.IsValid() || a.BitLen() != first.BitLen() })
}

// lastOf is the highest address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// portEdges of 80, 8000:8010, 9000-9010, 53,80,443.
func portEdges(w string) (out []uint16) {
	for part := range strings.SplitSeq(w, ",") {
		for side := range strings.FieldsFuncSeq(part, func(r rune) bool { return r == ':' || r == '-' || r == '/' }) {
			if n, err := strconv.ParseUint(side, 10, 16); err == nil {
				for _, x := range []uint64{n, n, n + 1, n - 1} {
					if x > 0 && x <= 65535 {
						out = append(out, uint16(x))
					}
				}
			}
		}
	}
	return out
}

// setHints reads the elements of a set; sides says which end each part is of.
func setHints(name string, sides []string, sets []*set) (h hints) {
	for _, s := range sets {
		if s.name != name {
			continue
		}
		for _, e := range s.elements {
			if strings.HasPrefix(s.options, "list:set") {
				h.add(setHints(strings.Fields(e)[0], sides, sets))
				continue
			}
			key, _, _ := strings.Cut(e, " ")
			for i, part := range strings.Split(key, ",") {
				if i < len(sides) {
					h.add(partHints(part, sides[i] == "src"))
				}
			}
		}
	}
	return h
}

func partHints(part string, source bool) (h hints) {
	if protocol, port, ok := strings.Cut(part, ":"); ok && len(protocolNumbers(protocol)) > 0 {
		h.protocols = protocolNumbers(protocol)
		part = port
	}
	addresses, ports := edges(part), portEdges(part)
	switch {
	case len(addresses) > 0 && source:
		h.sources = addresses
	case len(addresses) > 0:
		h.destinations = addresses
	case len(ports) > 0 && !strings.ContainsAny(part, "abcdefghijklmnopqrstuvwxyz") && source:
		h.sourcePorts = ports
	case len(ports) > 0 && !strings.ContainsAny(part, "abcdefghijklmnopqrstuvwxyz"):
		h.destinationPorts = ports
	case len(ports) == 0:
		h.in = []string{part}
	}
	return h
}

// sender makes packets for a node from a ruleset's hints.
type sender struct {
	*rand.Rand
	node   *node
	links  []string
	family packet.Family
	// all hints of the ruleset, each rule's own, with those that lead to it.
	all   hints
	rules []hints
	// pool of addresses that are always tried too.
	pool []netip.Addr
	// port that the last packet came from.
	port uint16
}

// own source ports, of which no rule speaks.
const firstPort, lastPort = 10000, 29999

func newSender(r *rand.Rand, n *node, rs *ruleset, pool []netip.Addr) *sender {
	s := &sender{Rand: r, node: n, links: n.links(), family: rs.family, pool: pool, port: firstPort}
	for _, t := range rs.native {
		for _, c := range t.chains {
			for _, rule := range c.rules {
				h := nativeHints(rule, t)
				s.all.add(h)
				s.rules = append(s.rules, h)
			}
		}
	}
	for _, t := range rs.tables {
		into := map[string][]hints{} // rules that jump to a chain
		for _, c := range t.chains {
			for _, rule := range c.rules {
				words := strings.Fields(rule)
				into[words[len(words)-1]] = append(into[words[len(words)-1]], hintsOf(rule, rs.sets))
			}
		}
		for _, c := range t.chains {
			for _, rule := range c.rules {
				h := hintsOf(rule, rs.sets)
				s.all.add(h)
				for _, caller := range append(into[c.name], hints{}) {
					both := h
					both.add(caller)
					s.rules = append(s.rules, both)
				}
			}
		}
	}
	return s
}

func pick[T any](r *rand.Rand, lists ...[]T) (v T) {
	for _, l := range lists {
		if len(l) > 0 && r.IntN(6) > 0 {
			return l[r.IntN(len(l))]
		}
	}
	for _, l := range slices.Backward(lists) {
		if len(l) > 0 {
			return l[r.IntN(len(l))]
		}
	}
	return v
}

// packet makes one; no two have the same source port unless a rule names it.
func (s *sender) packet() packet.Flow {
	var h hints
	if len(s.rules) > 0 {
		h = s.rules[s.IntN(len(s.rules))]
	}
	f := packet.Flow{Local: s.IntN(5) == 0}
	icmp := uint8(packet.ICMP)
	if s.family == packet.IPv6Family {
		icmp = packet.ICMPv6
	}
	f.Protocol = pick(s.Rand, h.protocols, []uint8{packet.TCP, packet.TCP, packet.UDP, packet.UDP, icmp, packet.SCTP, packet.GRE})
	s.ends(&f, h)
	if s.port++; s.port > lastPort {
		s.port = firstPort
	}
	f.SourcePort = s.port
	if !f.HasPorts() {
		if f.Protocol != icmp {
			f.SourcePort = 0
		}
		return f
	}
	if len(h.sourcePorts) > 0 && s.IntN(3) > 0 {
		f.SourcePort = h.sourcePorts[s.IntN(len(h.sourcePorts))]
	}
	f.DestinationPort = pick(s.Rand, h.destinationPorts, s.all.destinationPorts, []uint16{53, 80, 443, 8080, 30080, 5000})
	return f
}

// ends chooses addresses, and the link by which the packet comes in.
func (s *sender) ends(f *packet.Flow, h hints) {
	for {
		f.Source = pick(s.Rand, h.sources, s.all.sources, s.pool)
		f.Destination = pick(s.Rand, h.destinations, s.all.destinations, s.pool)
		own := slices.Contains(s.node.addresses, f.Source)
		if f.Local && !own {
			f.Source = s.node.addresses[s.IntN(len(s.node.addresses))]
		}
		if !f.Local && own && s.IntN(8) > 0 {
			continue // the kernel drops a packet from elsewhere with the node's own source
		}
		loopback := f.Destination.IsLoopback() && s.IntN(4) == 0
		if usable(s.family, f.Source) && (usable(s.family, f.Destination) || loopback) && f.Source != f.Destination {
			break
		}
	}
	if f.Local {
		const often = 16
		if s.family == packet.IPv4Family && !f.Destination.IsLoopback() && s.IntN(often) == 0 {
			f.Source = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		return
	}
	var matching []string
	for _, name := range h.in {
		for _, link := range s.links {
			if prefix, wild := strings.CutSuffix(name, "+"); link == name || wild && strings.HasPrefix(link, prefix) {
				matching = append(matching, link)
			}
		}
	}
	f.InInterface = pick(s.Rand, matching, s.links)
}

// usable addresses are neither martian nor for many.
func usable(family packet.Family, a netip.Addr) bool {
	v4 := family == packet.IPv4Family
	if !a.IsValid() || a.Is4() != v4 || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsLinkLocalMulticast() {
		return false
	}
	if v4 {
		b := a.As4()
		return b[0] != 0 && b[0] < 240 && b[0] != 127
	}
	return !a.Is4In6() && netip.MustParsePrefix("2000::/3").Contains(a) || netip.MustParsePrefix("fc00::/7").Contains(a)
}
