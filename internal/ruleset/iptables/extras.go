package iptables

import (
	"cmp"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// extras reads what stands behind the columns of a listing: the comments, what
// each match prints, and what the target prints.
//
//	/* default/web:http */ tcp dpt:80 ctstate NEW to:10.0.0.1:8080
//
// Each print function of iptables' extensions has a form of its own; here they
// are turned back into the options of the command line, so that both are read by
// the same functions.
func (s *spec) extras(at int) {
	s.words.at, s.words.has = at, false
	s.words.stray = true // quotation marks mean nothing here
	for {
		w, ok := s.words.peek()
		if !ok {
			break
		}
		if len(s.matches) >= maxMatches {
			s.overflow()
			break
		}
		switch {
		case strings.HasPrefix(w.value, "/*") && s.listComment(w):
		case w.value == "[goto]":
			s.words.next()
			s.goTo = true
		case s.isTargetText(w.value):
			s.listTarget(w.start)
			s.takeTargetText(w.start)
			return
		case s.listMatch(w):
		case targetKindOf(s.target) == inert || targetKindOf(s.target) == foreign:
			s.takeTargetText(w.start)
			return
		default:
			s.listUnknown(w)
		}
	}
}

// takeTargetText makes the rest of the line the target's.
func (s *spec) takeTargetText(start int) {
	s.targetStart, s.targetEnd = start, len(s.words.text)
	s.words.at, s.words.has = len(s.words.text), false
}

// listComment reads /* text */, whose text may have blanks and asterisks.
func (s *spec) listComment(w word) bool {
	text := s.words.text
	for from := w.start + 2; ; {
		n := strings.Index(text[from:], "*/")
		if n < 0 {
			return false
		}
		end := from + n + 2
		if end < len(text) && !blank(text[end]) {
			from = end
			continue
		}
		comment := strings.TrimSpace(text[w.start+2 : end-2])
		if s.rule.Comment != "" {
			comment = s.rule.Comment + " " + comment
		}
		s.rule.Comment = comment
		s.words.at, s.words.has = end, false
		return true
	}
}

// isTargetText says whether the rule's target prints such a word first.
func (s *spec) isTargetText(word string) bool {
	switch s.target {
	case "DNAT", "SNAT", "NETMAP":
		return strings.HasPrefix(word, "to:") || word == "[unsupported"
	case "MASQUERADE":
		return word == "masq" || word == "random" || word == "random-fully" || word == "[unsupported"
	case "REDIRECT":
		return word == "redir" || word == "random" || word == "[unsupported"
	case "REJECT":
		return word == "reject-with" || word == "[unsupported"
	case "MARK", "CONNMARK", "CT":
		if word == "CT" || word == "NOTRACK" || word == "[unsupported" {
			return true
		}
		if word != s.target {
			return false
		}
		// "MARK match 0x1" is what an old -m mark prints.
		before := s.words
		s.words.next()
		second, _ := s.words.peek()
		s.words = before
		return second.value != "match"
	case "SET":
		return strings.HasSuffix(word, "-set") && word != "match-set" || word == "[unsupported"
	}
	return false
}

// listTarget turns the target's text into options. What has no option of that
// name makes the target unknown, as it does on a command line.
func (s *spec) listTarget(start int) {
	text := strings.TrimRight(s.words.text[start:], " ")
	fields := strings.Fields(text[:min(len(text), 1000)])
	if fields[0] == "[unsupported" {
		s.hidden = true
		s.wrong("parameters are not shown: " + whyHidden)
		return
	}
	add := func(name string, values ...string) {
		o := option{name: name, n: len(values)}
		if len(values) > 0 {
			o.value = values[0]
		}
		s.targetOptions = append(s.targetOptions, o)
	}
	switch s.target {
	case "DNAT", "SNAT", "NETMAP":
		names := map[string]string{"DNAT": "--to-destination", "SNAT": "--to-source", "NETMAP": "--to"}
		for _, f := range fields {
			if value, ok := strings.CutPrefix(f, "to:"); ok {
				add(names[s.target], value)
			} else {
				add("--" + f)
			}
		}
	case "MASQUERADE", "REDIRECT": // masq ports: 1024-2000 random, redir ports 8080
		for i := 0; i < len(fields); i++ {
			if (fields[i] == "masq" || fields[i] == "redir") && i+2 < len(fields) {
				add("--to-ports", fields[i+2])
				i += 2
			} else {
				add("--" + fields[i])
			}
		}
	case "REJECT":
		add("--reject-with", fields[1:]...)
	case "SET":
		add("--"+fields[0], fields[1:]...)
	case "CT":
		s.listCT(fields, add)
	default:
		listMark(fields, add)
	}
}

// listCT reads NOTRACK, CT notrack, CT helper ftp, CT zone 5 ctevents new.
func (s *spec) listCT(fields []string, add func(string, ...string)) {
	if fields[0] == "NOTRACK" {
		add("--notrack")
		return
	}
	for _, f := range fields[1:] {
		switch f {
		case "notrack", "zone", "zone-orig", "zone-reply", "helper", "ctevents", "expevents", "timeout":
			add("--" + f)
		}
	}
	if len(s.targetOptions) == 0 {
		add("--" + strings.Join(fields, " "))
	}
}

// listMark reads MARK or 0x4000, MARK xset 0x1/0xff, CONNMARK save mask 0xff,
// CONNMARK restore ctmask 0xf0 nfmask ~0xf.
func listMark(fields []string, add func(string, ...string)) {
	if len(fields) < 2 {
		return
	}
	names := map[string]string{"set": "--set-mark", "xset": "--set-xmark", "and": "--and-mark", "or": "--or-mark", "xor": "--xor-mark",
		"save": "--save-mark", "restore": "--restore-mark"}
	switch fields[1] {
	case "save", "restore":
		add(names[fields[1]])
		for i := 2; i < len(fields); i += 2 {
			add("--"+fields[i], strings.TrimPrefix(fields[min(i+1, len(fields)-1)], "~"))
		}
	default:
		add(names[fields[1]], fields[2:]...)
	}
}

// listUnknown takes everything up to the next comment or the target's text for
// one match that isn't understood: where it ends can't be seen.
func (s *spec) listUnknown(first word) {
	w, _ := s.words.next()
	end := w.end
	for {
		next, ok := s.words.peek()
		if !ok || next.value == "/*" || s.isTargetText(next.value) {
			break
		}
		s.words.next()
		end = next.end
	}
	why := whyUnknown
	if strings.HasPrefix(first.value, "[unsupported") {
		why = whyHidden
		s.wrong("parameters are not shown: " + whyHidden)
	}
	s.unknown(cmp.Or(strings.Trim(first.value, ":![]#=/*`'"), "?"), first.start, end, why)
}

// listMatch reads the text of one match that is understood; false where it begins
// like none.
func (s *spec) listMatch(w word) bool {
	start, not := w.start, w.not()
	before := s.words
	if not {
		s.words.next()
		if w, _ = s.words.peek(); w.value == "" {
			s.words = before
			return false
		}
	}
	module, options := s.listOptions(w, not)
	if module == "" {
		s.words = before
		return false
	}
	end := start + len(strings.TrimRight(s.words.text[start:s.position()], " "))
	s.listAdd(module, options, start, end)
	return true
}

// position is where the next word starts, or the end.
func (s *spec) position() int {
	if next, ok := s.words.peek(); ok {
		return next.start
	}
	return len(s.words.text)
}

// listAdd makes matches of options, as closeModule does.
func (s *spec) listAdd(module string, options []option, start, end int) {
	before := len(s.matches)
	why := ""
	switch kindOf(module) {
	case remembering:
		s.remember(module, s.words.text[start:end])
	case counting:
		s.add(ruleset.Always{Name: module, Text: s.words.text[start:end]})
	case protocolModule, multiportModule:
		for _, o := range options {
			o.start, o.end = start, end
			if !s.protocolOption(o) {
				why = whyUnknown
			}
		}
	case collected:
		why = s.match(module, options)
	default:
		why = whyUnknown
	}
	if why != "" {
		s.matches = slices.Delete(s.matches, before, len(s.matches))
		s.unknown(module, start, end, why)
		if kindOf(module) != opaque {
			s.complain(why)
		}
	}
}
