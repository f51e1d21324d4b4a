package nftables

import (
	"fmt"
	"strings"
)

// statement reads one statement of a rule.
func (r *jsonReader) statement(v *jsonValue) Statement {
	if v.kind == jsonString {
		return r.textStatement(v.text)
	}
	name, arg, ok := v.only()
	if !ok {
		return unknownStatement("", v, "not a statement of nft's")
	}
	if verdict, is := verdictOf(v); is {
		return verdict
	}
	for _, read := range []func(string, *jsonValue) Statement{r.comparison, r.change, r.counted, r.inert, r.elsewhere} {
		if s := read(name, arg); s != nil {
			return s
		}
	}
	return unknownStatement(name, v, "a statement that isn't known")
}

func unknownStatement(name string, v *jsonValue, why string) UnknownStatement {
	return UnknownStatement{Name: name, Text: v.compact(), Why: why}
}

// textStatement reads what nft before 1.0.7 has no JSON for, and gives as text:
// changes of maps.
//
//	"update @m { ip saddr : meta mark }"
func (r *jsonReader) textStatement(text string) Statement {
	name, _, _ := strings.Cut(text, " ")
	unknown := UnknownStatement{Name: name, Text: text, Why: "nft gave it as text"}
	if strings.ContainsAny(text, "\n\r;#$") || name != "add" && name != "update" && name != "delete" {
		return unknown
	}
	read, problems := ReadText("table "+r.table.Family+" x {\n\tchain c {\n\t\t"+text+"\n\t}\n}\n", 1)
	if len(problems) > 0 || len(read.Tables) != 1 || len(read.Tables[0].Chains) != 1 || len(read.Tables[0].Chains[0].Rules) != 1 {
		return unknown
	}
	statements := read.Tables[0].Chains[0].Rules[0].Statements
	if len(statements) != 1 || StatementText(statements[0]) != text {
		return unknown
	}
	if _, is := statements[0].(SetUpdate); !is {
		return unknown
	}
	return statements[0]
}

// comparison reads match and vmap: nil for others.
func (r *jsonReader) comparison(name string, arg *jsonValue) Statement {
	switch name {
	case "match":
		return r.match(arg)
	case "vmap":
		if arg.has("key") && arg.has("data") && arg.onlyHas("key", "data") {
			key := r.key(arg.get("key"))
			return VerdictMap{key, r.mapping(arg.get("data"), r.formsOf(key), nil)}
		}
	}
	return nil
}

// match reads {"op": "==", "left": …, "right": …}. Beside the kernel's
// comparisons there is "in", and "!": none of the flags is set.
func (r *jsonReader) match(arg *jsonValue) Statement {
	if !arg.has("left") || !arg.has("right") || !arg.onlyHas("op", "left", "right") {
		return nil
	}
	left := r.key(arg.get("left"))
	right := r.expr(arg.get("right"), r.formsOf(left))
	op := arg.get("op").str()
	switch op {
	case "!=", "<", ">", "<=", ">=", "==":
	case "in":
		switch right.(type) {
		case SetLiteral, SetRef: // nft 0.9.0
			op = "=="
		}
	case "!":
		list, is := right.(List)
		if !is {
			list = List{[]Expr{right}}
		}
		return Match{Op: "==", Left: Binary{"&", left, list}, Right: Literal{"0x0"}}
	default:
		return nil
	}
	return Match{Op: op, Left: left, Right: right}
}

// change reads what changes a packet, its connection or a set: nil for others.
func (r *jsonReader) change(name string, arg *jsonValue) Statement {
	switch name {
	case "mangle":
		return r.mangle(arg)
	case "snat":
		return r.nat(SNAT, arg)
	case "dnat":
		return r.nat(DNAT, arg)
	case "masquerade":
		return r.nat(Masquerade, arg)
	case "redirect":
		return r.nat(Redirect, arg)
	case "notrack":
		if arg.kind == jsonNull {
			return NoTrack{}
		}
	case "set", "map":
		return r.update(name, arg)
	case "reject":
		return r.reject(arg)
	case "queue":
		return r.queue(arg)
	}
	return nil
}

