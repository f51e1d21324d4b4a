package iptables

import "strings"

// again reads a further part of the same match behind an exclamation mark or
// none; nothing is consumed where next doesn't like the word.
func (s *spec) again(next func(string) bool) (not, ok bool) {
	before := s.words
	not = s.takeNot()
	if w, found := s.words.peek(); found && next(w.value) {
		return not, true
	}
	s.words = before
	return false, false
}

func conntrackWord(word string) bool {
	switch word {
	case "ctstate", "ctstatus", "ctproto", "ctorigsrc", "ctorigdst", "ctreplsrc", "ctrepldst", "ctorigsrcport", "ctorigdstport",
		"ctreplsrcport", "ctrepldstport", "ctdir", "ctexpire":
		return true
	}
	return false
}

// listConntrack reads ctproto 6 ! ctorigsrc 10.0.0.0/8 ctstate NEW.
func (s *spec) listConntrack(not bool) (options []option) {
	for ok := true; ok; not, ok = s.again(conntrackWord) {
		name := s.takeAny()
		options = append(options, value("--"+name, s.takeAny(), not))
	}
	return options
}

// listOwner reads owner UID match 1000 ! owner GID match 5 incl. suppl. groups,
// owner socket exists.
func (s *spec) listOwner(not bool) (options []option) {
	for ok := true; ok; not, ok = s.again(func(word string) bool { return word == "owner" }) {
		s.words.next()
		switch what := s.takeAny(); {
		case what == "socket" && s.takeWord("exists"):
			options = append(options, option{name: "--socket-exists", not: not})
		case (what == "UID" || what == "GID") && s.takeWord("match"):
			options = append(options, value("--"+strings.ToLower(what)+"-owner", s.takeAny(), not))
			if s.takeWord("incl.") && s.takeWord("suppl.") && s.takeWord("groups") {
				options = append(options, option{name: "--suppl-groups"})
			}
		default:
			options = append(options, option{name: "--" + what})
		}
	}
	return options
}

// listOpaque reads the matches whose text is kept as it is, where its end can be seen.
func (s *spec) listOpaque(w word, not bool) (module string, options []option) {
	switch w.value {
	case "limit:":
		s.words.next()
		module = "hashlimit"
		if next, _ := s.words.peek(); next.value == "avg" {
			module = "limit"
		}
		s.takePairs("avg", "burst", "above", "up", "to", "mode", "htable-size", "htable-max", "htable-gcinterval", "htable-expire",
			"srcmask", "dstmask")
		return module, nil
	case "recent:":
		s.words.next()
		s.takeAny()
		s.takePairs("seconds:", "hit_count:", "reap", "TTL-Match", "name:", "side:", "mask:")
		return "recent", nil
	case "#conn": // #conn src/24 > 10
		s.takeWords(4)
		return "connlimit", nil
	case "connbytes": // connbytes 100:200 connbytes mode bytes connbytes direction both
		s.takeWords(8)
		return "connbytes", nil
	case "quota:": // quota: 1000 bytes
		s.takeWords(3)
		return "quota", nil
	case "TIME":
		s.words.next()
		s.takePairs("from", "to", "on", "until", "date", "UTC", "contiguous", "starting")
		return "time", nil
	case "nfacct-name":
		s.takeWords(2)
		return "nfacct", nil
	}
	if n := shape(w.value); n > 0 && w.value != s.target {
		s.words.next()
		s.takeNot()
		s.takeWords(n - 1)
		return strings.ToLower(w.value), nil
	}
	return "", nil
}

// shape is the number of words, an exclamation mark left out, that some of the
// matches print which aren't understood.
func shape(first string) int {
	switch first {
	case "MAC", "length", "realm", "cgroup", "cpu", "esp", "ah":
		return 2
	case "DSCP", "tcpmss":
		return 3
	}
	return 0
}

func (s *spec) takeWords(n int) {
	for range n {
		s.takeAny()
	}
}

// takePairs consumes keywords and the word behind each that isn't a keyword itself.
func (s *spec) takePairs(keywords ...string) {
	keyword := func(word string) bool {
		for _, k := range keywords {
			if word == k {
				return true
			}
		}
		return false
	}
	for {
		name, ok := s.take(keyword)
		if !ok {
			return
		}
		switch name {
		case "UTC", "contiguous", "reap", "TTL-Match", "up", "until":
		case "starting": // from DATE TIME
			s.takeWords(3)
		case "date": // DATE TIME
			s.takeWords(2)
		case "on": // Mon,Tue, or 1st,2nd of the month
			s.takeAny()
			if s.takeWord("day") {
				s.takeWords(3)
			}
		default:
			s.takeAny()
		}
	}
}
