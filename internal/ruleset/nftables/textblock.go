package nftables

import (
	"strconv"
	"strings"
)

// tableBlock reads a table's body, if there is one:
//
//	{
//		flags dormant
//		comment "…"
//		chain c { … }
//		set s { … }
//	}
func (p *textReader) tableBlock(family, name string) bool {
	t := p.tableOf(family, name, false)
	p.table = t
	p.compat = t.IPTables || p.warned[family+" "+name]
	defer func() { p.compat = false }()
	if !p.openBlock() {
		return p.commandEnd()
	}
	if h := p.takeHandle(); h != 0 {
		t.Handle = h
	}
	p.block(t, "table "+family+" "+name, func(word string) bool { return p.tableLine(t, word) })
	return true
}

// commandEnd says whether the command is over here, as it must be.
func (p *textReader) commandEnd() bool {
	if !p.atEnd() {
		p.expected("{ or the end of the line")
		return false
	}
	return true
}

// openBlock goes over an opening brace, and the comment with a handle after it.
func (p *textReader) openBlock() bool {
	if !p.isPunct("{") {
		return false
	}
	p.handle = 0
	p.next()
	return true
}

// block reads lines up to the closing brace. What a line's reader doesn't
// understand is a problem; where the brace is missing, the table is an excerpt.
func (p *textReader) block(t *Table, what string, line func(word string) bool) {
	opened := p.tok.line
	kind, _, _ := strings.Cut(what, " ")
	for {
		p.skipEnds()
		switch {
		case p.skipPunct("}"):
			return
		case p.tok.kind == tokEnd:
			t.Excerpt = true
			p.problem(opened, what, "the text ends before its closing brace")
			return
		case p.startsBlock() && (p.isWord("table") || !strings.HasPrefix(what, "table ")):
			t.Excerpt = true
			p.problem(p.tok.line, what, "its closing brace is missing")
			return
		}
		start, number := p.tok.start, p.tok.line
		p.why = ""
		word := ""
		if p.tok.kind == tokWord {
			word = p.tok.text
		}
		if !line(word) {
			t.Excerpt = true // of what was lost
			p.skipCommandIn()
			p.lostLine(start, number, kind)
		}
	}
}

// lostLine notes a line of a block. Of a million there is no need of their text.
func (p *textReader) lostLine(start, number int, kind string) {
	if len(p.problems) < maxProblems {
		p.problem(number, p.oneLine(start, p.last), p.reason("it isn't known in a "+kind))
		return
	}
	p.problem(number, "", "")
}

// skipCommandIn goes over the rest of a line in a block, but not over the
// block's own closing brace.
func (p *textReader) skipCommandIn() {
	if p.isPunct("}") {
		return
	}
	depth := 0
	for p.tok.kind != tokEnd {
		switch {
		case p.isPunct("{"):
			depth++
		case p.isPunct("}"):
			if depth--; depth < 0 {
				return
			}
		case p.atEnd() && depth == 0:
			return
		}
		p.next()
	}
}

// startsBlock says whether a line opens a chain, set or table: none may stand in
// a chain or set.
func (p *textReader) startsBlock() bool {
	if !p.isWord("chain", "table", "set", "map") {
		return false
	}
	line := strings.TrimRight(upToNewline(p.lexer.text[p.tok.start:min(len(p.lexer.text), p.tok.start+600)]), " \t")
	line, _, _ = strings.Cut(line, " # handle ")
	fields := strings.Fields(line)
	return len(fields) <= 4 && len(fields) >= 3 && fields[len(fields)-1] == "{" && !strings.HasPrefix(fields[1], "@")
}

