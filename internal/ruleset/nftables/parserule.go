package nftables

// rule reads a rule up to the end of its line or block; nil where there is none.
// What it doesn't understand of it is an [UnknownStatement].
func (p *textReader) rule() *Rule {
	if p.atEnd() {
		return nil
	}
	p.rules++
	p.handle, p.tooMuch = 0, p.budget < 0
	start, line := p.tok.start, p.tok.line
	r := &Rule{Line: line}
	from := start // of the last statement
	for !p.atEnd() {
		if p.isWord("comment") && p.peek().kind == tokString {
			p.next()
			r.Comment, _ = p.value()
			continue
		}
		at := p.mark()
		if s := p.knownStatement(len(r.Statements)); s != nil {
			r.Statements = append(r.Statements, s)
			from = at.tok.start
			continue
		}
		p.back(at)
		// A word that begins no statement may belong to the one before it.
		if n := len(r.Statements); n > 0 && !isHead(at.tok) {
			if _, isUnknown := r.Statements[n-1].(UnknownStatement); !isUnknown {
				r.Statements = r.Statements[:n-1]
				at.tok.start = from
			}
		}
		from = at.tok.start
		r.Statements = append(r.Statements, p.unknown(from))
	}
	r.Text = p.since(start)
	r.Handle = p.takeHandle()
	return r
}

// knownStatement reads a statement that is understood; nil without.
func (p *textReader) knownStatement(number int) Statement {
	if p.tooMuch = p.tooMuch || p.budget < 0 || number >= maxStatements; p.tooMuch {
		p.fail("a rule this long isn't read")
		return nil
	}
	p.why = ""
	s := p.statement()
	if s == nil {
		return nil
	}
	if !p.atEnd() && !isStart(p.tok) {
		p.expected("a statement")
		return nil
	}
	return s
}

// isStart says whether a statement may begin with the token.
func isStart(t token) bool {
	return t.kind == tokWord || t.kind == tokXT || t.kind == tokPunct && t.text == "@"
}

// unknown makes a statement of what stands from start up to its plausible end:
// the next word that can't be but a statement of its own, or the rule's end.
func (p *textReader) unknown(start int) Statement {
	why := p.reason("it isn't known")
	name := p.tok.text
	tooMuch := p.tooMuch
	open := p.mark()
	depth := 0
	for first := true; p.tok.kind != tokEnd; first = false {
		switch {
		case depth == 0 && p.atEnd(), depth == 0 && !first && !tooMuch && p.isClearHead():
			return UnknownStatement{Name: name, Text: p.since(start), Why: why}
		case p.isPunct("{") && !tooMuch:
			if depth == 0 {
				open = p.mark()
			}
			depth++
		case p.isPunct("}") && !tooMuch:
			depth--
		}
		p.next()
	}
	if depth > 0 { // no closing brace: up to the end of the line
		p.back(open)
		p.skipLine()
	}
	return UnknownStatement{Name: name, Text: p.since(start), Why: why}
}

// isClearHead says whether the current word begins a statement, whatever was
// before it.
func (p *textReader) isClearHead() bool {
	if p.last > 0 && isJoin(p.lexer.text[p.last-1]) {
		return false
	}
	switch {
	case p.isWord("accept", "drop", "continue", "return", "jump", "goto", "counter", "masquerade", "reject", "notrack"):
		return true
	case p.isWord("comment"):
		return p.peek().kind == tokString
	}
	return false
}

// isJoin: what follows belongs to what was before.
func isJoin(c byte) bool {
	switch c {
	case ',', ':', '.', '=', '(', '&', '|', '^', '!', '<', '>', '-', '/', '@':
		return true
	}
	return false
}

// isHead says whether the word may begin a statement.
func isHead(t token) bool {
	if t.kind != tokWord {
		return isStart(t)
	}
	switch t.text {
	case "accept", "drop", "continue", "return", "jump", "goto", "queue", "counter", "limit", "quota", "log",
		"reject", "snat", "dnat", "masquerade", "redirect", "notrack", "add", "update", "delete", "set", "meter",
		"dup", "fwd", "tproxy", "synproxy", "flow", "xt", "XT", "last", "reset", "meta", "ct", "fib", "numgen", "jhash",
		"symhash", "socket", "osf", "ipsec", "tunnel", "rt", "hbh", "rt0", "rt2", "srh", "frag", "dst", "mh", "exthdr":
		return true
	}
	return isBareMeta(t.text) || isProtocol(t.text)
}
