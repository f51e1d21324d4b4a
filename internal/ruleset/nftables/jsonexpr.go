package nftables

import (
	"strconv"
	"strings"
)

// expr reads an expression. forms are those of its constants: one, or one for
// each part of a concatenation.
func (r *jsonReader) expr(v *jsonValue, forms []form) Expr {
	switch v.kind {
	case jsonString:
		if name, is := strings.CutPrefix(v.text, "@"); is && name != "" {
			return SetRef{name}
		}
		return literal(v, formAt(forms, 0))
	case jsonNumber, jsonBool:
		return literal(v, formAt(forms, 0))
	case jsonArray:
		return List{r.exprs(v, formAt(forms, 0))}
	}
	name, arg, ok := v.only()
	if !ok {
		return unknownExpr("", v, "not an expression of nft's")
	}
	if e := r.constant(name, arg, forms); e != nil {
		return e
	}
	if e := r.selector(name, arg); e != nil {
		return e
	}
	if e := r.operation(name, arg, forms); e != nil {
		return e
	}
	if k, is := verdictOf(v); is {
		return VerdictValue{k}
	}
	return unknownExpr(name, v, "an expression that isn't known")
}

// key reads an expression that a packet gives: there is no constant alone.
func (r *jsonReader) key(v *jsonValue) Expr {
	e := r.expr(v, nil)
	switch e := e.(type) {
	case Literal, SetRef, List, Range, Prefix, SetLiteral, VerdictValue:
		return unknownExpr("text", v, "nft gave it as text")
	case Concat:
		for i := range e.Parts {
			if _, constant := e.Parts[i].(Literal); constant {
				return unknownExpr("text", v, "nft gave part of it as text")
			}
		}
	}
	return e
}

func unknownExpr(name string, v *jsonValue, why string) UnknownExpr {
	if v.kind == jsonString {
		return UnknownExpr{Name: name, Text: v.text, Why: why}
	}
	return UnknownExpr{Name: name, Text: v.compact(), Why: why}
}

func (r *jsonReader) exprs(list *jsonValue, f form) []Expr {
	all := make([]Expr, 0, len(list.items))
	for i := range list.items {
		all = append(all, r.expr(&list.items[i], []form{f}))
	}
	return all
}

// constant reads ranges, prefixes, concatenations and sets: nil for others.
func (r *jsonReader) constant(name string, arg *jsonValue, forms []form) Expr {
	switch name {
	case "concat":
		return r.concat(arg, forms)
	case "range":
		if arg.kind == jsonArray && len(arg.items) == 2 {
			return Range{r.expr(&arg.items[0], forms), r.expr(&arg.items[1], forms)}
		}
	case "prefix":
		if n, err := strconv.Atoi(arg.get("len").str()); err == nil && arg.onlyHas("addr", "len") && arg.has("addr") {
			return Prefix{r.expr(arg.get("addr"), forms), n}
		}
	case "set":
		if arg.kind == jsonArray {
			return SetLiteral{r.elements(arg, forms, nil)}
		}
		return SetLiteral{[]Element{r.element(arg, forms, nil)}}
	case "elem":
		if arg.has("val") { // an element where a value may stand: its comment goes
			return r.expr(arg.get("val"), forms)
		}
	}
	return nil
}

func (r *jsonReader) concat(arg *jsonValue, forms []form) Expr {
	if arg.kind != jsonArray || len(arg.items) == 0 || len(arg.items) > maxParts {
		return nil
	}
	parts := make([]Expr, 0, len(arg.items))
	for i := range arg.items {
		parts = append(parts, r.expr(&arg.items[i], []form{formAt(forms, i)}))
	}
	return Concat{parts}
}

// operation reads what has expressions within: nil for others.
func (r *jsonReader) operation(name string, arg *jsonValue, forms []form) Expr {
	switch name {
	case "&", "|", "^", "<<", ">>":
		return r.binary(name, arg, forms)
	case "map":
		if arg.has("key") && arg.has("data") && arg.onlyHas("key", "data") {
			return r.lookup(arg, forms)
		}
	case "numgen":
		if !arg.onlyHas("mode", "mod", "offset") {
			return nil
		}
		n := Numgen{Random: arg.get("mode").str() == "random"}
		if !n.Random && arg.get("mode").str() != "inc" || !number32(arg.get("mod"), &n.Modulus) || !number32(arg.get("offset"), &n.Offset) {
			return nil
		}
		return n
	case "symhash":
		var h SymHash
		if !number32(arg.get("mod"), &h.Modulus) || !number32(arg.get("offset"), &h.Offset) {
			return nil
		}
		return h
	case "jhash":
		h := JHash{Seeded: arg.has("seed")}
		if !arg.has("expr") || !number32(arg.get("mod"), &h.Modulus) || !number32(arg.get("seed"), &h.Seed) || !number32(arg.get("offset"), &h.Offset) {
			return nil
		}
		h.Key = r.key(arg.get("expr"))
		return h
	}
	return nil
}

