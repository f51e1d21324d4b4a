package nftables

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// jsonReader reads nft's JSON.
type jsonReader struct {
	jsonScanner
	ruleset  *Ruleset
	tables   map[[2]string]*Table
	problems []Problem
	// table of the object that is being read, and of the last before a cut.
	table *Table
	// declared tables: the others are parts.
	declared map[*Table]bool
	// taken elements of sets; edits: what commands cost, see afford.
	taken, edits int
	// first line of the text.
	first int
}

// ReadJSON reads nft -j list ruleset of nft 0.9 to 1.1, lists of less than that
// (a table's, a chain's), several of them one after the other, and commands
// ("add": {"rule": …}), as they are applied one after the other. firstLine is
// the number of text's first line in its file.
//
// The text of each rule is printed as nft would print it. A part of a rule that
// isn't understood is an [UnknownStatement] or [UnknownExpr]; what stands
// elsewhere is a Problem. Text that was cut marks its table as an excerpt.
//
//	{"nftables": [{"metainfo": {"version": "1.0.6", …}},
//	 {"table": {"family": "ip", "name": "nat", "handle": 2}},
//	 {"chain": {"family": "ip", "table": "nat", "name": "post", "handle": 1, "type": "nat", "hook": "postrouting", "prio": 100, "policy": "accept"}},
//	 {"rule": {"family": "ip", "table": "nat", "chain": "post", "handle": 3, "expr": [{"masquerade": null}]}}]}
func ReadJSON(text string, firstLine int) (*Ruleset, []Problem) {
	r := &jsonReader{
		jsonScanner: jsonScanner{text: text, line: max(firstLine, 1)},
		ruleset:     &Ruleset{},
		tables:      map[[2]string]*Table{},
		declared:    map[*Table]bool{},
		first:       max(firstLine, 1),
	}
	for r.more() {
		if err := r.root(); err != nil {
			r.broken(err)
			break
		}
	}
	for _, t := range r.ruleset.Tables {
		t.Excerpt = t.Excerpt || r.ruleset.Excerpt || !r.declared[t]
		t.findDynamic()
	}
	return r.ruleset, r.problems
}

// broken says where the text can't be read on. All behind it is lost: the table
// before it is a part.
func (r *jsonReader) broken(err error) {
	if r.table != nil {
		r.table.Excerpt = true
	} else { // after commands, all of them may be
		r.ruleset.Excerpt = true
	}
	line := r.line
	if errors.Is(err, errJSONCut) {
		line = r.first + strings.Count(strings.TrimRight(r.text, " \t\r\n"), "\n")
	}
	start := min(r.pos, len(r.text))
	r.problem(line, r.text[max(0, start-40):start], err.Error())
}

func (r *jsonReader) problem(line int, text, why string) {
	if len(r.problems) < maxJSONProblems {
		r.problems = append(r.problems, Problem{Line: line, Text: shortened(text), Why: why})
	}
}

// lost: something of a table's, which is a part for that. Without the table it
// has been said already.
func (r *jsonReader) lost(t *Table, arg *jsonValue, line int, why string) {
	if t != nil {
		t.Excerpt = true
		r.problem(line, arg.compact(), why)
	}
}

// misplaced: something of which the table isn't known; all of them are parts for
// that.
func (r *jsonReader) misplaced(line int, text, why string) {
	r.ruleset.Excerpt = true
	r.problem(line, text, why)
}

// afford pays for an edit that moves or looks at that many things.
func (r *jsonReader) afford(cost int) bool {
	r.edits += cost
	return r.edits <= maxEdits
}

const (
	maxJSONProblems = 1000
	maxShown        = 120
)

// shortened is what fits a message.
func shortened(s string) string {
	s = strings.ToValidUTF8(strings.Join(strings.Fields(s), " "), "?")
	if len(s) > maxShown {
		s = strings.ToValidUTF8(s[:maxShown], "") + "…"
	}
	return s
}

// root reads one document: {"nftables": […]}, or what would stand in it.
func (r *jsonReader) root() error {
	c, err := r.take("{[")
	if err != nil {
		return err
	}
	if c == '[' {
		return r.list()
	}
	if r.peek() == '}' {
		r.pos++
		return nil
	}
	for {
		r.nextElement()
		line := r.line
		key, err := r.objectKey()
		if err != nil {
			return err
		}
		if key == "nftables" && r.peek() == '[' {
			r.pos++
			err = r.list()
		} else {
			var v jsonValue
			if v, err = r.value(1); err == nil {
				r.one(key, &v, line)
			}
		}
		if err != nil {
			return err
		}
		if c, err := r.take(",}"); err != nil || c == '}' {
			return err
		}
	}
}

