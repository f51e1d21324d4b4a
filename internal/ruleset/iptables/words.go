package iptables

import "strings"

// word is one argument of a rule as iptables-restore splits them.
type word struct {
	// value without the quotes and backslashes.
	value string
	// start and end in the text.
	start, end int
	// quoted: a quotation mark was in it, so it is no option whatever it looks like.
	quoted bool
}

// option says whether the word is one.
func (w word) option() bool {
	return !w.quoted && len(w.value) > 1 && w.value[0] == '-'
}

// not says whether the word is the exclamation mark that inverts an option.
func (w word) not() bool { return !w.quoted && w.value == "!" }

// words splits a line: at blanks; a quotation mark begins and ends a part in
// which blanks count and a backslash makes the next character an ordinary one.
// A mark that is never closed is an ordinary character.
type words struct {
	text string
	at   int
	// stray: a mark that is never closed was met. All that follow in this line
	// are ordinary characters, so that a line is not searched to its end again
	// and again.
	stray bool
	// peeked holds the next word where has is true.
	peeked word
	has    bool
}

// reset makes the words ready for another line.
func (w *words) reset(text string) { *w = words{text: text} }

// next returns the next word; false at the end.
func (w *words) next() (word, bool) {
	if w.has {
		w.has = false
		return w.peeked, true
	}
	for w.at < len(w.text) && blank(w.text[w.at]) {
		w.at++
	}
	start := w.at
	if start == len(w.text) {
		return word{}, false
	}
	for w.at < len(w.text) && !blank(w.text[w.at]) {
		if w.text[w.at] == '"' && !w.stray {
			if quoted, ok := w.quoted(start); ok {
				return quoted, true
			}
		}
		w.at++
	}
	return word{value: w.text[start:w.at], start: start, end: w.at}, true
}

// peek returns the next word and leaves it there.
func (w *words) peek() (word, bool) {
	next, ok := w.next()
	w.peeked, w.has = next, ok
	return next, ok
}

// quoted reads a word from start on that has a quotation mark at w.at; false,
// and nothing read, where a mark is never closed.
func (w *words) quoted(start int) (word, bool) {
	if plain, ok := w.plain(start); ok {
		return plain, true
	}
	var value strings.Builder
	value.WriteString(w.text[start:w.at])
	inside := false
	for i := w.at; i <= len(w.text); i++ {
		switch {
		case i == len(w.text) && inside:
			w.stray = true
			return word{}, false
		case i == len(w.text) || !inside && blank(w.text[i]):
			w.at = i
			return word{value: value.String(), start: start, end: i, quoted: true}, true
		case w.text[i] == '"':
			inside = !inside
		case inside && w.text[i] == '\\' && i+1 < len(w.text):
			i++
			value.WriteByte(w.text[i])
		default:
			value.WriteByte(w.text[i])
		}
	}
	return word{}, false
}

// plain reads the word that nearly all quoted ones are: the mark is its first
// and its last character, nothing inside is escaped. Its value is no copy.
func (w *words) plain(start int) (word, bool) {
	if start != w.at {
		return word{}, false
	}
	n := strings.IndexAny(w.text[start+1:], `"\`)
	if n < 0 {
		return word{}, false
	}
	closing := start + 1 + n
	after := closing + 1
	if w.text[closing] != '"' || after < len(w.text) && !blank(w.text[after]) {
		return word{}, false
	}
	w.at = after
	return word{value: w.text[start+1 : closing], start: start, end: after, quoted: true}, true
}

func blank(c byte) bool { return c == ' ' || c == '\t' }
