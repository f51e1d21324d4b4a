package route

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// routeWords is a route as the plain output has it, from
//
//	{"type":"local","dst":"10.0.0.1","dev":"v0","table":"local","protocol":"kernel","scope":"host","prefsrc":"10.0.0.1","flags":[]}
//	{"dst":"10.5.0.0/16","flags":[],"nexthops":[{"gateway":"10.0.0.3","dev":"v0","weight":2,"flags":[]}]}
//	{"dst":"10.12.0.0/16","encap":"ip","id":100,"src":"0.0.0.0","dst":"1.2.3.4","ttl":0,"tos":0,"gateway":"10.0.0.9","dev":"v0","flags":[]}
//	{"dst":"10.13.0.0/16","via":{"family":"inet6","host":"fe80::5"},"dev":"v0","flags":[],"metrics":[{"mtu":1400}]}
func routeWords(words []string, v value) []string {
	first, inEncap := true, false
	for _, f := range v.fields {
		switch f.name {
		case "encap":
			inEncap = true
		case "gateway", "via", "dev", "nexthops", "nhid":
			inEncap = false
		}
		switch {
		case inEncap:
			words = append(words, f.name)
			words = f.append(words)
		case f.name == "dst" && first:
			words, first = append(words, f.text), false
		default:
			words = f.routeWords(words)
		}
	}
	return words
}

// append adds the texts of a value.
func (v value) append(words []string) []string {
	for word := range strings.FieldsSeq(v.text) {
		words = append(words, word)
	}
	for _, e := range v.list {
		words = e.append(words)
	}
	for _, f := range v.fields {
		words = f.append(append(words, f.name))
	}
	return words
}

// routeWords adds those of one field.
func (f field) routeWords(words []string) []string {
	switch f.name {
	case "type":
		if f.text == "unicast" { // only -d says so
			return words
		}
		return append(words, f.text)
	case "gateway":
		return append(words, "via", f.text)
	case "via":
		return append(words, "via", f.get("family").text, f.get("host").text)
	case "protocol":
		return append(words, "proto", f.text)
	case "prefsrc":
		return append(words, "src", f.text)
	case "expires":
		return append(words, f.name, f.text+"sec")
	case "flags":
		for _, flag := range f.list {
			words = append(words, flag.text)
		}
		return words
	case "metrics":
		return f.append(words)
	case "nexthops":
		for _, hop := range f.list {
			words = routeWords(append(words, "nexthop"), hop)
		}
		return words
	}
	words = append(words, f.name)
	if f.isNull || f.isTrue {
		return words
	}
	return f.append(words)
}

// ruleWords is a rule as the plain output has it, from
//
//	{"priority":100,"not":null,"src":"10.0.0.0","srclen":24,"fwmark":"0x10","fwmask":"0xf0","iif":"v0","iif_detached":null,"table":"100"}
//	{"priority":200,"src":"all","uid_start":0,"uid_end":100,"ipproto":"tcp","sport":5,"dport_start":80,"dport_end":90,"table":"main","suppress_prefixlen":0}
//	{"priority":501,"src":"10.3.3.3","action":"prohibit"}
func ruleWords(v value) []string {
	words := []string{v.get("priority").text + ":"}
	for _, f := range v.fields {
		switch f.name {
		case "priority", "srclen", "dstlen", "fwmask", "uid_end", "sport_end", "dport_end", "table_id":
			continue // with the field before it
		}
		words = append(words, f.ruleWords(v)...)
	}
	return words
}

// ruleWords of one field of the rule.
func (f field) ruleWords(rule value) []string {
	with := func(word, sign, second string) []string {
		if rule.has(second) {
			return []string{word, f.text + sign + rule.get(second).text}
		}
		return []string{word, f.text}
	}
	switch f.name {
	case "src":
		return with("from", "/", "srclen")
	case "dst":
		return with("to", "/", "dstlen")
	case "fwmark":
		return with("fwmark", "/", "fwmask")
	case "uid_start":
		return with("uidrange", "-", "uid_end")
	case "sport_start":
		return with("sport", "-", "sport_end")
	case "dport_start":
		return with("dport", "-", "dport_end")
	case "table":
		return []string{"lookup", f.text}
	case "l3mdev":
		return []string{"lookup", "[l3mdev-table]"}
	case "suppress_prefixlen":
		return []string{"suppress_prefixlength", f.text}
	case "action":
		return []string{f.text}
	case "protocol":
		return []string{"proto", f.text}
	case "iif_detached", "oif_detached":
		return []string{"[detached]"}
	case "unresolved":
		return []string{"[unresolved]"}
	case "flow_from", "flow_to":
		return []string{"realms", f.text}
	}
	if f.isNull {
		return []string{f.name}
	}
	return f.append([]string{f.name})
}

