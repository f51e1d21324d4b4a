package iptables

import (
	"strings"
)

// take consumes the next word where accept likes it.
func (s *spec) take(accept func(string) bool) (string, bool) {
	w, ok := s.words.peek()
	if !ok || !accept(w.value) {
		return "", false
	}
	s.words.next()
	return w.value, true
}

// takeWord consumes the next word where it is this one.
func (s *spec) takeWord(want string) bool {
	_, ok := s.take(func(word string) bool { return word == want })
	return ok
}

// takeAny consumes the next word, whatever it is.
func (s *spec) takeAny() string {
	w, _ := s.take(func(string) bool { return true })
	return w
}

// takeNot consumes an exclamation mark.
func (s *spec) takeNot() bool { return s.takeWord("!") }

// value makes an option with one value; "!" in front of the value inverts it.
func value(name, text string, not bool) option {
	text, inverted := strings.CutPrefix(text, "!")
	o := option{name: name, value: text, not: not != inverted}
	if text != "" {
		o.n = 1
	}
	return o
}

// listOptions reads the words that a match printed, and returns them as options
// of its module; the module is empty where no match prints such a word. not: an
// exclamation mark stood before.
func (s *spec) listOptions(w word, not bool) (module string, options []option) {
	switch w.value {
	case "tcp", "udp", "sctp", "dccp", "udplite":
		return s.listPorts(not)
	case "multiport":
		s.words.next()
		which, ok := s.take(func(word string) bool { return word == "sports" || word == "dports" || word == "ports" })
		if !ok || not {
			return "", nil
		}
		return "multiport", []option{value("--"+which, s.takeAny(), false)}
	case "icmp", "icmptype", "ipv6-icmp", "ipv6-icmptype":
		return s.listICMP(not)
	case "mark", "MARK", "connmark", "CONNMARK":
		s.words.next()
		if not || !s.takeWord("match") {
			return "", nil
		}
		inverted := s.takeNot()
		return strings.ToLower(w.value), []option{value("--mark", s.takeAny(), inverted)}
	case "ADDRTYPE":
		return s.listAddrtype(not)
	case "statistic":
		return s.listStatistic(not)
	case "match-set":
		return "set", s.listSet(not)
	case "source", "destination":
		return s.listIPRange(not)
	case "PHYSDEV":
		return s.listPhysdev(not)
	case "owner":
		return "owner", s.listOwner(not)
	case "rpfilter":
		return s.listRPFilter(not)
	case "PKTTYPE":
		s.words.next()
		inverted := s.takeWord("!=")
		if not || !inverted && !s.takeWord("=") {
			return "", nil
		}
		return "pkttype", []option{value("--pkt-type", s.takeAny(), inverted)}
	case "state":
		s.words.next()
		return "state", []option{value("--state", s.takeAny(), not)}
	}
	if conntrackWord(w.value) {
		return "conntrack", s.listConntrack(not)
	}
	return s.listOpaque(w, not)
}

// listPorts reads tcp spt:53 dpts:!1024:2048 flags:0x17/0x02 option=8.
func (s *spec) listPorts(not bool) (module string, options []option) {
	module = s.takeAny()
	if not {
		return "", nil
	}
	for {
		w, ok := s.words.peek()
		name, text, cut := strings.Cut(w.value, ":")
		if !ok {
			return module, options
		}
		switch {
		case cut && (name == "spt" || name == "spts"):
			options = append(options, value("--sport", text, false))
		case cut && (name == "dpt" || name == "dpts"):
			options = append(options, value("--dport", text, false))
		case cut && name == "flags":
			mask, set, _ := strings.Cut(text, "/")
			o := value("--tcp-flags", mask, false)
			o.second, o.n = set, 2
			options = append(options, o)
		case strings.HasPrefix(w.value, "option=") && module == "tcp":
			options = append(options, value("--tcp-option", w.value, false))
		case module == "sctp" && (w.value == "any" || w.value == "all" || w.value == "only"):
			s.words.next()
			options = append(options, value("--chunk-types", w.value, false))
		default:
			return module, options
		}
		s.words.next()
	}
}

