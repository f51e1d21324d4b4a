package nftables

import (
	"fmt"
	"strings"
)

// Bounds on what hostile text may cost. nft's own are far lower.
const (
	maxProblems   = 1000
	maxRules      = 1 << 20
	maxElements   = 4 << 20
	maxStatements = 256
	maxParts      = 32
	maxFlags      = 256
	maxDepth      = 16
)

// textReader reads nft's text.
type textReader struct {
	lexer
	ruleset  *Ruleset
	tables   map[string]*Table
	problems []Problem
	// table that is being read.
	table *Table
	// rules, elements read so far; steps that may yet be gone back.
	rules, elements, budget, edits int
	// depth of braces and brackets in a rule.
	depth int
	// tooMuch: the rest of the rule isn't read, as it is too long or wasn't
	// understood too often.
	tooMuch bool
	// why the last expression or statement wasn't understood.
	why string
}

// ReadText reads nft list ruleset of nft 0.9 to 1.1, and its command form (add
// table …, add rule …), alone or mixed, as a script's lines are applied one
// after the other. firstLine is the number of text's first line in its file.
//
// A part of a rule that isn't understood is an [UnknownStatement] or
// [UnknownExpr]; what stands elsewhere is a Problem. Text that was cut marks its
// table as an excerpt.
func ReadText(text string, firstLine int) (*Ruleset, []Problem) {
	first := max(firstLine, 1)
	clean, problems := substitute(cleanLines(text), first)
	p := &textReader{
		ruleset:  &Ruleset{},
		tables:   map[string]*Table{},
		problems: problems,
		budget:   4*len(clean) + 4096,
	}
	p.lexer.text, p.line = clean, first
	p.next()
	for p.tok.kind != tokEnd {
		p.command()
	}
	for _, t := range p.ruleset.Tables {
		t.Excerpt = t.Excerpt || p.ruleset.Excerpt
		t.IPTables = t.IPTables || p.warned[t.Family+" "+t.Name]
		t.findDynamic()
	}
	return p.ruleset, p.problems
}

// cleanLines gives every line LF as its end, and takes off what mails put
// before quoted lines. The number of lines stays.
func cleanLines(text string) string {
	text = strings.TrimPrefix(text, "\ufeff")
	if strings.Contains(text, "\r") {
		text = strings.ReplaceAll(text, "\r\n", "\n")
		text = strings.ReplaceAll(text, "\r", "\n")
	}
	if strings.Contains(text, "\u00a0") {
		text = strings.ReplaceAll(text, "\u00a0", " ")
	}
	if !strings.Contains(text, ">") {
		return text
	}
	var out strings.Builder
	out.Grow(len(text))
	for line := range strings.Lines(text) {
		for {
			rest, quoted := strings.CutPrefix(strings.TrimLeft(line, " \t"), ">")
			if !quoted {
				break
			}
			line = rest
		}
		out.WriteString(line)
	}
	return out.String()
}

// problem notes one; past a bound, that there are more.
func (p *textReader) problem(line int, text, why string) {
	switch {
	case len(p.problems) < maxProblems:
		p.problems = append(p.problems, Problem{Line: line, Text: short(text), Why: why})
	case len(p.problems) == maxProblems:
		p.problems = append(p.problems, Problem{Line: line, Why: "more than this wasn't understood; the rest isn't listed"})
	}
}

// short is text for a message, in one line.
func short(text string) string {
	cut := len(text) > 400
	text = strings.Join(strings.Fields(text[:min(len(text), 400)]), " ")
	text = strings.ToValidUTF8(text, "?")
	if cut {
		text += " …"
	}
	return text
}

// fail notes why something isn't understood.
func (p *textReader) fail(format string, args ...any) {
	p.why = fmt.Sprintf(format, args...)
}

// expected fails at the current token.
func (p *textReader) expected(what string) { p.why = "expected " + what + ", not " + p.shown() }

// shown is the current token for a message.
func (p *textReader) shown() string {
	switch p.tok.kind {
	case tokEnd:
		return "the end of the text"
	case tokNewline:
		return "the end of the line"
	}
	return fmt.Sprintf("%q", short(p.lexer.text[p.tok.start:p.tok.end]))
}