// tableLine reads a line in a table's body.
func (p *textReader) tableLine(t *Table, word string) bool {
	switch word {
	case "flags":
		p.next()
		if t.Flags = p.flags(); t.Flags == nil { // nft leaves out those that it doesn't know
			t.Flags = []string{"unknown"}
		}
		return p.lineEnd()
	case "comment":
		return p.commentLine(&t.Comment)
	case "chain", "set", "map", "meter":
		p.next()
	default:
		var ok bool
		if word, ok = p.objectKind(); !ok {
			return false
		}
	}
	name, ok := p.name()
	if !ok {
		return false
	}
	return p.item(t, word, name)
}

// lineEnd says whether a line is over here, as it must be.
func (p *textReader) lineEnd() bool {
	if !p.atEnd() {
		p.expected("the end of the line")
		return false
	}
	return true
}

// commentLine reads comment "…".
func (p *textReader) commentLine(into *string) bool {
	p.next()
	text, ok := p.value()
	if ok {
		*into = text
	}
	return ok && p.lineEnd()
}

// flags reads words with commas between.
func (p *textReader) flags() []string {
	var out []string
	for p.tok.kind == tokWord && len(out) < maxFlags {
		out = append(out, p.tok.text)
		p.next()
		if !p.skipPunct(",") {
			break
		}
	}
	return out
}

// chainBlock reads a chain's body, if there is one:
//
//	{
//		comment "…"
//		type nat hook postrouting priority srcnat; policy accept;
//		RULES
//	}
func (p *textReader) chainBlock(t *Table, name string) bool {
	c := t.AddChain(name)
	if !p.openBlock() {
		return p.commandEnd()
	}
	if h := p.takeHandle(); h != 0 {
		c.Handle = h
	}
	p.block(t, "chain "+name, func(word string) bool { return p.chainLine(t, c, word) })
	return true
}

// chainLine reads a line in a chain's body.
func (p *textReader) chainLine(t *Table, c *Chain, word string) bool {
	switch word {
	case "type":
		if p.isBaseType() {
			return p.base(t, c)
		}
	case "policy":
		p.next()
		policy, ok := p.value()
		if !ok || c.Base == nil || policy != "accept" && policy != "drop" {
			p.fail("expected accept or drop as a base chain's policy")
			return false
		}
		c.Base.Drop = policy == "drop"
		return p.lineEnd()
	case "flags":
		p.next()
		p.flags()
		return p.lineEnd()
	case "comment":
		return p.commentLine(&c.Comment)
	case "devices", "device":
		devices, ok := p.devices()
		if ok && c.Base != nil {
			c.Base.Devices = devices
		}
		return ok && p.lineEnd()
	}
	if p.rules >= maxRules {
		t.Excerpt = true
		p.fail("more than %d rules", maxRules)
		return false
	}
	r := p.rule()
	if r == nil {
		p.expected("a rule")
		return false
	}
	if p.tok.kind == tokEnd {
		r.Statements = append(r.Statements, UnknownStatement{Name: "cut", Text: "…", Why: "the text ends in or after this rule"})
	}
	c.AddRule(r)
	return true
}

func (p *textReader) isBaseType() bool {
	switch p.peek().text {
	case "filter", "nat", "route":
		return true
	}
	return false
}

// base reads
//
//	type filter hook ingress device "eth0" priority filter - 10; policy drop;
func (p *textReader) base(t *Table, c *Chain) bool {
	p.next()
	b := &Base{}
	b.Type, _ = p.value()
	if !p.skipOr("hook") {
		return false
	}
	var ok bool
	if b.Hook, ok = p.value(); !ok {
		return false
	}
	for {
		switch {
		case p.isWord("device", "devices"):
			if b.Devices, ok = p.devices(); !ok {
				return false
			}
		case p.skipWord("priority"):
			if b.Priority, ok = p.priority(t.Family); !ok {
				c.Base = b // with 0: better than a chain that is never asked
				return false
			}
		default:
			c.Base = b
			return p.lineEnd()
		}
	}
}

