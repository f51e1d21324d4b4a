package nftables

import "strings"

// families are nft's own words.
const families = " ip ip6 inet arp bridge netdev "

func isFamily(s string) bool { return strings.Contains(families, " "+s+" ") && s != "" }

// command reads one command of the top level: a table's block as nft lists it,
// or "add rule …".
func (p *textReader) command() {
	p.skipEnds()
	if p.tok.kind == tokEnd {
		return
	}
	start, line := p.tok.start, p.tok.line
	p.why = ""
	edits := p.isWord("add", "create", "insert", "replace", "delete", "destroy", "flush", "rename", "include", "table", "chain", "set", "map", "nft")
	if !p.commandWord() {
		p.skipCommand()
		p.ruleset.Excerpt = p.ruleset.Excerpt || edits // of a listing, prompts and the like stand here too
		p.problem(line, p.oneLine(start, max(p.last, start)), p.reason("this isn't an nft command"))
	}
}

// reason is why the last thing wasn't understood.
func (p *textReader) reason(otherwise string) string {
	if p.why == "" {
		return otherwise
	}
	return p.why
}

// skipCommand goes over the rest of a line, and over blocks that it opens where
// they are closed.
func (p *textReader) skipCommand() {
	depth := 0
	from := p.mark()
	for p.tok.kind != tokEnd {
		switch {
		case p.isPunct("{"):
			if depth == 0 {
				from = p.mark()
			}
			depth++
		case p.isPunct("}"):
			depth--
			if depth <= 0 {
				p.next()
				return
			}
		case p.tok.kind == tokNewline && depth <= 0:
			return
		}
		p.next()
	}
	if depth > 0 {
		p.back(from)
		p.skipLine()
	}
}

// skipLine goes over the rest of a line.
func (p *textReader) skipLine() {
	for p.tok.kind != tokEnd && p.tok.kind != tokNewline {
		p.next()
	}
}

func (p *textReader) commandWord() bool {
	if p.isWord("nft", "sudo") {
		p.skipWord("sudo")
		p.skipWord("nft")
	}
	switch {
	case p.isWord("table"):
		return p.add("table", false)
	case p.skipWord("add"):
		return p.addCommand(false)
	case p.skipWord("create"):
		return p.addCommand(true)
	case p.skipWord("insert"):
		return p.skipOr("rule") && p.ruleCommand(before)
	case p.skipWord("replace"):
		return p.skipOr("rule") && p.ruleCommand(instead)
	case p.skipWord("delete"):
		return p.deleteCommand()
	case p.skipWord("destroy"):
		if !p.deleteCommand() {
			if !strings.HasPrefix(p.why, "there is no ") { // then it is nothing to destroy
				return false
			}
			p.skipCommand()
		}
		return true
	case p.skipWord("flush"):
		return p.flushCommand()
	case p.skipWord("rename"):
		return p.renameCommand()
	case p.isWord("list", "monitor", "describe"):
		p.skipLine()
		return true
	case p.isWord("include"):
		p.fail("other files aren't read")
	case p.isWord("chain", "set", "map", "flowtable"):
		p.fail("its table isn't given")
	}
	return false
}

func (p *textReader) skipOr(word string) bool {
	if !p.skipWord(word) {
		p.expected(word)
		return false
	}
	return true
}

func (p *textReader) addCommand(create bool) bool {
	kind := p.tok.text
	if p.tok.kind != tokWord {
		p.expected("table, chain, rule, set, map or element")
		return false
	}
	if p.isWord("rule") {
		p.next()
		return p.ruleCommand(after)
	}
	return p.add(kind, create)
}

// add reads "table ip x { … }", "chain ip x y { … }" and the like.
func (p *textReader) add(kind string, create bool) bool {
	switch kind {
	case "table", "chain", "set", "map", "element", "flowtable", "meter":
		p.next()
	default:
		var ok bool
		if kind, ok = p.objectKind(); !ok {
			p.expected("table, chain, rule, set, map or element")
			return false
		}
	}
	family, name, ok := p.tableName()
	if !ok {
		return false
	}
	if kind == "table" {
		return p.tableBlock(family, name)
	}
	t := p.tableOf(family, name, true)
	item, ok := p.name()
	if !ok {
		return false
	}
	return p.item(t, kind, item)
}

// item reads what follows a chain's, set's or object's name.
func (p *textReader) item(t *Table, kind, name string) bool {
	p.table = t
	switch kind {
	case "chain":
		return p.chainBlock(t, name)
	case "set", "map", "meter":
		return p.setBlock(t, name, kind == "map")
	case "element":
		return p.elementCommand(t, name)
	}
	return p.objectBlock(t, kind, name)
}