// binary operation: of more than two operands since nft 1.1, from left to right.
//
//	{"&": [{"meta": {"key": "mark"}}, 255]}
//	{"|": ["fin", "syn", "rst"]}
func (r *jsonReader) binary(op string, arg *jsonValue, forms []form) Expr {
	if arg.kind != jsonArray || len(arg.items) < 2 || len(arg.items) > maxWords {
		return nil
	}
	left := r.expr(&arg.items[0], forms)
	if len(forms) == 0 {
		forms = r.formsOf(left)
	}
	if op == "<<" || op == ">>" {
		forms = nil
	}
	for i := range arg.items[1:] {
		left = Binary{op, left, r.expr(&arg.items[i+1], forms)}
	}
	return left
}

// lookup reads {"key": …, "data": "@m" or {"set": [[k, d], …]}}.
func (r *jsonReader) lookup(arg *jsonValue, data []form) Lookup {
	key := r.key(arg.get("key"))
	return Lookup{key, r.mapping(arg.get("data"), r.formsOf(key), data)}
}

func (r *jsonReader) mapping(v *jsonValue, keys, data []form) Expr {
	if name, arg, ok := v.only(); ok && name == "set" && arg.kind == jsonArray {
		if data == nil {
			data = []form{formPlain}
		}
		return SetLiteral{r.elements(arg, keys, data)}
	}
	if name, is := strings.CutPrefix(v.str(), "@"); is && name != "" {
		return SetRef{name}
	}
	return unknownExpr("map", v, "not a map of nft's")
}

// number32 reads a number that may be missing.
func number32(v *jsonValue, to *uint32) bool {
	if v.kind == jsonNull {
		return true
	}
	n, err := strconv.ParseUint(v.str(), 0, 32)
	*to = uint32(n)
	return err == nil
}

// selector reads what a packet or its connection gives: nil for others.
func (r *jsonReader) selector(name string, arg *jsonValue) Expr {
	if known := selectorKeys(name); known != nil && !arg.onlyHas(known...) {
		return nil
	}
	switch name {
	case "meta":
		return word(arg, "key", func(key string) Expr { return Meta{metaKey(key)} })
	case "ct":
		return word(arg, "key", func(key string) Expr { return r.ct(key, arg) })
	case "payload":
		return payload(arg)
	case "fib":
		return fib(arg)
	case "rt":
		return word(arg, "key", func(key string) Expr {
			return RT{Key: key, Family: arg.get("family").str()}
		})
	}
	return followedNot(name, arg)
}

// selectorKeys are all that nft writes of a selector.
func selectorKeys(name string) []string {
	switch name {
	case "meta":
		return []string{"key"}
	case "ct":
		return []string{"key", "dir", "family"}
	case "payload":
		return []string{"protocol", "field", "tunnel", "base", "offset", "len"}
	case "fib":
		return []string{"result", "flags"}
	case "rt":
		return []string{"key", "family"}
	}
	return nil
}

// word makes an expression of a key's text, nil without.
func word(arg *jsonValue, key string, of func(string) Expr) Expr {
	if text := arg.get(key); text.kind == jsonString && text.text != "" {
		return of(text.text)
	}
	return nil
}

// ct reads {"key": "ip saddr", "dir": "original"}: with a family of its own
// ({"key": "saddr", "family": "ip"}) in old documents, with none in table ip.
func (r *jsonReader) ct(key string, arg *jsonValue) Expr {
	e := CT{Key: key, Direction: arg.get("dir").str(), Family: arg.get("family").str()}
	if family, rest, ok := strings.Cut(key, " "); ok && (family == "ip" || family == "ip6") {
		e.Family, e.Key = family, rest
	}
	if e.Family == "" && (e.Key == "saddr" || e.Key == "daddr") && (r.table.Family == "ip" || r.table.Family == "ip6") {
		e.Family = r.table.Family
	}
	return e
}

