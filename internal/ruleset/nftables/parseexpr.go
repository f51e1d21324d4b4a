package nftables

import (
	"strconv"
	"strings"
)

// mode is what may stand in an expression.
type mode uint8

const (
	// values: literals only, as in sets.
	values mode = 1 << iota
	// selectors: parts of the packet and what is known about it.
	selectors
	anything = values | selectors
)

// concat reads "A . B . C", or one expression, and the map that it is looked up in.
func (p *textReader) concat(m mode) Expr {
	first := p.operation(m, 0)
	if first == nil {
		return nil
	}
	if !p.isPunct(".") {
		return p.mapped(first)
	}
	parts := []Expr{first}
	for p.skipPunct(".") {
		p.skipNewlines()
		e := p.operation(m, 0)
		if e == nil {
			return nil
		}
		if parts = append(parts, e); len(parts) > maxParts {
			p.fail("a concatenation of more than %d parts", maxParts)
			return nil
		}
	}
	return p.mapped(Concat{Parts: parts})
}

// mapped reads what may follow a key: map @m, map { … }.
func (p *textReader) mapped(key Expr) Expr {
	for n := 0; p.isWord("map"); n++ {
		p.next()
		m := p.setOf()
		if m == nil || n > maxDepth {
			return nil
		}
		key = Lookup{Key: key, Map: m}
	}
	return key
}

// setOf reads @name or { … }.
func (p *textReader) setOf() Expr {
	if p.skipPunct("@") {
		name, ok := p.reference()
		if !ok {
			return nil
		}
		return SetRef{Name: name}
	}
	elements, ok := p.elementBlock()
	if !ok {
		return nil
	}
	return SetLiteral{Elements: elements}
}

// operator is the bit operation that the current token is, and how strongly it
// binds; 0 without.
func (p *textReader) operator() (string, int) {
	if p.tok.kind != tokPunct && p.tok.kind != tokWord {
		return "", 0
	}
	switch p.tok.text {
	case "|", "or":
		return "|", 1
	case "^", "xor":
		return "^", 2
	case "&", "and":
		return "&", 3
	case "<<", "lshift":
		return "<<", 4
	case ">>", "rshift":
		return ">>", 4
	}
	return "", 0
}

// operation reads A & B | C, whose operators bind more strongly than least.
func (p *textReader) operation(m mode, least int) Expr {
	left := p.primary(m)
	for n := 0; left != nil; n++ {
		op, binds := p.operator()
		if binds <= least {
			break
		}
		if n >= maxFlags {
			p.fail("an operation of more than %d parts", maxFlags)
			return nil
		}
		p.next()
		right := p.operation(anything, binds)
		if right == nil {
			return nil
		}
		left = Binary{Op: op, Left: left, Right: right}
	}
	return left
}

// primary reads one operand.
func (p *textReader) primary(m mode) Expr {
	if p.isPunct("(") {
		return p.bracketed(m)
	}
	if p.skipPunct("*") {
		return Any{}
	}
	if m&selectors != 0 {
		mayBeValue := m&values != 0
		if e, is := p.selector(mayBeValue); is {
			return e
		}
	}
	if m&values == 0 {
		p.expected("an expression")
		return nil
	}
	v := p.literal()
	if v == nil {
		return nil
	}
	return p.interval(v)
}

func (p *textReader) bracketed(m mode) Expr {
	if p.depth++; p.depth > maxDepth {
		p.depth--
		p.fail("brackets nested too deeply")
		return nil
	}
	defer func() { p.depth-- }()
	p.next()
	e := p.concat(m)
	if e == nil {
		return nil
	}
	e = p.list(e)
	if !p.skipPunct(")") {
		p.expected(")")
		return nil
	}
	return e
}

// list reads what follows the first of a comma-separated list of flags.
func (p *textReader) list(first Expr) Expr {
	if !p.isPunct(",") {
		return first
	}
	out := []Expr{first}
	for p.skipPunct(",") {
		v := p.literal()
		if v == nil {
			return nil
		}
		if out = append(out, v); len(out) > maxFlags {
			p.fail("a list of more than %d flags", maxFlags)
			return nil
		}
	}
	return List{Values: out}
}