// list reads the objects of a list that has begun.
func (r *jsonReader) list() error {
	if r.peek() == ']' {
		r.pos++
		return nil
	}
	for {
		r.blanks()
		r.nextElement()
		line := r.line
		v, err := r.value(1)
		if err != nil {
			return err
		}
		name, arg, ok := v.only()
		if !ok {
			r.misplaced(line, v.compact(), "not an object of nft's")
		} else {
			r.one(name, arg, line)
		}
		if c, err := r.take(",]"); err != nil || c == ']' {
			return err
		}
	}
}

// one object or command of the list.
func (r *jsonReader) one(name string, arg *jsonValue, line int) {
	if name == "metainfo" {
		return
	}
	if r.command(name, arg, line) || r.add(name, arg, line, "") {
		return
	}
	if family, table := arg.get("family").str(), arg.get("table").name(); knownFamily(family) && table != "" {
		r.lost(r.of(arg, "table", line), arg, line, quoted(name)+" is nothing of nft's that is known")
		return
	}
	r.misplaced(line, `"`+name+`": `+arg.compact(), "nothing of nft's that is known")
}

// add takes an object; how is add, insert or replace for commands.
func (r *jsonReader) add(name string, arg *jsonValue, line int, how string) bool {
	switch name {
	case "table":
		r.addTable(arg, line)
	case "chain":
		r.addChain(arg, line)
	case "rule":
		r.addRule(arg, line, how)
	case "set", "map", "meter":
		r.addSet(name, arg, line)
	case "element":
		r.addElements(arg, line)
	case "counter", "quota", "limit", "ct helper", "ct timeout", "ct expectation", "synproxy", "secmark", "flowtable", "tunnel":
		r.addObject(name, arg, line)
	default:
		return false
	}
	return true
}

// families of tables.
func knownFamily(s string) bool {
	return slices.Contains([]string{"ip", "ip6", "inet", "arp", "bridge", "netdev"}, s)
}

// of finds the table that an object names, by the key given.
func (r *jsonReader) of(arg *jsonValue, key string, line int) *Table {
	family, name := arg.get("family").str(), arg.get(key).name()
	if !knownFamily(family) || name == "" {
		r.misplaced(line, arg.compact(), "it names no family and table")
		return nil
	}
	t := r.tables[[2]string{family, name}]
	if t == nil {
		t = &Table{Family: family, Name: name, Line: line}
		r.tables[[2]string{family, name}] = t
		r.ruleset.Tables = append(r.ruleset.Tables, t)
	}
	r.table = t
	return t
}

func handle(arg *jsonValue) uint64 {
	n, _ := strconv.ParseUint(arg.get("handle").str(), 10, 64)
	return n
}

func (r *jsonReader) addTable(arg *jsonValue, line int) {
	t := r.of(arg, "name", line)
	if t == nil {
		return
	}
	r.declared[t] = true
	t.Handle, t.Comment, t.Flags, t.Line = handle(arg), arg.get("comment").str(), arg.get("flags").strings(), line
	r.expectOnly(t, arg, line, "family", "name", "handle", "comment", "flags")
	if !arg.get("flags").areWords() {
		r.lost(t, arg, line, "flags that aren't known; expected words such as dormant")
	}
}

// expectOnly: what else an object has may mean anything.
func (r *jsonReader) expectOnly(t *Table, arg *jsonValue, line int, keys ...string) {
	if arg.onlyHas(keys...) {
		return
	}
	for i, key := range arg.keys {
		if !slices.Contains(keys, key) || slices.Contains(arg.keys[:i], key) {
			r.lost(t, arg, line, quoted(shortened(key))+" isn't known here, or is there twice")
			return
		}
	}
}

func (r *jsonReader) addChain(arg *jsonValue, line int) {
	t, name := r.of(arg, "table", line), arg.get("name").name()
	if t == nil || name == "" {
		r.lost(t, arg, line, "a chain without a name")
		return
	}
	c := t.AddChain(name)
	c.Handle, c.Comment = handle(arg), arg.get("comment").str()
	r.expectOnly(t, arg, line, "family", "table", "name", "handle", "comment", "type", "hook", "prio", "policy", "dev", "devs", "flags")
	if arg.has("hook") || arg.has("type") || arg.has("prio") || arg.has("policy") {
		c.Base = r.base(t, arg, line)
	}
}

// base reads where a chain is registered; nil where that can't be told.
func (r *jsonReader) base(t *Table, arg *jsonValue, line int) *Base {
	b := &Base{Type: arg.get("type").name(), Hook: arg.get("hook").name(), Devices: arg.get("dev").strings()}
	if !slices.Contains([]string{"prerouting", "input", "forward", "output", "postrouting", "ingress", "egress"}, b.Hook) {
		r.lost(t, arg, line, "a hook that isn't known; expected prerouting, input, forward, output, postrouting, ingress or egress")
		return nil
	}
	if b.Type != "filter" && b.Type != "nat" && b.Type != "route" {
		r.lost(t, arg, line, "a type that isn't known; expected filter, nat or route")
	}
	if b.Devices == nil {
		b.Devices = arg.get("devs").strings()
	}
	var known bool
	if b.Priority, known = jsonPriority(t.Family, b.Hook, arg.get("prio")); !known {
		r.lost(t, arg, line, "a priority that isn't known; taken as 0")
	}
	b.Drop = arg.get("policy").name() == "drop"
	if policy := arg.get("policy").name(); arg.has("policy") && policy != "drop" && policy != "accept" {
		r.lost(t, arg, line, "a policy that isn't known, neither accept nor drop; taken as accept")
	}
	return b
}

