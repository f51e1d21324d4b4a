package nftables

import "strings"

// addSet takes a set or map.
//
//	{"family": "ip", "name": "m", "table": "nat", "type": ["ipv4_addr", "inet_service"], "handle": 8,
//	 "map": "verdict", "flags": ["interval"], "elem": [[{"concat": ["10.0.0.1", 80]}, {"drop": null}]]}
func (r *jsonReader) addSet(kind string, arg *jsonValue, line int) {
	t, name := r.of(arg, "table", line), arg.get("name").name()
	if t == nil || name == "" {
		r.lost(t, arg, line, "a set without a name")
		return
	}
	s := t.AddSet(name)
	s.Handle, s.Line, s.Comment = handle(arg), line, arg.get("comment").str()
	s.Flags = arg.get("flags").strings()
	s.Type, s.TypeOf = r.types(arg.get("type"))
	s.Map = kind == "map" || arg.has("map")
	if s.Map {
		s.DataType, s.DataTypeOf = r.types(arg.get("map"))
	}
	if kind == "meter" {
		s.Flags = append(s.Flags, "dynamic")
	}
	if timeout := arg.get("timeout").str(); timeout != "" {
		s.Timeout = formNumber(timeout, formTime)
	}
	if len(s.Type) == 0 && s.TypeOf == nil {
		r.lost(t, arg, line, "a set without a type")
	}
	if !arg.get("flags").areWords() {
		r.lost(t, arg, line, "flags that aren't known; expected words such as interval")
	}
	r.expectOnly(t, arg, line, "family", "name", "table", "type", "handle", "comment", "map", "policy", "flags", "timeout",
		"gc-interval", "size", "stmt", "elem", "auto-merge", "count")
	s.Elements = nil
	r.addTo(s, arg.get("elem"))
}

// types reads "ipv4_addr", ["ipv4_addr", "inet_service"], "ipv4_addr . inet_service"
// and, since nft 1.1.4, {"typeof": …}.
func (r *jsonReader) types(v *jsonValue) ([]string, Expr) {
	if name, of, ok := v.only(); ok && name == "typeof" {
		if of.kind == jsonArray { // {"typeof": [a, b]}: parts
			parts := Concat{}
			for i := range of.items {
				parts.Parts = append(parts.Parts, r.key(&of.items[i]))
			}
			return nil, parts
		}
		return nil, r.key(of)
	}
	var types []string
	for _, name := range v.strings() {
		for part := range strings.SplitSeq(name, " . ") {
			types = append(types, strings.TrimSpace(part))
		}
	}
	return types, nil
}

func (r *jsonReader) addElements(arg *jsonValue, line int) {
	t := r.of(arg, "table", line)
	if t == nil {
		return
	}
	s := t.Set(arg.get("name").name())
	if s == nil {
		r.lost(t, arg, line, "elements of a set that isn't there")
		return
	}
	r.addTo(s, arg.get("elem"))
}

func (r *jsonReader) addTo(s *Set, elem *jsonValue) {
	keys := r.formsOfSet(s.Type, s.TypeOf)
	var data []form
	if s.Map {
		if data = r.formsOfSet(s.DataType, s.DataTypeOf); data == nil {
			data = []form{formPlain}
		}
	}
	switch name, inner, ok := elem.only(); {
	case elem.kind == jsonNull:
	case elem.kind == jsonArray:
		elem.each(func(v *jsonValue) { r.addElement(s, v, keys, data) })
	case ok && name == "set" && inner.kind == jsonArray:
		s.Elements = append(s.Elements, r.elements(inner, keys, data)...)
	default:
		s.Elements = append(s.Elements, r.element(elem, keys, data))
	}
}

// addElement adds one; where there are too many, one that isn't known stands for
// the rest.
func (r *jsonReader) addElement(s *Set, v *jsonValue, keys, data []form) {
	switch r.taken++; {
	case r.taken < maxElements:
		s.Elements = append(s.Elements, r.element(v, keys, data))
	case len(s.Elements) == 0 || s.Elements[len(s.Elements)-1].Comment != tooMany:
		s.Elements = append(s.Elements, Element{Key: unknownExpr("", v, tooMany), Comment: tooMany})
	}
}

const tooMany = "more elements than are read"

// elements of a set, or where data isn't nil of a map: pairs.
func (r *jsonReader) elements(list *jsonValue, keys, data []form) []Element {
	all := make([]Element, 0, len(list.items))
	for i := range list.items {
		all = append(all, r.element(&list.items[i], keys, data))
	}
	return all
}

// element reads a value, {"elem": {"val": …, "timeout": 60, "expires": 59,
// "comment": "…", "counter": {…}}}, and in maps [either of them, data].
func (r *jsonReader) element(v *jsonValue, keys, data []form) Element {
	if v.kind == jsonArray && len(v.items) == 2 && data != nil {
		e := r.element(&v.items[0], keys, nil)
		e.Data = r.data(&v.items[1], data)
		return e
	}
	if data != nil {
		e := r.element(v, keys, nil)
		e.Data = unknownExpr("", v, "an element of a map without what it leads to")
		return e
	}
	name, inner, ok := v.only()
	if !ok || name != "elem" || !inner.has("val") {
		return Element{Key: r.elementKey(v, keys)}
	}
	e := Element{Key: r.elementKey(inner.get("val"), keys), Comment: inner.get("comment").str()}
	for i, key := range inner.keys {
		if i > maxWords {
			e.Statements = append(e.Statements, UnknownStatement{Name: key, Text: key, Why: "an element with this much isn't read"})
			break
		}
		switch key {
		case "val", "comment":
		case "timeout":
			e.Timeout = formNumber(inner.items[i].str(), formTime)
		case "expires":
			if e.Timeout == "" { // of the set's own timeout
				e.Timeout = formNumber(inner.items[i].str(), formTime)
			}
		default:
			one := jsonValue{kind: jsonObject, keys: inner.keys[i : i+1], items: inner.items[i : i+1]}
			st := r.statement(&one)
			if _, unknown := st.(UnknownStatement); unknown {
				e.Key = unknownExpr("element", v, "it has something that isn't known")
			}
			e.Statements = append(e.Statements, st)
		}
	}
	return e
}

func (r *jsonReader) elementKey(v *jsonValue, keys []form) Expr {
	if v.kind == jsonString && v.text == "*" {
		return Any{}
	}
	return r.expr(v, keys)
}

// data of a map: a verdict, the name of an object, or values.
func (r *jsonReader) data(v *jsonValue, forms []form) Expr {
	if name, inner, ok := v.only(); ok && name == "elem" && inner.has("val") {
		v = inner.get("val")
	}
	return r.expr(v, forms)
}