// isWord says whether the current token is one of the words.
func (p *textReader) isWord(words ...string) bool {
	if p.tok.kind != tokWord {
		return false
	}
	for _, w := range words {
		if p.tok.text == w {
			return true
		}
	}
	return false
}

// isPunct says whether the current token is that bracket or operator.
func (p *textReader) isPunct(s string) bool { return p.tok.kind == tokPunct && p.tok.text == s }

// word goes over that word, if it is the current one.
func (p *textReader) skipWord(words ...string) bool {
	if !p.isWord(words...) {
		return false
	}
	p.next()
	return true
}

func (p *textReader) skipPunct(s string) bool {
	if !p.isPunct(s) {
		return false
	}
	p.next()
	return true
}

func (p *textReader) skipNewlines() {
	for p.tok.kind == tokNewline {
		p.next()
	}
}

// skipEnds goes over newlines and semicolons.
func (p *textReader) skipEnds() {
	for p.tok.kind == tokNewline || p.isPunct(";") {
		p.next()
	}
}

// atEnd says whether a line or command ends here.
func (p *textReader) atEnd() bool {
	return p.tok.kind == tokNewline || p.tok.kind == tokEnd || p.isPunct(";") || p.isPunct("}")
}

// value takes a word or string.
func (p *textReader) value() (string, bool) {
	if p.tok.kind != tokWord && p.tok.kind != tokString {
		p.expected("a value")
		return "", false
	}
	text := p.tok.text
	p.next()
	return text, true
}

// name takes a name of a table, chain or set: nearly anything up to a blank.
func (p *textReader) name() (string, bool) { return p.nameUpTo("") }

// reference takes a set's name in an expression: @m:80 is a map, and a port.
func (p *textReader) reference() (string, bool) { return p.nameUpTo(":") }

func (p *textReader) nameUpTo(stops string) (string, bool) {
	if p.tok.kind == tokString {
		return p.value()
	}
	if p.tok.kind != tokWord && p.tok.kind != tokPunct {
		p.expected("a name")
		return "", false
	}
	end := p.tok.start
	for end < len(p.lexer.text) && !isStop(p.lexer.text[end]) && strings.IndexByte(stops, p.lexer.text[end]) < 0 {
		end++
	}
	if end == p.tok.start {
		p.expected("a name")
		return "", false
	}
	name := p.lexer.text[p.tok.start:end]
	p.tok.end, p.pos = end, end
	p.next()
	return name, true
}

// takeHandle returns the handle that was in a comment before the current token.
func (p *textReader) takeHandle() uint64 {
	h := p.handle
	p.handle = 0
	return h
}

// mark is a place to go back to.
func (p *textReader) mark() lexer { return p.lexer }

// back goes back to a place. It returns false where too much was gone back
// already: the caller goes on from here instead.
func (p *textReader) back(to lexer) bool {
	p.budget -= p.pos - to.pos
	warned := p.warned
	p.lexer = to
	p.warned = warned
	return p.budget >= 0
}

// since is the text from a place up to the current token, in one line.
func (p *textReader) since(start int) string { return p.oneLine(start, p.last) }

// oneLine is text[start:end] in one line, without comments where it had more.
func (p *textReader) oneLine(start, end int) string {
	if end <= start {
		return ""
	}
	text := strings.TrimSpace(p.lexer.text[start:end])
	if !strings.ContainsAny(text, "\n\\") {
		return text
	}
	var out strings.Builder
	x := lexer{text: text, compat: p.compat}
	for x.next(); x.tok.kind != tokEnd; x.next() {
		if x.tok.kind == tokNewline {
			continue
		}
		if out.Len() > 0 && x.tok.start > x.last {
			out.WriteByte(' ')
		} else if out.Len() > 0 && x.last > 0 && text[x.last-1] == '\n' {
			out.WriteByte(' ')
		}
		out.WriteString(text[x.tok.start:x.tok.end])
	}
	return out.String()
}

// peek is the token after the current one.
func (p *textReader) peek() token {
	ahead := p.lexer
	ahead.next()
	return ahead.tok
}
