package iptables

import (
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// whyMalformed is said of options whose values iptables would refuse.
const whyMalformed = "its values are not understood"

// protocolOption reads an option of a protocol's own match and of multiport,
// wherever it stands; false where o is none.
func (s *spec) protocolOption(o option) bool {
	var m ruleset.Match
	var ok bool
	switch o.name {
	case "--sport", "--source-port":
		m, ok = onePort(o, ruleset.Source)
	case "--dport", "--destination-port":
		m, ok = onePort(o, ruleset.Destination)
	case "--sports", "--source-ports":
		m, ok = manyPorts(o, ruleset.Source)
	case "--dports", "--destination-ports":
		m, ok = manyPorts(o, ruleset.Destination)
	case "--ports":
		m, ok = manyPorts(o, ruleset.Either)
	case "--tcp-flags":
		m, ok = flagsMatch(o)
	case "--syn":
		m, ok = ruleset.TCPFlags{Mask: 0x17, Set: 0x02, Not: o.not}, o.n == 0
	case "--icmp-type":
		m, ok = icmpMatch(o, false)
	case "--icmpv6-type":
		s.families.v6 = true
		m, ok = icmpMatch(o, true)
	case "--tcp-option", "--chunk-types", "--dccp-types", "--dccp-option":
		s.unknown(strings.TrimPrefix(o.name, "--"), o.start, o.end, whyUnknown)
		return true
	default:
		return false
	}
	if !ok {
		why := whyUnknown
		if o.n == 1 && strings.Contains(o.name, "port") && letters(o.value) {
			why = whyName // of a service, in iptables -L without -n
		} else {
			s.wrong(o.name + ": " + whyMalformed)
		}
		s.unknown(strings.TrimPrefix(o.name, "--"), o.start, o.end, why)
		return true
	}
	s.add(m)
	return true
}

// letters says whether a list of ports has names in it.
func letters(s string) bool { return strings.ContainsAny(s, "abcdefghijklmnopqrstuvwxyz") }

func onePort(o option, side ruleset.Side) (ruleset.Match, bool) {
	r, ok := portRange(o.value, ':')
	return ruleset.Ports{Side: side, Ranges: []ruleset.PortRange{r}, Not: o.not}, ok && o.n == 1
}

func manyPorts(o option, side ruleset.Side) (ruleset.Match, bool) {
	ranges, ok := ports(o.value)
	return ruleset.Ports{Side: side, Ranges: ranges, Not: o.not}, ok && o.n == 1
}

func flagsMatch(o option) (ruleset.Match, bool) {
	mask, ok := tcpFlags(o.value)
	set, ok2 := tcpFlags(o.second)
	return ruleset.TCPFlags{Mask: mask, Set: set, Not: o.not}, ok && ok2 && o.n == 2
}

func icmpMatch(o option, v6 bool) (ruleset.Match, bool) {
	t, ok := icmpType(o.value, v6)
	t.Not = o.not
	return t, ok && o.n == 1
}

// match adds the matches that a module's options make, or says why it can't.
func (s *spec) match(module string, options []option) (why string) {
	if len(options) == 0 && module != "rpfilter" {
		return whyMalformed
	}
	switch module {
	case "comment":
		return s.comment(options)
	case "mark":
		return s.mark(options, false)
	case "connmark":
		return s.mark(options, true)
	case "addrtype":
		return s.addrtype(options)
	case "conntrack", "state":
		return s.conntrack(options)
	case "statistic":
		return s.statistic(options)
	case "set":
		return s.set(options)
	case "iprange":
		return s.iprange(options)
	case "physdev":
		return s.physdev(options)
	case "owner":
		return s.owner(options)
	case "rpfilter":
		return s.rpfilter(options)
	}
	return s.pkttype(options)
}

// comment reads --comment. Where the quotation marks were lost on the way, or
// were never written (ip-masq-agent of old wrote "" around it), its words go on to
// the next option.
func (s *spec) comment(options []option) string {
	for _, o := range options {
		text := o.value
		if o.n > 1 {
			text = strings.Trim(s.words.text[o.values:o.end], `"“”`)
		}
		if s.rule.Comment != "" {
			text = s.rule.Comment + " " + text
		}
		if s.rule.Comment = text; o.n == 0 || o.not {
			return whyMalformed
		}
	}
	return ""
}

func (s *spec) mark(options []option, connection bool) string {
	for _, o := range options {
		value, mask, ok := masked(o.value)
		if !ok || o.n != 1 || o.name != "--mark" {
			return whyMalformed
		}
		s.add(ruleset.Mark{Value: value, Mask: mask, Connection: connection, Not: o.not})
	}
	return ""
}

func (s *spec) addrtype(options []option) string {
	var m ruleset.AddressType
	for _, o := range options {
		ok := false
		switch o.name {
		case "--src-type":
			m.Source, ok = addressTypes(o.value)
			ok = ok && o.n == 1
			m.NotSource = o.not
		case "--dst-type":
			m.Destination, ok = addressTypes(o.value)
			ok = ok && o.n == 1
			m.NotDestination = o.not
		case "--limit-iface-in":
			m.LimitIn, ok = true, o.n == 0 && !o.not
		case "--limit-iface-out":
			m.LimitOut, ok = true, o.n == 0 && !o.not
		}
		if !ok {
			return whyMalformed
		}
	}
	s.add(m)
	return ""
}

func (s *spec) statistic(options []option) string {
	var m ruleset.Statistic
	mode := ""
	for _, o := range options {
		ok := o.n == 1
		switch o.name {
		case "--mode":
			mode, ok = o.value, ok && !o.not
		case "--probability":
			p, err := strconv.ParseFloat(o.value, 64)
			m.Probability, m.Not, ok = p, o.not, ok && err == nil && p >= 0 && p <= 1
		case "--every":
			m.Every, ok = number(o.value)
			m.Not = o.not
			ok = ok && m.Every > 0
		case "--packet":
			m.Packet, ok = number(o.value)
		default:
			ok = false
		}
		if !ok {
			return whyMalformed
		}
	}
	random := slices.ContainsFunc(options, func(o option) bool { return o.name == "--probability" })
	if mode != "random" && mode != "nth" || (mode == "nth") != (m.Every > 0) || (mode == "random") != random {
		return whyMalformed
	}
	s.add(m)
	return ""
}

// set reads --match-set NAME src,dst and what may follow it: ! --update-counters
// --packets-gt 3. Several --match-set of one -m can't be.
func (s *spec) set(options []option) string {
	o := options[0]
	directions, ok := sides(o.second)
	if !ok || o.n != 2 || o.name != "--match-set" && o.name != "--set" {
		return whyMalformed
	}
	m := ruleset.Set{Name: o.value, Directions: directions, Not: o.not}
	if len(options) > 1 {
		if slices.ContainsFunc(options[1:], func(other option) bool { return other.name == o.name }) {
			return whyMalformed
		}
		m.Options = setOptions(options[1:])
	}
	s.add(m)
	return ""
}

// setOptions writes options as the command line takes them.
func setOptions(options []option) string {
	var words []string
	for _, o := range options {
		if o.not {
			words = append(words, "!")
		}
		if words = append(words, o.name); o.n > 0 {
			words = append(words, o.value)
		}
	}
	return strings.Join(words, " ")
}

func (s *spec) iprange(options []option) string {
	for _, o := range options {
		side := ruleset.Source
		switch o.name {
		case "--src-range":
		case "--dst-range":
			side = ruleset.Destination
		default:
			return whyMalformed
		}
		first, last, ok := addressRange(o.value)
		if !ok || o.n != 1 {
			return whyNoRange(o.value)
		}
		s.families.add(first.Is6())
		s.add(ruleset.IPRange{Side: side, First: first, Last: last, Not: o.not})
	}
	return ""
}

// whyNoRange says why A-B is no range of addresses.
func whyNoRange(value string) string {
	for one := range strings.SplitSeq(value, "-") {
		if a := parseAddress(one); a.why == whyBlackedOut {
			return a.why
		}
	}
	return whyMalformed
}

func (s *spec) pkttype(options []option) string {
	for _, o := range options {
		kind := strings.ToLower(o.value)
		if o.name != "--pkt-type" || o.n != 1 || kind != "unicast" && kind != "broadcast" && kind != "multicast" {
			return whyMalformed
		}
		s.add(ruleset.PacketType{Type: kind, Not: o.not})
	}
	return ""
}

func (s *spec) rpfilter(options []option) string {
	var m ruleset.RPFilter
	for _, o := range options {
		if o.n != 0 || o.not {
			return whyMalformed
		}
		switch o.name {
		case "--loose":
			m.Loose = true
		case "--validmark":
			m.ValidMark = true
		case "--accept-local":
			m.AcceptLocal = true
		case "--invert":
			m.Invert = true
		default:
			return whyMalformed
		}
	}
	s.add(m)
	return ""
}