// mangle reads {"key": …, "value": …}. Options of TCP and other extensions, and
// tracing, are nothing to a packet's way.
func (r *jsonReader) mangle(arg *jsonValue) Statement {
	if !arg.has("key") || !arg.has("value") || !arg.onlyHas("key", "value") {
		return nil
	}
	key := r.key(arg.get("key"))
	value := r.expr(arg.get("value"), r.formsOf(key))
	switch k := key.(type) {
	case Meta:
		if k.Key == "nftrace" || k.Key == "secmark" {
			return Inert{Name: "meta " + k.Key, Text: StatementText(Assign{key, value})}
		}
		return Assign{key, value}
	case CT, Payload, RawPayload:
		return Assign{key, value}
	case UnknownExpr:
		if k.Name == "tcp option" || k.Name == "exthdr" || k.Name == "ip option" {
			return Inert{Name: k.Name, Text: StatementText(Assign{key, value})}
		}
	}
	return UnknownStatement{Name: "set", Text: StatementText(Assign{key, value}), Why: "what it sets isn't known"}
}

// nat reads {"family": "ip", "addr": …, "port": …, "flags": […], "type_flags": …}.
func (r *jsonReader) nat(kind NATKind, arg *jsonValue) Statement {
	n := NAT{Kind: kind, Family: arg.get("family").str()}
	if arg.kind != jsonObject && arg.kind != jsonNull {
		return nil
	}
	for i, key := range arg.keys {
		switch key {
		case "family", "flags", "type_flags":
		case "addr":
			n.Address = r.expr(&arg.items[i], nil)
		case "port":
			n.Port = r.expr(&arg.items[i], nil)
		default:
			return nil
		}
	}
	translates := n.Address != nil || n.Port != nil || kind == Masquerade || kind == Redirect
	if !translates || !arg.get("flags").areWords() || !arg.get("type_flags").areWords() {
		return nil
	}
	for _, flag := range append(arg.get("flags").strings(), arg.get("type_flags").strings()...) {
		switch flag {
		case "random":
			n.Random = true
		case "fully-random":
			n.FullyRandom = true
		case "persistent":
			n.Persistent = true
		case "prefix", "netmap":
			n.Prefix = true
		case "interval":
			n.Interval = true
		case "concat":
		default:
			return nil
		}
	}
	return n
}

// reject reads {"type": "icmpx", "expr": "port-unreachable"}, or null. What
// reject means without more is left out, as nft's text does.
func (r *jsonReader) reject(arg *jsonValue) Statement {
	if arg.kind != jsonObject && arg.kind != jsonNull {
		return nil
	}
	j := Reject{Type: arg.get("type").str(), Code: arg.get("expr").str()}
	usual := map[string]string{"ip": "icmp", "ip6": "icmpv6", "inet": "icmpx", "bridge": "icmpx", "netdev": "icmpx"}
	if j.Code == "port-unreachable" && j.Type == usual[r.table.Family] {
		return Reject{}
	}
	return j
}

// queue reads {"num": 3, "flags": ["bypass"]}.
func (r *jsonReader) queue(arg *jsonValue) Statement {
	if arg.kind != jsonObject && arg.kind != jsonNull {
		return nil
	}
	text := "queue"
	if flags := arg.get("flags").strings(); len(flags) > 0 {
		text += " flags " + strings.Join(flags, ",")
	}
	if arg.has("num") {
		text += " to " + ExprText(r.expr(arg.get("num"), nil))
	} else {
		text += " to 0"
	}
	return Verdict{Kind: Queue, Text: text}
}

// update reads changes of sets and maps.
//
//	{"op": "add", "elem": …, "set": "@s", "stmt": […]}
//	{"op": "update", "elem": …, "data": …, "map": "@m"}
func (r *jsonReader) update(name string, arg *jsonValue) Statement {
	set, is := strings.CutPrefix(arg.get(name).str(), "@")
	if !is || set == "" || !arg.has("elem") {
		return nil
	}
	u := SetUpdate{Op: arg.get("op").str(), Set: set}
	if u.Op != "add" && u.Op != "update" && u.Op != "delete" || len(arg.get("stmt").items) > maxWords {
		return nil
	}
	elem := arg.get("elem")
	if name, inner, ok := elem.only(); ok && name == "elem" && inner.has("val") {
		e := r.element(elem, nil, nil)
		u.Timeout, u.Statements = e.Timeout, e.Statements
		elem = inner.get("val")
	}
	u.Key = r.key(elem)
	if arg.has("data") {
		u.Data = r.expr(arg.get("data"), r.formsOf(Lookup{Map: SetRef{set}}))
	}
	statements := arg.get("stmt")
	for i := range statements.items {
		u.Statements = append(u.Statements, r.statement(&statements.items[i]))
	}
	return u
}

