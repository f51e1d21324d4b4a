package ipset

import (
	"net/netip"
	"sort"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// Contains says whether the packet is in the set, asked with one side a
// dimension (true: source), as -m set --match-set NAME src,dst does. why says
// what was missing where the answer is Unknown. all are the sets that a
// list:set asks.
//
// It is ip_set_test of net/netfilter/ipset/ip_set_core.c: too few sides and
// another family don't match, sides too many don't matter.
func (s *Set) Contains(all Sets, p Packet, source []bool) (answer Answer, why string) {
	answer, why = s.contains(all, &p, source)
	for o := s.other; o != nil; o = o.other {
		if a, _ := o.contains(all, &p, source); a != answer {
			return Unknown, "it was given more than once, with other elements"
		}
	}
	return answer, why
}

func (s *Set) contains(all Sets, p *Packet, source []bool) (Answer, string) {
	switch {
	case s.Type == "":
		return Unknown, "the line that creates it wasn't given"
	case s.kind.parts == nil:
		return Unknown, "sets of type " + s.Type + " aren't known"
	case len(source) < len(s.kind.parts):
		return No, ""
	}
	if s.Family != 0 {
		f, ok := p.family()
		if !ok {
			return Unknown, "the addresses aren't known"
		}
		if f != s.Family {
			return No, ""
		}
	}
	if s.doubt != "" {
		return Unknown, s.doubt
	}
	answer, why := No, ""
	if s.kind.parts[0] == set {
		answer, why = s.anyMember(all, p, source)
	} else {
		answer, why = s.find(p, source)
	}
	if s.missing != "" && (answer == No || answer == Yes && s.missingNegates && s.kind.nomatch) {
		return Unknown, s.missing
	}
	return answer, why
}

func (p *Packet) family() (packet.Family, bool) {
	switch {
	case p.Source.IsValid():
		return packet.Of(p.Source), true
	case p.Destination.IsValid():
		return packet.Of(p.Destination), true
	}
	return 0, false
}

// anyMember asks the sets of a list:set.
func (s *Set) anyMember(all Sets, p *Packet, source []bool) (Answer, string) {
	answer, why := No, ""
	for _, name := range s.Members {
		member := all[name]
		a, missing := Unknown, "its member "+name+" wasn't given"
		switch {
		case member == nil:
		case member.perhapsList(): // the kernel allows none
			missing = "its member " + name + " is a list itself"
		default:
			a, missing = member.Contains(all, *p, source)
		}
		switch {
		case a == Yes:
			return Yes, ""
		case a == Unknown && answer == No:
			answer, why = Unknown, missing
		}
	}
	return answer, why
}

// perhapsList says whether the name was given to a list:set, also before.
func (s *Set) perhapsList() bool {
	for ; s != nil; s = s.other {
		if len(s.kind.parts) > 0 && s.kind.parts[0] == set {
			return true
		}
	}
	return false
}

// possible are the answers that a packet can get, of which not all is known.
type possible uint8

const (
	canMatch possible = 1 << iota
	// canNot: a nomatch element decides.
	canNot
	// canPass: the search goes on.
	canPass
)

// find is mtype_test_cidrs: the first prefix lengths at which there is a
// matching element decide.
func (s *Set) find(p *Packet, source []bool) (Answer, string) {
	var wanted pair
	n := 0
	for i, part := range s.kind.parts {
		if part != host && part != network {
			continue
		}
		a, what := side(p, source[i])
		if !a.IsValid() {
			return Unknown, "the " + what + " address isn't known"
		}
		wanted[n] = addressOf(a)
		n++
	}
	if s.Options.Mask.IsValid() {
		wanted = s.underMask(wanted)
	}
	var seen possible
	why := ""
	for _, t := range s.tables {
		g, ok := t.groups[wanted.masked(t.bits)]
		if !ok {
			continue
		}
		can, missing := s.ask(&g, p, source)
		seen |= can &^ canPass
		if why == "" {
			why = missing
		}
		if can&canPass == 0 {
			return conclude(seen, why)
		}
	}
	return conclude(seen|canNot, why)
}

func conclude(seen possible, why string) (Answer, string) {
	switch seen {
	case canMatch:
		return Yes, ""
	case canNot:
		return No, ""
	}
	return Unknown, why
}

func side(p *Packet, source bool) (netip.Addr, string) {
	if source {
		return p.Source, "source"
	}
	return p.Destination, "destination"
}

// can is what an element that matches does.
func (r *rest) can() possible {
	if r.flags&nomatch != 0 {
		return canNot
	}
	return canMatch
}

func anyOf(rests []rest) possible {
	var can possible
	for i := range rests {
		can |= rests[i].can()
	}
	return can
}

// ask compares all but addresses.
func (s *Set) ask(g *group, p *Packet, source []bool) (possible, string) {
	part, at := s.kind.other()
	switch part {
	case 0:
		return g.one.can(), ""
	case port, plainPort:
		return s.askPort(g, p, source[at], part == plainPort)
	case mark:
		return search(s.rests(g), 0, p.Mark&s.Options.MarkMask), ""
	case iface:
		return s.askInterface(s.rests(g), p, source[at])
	}
	return canMatch | canPass, "hardware addresses aren't known"
}

// search finds the element with a protocol and a value, among sorted ones.
func search(rests []rest, protocol uint8, value uint32) possible {
	if len(rests) == 1 {
		r := &rests[0]
		if r.protocol == protocol && r.first <= value && value <= r.last {
			return r.can()
		}
		return canPass
	}
	after := sort.Search(len(rests), func(i int) bool {
		r := &rests[i]
		return r.protocol > protocol || r.protocol == protocol && r.first > value
	})
	if after == 0 {
		return canPass
	}
	r := &rests[after-1]
	if r.protocol != protocol || r.last < value {
		return canPass
	}
	return r.can()
}

// askPort is get_port of ip_set_getport.c: ICMP has its type and code for a
// port, protocols without ports have 0. A bitmap:port asks TCP and UDP alone.
func (s *Set) askPort(g *group, p *Packet, source, plain bool) (possible, string) {
	rests := s.rests(g)
	protocol := p.Protocol
	if plain {
		protocol = 0
	}
	value, what := p.DestinationPort, "destination port"
	if source {
		value, what = p.SourcePort, "source port"
	}
	switch p.Protocol {
	case 0:
		return anyOf(rests) | canPass, "the protocol isn't known"
	case packet.TCP, packet.UDP:
	case packet.SCTP, udplite:
		if plain {
			return canPass, ""
		}
	case packet.ICMP, packet.ICMPv6:
		if plain {
			return canPass, ""
		}
		what = "ICMP type"
	default:
		if plain {
			return canPass, ""
		}
		value = 0
	}
	if value >= 0 {
		return search(rests, protocol, uint32(value)), ""
	}
	return anyPort(rests, protocol), "the " + what + " isn't known"
}

// anyPort is what elements of a protocol can answer where the port is open.
func anyPort(rests []rest, protocol uint8) possible {
	first := sort.Search(len(rests), func(i int) bool { return rests[i].protocol >= protocol })
	end := first + sort.Search(len(rests)-first, func(i int) bool { return rests[first+i].protocol > protocol })
	const all = 1 << 16
	covered := uint32(0)
	for _, r := range rests[first:end] {
		covered += r.last - r.first + 1
	}
	if covered == all {
		return anyOf(rests[first:end])
	}
	return anyOf(rests[first:end]) | canPass
}

// askInterface is hash_netiface4_data_equal of ip_set_hash_netiface.c. Once a
// prefix is found that holds the address, with whatever interface, shorter ones
// aren't tried (HKEY's multi). iptables asks for interfaces, never for bridge
// ports (physdev), and a packet without one never matches.
func (s *Set) askInterface(rests []rest, p *Packet, in bool) (possible, string) {
	name, none, what := p.OutInterface, p.NoOut, "outgoing interface"
	if in {
		name, none, what = p.InInterface, p.NoIn, "incoming interface"
	}
	if none {
		return canNot, ""
	}
	var can possible
	ports := false
	for i := range rests {
		r := &rests[i]
		if r.flags&physdev != 0 {
			ports = true
			continue
		}
		if name == "" {
			can |= r.can() | canNot
			continue
		}
		can |= canNot
		pattern := s.interfaces[r.first]
		if pattern == name || r.flags&wildcard != 0 && strings.HasPrefix(name, pattern) {
			return r.can(), ""
		}
	}
	switch {
	case can == 0 && ports:
		// Whether its bucket is that of the bridge port's element is a matter of
		// a hash with a random seed: if so, shorter prefixes aren't tried.
		return canNot | canPass, "it depends on the hash of an element with physdev"
	case name == "":
		return can, "the " + what + " isn't known"
	}
	return can, ""
}