// literal reads a value: a word, number, address or string.
func (p *textReader) literal() Expr {
	if p.tok.kind == tokWord && isReserved(p.tok.text) {
		p.expected("a value")
		return nil
	}
	if p.isPunct("[") { // an IPv6 address
		p.next()
		e := p.literal()
		if e == nil || !p.skipPunct("]") {
			return nil
		}
		return e
	}
	wasString := p.tok.kind == tokString
	text, ok := p.value()
	if !ok {
		return nil
	}
	if p.isPunct("[") && p.peek().text == "invalid" { // 0x50 [invalid type], of nft 1.0
		for range 4 {
			p.next()
		}
	}
	if !wasString {
		return Literal{Text: text}
	}
	if p.isPunct("*") && p.tok.start == p.last { // "eth"*
		p.next()
		text += "*"
	}
	return Literal{Text: `"` + text + `"`}
}

// isReserved are words that never are values: they say that there is none.
func isReserved(word string) bool {
	switch word {
	case "vmap", "map", "set", "comment", "accept", "drop", "jump", "goto", "counter":
		return true
	}
	return false
}

// interval reads what may follow a value: the length of a prefix, or a range's end.
func (p *textReader) interval(v Expr) Expr {
	switch {
	case p.isPunct("/"):
		if next := p.peek(); next.kind != tokWord || strings.Trim(next.text, "0123456789") != "" {
			return v
		}
		p.next()
		length, err := strconv.Atoi(p.tok.text)
		if err != nil || length > 128 {
			p.expected("a prefix length")
			return nil
		}
		p.next()
		v = Prefix{Address: v, Length: length}
	case p.isPunct("-"):
		p.next()
		last := p.literal()
		if last == nil {
			return nil
		}
		return Range{First: v, Last: last}
	}
	return v
}

// match reads the rest of a comparison, after its left side.
func (p *textReader) match(left Expr) Statement {
	op := p.comparison()
	right := p.rightSide(left)
	if right == nil {
		return nil
	}
	if p.isPunct("/") { // tcp flags syn / syn,ack
		p.next()
		mask := p.literal()
		if mask != nil {
			mask = p.list(mask)
		}
		if mask == nil || op != "" && op != "==" && op != "!=" {
			return nil
		}
		left = Binary{Op: "&", Left: left, Right: mask}
	}
	if op == "" {
		op = "=="
		switch right.(type) {
		case Literal, List, Binary:
			if isFlags(left) {
				op = "in"
			}
		}
	}
	if op == "!" {
		return noneOf(left, right)
	}
	return Match{Op: op, Left: left, Right: right}
}

// noneOf is "tcp flags ! syn,ack": none of them is set.
func noneOf(left, right Expr) Statement {
	list, is := right.(List)
	if !is {
		list = List{Values: []Expr{right}}
	}
	return Match{Op: "==", Left: Binary{Op: "&", Left: left, Right: list}, Right: Literal{Text: "0x0"}}
}

// comparison is the operator, empty where it is left out.
func (p *textReader) comparison() string {
	if p.tok.kind != tokPunct && p.tok.kind != tokWord {
		return ""
	}
	op := ""
	switch p.tok.text {
	case "==", "!=", "<", ">", "<=", ">=", "!":
		op = p.tok.text
	case "eq":
		op = "=="
	case "ne":
		op = "!="
	case "lt":
		op = "<"
	case "gt":
		op = ">"
	case "le":
		op = "<="
	case "ge":
		op = ">="
	case "not":
		op = "!"
	default:
		return ""
	}
	p.next()
	return op
}

// rightSide reads what is compared with.
func (p *textReader) rightSide(left Expr) Expr {
	if p.isPunct("{") || p.isPunct("@") && !p.isRaw() {
		return p.setOf()
	}
	if isFlags(left) {
		return p.flagValue()
	}
	right := p.concat(anything)
	if right == nil {
		return nil
	}
	return p.list(right)
}

// flagValue reads "established,related", "syn | ack"; a slash after it is a mask.
func (p *textReader) flagValue() Expr {
	var first Expr
	if p.isPunct("(") {
		first = p.bracketed(values)
	} else {
		first = p.literal()
	}
	for n := 0; first != nil; n++ {
		op, binds := p.operator()
		if binds == 0 {
			return p.list(first)
		}
		p.next()
		right := p.literal()
		if right == nil || n > maxFlags {
			return nil
		}
		first = Binary{Op: op, Left: first, Right: right}
	}
	return nil
}