// counted reads what counts packets and decides by that: nil for others.
func (r *jsonReader) counted(name string, arg *jsonValue) Statement {
	switch name {
	case "limit", "quota":
		if text, is := r.object(name, arg); is {
			return Stateful{Name: name, Text: text}
		}
		if arg.kind != jsonObject {
			return nil
		}
		if name == "limit" {
			return Stateful{Name: name, Text: limitText(arg)}
		}
		return Stateful{Name: name, Text: quotaText(arg)}
	case "ct count":
		if arg.has("val") {
			return Stateful{Name: name, Text: "ct count " + over(arg) + arg.get("val").str()}
		}
	case "meter":
		if arg.has("key") && arg.has("stmt") {
			return Stateful{Name: name, Text: r.meterText(arg)}
		}
	}
	return nil
}

func over(arg *jsonValue) string {
	if arg.get("inv").text == "true" {
		return "over "
	}
	return ""
}

// object reads a reference to a named object, by name or a map's: counter name
// "c", quota name ip saddr map @m.
func (r *jsonReader) object(kind string, arg *jsonValue) (string, bool) {
	between := " name "
	switch kind {
	case "ct helper", "ct timeout", "ct expectation":
		between = " set "
	case "secmark":
		kind, between = "meta secmark", " set "
	}
	switch arg.kind {
	case jsonString:
		return kind + between + quoted(arg.text), true
	case jsonObject:
		if name, of, ok := arg.only(); ok && name == "map" && of.has("key") {
			return kind + between + ExprText(r.lookup(of, []form{formQuoted})), true
		}
	}
	return "", false
}

// limitText prints {"rate": 10, "burst": 5, "per": "second", "inv": true}, with
// rate_unit and burst_unit of bytes. A burst of 5 packets goes without saying.
func limitText(arg *jsonValue) string {
	text := "limit rate " + over(arg) + arg.get("rate").str()
	unit, burst := arg.get("rate_unit").str(), arg.get("burst").str()
	if unit != "" && unit != "packets" {
		text += " " + unit
	}
	text += "/" + arg.get("per").str()
	switch {
	case arg.has("burst_unit") && arg.get("burst_unit").str() != "packets":
		if burst != "" && burst != "0" {
			text += " burst " + burst + " " + arg.get("burst_unit").str()
		}
	case burst != "" && burst != "5" && burst != "0":
		text += " burst " + burst + " packets"
	}
	return text
}

// quotaText prints {"val": 25, "val_unit": "mbytes", "inv": true, "used": 3, "used_unit": "bytes"}.
func quotaText(arg *jsonValue) string {
	text := "quota " + over(arg) + arg.get("val").str() + " " + arg.get("val_unit").str()
	if used := arg.get("used").str(); used != "" && used != "0" {
		text += " used " + used + " " + arg.get("used_unit").str()
	}
	return text
}

// meterText prints {"name": "m", "key": …, "stmt": …, "size": 65535}.
func (r *jsonReader) meterText(arg *jsonValue) string {
	text := "meter "
	if name := arg.get("name").str(); name != "" {
		text += name + " "
	}
	if size := arg.get("size").str(); size != "" {
		text += "size " + size + " "
	}
	return text + "{ " + ExprText(r.expr(arg.get("key"), nil)) + " " + StatementText(r.statement(arg.get("stmt"))) + " }"
}

