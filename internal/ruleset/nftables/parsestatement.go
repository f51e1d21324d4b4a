package nftables

// statement reads one statement; nil where it isn't understood.
func (p *textReader) statement() Statement {
	if p.tok.kind == tokXT {
		return p.xtComment()
	}
	if v, ok := p.verdict(); ok {
		return v
	}
	switch p.tok.text {
	case "counter", "log", "last", "dup":
		return p.inert()
	case "limit", "quota":
		return p.stateful()
	case "queue":
		return p.queue()
	case "snat", "dnat", "masquerade", "redirect":
		return p.nat()
	case "reject":
		return p.reject()
	case "notrack":
		p.next()
		return NoTrack{}
	case "add", "update", "delete":
		return p.setUpdate()
	case "set":
		return p.oldSetUpdate()
	case "meter":
		return p.meter()
	case "xt", "XT":
		return p.xt()
	case "tproxy", "synproxy", "fwd", "flow":
		return p.elsewhere()
	case "reset":
		return p.resetOption()
	case "ct":
		return p.ctStatement()
	}
	return p.expression()
}

// verdict reads accept, drop, jump c, ….
func (p *textReader) verdict() (Verdict, bool) {
	if p.tok.kind != tokWord {
		return Verdict{}, false
	}
	for k := Accept; k <= Goto; k++ {
		if p.tok.text != k.String() {
			continue
		}
		p.next()
		if k < Jump {
			return Verdict{Kind: k}, true
		}
		name, ok := p.name()
		return Verdict{Kind: k, Chain: name}, ok
	}
	return Verdict{}, false
}

// expression reads what begins with one: a comparison, vmap, or set.
func (p *textReader) expression() Statement {
	start := p.tok.start
	left := p.concat(selectors)
	if left == nil {
		return nil
	}
	switch {
	case p.skipWord("vmap"):
		m := p.setOf()
		if m == nil {
			return nil
		}
		return VerdictMap{Key: left, Map: m}
	case p.isWord("set"):
		p.next()
		value := p.concat(anything)
		if value == nil {
			return nil
		}
		value = p.list(value)
		if value == nil {
			return nil
		}
		return p.assign(left, value, start)
	}
	return p.match(left)
}

// assign is the statement for "KEY set VALUE".
func (p *textReader) assign(key, value Expr, start int) Statement {
	if m, ok := key.(Meta); ok && (m.Key == "nftrace" || m.Key == "secmark") {
		return Inert{Name: "meta " + m.Key, Text: p.since(start)}
	}
	if u, ok := key.(UnknownExpr); ok {
		switch u.Name {
		case "tcp option", "exthdr", "ip option":
			return Inert{Name: u.Name, Text: p.since(start)}
		}
		return UnknownStatement{Name: "set", Text: p.since(start), Why: "what it sets isn't known"}
	}
	return Assign{Key: key, Value: value}
}

// inert reads counter, log, last, dup up to their end.
func (p *textReader) inert() Statement {
	start, name := p.tok.start, p.tok.text
	p.next()
	ok := true
	switch name {
	case "counter":
		ok = p.counter()
	case "log":
		ok = p.log()
	case "last":
		if p.skipWord("used") {
			_, ok = p.value()
		}
	case "dup":
		ok = p.skipWord("to") && p.concat(anything) != nil
		if ok && p.skipWord("device") {
			ok = p.concat(anything) != nil
		}
	}
	if !ok {
		return nil
	}
	return Inert{Name: name, Text: p.since(start)}
}

func (p *textReader) counter() bool {
	if p.skipWord("name") {
		return p.objectName()
	}
	for p.isWord("packets", "bytes") {
		p.next()
		if _, ok := p.value(); !ok {
			return false
		}
	}
	return true
}

// objectName reads the name of an object, or the map that gives it.
func (p *textReader) objectName() bool {
	if p.tok.kind == tokWord && p.isSelectorHere() {
		return p.concat(selectors) != nil
	}
	_, ok := p.name()
	return ok
}

// isSelectorHere says whether an expression begins here, and not a name.
func (p *textReader) isSelectorHere() bool {
	switch p.tok.text {
	case "meta", "ct", "numgen", "jhash", "symhash", "fib":
		return true
	}
	next := p.peek()
	return isProtocol(p.tok.text) && next.kind == tokWord && isField(p.tok.text, next.text) ||
		isBareMeta(p.tok.text) && next.text == "map"
}