// jsonPriority reads a number, or a name and an offset: "dstnat", "srcnat + 10".
func jsonPriority(family, hook string, v *jsonValue) (int, bool) {
	text := strings.ReplaceAll(v.str(), " ", "")
	if n, err := strconv.ParseInt(text, 10, 32); err == nil {
		return int(n), true
	}
	end := strings.IndexAny(text, "+-")
	if end < 0 {
		end = len(text)
	}
	names := map[string]int{"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
	if family == "bridge" {
		names = map[string]int{"dstnat": -300, "filter": -200, "out": 100, "srcnat": 300}
	}
	base, known := names[text[:end]]
	if !known || end == len(text) {
		return base, known
	}
	n, err := strconv.ParseInt(text[end:], 10, 32)
	return base + int(n), err == nil
}

func (r *jsonReader) addRule(arg *jsonValue, line int, how string) {
	t, chain := r.of(arg, "table", line), arg.get("chain").name()
	if t == nil || chain == "" {
		r.lost(t, arg, line, "a rule without a chain")
		return
	}
	c := t.Chain(chain)
	if c == nil { // a rule alone: its chain may have a hook
		c = t.AddChain(chain)
		t.Excerpt = true
	}
	rule := &Rule{Handle: handle(arg), Comment: arg.get("comment").str(), Line: line}
	expr := arg.get("expr")
	if expr.kind != jsonArray {
		rule.Statements = []Statement{unknownStatement("", arg, "a rule without its statements")}
	}
	for i := range expr.items {
		if i == maxStatements {
			rest := jsonValue{kind: jsonArray, items: expr.items[i:]}
			rule.Statements = append(rule.Statements, unknownStatement("", &rest, "a rule this long isn't read"))
			break
		}
		rule.Statements = append(rule.Statements, r.statement(&expr.items[i]))
	}
	if !arg.onlyHas("family", "table", "chain", "handle", "index", "comment", "expr") {
		rule.Statements = append([]Statement{unknownStatement("", &jsonValue{kind: jsonObject, keys: arg.keys, items: make([]jsonValue, len(arg.keys))}, "the rule has something that isn't known, or twice")}, rule.Statements...)
	}
	rule.Text = RuleText(rule)
	if how == "" {
		c.AddRule(rule)
		return
	}
	switch placed := (arg.has("index") || arg.has("handle") || how == "insert"); {
	case placed && !r.afford(len(c.Rules)):
		r.lost(t, arg, line, "too many insertions and deletions")
	case !c.place(rule, arg, how):
		r.lost(t, arg, line, "there is no rule of that handle or index")
	}
}

func (r *jsonReader) addObject(kind string, arg *jsonValue, line int) {
	t := r.of(arg, "table", line)
	if t == nil {
		return
	}
	t.Objects = append(t.Objects, Object{Kind: kind, Name: arg.get("name").str(), Handle: handle(arg), Text: jsonObjectText(kind, arg)})
}

// jsonObjectText prints what an object has, as far as people ask for it.
func jsonObjectText(kind string, arg *jsonValue) string {
	switch kind {
	case "counter":
		return "packets " + digits(arg.get("packets")) + " bytes " + digits(arg.get("bytes"))
	case "limit":
		return strings.TrimPrefix(limitText(arg), "limit ")
	case "quota":
		text := over(arg) + arg.get("bytes").str() + " bytes"
		if used := arg.get("used").str(); used != "" && used != "0" {
			text += " used " + used + " bytes"
		}
		return text
	}
	var parts []string
	for i, key := range arg.keys {
		if slices.Contains([]string{"family", "name", "table", "handle"}, key) {
			continue
		}
		v := &arg.items[i]
		text := strings.Join(v.strings(), ", ")
		if text == "" {
			text = v.compact()
		}
		parts = append(parts, key+" "+text)
	}
	return strings.Join(parts, "; ")
}

// findDynamic gives the sets that rules change their flag: nft's JSON left it
// out before 1.0.8.
func (t *Table) findDynamic() {
	for _, c := range t.Chains {
		for _, rule := range c.Rules {
			for _, st := range rule.Statements {
				u, is := st.(SetUpdate)
				if !is {
					continue
				}
				if s := t.Set(u.Set); s != nil && !slices.Contains(s.Flags, "dynamic") {
					s.Flags = append(s.Flags, "dynamic")
				}
			}
		}
	}
}
