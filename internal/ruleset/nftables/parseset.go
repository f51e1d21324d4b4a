package nftables

import "slices"

// setBlock reads the body of a set or map, if there is one:
//
//	{
//		type ipv4_addr . inet_service : verdict
//		flags interval
//		elements = { 10.0.0.1 . 80 : accept }
//	}
func (p *textReader) setBlock(t *Table, name string, isMap bool) bool {
	s := t.AddSet(name)
	s.Map = s.Map || isMap
	if s.Line == 0 {
		s.Line = p.tok.line
	}
	if !p.openBlock() {
		return p.commandEnd()
	}
	if h := p.takeHandle(); h != 0 {
		s.Handle = h
	}
	p.block(t, "set "+name, func(word string) bool { return p.setLine(s, word) })
	if s.Timeout != "" && !slices.Contains(s.Flags, "timeout") { // nft leaves it out
		s.Flags = append(s.Flags, "timeout")
	}
	return true
}

// setLine reads a line in a set's body.
func (p *textReader) setLine(s *Set, word string) bool {
	switch word {
	case "type":
		p.next()
		return p.setType(s) && p.lineEnd()
	case "typeof":
		p.next()
		return p.setTypeOf(s) && p.lineEnd()
	case "flags":
		p.next()
		s.Flags = p.flags()
	case "comment":
		return p.commentLine(&s.Comment)
	case "timeout":
		p.next()
		var ok bool
		if s.Timeout, ok = p.value(); !ok {
			return false
		}
	case "gc-interval", "size", "policy":
		p.next()
		if _, ok := p.value(); !ok {
			return false
		}
	case "auto-merge":
		p.next()
	case "elements":
		p.next()
		if !p.skipPunct("=") {
			p.expected("=")
			return false
		}
		elements, ok := p.elementBlock()
		s.Elements = append(s.Elements, elements...)
		return ok && p.lineEnd()
	case "counter", "limit", "quota", "ct", "last", "log", "connlimit":
		for !p.atEnd() {
			if p.elementStatement() == nil {
				return false
			}
		}
	default:
		return false
	}
	return p.lineEnd()
}

// setType reads "ipv4_addr . inet_service : verdict".
func (p *textReader) setType(s *Set) bool {
	var ok bool
	if s.Type, ok = p.typeNames(); !ok || !p.skipPunct(":") {
		return ok
	}
	s.Map = true
	p.skipWord("interval")
	s.DataType, ok = p.typeNames()
	return ok
}

func (p *textReader) typeNames() ([]string, bool) {
	var out []string
	for len(out) < maxParts {
		name, ok := p.value()
		if !ok {
			return nil, false
		}
		out = append(out, name)
		if !p.skipPunct(".") {
			return out, true
		}
	}
	p.fail("a type of more than %d parts", maxParts)
	return nil, false
}

// setTypeOf reads "ip saddr . tcp dport : verdict".
func (p *textReader) setTypeOf(s *Set) bool {
	if s.TypeOf = p.concat(selectors); s.TypeOf == nil {
		return false
	}
	if !p.skipPunct(":") {
		return true
	}
	s.Map = true
	p.skipWord("interval")
	if p.isWord("verdict", "counter", "quota", "limit") {
		name, _ := p.value()
		s.DataType = []string{name}
		return true
	}
	s.DataTypeOf = p.concat(selectors)
	return s.DataTypeOf != nil
}

// elementBlock reads "{ a, b : c, … }". Elements that aren't understood are
// unknown ones, so that a lookup doesn't miss them for certain.
func (p *textReader) elementBlock() ([]Element, bool) {
	if !p.skipPunct("{") {
		p.expected("{")
		return nil, false
	}
	if p.depth++; p.depth > maxDepth {
		p.depth--
		p.fail("braces nested too deeply")
		return nil, false
	}
	defer func() { p.depth-- }()
	var out []Element
	for {
		p.skipNewlines()
		if p.skipPunct("}") {
			return out, true
		}
		if p.tok.kind == tokEnd || p.elements >= maxElements {
			p.table.Excerpt = true
			p.fail("the text ends before the elements' closing brace, or there are too many")
			return append(out, Element{Key: UnknownExpr{Name: "element", Text: "…", Why: "not all elements were given"}}), false
		}
		if p.skipPunct(",") {
			continue
		}
		if p.isPunct("{") { // of a variable
			inner, ok := p.elementBlock()
			if out = append(out, inner...); !ok {
				return out, false
			}
			continue
		}
		out = append(out, p.someElement())
	}
}

