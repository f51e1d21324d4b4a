package nftables

import (
	"strconv"
	"strings"
)

// selector reads a part of the packet, or what is known about it: meta mark, ip
// saddr, ct state. is says that one begins here; the expression is nil where it
// isn't understood then. Where a value may stand too, a word that is also one
// ("tcp") is taken for a selector only if the next word is one of its fields.
func (p *textReader) selector(mayBeValue bool) (e Expr, is bool) {
	if p.isPunct("@") {
		return p.raw(), true
	}
	if p.tok.kind != tokWord {
		return nil, false
	}
	word := p.tok.text
	switch word {
	case "meta", "ct", "fib", "numgen", "jhash", "symhash", "socket", "osf", "ipsec", "tunnel":
		return p.special(word), true
	case "rt", "hbh", "rt0", "rt2", "srh", "frag", "dst", "mh", "exthdr":
		next := p.peek()
		if next.kind != tokWord || mayBeValue && !isField(word, next.text) {
			return nil, false
		}
		return p.extensionHeader(word), true
	}
	if isBareMeta(word) {
		if mayBeValue && !p.isBareSelector() {
			return nil, false
		}
		p.next()
		return Meta{Key: metaKey(word)}, true
	}
	if !isProtocol(word) {
		return nil, false
	}
	next := p.peek()
	if next.kind != tokWord || !isField(word, next.text) {
		if mayBeValue {
			return nil, false
		}
		p.next()
		p.fail("%s has no field %s", word, p.shown())
		return nil, true
	}
	return p.payload(word), true
}

// isBareSelector says whether a word that may be a value, but is also a key of
// meta, is an expression: mark, iifname map { … }.
func (p *textReader) isBareSelector() bool {
	if p.tok.text == "mark" {
		return true
	}
	next := p.peek()
	return next.kind == tokWord && next.text == "map" || next.kind == tokPunct && next.text == "."
}

// isBareMeta: keys that stand without "meta".
func isBareMeta(word string) bool {
	switch word {
	case "iif", "oif", "iifname", "oifname", "iiftype", "oiftype", "iifgroup", "oifgroup",
		"iifkind", "oifkind", "mark", "pkttype", "skuid", "skgid", "nftrace", "rtclassid",
		"ibriport", "obriport", "ibrname", "obrname", "cpu", "cgroup", "secpath", "time", "day", "hour":
		return true
	}
	return false
}

// metaKey is the key's name of today.
func metaKey(word string) string {
	switch word {
	case "ibriport":
		return "ibrname"
	case "obriport":
		return "obrname"
	case "secpath":
		return "ipsec"
	}
	return word
}

// special reads the selectors that have a form of their own.
func (p *textReader) special(word string) Expr {
	start := p.tok.start
	p.next()
	switch word {
	case "meta":
		key, ok := p.value()
		if !ok || isReserved(key) {
			return nil
		}
		return Meta{Key: metaKey(key)}
	case "ct":
		return p.conntrack()
	case "fib":
		return p.fib()
	case "numgen":
		return p.numgen()
	case "jhash":
		return p.jhash()
	case "symhash":
		modulus, _, offset, _, ok := p.modulus()
		if !ok {
			return nil
		}
		return SymHash{Modulus: modulus, Offset: offset}
	}
	return p.opaque(word, start)
}

// opaque reads the selectors that aren't followed.
func (p *textReader) opaque(word string, start int) Expr {
	ok := true
	switch word {
	case "socket":
		if p.skipWord("cgroupv2") {
			ok = p.skipWord("level")
		}
	case "osf":
		if p.skipWord("ttl") {
			_, ok = p.value()
		}
	case "ipsec":
		if ok = p.skipWord("in", "out"); ok && p.skipWord("spnum") {
			_, ok = p.value()
		}
		p.skipWord("ip", "ip6")
	}
	if ok {
		_, ok = p.value()
	}
	if !ok {
		return nil
	}
	return UnknownExpr{Name: word, Text: p.since(start), Why: word + " isn't followed"}
}

// conntrack reads what follows ct: [original|reply] [ip|ip6] KEY.
func (p *textReader) conntrack() Expr {
	e := CT{}
	if next := p.peek(); p.isWord("original", "reply") && next.kind == tokWord {
		e.Direction, _ = p.value()
	}
	if p.isWord("ip", "ip6") {
		e.Family, _ = p.value()
	}
	var ok bool
	if e.Key, ok = p.value(); !ok || isReserved(e.Key) {
		return nil
	}
	if (e.Key == "saddr" || e.Key == "daddr") && e.Family == "" && p.table != nil && strings.HasPrefix(p.table.Family, "ip") {
		e.Family = p.table.Family
	}
	return e
}

// fib reads what follows fib: saddr . mark . iif oif.
func (p *textReader) fib() Expr {
	e := FIB{}
	for len(e.Keys) < maxParts {
		if !p.isWord("saddr", "daddr", "mark", "iif", "oif") {
			p.expected("saddr, daddr, mark, iif or oif")
			return nil
		}
		key, _ := p.value()
		e.Keys = append(e.Keys, key)
		if !p.skipPunct(".") {
			break
		}
	}
	if !p.isWord("type", "oif", "oifname", "check") {
		p.expected("type, oif, oifname or check")
		return nil
	}
	e.Result, _ = p.value()
	return e
}