// tableName reads "[family] name".
func (p *textReader) tableName() (family, name string, ok bool) {
	family = "ip"
	if p.tok.kind == tokWord && isFamily(p.tok.text) {
		family = p.tok.text
		p.next()
	}
	name, ok = p.name()
	return family, name, ok
}

// tableOf is the table of that name. Where it wasn't declared before, it is
// made, as an excerpt if a part of it is being added.
func (p *textReader) tableOf(family, name string, part bool) *Table {
	key := family + " " + name
	t := p.tables[key]
	if t == nil {
		t = &Table{Family: family, Name: name, Line: p.tok.line, Excerpt: part}
		p.tables[key] = t
		p.ruleset.Tables = append(p.ruleset.Tables, t)
	}
	return t
}

// known is the table named, which must be there.
func (p *textReader) known() *Table {
	family, name, ok := p.tableName()
	if !ok {
		return nil
	}
	t := p.tables[family+" "+name]
	if t == nil {
		p.fail("there is no table %s %s", family, name)
	}
	return t
}

// elementCommand reads "{ a, b : c }" after "add element ip t s".
func (p *textReader) elementCommand(t *Table, name string) bool {
	s := t.Set(name)
	if s == nil {
		t.Excerpt = true
		s = t.AddSet(name)
		s.Line = p.tok.line
	}
	elements, ok := p.elementBlock()
	for _, e := range elements {
		if e.Data != nil {
			s.Map = true
		}
	}
	s.Elements = append(s.Elements, elements...)
	return ok
}

// place is where a rule goes.
type place uint8

const (
	after place = iota
	before
	instead
)

// ruleCommand reads "ip t c [handle 5|position 5|index 0] RULE".
func (p *textReader) ruleCommand(where place) bool {
	family, name, ok := p.tableName()
	if !ok {
		return false
	}
	t := p.tableOf(family, name, true)
	chain, ok := p.name()
	if !ok {
		return false
	}
	c := t.Chain(chain)
	if c == nil {
		t.Excerpt = true
		c = t.AddChain(chain)
	}
	at, ok := p.rulePlace(c, where)
	if !ok {
		return false
	}
	if p.rules >= maxRules {
		t.Excerpt = true
		p.fail("more than %d rules", maxRules)
		return false
	}
	p.table, p.compat = t, false
	rule := p.rule()
	if rule == nil || len(rule.Statements) == 0 { // a comment alone is none
		p.expected("a rule")
		return false
	}
	c.insert(rule, at, where == instead)
	return true
}

// rulePlace is the index, from 0, at which a rule goes; -1 for the end.
func (p *textReader) rulePlace(c *Chain, where place) (int, bool) {
	found := -1
	switch {
	case p.isWord("handle", "position"):
		p.next()
		if !p.afford(len(c.Rules)) {
			return 0, false
		}
		if found = c.byHandle(p.number()); found < 0 {
			p.fail("there is no rule of that handle")
			return 0, false
		}
	case p.isWord("index"):
		p.next()
		if found = int(min(p.number(), 1<<30)); found >= len(c.Rules) {
			p.fail("there is no rule of that index")
			return 0, false
		}
	case where == before:
		return 0, p.afford(len(c.Rules))
	case where == instead:
		p.expected("handle")
		return 0, false
	default:
		return -1, true
	}
	if where == after {
		found++
	}
	return found, true
}

// maxEdits bounds the rules that insertions and deletions move.
const maxEdits = 1 << 27

// afford pays for an edit that moves or looks at that many rules or elements.
func (p *textReader) afford(cost int) bool {
	p.edits += cost
	if p.edits > maxEdits {
		p.fail("too many insertions and deletions")
		return false
	}
	return true
}

// number takes a number; 0 where there is none.
func (p *textReader) number() uint64 {
	n := leadingNumber(p.tok.text)
	p.next()
	return n
}

func (c *Chain) byHandle(handle uint64) int {
	for i, r := range c.Rules {
		if r.Handle == handle && handle != 0 {
			return i
		}
	}
	return -1
}

// insert puts a rule at an index; -1 is the end.
func (c *Chain) insert(r *Rule, at int, replace bool) {
	if at < 0 || at >= len(c.Rules) && !replace {
		c.AddRule(r)
		return
	}
	if !replace {
		c.Rules = append(c.Rules, nil)
		copy(c.Rules[at+1:], c.Rules[at:])
	}
	c.Rules[at] = r
	c.renumber(at)
}

func (c *Chain) renumber(from int) {
	for i := from; i < len(c.Rules); i++ {
		c.Rules[i].Index = i + 1
	}
}