func (p *textReader) log() bool {
	for {
		switch {
		case p.isWord("prefix", "level", "group", "snaplen", "queue-threshold"):
			p.next()
			if _, ok := p.value(); !ok {
				return false
			}
		case p.skipWord("flags"):
			if !p.logFlags() {
				return false
			}
		default:
			return true
		}
	}
}

// logFlags reads all; tcp sequence,options; ip options; skuid; ether.
func (p *textReader) logFlags() bool {
	switch {
	case p.isWord("tcp"), p.isWord("ip"):
		p.next()
		return len(p.flags()) > 0
	}
	return p.skipWord("all", "skuid", "ether")
}

// stateful reads limit, quota, ct count.
func (p *textReader) stateful() Statement {
	start, name := p.tok.start, p.tok.text
	p.next()
	ok := true
	switch {
	case name == "ct":
		name = "ct count"
		p.next()
		p.skipWord("over")
		_, ok = p.value()
	case p.skipWord("name"):
		ok = p.objectName()
	case name == "limit":
		ok = p.limit()
	default:
		ok = p.quota()
	}
	if !ok {
		return nil
	}
	return Stateful{Name: name, Text: p.since(start)}
}

// limit reads rate [over] 10[ mbytes]/second [burst 5 packets|kbytes].
func (p *textReader) limit() bool {
	if !p.skipOr("rate") {
		return false
	}
	p.skipWord("over")
	if _, ok := p.value(); !ok {
		return false
	}
	if !p.skipPunct("/") && p.tok.kind != tokWord {
		p.expected("a unit of time")
		return false
	}
	p.next()
	if p.skipWord("burst") {
		if _, ok := p.value(); !ok {
			return false
		}
		p.skipWord("packets", "bytes", "kbytes", "mbytes")
	}
	return true
}

// quota reads [over|until] 10 mbytes [used 1 kbytes].
func (p *textReader) quota() bool {
	p.skipWord("over", "until")
	for {
		if _, ok := p.value(); !ok {
			return false
		}
		if !p.skipWord("bytes", "kbytes", "mbytes") {
			p.expected("a unit")
			return false
		}
		if !p.skipWord("used") {
			return true
		}
	}
}

// ctStatement reads what begins with ct: ct count, ct helper set, or a comparison.
func (p *textReader) ctStatement() Statement {
	switch what := p.peek().text; what {
	case "count":
		return p.stateful()
	case "helper", "timeout", "expectation":
		at, start := p.mark(), p.tok.start
		p.next()
		p.next()
		if !p.skipWord("set") {
			p.lexer = at
			break
		}
		if !p.objectName() {
			return nil
		}
		return Inert{Name: "ct " + what, Text: p.since(start)}
	}
	return p.expression()
}

// resetOption reads reset tcp option sack-perm.
func (p *textReader) resetOption() Statement {
	start := p.tok.start
	p.next()
	if e, is := p.selector(false); !is || e == nil {
		return nil
	}
	return Inert{Name: "reset", Text: p.since(start)}
}

// xtComment is an extension in a comment: # xt_MASQUERADE.
func (p *textReader) xtComment() Statement {
	text := p.tok.text
	p.next()
	if len(text) > 0 && text[0] == '#' {
		return UnknownStatement{Name: "xt", Text: short(text), Why: "nft shows an extension of iptables as a comment only"}
	}
	return XT{Kind: xtKind(text), Name: text}
}

// xtKind tells targets, whose names are in capitals, from matches.
func xtKind(name string) string {
	for i := range len(name) {
		if c := name[i]; 'a' <= c && c <= 'z' {
			return "match"
		}
	}
	return "target"
}

// xt reads xt target "MASQUERADE", and nft's message XT target MASQUERADE not
// found, which ends the line.
func (p *textReader) xt() Statement {
	message := p.tok.text == "XT"
	p.next()
	if !p.isWord("match", "target", "watcher") {
		p.expected("match or target")
		return nil
	}
	kind, _ := p.value()
	name, ok := p.value()
	if !ok {
		return nil
	}
	if message {
		if !p.skipWord("not") || !p.skipWord("found") {
			return nil
		}
	}
	return XT{Kind: kind, Name: name}
}
