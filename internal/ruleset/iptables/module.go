package iptables

import (
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// kind says how the options of a match extension are read.
type kind uint8

const (
	// opaque: not understood, its text is kept.
	opaque kind = iota
	// protocolModule: its options are read one by one, so the module itself says nothing.
	protocolModule
	// multiportModule: likewise, but one option must be there.
	multiportModule
	// collected: all options together make one match.
	collected
	// remembering: what happened before decides.
	remembering
	// counting: every packet matches.
	counting
)

func kindOf(module string) kind {
	switch module {
	case "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmp6", "icmpv6", "ipv6-icmp":
		return protocolModule
	case "multiport", "mport":
		return multiportModule
	case "comment", "mark", "connmark", "addrtype", "conntrack", "state", "statistic", "set", "iprange", "physdev", "owner",
		"rpfilter", "pkttype":
		return collected
	case "limit", "hashlimit", "recent", "connlimit", "connbytes", "quota", "quota2", "time", "nth", "random", "fuzzy", "condition":
		return remembering
	case "nfacct":
		return counting
	}
	return opaque
}

// openModule reads -m NAME.
func (s *spec) openModule(w word, start int) {
	s.closeModule()
	name, ok := s.words.peek()
	if !ok || name.option() || name.not() {
		s.wrong("-m needs the name of a match")
		s.unknown("-m", start, w.end, whyUnknown)
		return
	}
	s.words.next()
	s.module, s.start, s.end, s.used = name.value, start, name.end, false
	s.options = s.options[:0]
	if name.value == "icmp6" || name.value == "icmpv6" || name.value == "hl" {
		s.families.v6 = true
	}
}

// long reads an option that belongs to a match or to the target.
func (s *spec) long(w word, start int, not bool) {
	o := s.collect(w, start, not)
	kind := kindOf(s.module)
	switch {
	case s.protocolOption(o):
		s.end, s.used = max(s.end, o.end), true
	case s.module != "" && kind != protocolModule && kind != multiportModule && (s.module != "comment" || o.name == "--comment"):
		s.options = append(s.options, o)
		s.end, s.used = o.end, true
	case s.target != "":
		s.targetOptions = append(s.targetOptions, o)
		s.targetEnd = o.end
	default:
		s.wrong("option " + o.name + " belongs to no match")
		s.unknown(o.name, o.start, o.end, whyUnknown)
	}
}

// closeModule makes a match of the options that were read.
func (s *spec) closeModule() {
	module := s.module
	s.module = ""
	if module == "" {
		return
	}
	text := func() string { return s.words.text[s.start:s.end] }
	switch kindOf(module) {
	case protocolModule:
	case multiportModule:
		if !s.used {
			s.wrong("-m " + module + " says nothing")
			s.unknown(module, s.start, s.end, whyUnknown)
		}
	case collected:
		before := len(s.matches)
		if why := s.match(module, s.options); why != "" {
			s.matches = s.matches[:before]
			s.unknown(module, s.start, s.end, why)
			s.complain(why)
		}
	case remembering:
		s.remember(module, text())
	case counting:
		s.add(ruleset.Always{Name: module, Text: text()})
	default:
		s.unknown(module, s.start, s.end, whyUnknown)
	}
}

// remember adds a match that goes by what happened before. But of those,
// "-m recent --set" only writes an address down: every packet matches.
func (s *spec) remember(module, text string) {
	words := strings.Fields(text)
	writes := slices.Contains(words, "--set") || len(words) > 1 && words[1] == "SET" // recent: SET name: x
	if module == "recent" && writes && !slices.Contains(words, "!") {
		s.add(ruleset.Always{Name: module, Text: text})
		return
	}
	s.add(ruleset.Stateful{Name: module, Text: text})
}

// complain notes a problem, unless the text is as it should be and only doesn't say all.
func (s *spec) complain(why string) {
	if why != whyBlackedOut && why != whyName {
		s.wrong(why)
	}
}

// stray handles a word that belongs to no option. "[unsupported revision]" is
// what iptables prints for an extension whose parameters it doesn't know.
func (s *spec) stray(w word) {
	end := w.end
	if strings.HasPrefix(w.value, "[") {
		for !strings.HasSuffix(w.value, "]") {
			next, ok := s.words.peek()
			if !ok || next.option() {
				break
			}
			w, _ = s.words.next()
			end = w.end
		}
		s.wrong("parameters are not shown: " + whyHidden)
		s.hide(w.start, end)
		return
	}
	s.wrong("a word that belongs to no option")
	s.unknown("?", w.start, end, whyUnknown)
}

// hide makes what stands before "[unsupported revision]" unknown.
func (s *spec) hide(start, end int) {
	switch {
	case s.module != "":
		s.unknown(s.module, s.start, end, whyHidden)
		s.module = ""
	case s.target != "":
		s.targetEnd = end
		s.hidden = true
	default:
		s.unknown("?", start, end, whyHidden)
	}
}