// linkObject reads an entry of ip -j link, ip -j addr or bridge -j link:
//
//	{"ifindex":7,"link":"v0p","ifname":"vx0","flags":["BROADCAST","UP","LOWER_UP"],"master":"br0","group":"default","link_type":"ether",
//	 "address":"92:b8:6b:02:f5:ef","linkinfo":{"info_kind":"vxlan","info_data":{"id":5,"local":"10.0.0.1","link":"v0","port":8472}},
//	 "addr_info":[{"family":"inet","local":"10.9.0.1","address":"10.9.0.2","prefixlen":32,"scope":"global","label":"v0"}]}
func (r *reader) linkObject(v value) {
	name := v.get("ifname").text
	if name == "" {
		r.problem(strings.Join(v.append(nil), " "), "a link without ifname")
		return
	}
	link := &r.n.Links[r.linkNamed(name)]
	if index := v.get("ifindex"); !index.isNull {
		link.Index, _ = strconv.Atoi(index.text)
	}
	if v.has("flags") {
		link.flags(v.get("flags").texts())
	}
	if v.has("master") {
		link.Master = v.get("master").text
	}
	if v.has("group") {
		link.Group = v.get("group").text
	}
	if r.kind == BridgeLinks {
		if v.has("hairpin") {
			link.Hairpin = map[bool]string{true: "on", false: "off"}[v.get("hairpin").isTrue]
		}
		return
	}
	if v.has("address") {
		words := []string{"link", v.get("address").text, "brd", v.get("broadcast").text}
		if !v.has("broadcast") {
			words = words[:2]
		}
		link.hardware(words)
	}
	if info := v.get("linkinfo"); info.has("info_kind") {
		link.Kind = info.get("info_kind").text
		link.data(info.get("info_data"))
		link.onTopOf(v.get("link").text)
	}
	for _, a := range v.get("addr_info").list {
		r.addressObject(name, a)
	}
}

// data reads info_data in the words of ip -d link.
func (l *Link) data(data value) {
	var words []string
	for _, f := range data.fields {
		name := f.name
		switch name {
		case "link":
			name = "dev"
		case "port":
			name = "dstport"
		case "local6", "remote6", "group6":
			name = strings.TrimSuffix(name, "6")
		}
		if f.text != "" {
			words = append(words, name, f.text)
		}
	}
	l.details(words)
}

func (r *reader) addressObject(link string, v value) {
	if v.get("local").isNull {
		return // {} for what a filter left out
	}
	a := Address{Interface: link}
	text := strings.Join(v.append(nil), " ")
	own, err := netip.ParseAddr(v.get("local").text)
	bits, lengthErr := strconv.Atoi(v.get("prefixlen").text)
	if err != nil || lengthErr != nil || bits < 0 || bits > own.BitLen() || own.Zone() != "" {
		r.loseAddress(familyNamed(v.get("family").text), text, "expected an address of "+link+" with its length")
		return
	}
	a.Prefix = netip.PrefixFrom(own, bits)
	if v.has("address") {
		peer, err := netip.ParseAddr(v.get("address").text)
		if err != nil || peer.BitLen() != own.BitLen() {
			r.loseAddress(packet.Of(own), text, "expected a peer's address on "+link)
			return
		}
		a.Prefix, a.Peer = netip.PrefixFrom(own, own.BitLen()), netip.PrefixFrom(peer, bits)
	}
	scope, ok := scopeNamed(v.get("scope").text)
	if !ok {
		r.loseAddress(packet.Of(own), text, "unknown scope "+strconv.Quote(v.get("scope").text))
		return
	}
	a.Scope = scope
	if v.has("broadcast") {
		a.Broadcast, _ = netip.ParseAddr(v.get("broadcast").text)
	}
	for _, f := range v.fields {
		if f.isTrue {
			a.flag(f.name)
		}
	}
	r.addAddress(a)
}