func payload(arg *jsonValue) Expr {
	protocol, field := arg.get("protocol").str(), arg.get("field").str()
	if tunnel := arg.get("tunnel").str(); tunnel != "" && protocol != "" && field != "" {
		text := tunnel + " " + protocol + " " + field
		if tunnel == protocol {
			text = tunnel + " " + field
		}
		return UnknownExpr{Name: tunnel, Text: text, Why: "what a tunnel carries isn't followed"}
	}
	if protocol != "" && field != "" {
		return Payload{protocol, field}
	}
	offset, err := strconv.ParseUint(arg.get("offset").str(), 10, 16)
	length, err2 := strconv.ParseUint(arg.get("len").str(), 10, 16)
	base := arg.get("base").str()
	if err != nil || err2 != nil || base == "" || length == 0 {
		return nil
	}
	return RawPayload{base, int(offset), int(length)}
}

func fib(arg *jsonValue) Expr {
	result := arg.get("result").str()
	if result == "" {
		return nil
	}
	return FIB{Keys: arg.get("flags").strings(), Result: result}
}

// followedNot reads expressions that are known and aren't followed: their text
// is nft's, so that people recognise them.
func followedNot(name string, arg *jsonValue) Expr {
	text, why := "", "it isn't followed"
	switch name {
	case "exthdr":
		text, why = extension("exthdr", "", arg), "extension headers aren't followed"
	case "tcp option":
		text, why = tcpOption(arg), "TCP options aren't followed"
	case "ip option":
		text, why = extension(name, name+" ", arg), "IP options aren't followed"
	case "sctp chunk":
		text, why = extension(name, name+" ", arg), "SCTP chunks aren't followed"
	case "dccp option":
		text, why = name+" "+arg.get("type").str(), "DCCP options aren't followed"
	case "socket":
		text, why = "socket "+arg.get("key").str(), "it asks for a socket of the host's"
	case "osf":
		text, why = "osf "+ttl(arg)+arg.get("key").str(), "it guesses the sender's system by the packet's form"
	case "ipsec":
		text, why = ipsec(arg), "IPsec isn't followed"
	case "tunnel":
		text, why = "tunnel "+arg.get("key").str(), "what a tunnel carries isn't followed"
	default:
		return nil
	}
	if arg.kind != jsonObject {
		return nil
	}
	return UnknownExpr{Name: name, Text: strings.TrimSpace(text), Why: why}
}

// extension reads {"name": "frag", "field": "id"}; without field it asks whether
// there is one.
func extension(present, prefix string, arg *jsonValue) string {
	if !arg.has("field") {
		return present + " " + arg.get("name").str()
	}
	return prefix + arg.get("name").str() + " " + arg.get("field").str()
}

func tcpOption(arg *jsonValue) string {
	if arg.has("base") {
		return "tcp option @" + arg.get("base").str() + "," + arg.get("offset").str() + "," + arg.get("len").str()
	}
	return "tcp option " + arg.get("name").str() + " " + arg.get("field").str()
}

func ttl(arg *jsonValue) string {
	if t := arg.get("ttl").str(); t != "" {
		return "ttl " + t + " "
	}
	return ""
}

func ipsec(arg *jsonValue) string {
	text := "ipsec " + arg.get("dir").str() + " "
	if n := arg.get("spnum").str(); n != "" && n != "0" {
		text += "spnum " + n + " "
	}
	if f := arg.get("family").str(); f != "" {
		text += f + " "
	}
	return text + arg.get("key").str()
}

// verdictOf reads {"accept": null}, {"jump": {"target": "chain"}}.
func verdictOf(v *jsonValue) (Verdict, bool) {
	name, arg, ok := v.only()
	if !ok || arg.kind != jsonNull && name != "jump" && name != "goto" {
		return Verdict{}, false
	}
	switch name {
	case "accept":
		return Verdict{Kind: Accept}, true
	case "drop":
		return Verdict{Kind: Drop}, true
	case "continue":
		return Verdict{Kind: Continue}, true
	case "return":
		return Verdict{Kind: Return}, true
	case "jump", "goto":
		kind := Jump
		if name == "goto" {
			kind = Goto
		}
		target := arg.get("target").str()
		if !arg.onlyHas("target") {
			return Verdict{}, false
		}
		return Verdict{Kind: kind, Chain: target}, target != ""
	}
	return Verdict{}, false
}