// inert reads what does nothing to a packet's way: nil for others.
func (r *jsonReader) inert(name string, arg *jsonValue) Statement {
	switch name {
	case "counter":
		text, is := r.object(name, arg)
		switch {
		case is:
		case arg.kind == jsonNull:
			text = name
		case arg.kind == jsonObject && !arg.has("map"):
			text = "counter packets " + digits(arg.get("packets")) + " bytes " + digits(arg.get("bytes"))
		default:
			return nil
		}
		return Inert{Name: name, Text: text}
	case "log":
		return Inert{Name: name, Text: logText(arg)}
	case "ct helper", "ct timeout", "ct expectation", "secmark":
		if text, is := r.object(name, arg); is {
			return Inert{Name: name, Text: text}
		}
	case "last":
		text := "last used never"
		if used := arg.get("used"); used.kind == jsonNumber {
			text = "last used " + lastUsed(used.text)
		}
		return Inert{Name: name, Text: text}
	case "dup":
		return Inert{Name: name, Text: "dup" + r.to(arg)}
	case "reset":
		return Inert{Name: name, Text: "reset " + ExprText(r.expr(arg, nil))}
	case "comment":
		return Inert{Name: name, Text: "comment " + quoted(arg.str())}
	}
	return nil
}

func lastUsed(ms string) string {
	var n uint64
	if _, err := fmt.Sscanf(ms, "%d", &n); err != nil {
		return ms
	}
	return duration(n)
}

// logText prints {"prefix": "x", "group": 1, "level": "debug", "flags": ["tcp sequence"]}.
func logText(arg *jsonValue) string {
	text := "log"
	if arg.has("prefix") {
		text += " prefix " + quoted(arg.get("prefix").str())
	}
	for _, key := range []string{"group", "snaplen", "queue-threshold", "level"} {
		if s := arg.get(key).str(); s != "" {
			text += " " + key + " " + s
		}
	}
	tcp := ""
	for _, flag := range arg.get("flags").strings() {
		option, is := strings.CutPrefix(flag, "tcp ")
		switch {
		case is && tcp != "":
			text += "," + option
		default:
			text += " flags " + flag
		}
		if is {
			tcp = option
		}
	}
	return text
}

// to prints where dup and fwd send: {"addr": …, "dev": …}.
func (r *jsonReader) to(arg *jsonValue) string {
	if !arg.has("addr") && !arg.has("dev") {
		return ""
	}
	text := " to "
	if f := arg.get("family").str(); f != "" {
		text = " " + f + text
	}
	if !arg.has("addr") {
		return text + ExprText(r.expr(arg.get("dev"), []form{formName}))
	}
	f := formPlain
	if r.table.Family == "netdev" && !arg.has("family") {
		f = formName // dup to a device
	}
	text += ExprText(r.expr(arg.get("addr"), []form{f}))
	if arg.has("dev") {
		text += " device " + ExprText(r.expr(arg.get("dev"), []form{formName}))
	}
	return text
}

// elsewhere reads what takes the packet from its way: nil for others.
func (r *jsonReader) elsewhere(name string, arg *jsonValue) Statement {
	switch name {
	case "tproxy":
		return UnknownStatement{Name: name, Text: r.tproxyText(arg), Why: "it hands the packet to a program of the host's"}
	case "synproxy":
		text, is := r.object(name, arg)
		if !is {
			text = synproxyText(arg)
		}
		return UnknownStatement{Name: name, Text: text, Why: "the host answers in the server's place"}
	case "flow":
		text := "flow " + arg.get("op").str() + " " + arg.get("flowtable").str()
		return UnknownStatement{Name: "flow add", Text: text, Why: "later packets pass a flowtable, and no rules"}
	case "fwd":
		return UnknownStatement{Name: name, Text: "fwd" + r.to(arg), Why: "it sends the packet out of an interface, past routing"}
	case "tunnel":
		if text, is := r.object(name, arg); is {
			return UnknownStatement{Name: name, Text: text, Why: "tunnels aren't followed"}
		}
	case "xt":
		return XT{Kind: arg.get("type").str(), Name: arg.get("name").str()}
	}
	return nil
}

func (r *jsonReader) tproxyText(arg *jsonValue) string {
	text := "tproxy "
	if f := arg.get("family").str(); f != "" {
		text += f + " "
	}
	text += "to "
	var address, port Expr
	if arg.has("addr") {
		address = r.expr(arg.get("addr"), nil)
	}
	if arg.has("port") {
		port = r.expr(arg.get("port"), nil)
	}
	return text + bracketed(address, port != nil) + portText(port)
}

func synproxyText(arg *jsonValue) string {
	text := "synproxy"
	for _, key := range []string{"mss", "wscale"} {
		if s := arg.get(key).str(); s != "" {
			text += " " + key + " " + s
		}
	}
	for _, flag := range arg.get("flags").strings() {
		text += " " + flag
	}
	return text
}
