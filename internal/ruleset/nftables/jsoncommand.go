package nftables

import (
	"slices"
	"strconv"
)

// command takes {"add": {"rule": …}} and the like. It says false where name is
// no command.
func (r *jsonReader) command(name string, arg *jsonValue, line int) bool {
	switch name {
	case "add", "create", "insert", "replace", "delete", "destroy", "flush", "list", "reset", "rename":
	default:
		return false
	}
	kind, of, ok := arg.only()
	done := false
	switch {
	case !ok:
	case name == "list":
		return true
	case name == "add", name == "create":
		done = r.add(kind, of, line, "add")
	case kind == "rule" && (name == "insert" || name == "replace"):
		r.addRule(of, line, name)
		done = true
	case name == "delete", name == "destroy", name == "flush":
		done = r.remove(name, kind, of, line)
	}
	if !done {
		r.misplaced(line, `"`+name+`": `+arg.compact(), "a command that isn't followed: the rules may be others")
	}
	return true
}

// remove what delete, destroy and flush name.
func (r *jsonReader) remove(how, kind string, arg *jsonValue, line int) bool {
	if (kind == "ruleset" || kind == "table") && !r.afford(len(r.ruleset.Tables)) {
		return false
	}
	if kind == "ruleset" {
		family := arg.get("family").str()
		r.forget(func(t *Table) bool { return family == "" || t.Family == family })
		return how == "flush"
	}
	key := "table"
	if kind == "table" {
		key = "name"
	}
	t := r.tables[[2]string{arg.get("family").str(), arg.get(key).str()}]
	if t == nil {
		// Elsewhere: deleting what may be there leaves nothing of it.
		return how != "delete" && knownFamily(arg.get("family").str())
	}
	r.table = t
	if kind == "table" {
		return r.afford(len(t.Chains)) && r.removeTable(how, t)
	}
	cost := len(t.Chains) + len(t.Sets)
	if c := t.Chain(arg.get("chain").name()); c != nil {
		cost += len(c.Rules)
	}
	return r.afford(cost) && t.removePart(how, kind, arg)
}

func (r *jsonReader) removeTable(how string, t *Table) bool {
	if how == "flush" {
		for _, c := range t.Chains {
			c.Rules = nil
		}
		return true
	}
	r.forget(func(x *Table) bool { return x == t })
	return true
}

func (r *jsonReader) forget(which func(*Table) bool) {
	r.ruleset.Tables = slices.DeleteFunc(r.ruleset.Tables, func(t *Table) bool {
		if !which(t) {
			return false
		}
		delete(r.tables, [2]string{t.Family, t.Name})
		return true
	})
	r.table = nil
}

// removePart of a table: chains, rules, sets.
func (t *Table) removePart(how, kind string, arg *jsonValue) bool {
	name := arg.get("name").str()
	switch kind {
	case "rule":
		c := t.Chain(arg.get("chain").str())
		if c == nil {
			return false
		}
		before := len(c.Rules)
		c.Rules = slices.DeleteFunc(c.Rules, func(r *Rule) bool { return r.Handle == handle(arg) && r.Handle != 0 })
		c.renumber(0)
		return len(c.Rules) < before
	case "chain":
		if c := t.Chain(name); c != nil && how == "flush" {
			c.Rules = nil
			return true
		}
		before := len(t.Chains)
		t.Chains = slices.DeleteFunc(t.Chains, func(c *Chain) bool { return c.Name == name })
		delete(t.chains, name)
		return how != "flush" && len(t.Chains) < before
	case "set", "map", "meter":
		if s := t.Set(name); s != nil && how == "flush" {
			s.Elements = nil
			return true
		}
		before := len(t.Sets)
		t.Sets = slices.DeleteFunc(t.Sets, func(s *Set) bool { return s.Name == name })
		delete(t.sets, name)
		return how != "flush" && len(t.Sets) < before
	}
	return false
}

// place puts a rule where a command says: behind or before the one of a handle
// or index (which counts from 0), in its stead, at the end or the beginning.
func (c *Chain) place(rule *Rule, arg *jsonValue, how string) bool {
	at := -1
	switch index, err := strconv.Atoi(arg.get("index").str()); {
	case err == nil && index >= 0 && index < len(c.Rules):
		at = index
	case err == nil:
		return false
	case arg.has("handle"):
		at = slices.IndexFunc(c.Rules, func(r *Rule) bool { return r.Handle == rule.Handle && r.Handle != 0 })
		if at < 0 && how != "add" {
			return false
		}
		if how != "replace" && at >= 0 {
			rule.Handle = 0 // that is its neighbour's
		}
	}
	switch {
	case how == "replace":
		if at < 0 {
			return false
		}
		c.Rules[at] = rule
	case how == "insert":
		at = max(at, 0)
		c.Rules = slices.Insert(c.Rules, at, rule)
	case at < 0:
		c.AddRule(rule)
		return true
	default:
		at++
		c.Rules = slices.Insert(c.Rules, at, rule)
	}
	c.renumber(at)
	return true
}
