package nftables

import (
	"reflect"
	"slices"
)

// deleteCommand reads what follows "delete": what it names is taken out again.
func (p *textReader) deleteCommand() bool {
	kind := p.tok.text
	switch kind {
	case "table", "chain", "rule", "set", "map", "element", "flowtable":
		p.next()
	default:
		var ok bool
		if kind, ok = p.objectKind(); !ok {
			p.expected("table, chain, rule, set, map or element")
			return false
		}
	}
	t := p.known()
	if t == nil {
		return false
	}
	if kind == "table" {
		return p.drop(t)
	}
	name, ok := p.name()
	if !ok {
		return false
	}
	switch kind {
	case "rule":
		return p.deleteRule(t, name)
	case "element":
		return p.deleteElements(t, name)
	}
	return p.deleteItem(t, kind, name)
}

// drop takes a table out.
func (p *textReader) drop(t *Table) bool {
	if !p.afford(len(p.ruleset.Tables)) {
		return false
	}
	delete(p.tables, t.Family+" "+t.Name)
	p.ruleset.Tables = slices.DeleteFunc(p.ruleset.Tables, func(o *Table) bool { return o == t })
	return true
}

// deleteItem takes a chain, set or object out.
func (p *textReader) deleteItem(t *Table, kind, name string) bool {
	if !p.afford(len(t.Chains) + len(t.Sets) + len(t.Objects)) {
		return false
	}
	before := len(t.Chains) + len(t.Sets) + len(t.Objects)
	switch kind {
	case "chain":
		t.Chains = slices.DeleteFunc(t.Chains, func(c *Chain) bool { return c.Name == name })
		delete(t.chains, name)
	case "set", "map":
		t.Sets = slices.DeleteFunc(t.Sets, func(s *Set) bool { return s.Name == name })
		delete(t.sets, name)
	default:
		t.Objects = slices.DeleteFunc(t.Objects, func(o Object) bool { return o.Kind == kind && o.Name == name })
	}
	if before == len(t.Chains)+len(t.Sets)+len(t.Objects) {
		p.fail("there is no %s %s", kind, name)
		return false
	}
	return true
}

func (p *textReader) deleteRule(t *Table, chain string) bool {
	c := t.Chain(chain)
	if c == nil {
		p.fail("there is no chain %s", chain)
		return false
	}
	at, ok := p.rulePlace(c, instead)
	if !ok {
		return false
	}
	c.Rules = slices.Delete(c.Rules, at, at+1)
	c.renumber(at)
	return true
}

func (p *textReader) deleteElements(t *Table, name string) bool {
	s := t.Set(name)
	if s == nil {
		p.fail("there is no set %s", name)
		return false
	}
	gone, ok := p.elementBlock()
	if !ok || !p.afford(64*len(s.Elements)*len(gone)) {
		return false
	}
	s.Elements = slices.DeleteFunc(s.Elements, func(e Element) bool {
		return slices.ContainsFunc(gone, func(g Element) bool { return reflect.DeepEqual(g.Key, e.Key) })
	})
	return true
}

// flushCommand reads what follows "flush": rules and elements go, what had them
// stays.
func (p *textReader) flushCommand() bool {
	if p.skipWord("ruleset") {
		family := ""
		if p.tok.kind == tokWord && isFamily(p.tok.text) {
			family, _ = p.value()
		}
		return p.flushRuleset(family)
	}
	if !p.isWord("table", "chain", "set", "map") {
		p.expected("ruleset, table, chain, set or map")
		return false
	}
	kind, _ := p.value()
	t := p.known()
	if t == nil {
		return false
	}
	if kind == "table" {
		for _, c := range t.Chains {
			c.Rules = nil
		}
		return p.afford(len(t.Chains))
	}
	name, ok := p.name()
	if !ok {
		return false
	}
	return p.flushItem(t, kind, name)
}

// flushRuleset takes all tables out, or those of a family.
func (p *textReader) flushRuleset(family string) bool {
	if !p.afford(len(p.ruleset.Tables)) {
		return false
	}
	p.ruleset.Tables = slices.DeleteFunc(p.ruleset.Tables, func(t *Table) bool {
		if family != "" && t.Family != family {
			return false
		}
		delete(p.tables, t.Family+" "+t.Name)
		return true
	})
	return true
}

func (p *textReader) flushItem(t *Table, kind, name string) bool {
	if c := t.Chain(name); kind == "chain" && c != nil {
		c.Rules = nil
		return true
	}
	if s := t.Set(name); kind != "chain" && s != nil {
		s.Elements = nil
		return true
	}
	p.fail("there is no %s %s", kind, name)
	return false
}

// renameCommand reads what follows "rename": chain ip t old new.
func (p *textReader) renameCommand() bool {
	if !p.skipOr("chain") {
		return false
	}
	t := p.known()
	if t == nil {
		return false
	}
	old, ok := p.name()
	if !ok {
		return false
	}
	name, ok := p.name()
	if !ok {
		return false
	}
	c := t.Chain(old)
	if c == nil || t.Chain(name) != nil {
		p.fail("there is no chain %s, or one named %s already", old, name)
		return false
	}
	c.Name = name
	delete(t.chains, old)
	if t.chains != nil {
		t.chains[name] = c
	}
	return true
}
