package iptables

import (
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// Bounds of one rule. Real ones have a few hundred bytes: iptables-restore
// takes 10,240 a line.
const (
	maxRule    = 64 << 10
	maxMatches = 128
)

// option is one option of a match or a target, with the words that follow it.
type option struct {
	name string
	not  bool
	// value and second are its first two words, n counts all of them.
	value, second string
	n             int
	// start and end in the rule's text, with the exclamation mark; values is
	// where its first word starts.
	start, values, end int
}

// spec is a rule's text being read: iptables-save's spelling, which is what the
// command line takes.
//
//	-s 10.0.0.0/8 ! -o eth0 -p tcp -m comment --comment "a b" -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1:80
//
// Values are scratch space for one rule after the other.
type spec struct {
	words words
	rule  ruleset.Rule
	// matches of the rule so far, in scratch space.
	matches []ruleset.Match
	// module is the last -m, "" where there is none or where it is done; from
	// start to end in the text. used: an option of it was read already.
	module     string
	start, end int
	used       bool
	options    []option
	// target is the word of -j or -g, goTo for the latter.
	target                 string
	goTo                   bool
	targetStart, targetEnd int
	targetOptions          []option
	// hidden: the program that wrote the dump could not print the target.
	hidden bool
	// given are the general options that were read, of which a rule has one each.
	given uint8
	// families of the addresses that occur.
	families families
	// problem is the first thing that is wrong with the line.
	problem string
}

// families are those whose addresses or words were met. likely6: -p ipv6-icmp,
// which an IPv4 rule may have too, though nobody writes it.
type families struct{ v4, v6, likely6 bool }

func (f *families) add(v6 bool) {
	if v6 {
		f.v6 = true
	} else {
		f.v4 = true
	}
}

// read parses a rule from the words behind its chain on.
func (s *spec) read(text string, at int) {
	s.clear()
	s.words.reset(text)
	s.words.at = at
	s.rule.Text = text
	for s.argument() {
		if len(s.matches) >= maxMatches {
			s.overflow()
			break
		}
	}
	s.closeModule()
	if len(s.matches) > 0 {
		s.rule.Matches = slices.Clone(s.matches)
	}
}

// clear forgets the rule before, and keeps the space it took.
func (s *spec) clear() {
	*s = spec{matches: s.matches[:0], options: s.options[:0], targetOptions: s.targetOptions[:0]}
}

// overflow makes the rest of an absurdly long rule unknown.
func (s *spec) overflow() {
	s.wrong("more matches than a rule can have")
	s.unknown("rule", s.words.at, len(s.words.text), whyUnknown)
	s.hidden = true
}

// wrong notes what is wrong with the line; the first one counts.
func (s *spec) wrong(why string) {
	if s.problem == "" {
		s.problem = why
	}
}

func (s *spec) add(m ruleset.Match) { s.matches = append(s.matches, m) }

// unknown adds a match that isn't understood.
func (s *spec) unknown(name string, start, end int, why string) {
	s.add(ruleset.Unknown{Name: name, Text: s.words.text[start:end], Why: why})
}

// argument reads one option with its values; false at the end.
func (s *spec) argument() bool {
	w, ok := s.words.next()
	if !ok {
		return false
	}
	start, not := w.start, false
	if w.not() {
		next, ok := s.words.peek()
		if !ok || !next.option() {
			s.wrong("an exclamation mark with no option behind it")
			s.unknown("!", start, w.end, whyUnknown)
			return true
		}
		not = true
		w, _ = s.words.next()
	}
	switch {
	case !w.option():
		s.stray(w)
	case len(w.value) == 2 || !s.extension():
		s.general(w, start, not)
	default:
		s.long(w, start, not)
	}
	return true
}

// extension says whether an extension that isn't understood is open. It may have
// options of its own that are called like general ones (-m policy --proto).
func (s *spec) extension() bool { return s.module != "" && kindOf(s.module) == opaque }

// general reads an option that every rule may have.
func (s *spec) general(w word, start int, not bool) {
	switch w.value {
	case "-s", "--source", "--src":
		s.address(ruleset.Source, w, start, not)
	case "-d", "--destination", "--dst":
		s.address(ruleset.Destination, w, start, not)
	case "-i", "--in-interface":
		if o, ok := s.single(1, w, start, not); ok {
			s.rule.In = interfaceName(o.value, o.not)
		}
	case "-o", "--out-interface":
		if o, ok := s.single(2, w, start, not); ok {
			s.rule.Out = interfaceName(o.value, o.not)
		}
	case "-p", "--protocol", "--proto":
		s.protocol(w, start, not)
	case "-m", "--match":
		s.openModule(w, start)
	case "-j", "--jump", "-g", "--goto":
		s.jump(w, start)
	case "-c", "--set-counters":
		s.counters(s.collect(w, start, not))
	case "-f", "--fragment":
		s.closeModule()
		s.unknown("fragment", start, w.end, whyUnknown)
	default:
		s.long(w, start, not)
	}
}

// collect reads the words behind an option, and an old-fashioned exclamation
// mark between them: --dport ! 80.
func (s *spec) collect(w word, start int, not bool) option {
	o := option{name: w.value, not: not, start: start, values: w.end, end: w.end}
	if name, value, ok := strings.Cut(w.value, "="); ok && strings.HasPrefix(name, "--") {
		o.name, o.value, o.n, o.values = name, value, 1, w.start+len(name)+1
	}
	for {
		next, ok := s.words.peek()
		if !ok || next.option() && (o.n > 0 || !takesAnything(o.name)) {
			return o
		}
		if next.not() {
			before := s.words
			s.words.next()
			if after, ok := s.words.peek(); !ok || after.option() {
				s.words = before
				return o
			}
			if o.n == 0 {
				o.not = !o.not
				o.end = next.end
				continue
			}
		} else {
			s.words.next()
		}
		switch o.n {
		case 0:
			o.value, o.values = next.value, next.start
		case 1:
			o.second = next.value
		}
		o.n++
		o.end = next.end
	}
}

// takesAnything says whether the option's value may begin with a hyphen: text
// that people choose.
func takesAnything(name string) bool {
	switch name {
	case "--comment", "--log-prefix", "--nflog-prefix", "--ulog-prefix", "--string", "--hex-string", "--helper", "--u32", "--bytecode":
		return true
	}
	return false
}

// single reads an option of exactly one word. Where it isn't one, an Unknown and
// a problem are noted.
func (s *spec) single(bit uint8, w word, start int, not bool) (option, bool) {
	s.closeModule()
	o := s.collect(w, start, not)
	twice := s.given&bit != 0
	s.given |= bit
	if twice || o.n != 1 || o.value == "" {
		s.wrong(w.value + " needs one value, once")
		s.unknown(w.value, o.start, o.end, whyUnknown)
		return o, false
	}
	return o, true
}

func (s *spec) address(side ruleset.Side, w word, start int, not bool) {
	o, ok := s.single(4<<side, w, start, not)
	if !ok {
		return
	}
	text := s.words.text[o.start:o.end]
	if m := s.setAddress(side, o.value, o.not, text); m != nil {
		s.add(m)
	}
}

// setAddress puts an address into the rule, or returns the match that stands for
// it: a mask that is no prefix length, or one that isn't known.
func (s *spec) setAddress(side ruleset.Side, value string, not bool, text string) ruleset.Match {
	a := parseAddress(value)
	if a.why != "" {
		return ruleset.Unknown{Name: [...]string{"source", "destination"}[side], Text: text, Why: a.why}
	}
	if a.net.IsValid() {
		s.families.add(a.base.Is6())
		return ruleset.MaskedAddress{Side: side, Address: a.base, Mask: a.net, Not: not}
	}
	s.families.add(a.prefix.Addr().Is6())
	if a.prefix.Bits() == 0 && !not {
		return nil
	}
	field := &s.rule.Source
	if side == ruleset.Destination {
		field = &s.rule.Destination
	}
	*field = ruleset.Address{Prefix: a.prefix, Not: not}
	return nil
}

func (s *spec) protocol(w word, start int, not bool) {
	o, ok := s.single(16, w, start, not)
	if !ok {
		return
	}
	p, ok := protocol(o.value)
	if !ok {
		s.wrong("no protocol of that name is known")
		s.unknown("protocol", o.start, o.end, whyUnknown)
		return
	}
	p.Not = o.not && p.Is
	s.rule.Protocol = p
	s.families.likely6 = s.families.likely6 || p.Number == packet.ICMPv6 && !p.Not
}

// jump reads -j and -g.
func (s *spec) jump(w word, start int) {
	s.closeModule()
	if s.target != "" {
		s.wrong("a rule has one target")
		s.hidden = true
	}
	name, ok := s.words.peek()
	if !ok || name.option() || name.not() {
		s.wrong(w.value + " needs a target")
		s.hidden = true
		s.targetStart, s.targetEnd = start, w.end
		return
	}
	s.words.next()
	s.target, s.goTo = name.value, w.value == "-g" || w.value == "--goto"
	s.targetStart, s.targetEnd = start, name.end
}

// counters reads -c PACKETS BYTES, which iptables -S -v prints.
func (s *spec) counters(o option) {
	packets, err := strconv.ParseUint(o.value, 10, 64)
	bytes, err2 := strconv.ParseUint(o.second, 10, 64)
	if o.n != 2 || err != nil || err2 != nil {
		s.wrong("-c needs two numbers")
		s.unknown("-c", o.start, o.end, whyUnknown)
		return
	}
	s.rule.Packets, s.rule.Bytes, s.rule.Counted = packets, bytes, true
	s.rule.Text = s.words.text[:o.start] + strings.TrimLeft(s.words.text[o.end:], " ")
}