// devices reads device "a", devices = { a, b }.
func (p *textReader) devices() ([]string, bool) {
	p.next()
	p.skipPunct("=")
	if !p.skipPunct("{") {
		name, ok := p.value()
		return []string{name}, ok
	}
	var out []string
	for {
		p.skipNewlines()
		if p.skipPunct("}") {
			return out, true
		}
		name, ok := p.value()
		if !ok || len(out) > 1<<16 {
			return nil, false
		}
		out = append(out, name)
		p.skipNewlines()
		p.skipPunct(",")
	}
}

// priority reads a number, or a name with an offset: -100, srcnat + 10.
func (p *textReader) priority(family string) (int, bool) {
	start := p.tok.start
	for p.tok.kind == tokWord || p.tok.kind == tokString || p.isPunct("-") || p.isPunct("+") {
		p.next()
	}
	text := strings.ReplaceAll(strings.Trim(p.since(start), `"`), " ", "")
	at := strings.LastIndexAny(text, "+-")
	name, offset := text, 0
	if at >= 0 || len(text) > 0 && isDigit(text[0]) {
		name = text[:max(at, 0)]
		n, err := strconv.ParseInt(text[max(at, 0):], 0, 32) // 0x64 and 010 are numbers for nft too
		if offset = int(n); err != nil || text[0] == '+' {
			p.fail("expected a priority, not %q", short(text))
			return 0, false
		}
	}
	if name == "" && text != "" {
		return offset, true
	}
	base, ok := namedPriority(family, name)
	if !ok {
		p.fail("the priority %q isn't known in family %s", short(text), family)
	}
	return base + offset, ok
}

// namedPriority is nft's name for a priority in a table of the family.
func namedPriority(family, name string) (int, bool) {
	switch family {
	case "bridge":
		switch name {
		case "dstnat":
			return -300, true
		case "filter":
			return -200, true
		case "out":
			return 100, true
		case "srcnat":
			return 300, true
		}
		return 0, false
	case "arp", "netdev":
		return 0, name == "filter"
	}
	switch name {
	case "raw":
		return -300, true
	case "mangle":
		return -150, true
	case "dstnat":
		return -100, true
	case "filter":
		return 0, true
	case "security":
		return 50, true
	case "srcnat":
		return 100, true
	}
	return 0, false
}

// objectKind reads the kind of a named object: counter, ct helper, flowtable.
func (p *textReader) objectKind() (string, bool) {
	switch {
	case p.isWord("counter", "quota", "limit", "synproxy", "secmark", "flowtable", "tunnel"):
		kind, _ := p.value()
		return kind, true
	case p.isWord("ct"):
		switch p.peek().text {
		case "helper", "timeout", "expectation":
			p.next()
			kind, _ := p.value()
			return "ct " + kind, true
		}
	}
	return "", false
}

// objectBlock reads a named object's body, or what stands for it in a command.
func (p *textReader) objectBlock(t *Table, kind, name string) bool {
	o := Object{Kind: kind, Name: name}
	if p.openBlock() {
		o.Handle = p.takeHandle()
		start, depth := p.tok.start, 1
		for !p.isPunct("}") || depth > 1 {
			switch {
			case p.tok.kind == tokEnd:
				t.Excerpt = true
				p.fail("the text ends before its closing brace")
				return false
			case p.isPunct("{"):
				depth++
			case p.isPunct("}"):
				depth--
			}
			p.next()
		}
		o.Text = objectText(p.lexer.text[start:p.tok.start])
		p.next()
	} else {
		start := p.tok.start
		for !p.atEnd() {
			p.next()
		}
		o.Text = p.since(start)
	}
	t.Objects = append(t.Objects, o)
	return true
}

// objectText is a body in one line: its lines with semicolons between.
func objectText(body string) string {
	var out []string
	for line := range strings.SplitSeq(body, "\n") {
		line, _, _ = strings.Cut(line, "# handle ")
		if line = strings.Trim(line, " \t;"); line != "" {
			out = append(out, line)
		}
	}
	return strings.Join(out, "; ")
}