// listICMP reads icmptype 8, icmptype 3 code 4, icmp !type 3 code 1, icmp
// !host-unreachable, ipv6-icmp echo-request.
func (s *spec) listICMP(not bool) (module string, options []option) {
	word := s.takeAny()
	module, isType := strings.CutSuffix(word, "type")
	name := "--icmp-type"
	if module == "ipv6-icmp" {
		name = "--icmpv6-type"
	}
	text := s.takeAny()
	inverted := false
	if !isType {
		text, inverted = strings.CutPrefix(text, "!")
		if text == "type" {
			text = s.takeAny()
			isType = true
		}
	}
	if not || text == "" {
		return "", nil
	}
	if isType && s.takeWord("code") {
		text += "/" + s.takeAny()
	} else if isType && s.takeWord("codes") { // a range has no place in the model
		text += "/" + s.takeAny()
	}
	return module, []option{{name: name, value: text, n: 1, not: inverted}}
}

// listAddrtype reads ADDRTYPE match src-type !LOCAL dst-type UNICAST limit-in.
func (s *spec) listAddrtype(not bool) (module string, options []option) {
	s.words.next()
	if not || !s.takeWord("match") {
		return "", nil
	}
	for {
		switch {
		case s.takeWord("src-type"):
			options = append(options, value("--src-type", s.takeAny(), false))
		case s.takeWord("dst-type"):
			options = append(options, value("--dst-type", s.takeAny(), false))
		case s.takeWord("limit-in"):
			options = append(options, option{name: "--limit-iface-in"})
		case s.takeWord("limit-out"):
			options = append(options, option{name: "--limit-iface-out"})
		default:
			return "addrtype", options
		}
	}
}

// listStatistic reads statistic mode random probability 0.5, statistic mode nth
// every 3 packet 1.
func (s *spec) listStatistic(not bool) (module string, options []option) {
	s.words.next()
	if not || !s.takeWord("mode") {
		return "", nil
	}
	options = append(options, value("--mode", s.takeAny(), false))
	inverted := s.takeNot()
	what, _ := s.take(func(word string) bool { return word == "probability" || word == "every" })
	options = append(options, value("--"+what, s.takeAny(), inverted))
	if what == "every" && s.takeWord("packet") {
		options = append(options, value("--packet", s.takeAny(), false))
	}
	return "statistic", options
}

// listSet reads match-set NAME src,dst return-nomatch ! update-counters packets-gt 3.
func (s *spec) listSet(not bool) []option {
	s.words.next()
	options := []option{{name: "--match-set", value: s.takeAny(), second: s.takeAny(), n: 2, not: not}}
	for {
		before := s.words
		inverted := s.takeNot()
		w, _ := s.words.peek()
		o := option{name: "--" + w.value, not: inverted}
		switch w.value {
		case "return-nomatch", "update-counters", "update-subcounters":
			s.words.next()
		case "packets-eq", "packets-lt", "packets-gt", "bytes-eq", "bytes-lt", "bytes-gt":
			s.words.next()
			o.value, o.n = s.takeAny(), 1
		default:
			s.words = before
			return options
		}
		options = append(options, o)
	}
}

// listIPRange reads source IP range ! 10.0.0.1-10.0.0.9.
func (s *spec) listIPRange(not bool) (module string, options []option) {
	side := map[string]string{"source": "--src-range", "destination": "--dst-range"}[s.takeAny()]
	if not || !s.takeWord("IP") || !s.takeWord("range") {
		return "", nil
	}
	inverted := s.takeNot()
	return "iprange", []option{value(side, s.takeAny(), inverted)}
}

// listPhysdev reads PHYSDEV match ! --physdev-in eth+ --physdev-is-bridged.
func (s *spec) listPhysdev(not bool) (module string, options []option) {
	s.words.next()
	if not || !s.takeWord("match") {
		return "", nil
	}
	for {
		before := s.words
		inverted := s.takeNot()
		name, ok := s.take(func(word string) bool { return strings.HasPrefix(word, "--physdev-") })
		if !ok {
			s.words = before
			return "physdev", options
		}
		o := option{name: name, not: inverted}
		if name == "--physdev-in" || name == "--physdev-out" {
			o = value(name, s.takeAny(), inverted)
		}
		options = append(options, o)
	}
}

// listRPFilter reads rpfilter loose validmark accept-local invert.
func (s *spec) listRPFilter(not bool) (module string, options []option) {
	s.words.next()
	if not {
		return "", nil
	}
	for {
		name, ok := s.take(func(word string) bool {
			return word == "loose" || word == "validmark" || word == "accept-local" || word == "invert"
		})
		if !ok {
			return "rpfilter", options
		}
		options = append(options, option{name: "--" + name})
	}
}