// someElement reads an element, and where that fails makes an unknown one of
// what stands up to the next comma.
func (p *textReader) someElement() Element {
	p.elements++
	start := p.tok.start
	if e, ok := p.element(); ok {
		p.skipNewlines()
		if p.isPunct(",") || p.isPunct("}") {
			return e
		}
		p.expected(", or }")
	}
	why := p.reason("it isn't known in a set")
	for depth := 0; p.tok.kind != tokEnd; p.next() {
		if p.isPunct("{") {
			depth++
		}
		if depth == 0 && (p.isPunct(",") || p.isPunct("}")) {
			break
		}
		if p.isPunct("}") {
			depth--
		}
	}
	return Element{Key: UnknownExpr{Name: "element", Text: short(p.since(start)), Why: why}}
}

// element reads
//
//	10.0.0.1 . tcp . 80 timeout 1h expires 59m comment "…" counter packets 1 bytes 60 : goto c
func (p *textReader) element() (Element, bool) {
	e := Element{Key: p.concat(values)}
	if e.Key == nil || !p.elementOptions(&e) {
		return e, false
	}
	p.skipNewlines()
	if !p.skipPunct(":") {
		return e, true
	}
	p.skipNewlines()
	if v, ok := p.verdict(); ok {
		e.Data = VerdictValue{Verdict: v}
	} else if e.Data = p.concat(values); e.Data == nil {
		return e, false
	}
	return e, p.elementOptions(&e)
}

// elementOptions reads what may follow a key, or a map's data.
func (p *textReader) elementOptions(e *Element) bool {
	for p.tok.kind == tokWord {
		switch {
		case p.skipWord("timeout"):
			text, ok := p.value()
			if !ok {
				return false
			}
			e.Timeout = text
		case p.skipWord("expires"):
			text, ok := p.value()
			if !ok {
				return false
			}
			if e.Timeout == "" { // of the set's own timeout
				e.Timeout = text
			}
		case p.skipWord("comment"):
			text, ok := p.value()
			if !ok {
				return false
			}
			e.Comment = text
		default:
			s := p.elementStatement()
			if s == nil || len(e.Statements) >= maxStatements {
				return false
			}
			e.Statements = append(e.Statements, s)
		}
	}
	return true
}

// elementStatement reads a statement that elements may have.
func (p *textReader) elementStatement() Statement {
	switch {
	case p.isWord("counter", "last"):
		return p.inert()
	case p.isWord("limit", "quota"):
		return p.stateful()
	case p.isWord("ct") && p.peek().text == "count":
		return p.stateful()
	}
	p.expected("an element's counter, limit, quota or ct count")
	return nil
}

// setUpdate reads
//
//	add @s { ip saddr . tcp dport timeout 1m limit rate 5/second : 0x1 }
func (p *textReader) setUpdate() Statement {
	u := SetUpdate{}
	u.Op, _ = p.value()
	if !p.skipPunct("@") {
		p.expected("@")
		return nil
	}
	var ok bool
	if u.Set, ok = p.name(); !ok {
		return nil
	}
	return p.updateBlock(u)
}

func (p *textReader) updateBlock(u SetUpdate) Statement {
	if !p.skipPunct("{") {
		p.expected("{")
		return nil
	}
	p.skipNewlines()
	if u.Key = p.concat(anything); u.Key == nil {
		return nil
	}
	e := Element{}
	if !p.elementOptions(&e) {
		return nil
	}
	if p.skipPunct(":") {
		if u.Data = p.concat(anything); u.Data == nil {
			return nil
		}
		if !p.elementOptions(&e) {
			return nil
		}
	}
	u.Statements, u.Timeout = e.Statements, e.Timeout
	p.skipNewlines()
	if !p.skipPunct("}") {
		p.expected("}")
		return nil
	}
	return u
}

// oldSetUpdate reads what nft 0.8 wrote: set add ip saddr timeout 1m @s.
func (p *textReader) oldSetUpdate() Statement {
	p.next()
	u := SetUpdate{}
	u.Op, _ = p.value()
	if u.Key = p.concat(anything); u.Key == nil {
		return nil
	}
	e := Element{}
	if !p.elementOptions(&e) || !p.skipPunct("@") {
		return nil
	}
	u.Statements, u.Timeout = e.Statements, e.Timeout
	var ok bool
	u.Set, ok = p.name()
	if !ok {
		return nil
	}
	return u
}

// meter reads a dynamic set without a declaration of its own:
//
//	meter m size 65535 { ip saddr limit rate 5/second }
func (p *textReader) meter() Statement {
	start := p.tok.start
	p.next()
	if !p.isPunct("{") {
		if _, ok := p.name(); !ok {
			return nil
		}
	}
	if p.skipWord("size") {
		if _, ok := p.value(); !ok {
			return nil
		}
	}
	if p.updateBlock(SetUpdate{}) == nil {
		return nil
	}
	return Stateful{Name: "meter", Text: p.since(start)}
}

// isFlags says whether values of the expression are bit masks.
func isFlags(e Expr) bool {
	switch e := e.(type) {
	case CT:
		return e.Key == "state" || e.Key == "status" || e.Key == "label"
	case Payload:
		return e.Protocol == "tcp" && e.Field == "flags"
	}
	return false
}