// numgen reads what follows numgen: random|inc mod 4 offset 1.
func (p *textReader) numgen() Expr {
	if !p.isWord("random", "inc") {
		p.expected("random or inc")
		return nil
	}
	how, _ := p.value()
	modulus, _, offset, _, ok := p.modulus()
	if !ok {
		return nil
	}
	return Numgen{Random: how == "random", Modulus: modulus, Offset: offset}
}

// jhash reads what follows jhash: ip saddr . tcp dport mod 4 seed 0x1 offset 2.
func (p *textReader) jhash() Expr {
	if p.depth++; p.depth > maxDepth {
		p.depth--
		return nil
	}
	defer func() { p.depth-- }()
	key := p.concat(selectors)
	if key == nil {
		return nil
	}
	modulus, seed, offset, seeded, ok := p.modulus()
	if !ok {
		return nil
	}
	return JHash{Key: key, Modulus: modulus, Seed: seed, Offset: offset, Seeded: seeded}
}

// modulus reads mod 4 seed 0x1 offset 2.
func (p *textReader) modulus() (modulus, seed, offset uint32, seeded, ok bool) {
	if !p.skipOr("mod") {
		return
	}
	modulus, ok = p.number32()
	for ok {
		switch {
		case p.skipWord("seed"):
			seeded = true
			seed, ok = p.number32()
		case p.skipWord("offset"):
			offset, ok = p.number32()
		default:
			return
		}
	}
	return
}

func (p *textReader) number32() (uint32, bool) {
	n, err := strconv.ParseUint(p.tok.text, 0, 32)
	if p.tok.kind != tokWord || err != nil {
		p.expected("a number")
		return 0, false
	}
	p.next()
	return uint32(n), true
}

// isRaw says whether an @ begins @nh,96,32, not a set's name.
func (p *textReader) isRaw() bool {
	ahead := p.lexer
	ahead.next()
	switch ahead.tok.text {
	case "ll", "nh", "th", "ih":
		ahead.next()
		return ahead.tok.kind == tokPunct && ahead.tok.text == ","
	}
	return false
}

// raw reads @nh,96,32.
func (p *textReader) raw() Expr {
	if !p.isRaw() {
		p.expected("an expression")
		return nil
	}
	p.next()
	e := RawPayload{}
	e.Base, _ = p.value()
	var numbers [2]uint32
	for i := range numbers {
		var ok bool
		if !p.skipPunct(",") {
			return nil
		}
		if numbers[i], ok = p.number32(); !ok || numbers[i] > 1<<20 {
			return nil
		}
	}
	e.Offset, e.Length = int(numbers[0]), int(numbers[1])
	return e
}

// payload reads a header's field; the next word is one.
func (p *textReader) payload(protocol string) Expr {
	start := p.tok.start
	p.next()
	field, _ := p.value()
	switch {
	case field == "option":
		return p.option(protocol, start)
	case field == "chunk":
		return p.chunk(start)
	case protocol == "arp" && (field == "saddr" || field == "daddr"):
		if p.isWord("ip", "ether") {
			kind, _ := p.value()
			field += " " + kind
		}
	case isTunnel(protocol) && isProtocol(field):
		if _, ok := p.value(); !ok {
			return nil
		}
		return UnknownExpr{Name: protocol, Text: p.since(start), Why: "packets within packets aren't followed"}
	}
	return Payload{Protocol: protocol, Field: field}
}

// option reads tcp option maxseg size, ip option rr ptr, dccp option 5.
func (p *textReader) option(protocol string, start int) Expr {
	name := protocol + " option"
	if p.skipPunct("@") { // a raw one: @255,8,8
		for range 2 {
			if _, ok := p.number32(); !ok || !p.skipPunct(",") {
				return nil
			}
		}
		if _, ok := p.number32(); !ok {
			return nil
		}
	} else if _, ok := p.value(); !ok {
		return nil
	} else if p.tok.kind == tokWord && isField(name, p.tok.text) {
		p.next()
	}
	return UnknownExpr{Name: name, Text: p.since(start), Why: "options aren't followed"}
}

// chunk reads sctp chunk data tsn.
func (p *textReader) chunk(start int) Expr {
	if _, ok := p.value(); !ok {
		return nil
	}
	if p.tok.kind == tokWord && isField("sctp chunk", p.tok.text) {
		p.next()
	}
	return UnknownExpr{Name: "sctp chunk", Text: p.since(start), Why: "chunks aren't followed"}
}

// extensionHeader reads rt nexthop (of the route) and rt type (of a header).
func (p *textReader) extensionHeader(word string) Expr {
	start := p.tok.start
	p.next()
	if word == "rt" && p.isWord("classid", "nexthop", "mtu", "ipsec", "ip", "ip6") {
		e := RT{}
		if p.isWord("ip", "ip6") {
			e.Family, _ = p.value()
		}
		var ok bool
		if e.Key, ok = p.value(); !ok {
			return nil
		}
		if e.Key == "nexthop" && e.Family == "" && p.table != nil && strings.HasPrefix(p.table.Family, "ip") {
			e.Family = p.table.Family
		}
		return e
	}
	if _, ok := p.value(); !ok {
		return nil
	}
	if p.isPunct("[") { // rt0 addr[1]
		p.next()
		if _, ok := p.value(); !ok || !p.skipPunct("]") {
			return nil
		}
	}
	return UnknownExpr{Name: "exthdr", Text: p.since(start), Why: "extension headers aren't followed"}
}
