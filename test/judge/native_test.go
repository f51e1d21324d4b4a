package judge_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// nativeTable is a table of nft's own.
type nativeTable struct {
	family, name string
	// sets and maps, each whole: "set s0 { … }".
	sets   []string
	chains []*nativeChain
}

// nativeChain with its rules; base is empty for those that are only jumped to.
type nativeChain struct {
	name, base string
	rules      []string
}

func (t *nativeTable) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s %s {\n", t.family, t.name)
	for _, s := range t.sets {
		fmt.Fprintf(&b, "\t%s\n", s)
	}
	for i := len(t.chains) - 1; i >= 0; i-- { // those that are jumped to come first
		c := t.chains[i]
		fmt.Fprintf(&b, "\tchain %s {\n", c.name)
		if c.base != "" {
			fmt.Fprintf(&b, "\t\t%s\n", c.base)
		}
		for _, rule := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", rule)
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func (t *nativeTable) clone() *nativeTable {
	c := &nativeTable{t.family, t.name, slices.Clone(t.sets), nil}
	for _, x := range t.chains {
		c.chains = append(c.chains, &nativeChain{x.name, x.base, slices.Clone(x.rules)})
	}
	return c
}

func (t *nativeTable) mentions(name string) bool {
	inSets := slices.ContainsFunc(t.sets, func(s string) bool { return slices.Contains(nativeWords(s), name) })
	return inSets || slices.ContainsFunc(t.chains, func(c *nativeChain) bool {
		return slices.ContainsFunc(c.rules, func(rule string) bool { return slices.Contains(nativeWords(rule), name) })
	})
}

func nativeWords(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" ,;{}\t", r) })
}

// smaller tables with one thing less each; nil stands for none at all.
func (t *nativeTable) smaller() (out []*nativeTable) {
	edit := func(change func(*nativeTable)) {
		c := t.clone()
		change(c)
		out = append(out, c)
	}
	for ci, c := range t.chains {
		if c.base != "" || !t.mentions(c.name) {
			edit(func(x *nativeTable) { x.chains = slices.Delete(x.chains, ci, ci+1) })
		}
		for ri := range c.rules {
			edit(func(x *nativeTable) { x.chains[ci].rules = slices.Delete(x.chains[ci].rules, ri, ri+1) })
		}
	}
	for si, s := range t.sets {
		if !t.mentions("@" + strings.Fields(s)[1]) {
			edit(func(x *nativeTable) { x.sets = slices.Delete(x.sets, si, si+1) })
		}
	}
	return out
}

// nativeText is for nft -f: tables of that many names in place of what was there.
func nativeText(tables []*nativeTable) string {
	var b strings.Builder
	for _, family := range []string{"ip", "ip6", "inet"} {
		for i := range mostNative {
			fmt.Fprintf(&b, "table %s n%d\ndelete table %s n%d\n", family, i, family, i)
		}
	}
	for _, t := range tables {
		b.WriteString(t.String())
	}
	return b.String()
}

// loadNative replaces the native tables. What nft refuses of random ones, such as
// two protocols in one rule, is left out.
func (r *ruleset) loadNative(n *node) error {
	const attempts = 8
	for i := 0; ; i++ {
		_, err := n.ns.Run(nativeText(r.native), "nft", "-f", "-")
		if err == nil || i == attempts || !prune(r.native, err.Error()) {
			return err
		}
	}
}

// prune removes what nft refuses: it names the line.
func prune(tables []*nativeTable, message string) bool {
	pruned := false
	for _, m := range refusedLine.FindAllStringSubmatch(message, -1) {
		text := strings.TrimSpace(m[1])
		for _, t := range tables {
			before := len(t.sets)
			t.sets = slices.DeleteFunc(t.sets, func(s string) bool { return s == text })
			pruned = pruned || len(t.sets) < before
			for _, c := range t.chains {
				before := len(c.rules)
				c.rules = slices.DeleteFunc(c.rules, func(r string) bool { return r == text })
				pruned = pruned || len(c.rules) < before
			}
		}
	}
	return pruned
}

var refusedLine = regexp.MustCompile(`/dev/stdin:[0-9]+:[0-9-]+: Error: .*\n(.*)`)

// mostNative tables in a ruleset.
const mostNative = 3

// nativeGenerator makes random native tables. They ask for what the generator's
// iptables rules ask for, in the words of nft.
type nativeGenerator struct {
	*generator
	t *nativeTable
	// sets and maps by the type of their keys and data: "ipv4_addr", "ipv4_addr . inet_service : verdict".
	sets map[string][]string
	// ip is ip or ip6, address its datatype.
	ip, address string
	// kind of NAT that the chain may do: none, destination, source.
	kind natKind
	// incoming: the chain sees packets that come in, and may ask for the way back.
	incoming bool
	// last: the chain is the last one, which maps lead to.
	last bool
}

type natKind uint8

const (
	noNAT natKind = iota
	destinationNAT
	sourceNAT
	// inputNAT is snat without masquerade.
	inputNAT
)

func (g *generator) native() []*nativeTable {
	var tables []*nativeTable
	for i := range 1 + g.IntN(mostNative) {
		n := &nativeGenerator{generator: g, sets: map[string][]string{}, ip: "ip", address: "ipv4_addr"}
		if g.family == packet.IPv6Family {
			n.ip, n.address = "ip6", "ipv6_addr"
		}
		n.t = &nativeTable{family: g.of("inet", n.ip), name: fmt.Sprintf("n%d", i)}
		n.fill()
		tables = append(tables, n.t)
	}
	return tables
}

var nativePriorities = []string{"-300", "-250", "-199", "-150", "-120", "-110", "-101", "-100", "-99", "-50", "-10", "-1", "0", "0", "1", "5", "49", "51", "99", "100", "101", "120", "150", "200", "300"}

// bases that a chain may have.
func (g *nativeGenerator) base() (text string, kind natKind) {
	priority := g.of(nativePriorities...)
	switch g.IntN(5) {
	case 0:
		return fmt.Sprintf("type filter hook %s priority %s; policy %s;", g.of("prerouting", "input", "forward", "output", "postrouting"), priority, g.policy()), noNAT
	case 1:
		return fmt.Sprintf("type route hook output priority %s; policy accept;", priority), noNAT
	}
	for priority == "-300" || priority == "-250" || priority == "-200" {
		priority = g.of(nativePriorities...)
	}
	hook := g.of("prerouting", "postrouting", "postrouting", "output", "input")
	kind = sourceNAT
	switch hook {
	case "prerouting", "output":
		kind = destinationNAT
	case "input":
		kind = inputNAT
	}
	return fmt.Sprintf("type nat hook %s priority %s; policy accept;", hook, priority), kind
}

func (g *nativeGenerator) policy() string {
	if g.chance(15) {
		return "drop"
	}
	return "accept"
}

func (g *nativeGenerator) fill() {
	var kinds []natKind
	for i := range 1 + g.IntN(4) {
		base, kind := g.base()
		g.t.chains = append(g.t.chains, &nativeChain{name: fmt.Sprintf("b%d", i), base: base})
		kinds = append(kinds, kind)
	}
	for i := range g.IntN(4) {
		g.t.chains = append(g.t.chains, &nativeChain{name: fmt.Sprintf("c%d", i)})
		kinds = append(kinds, natKind(g.IntN(3)))
	}
	g.makeSets(kinds)
	for range 3 + g.IntN(12) {
		i := g.IntN(len(g.t.chains))
		g.kind, g.last = kinds[i], i == len(g.t.chains)-1
		g.incoming = strings.Contains(g.t.chains[i].base, "hook prerouting") || strings.Contains(g.t.chains[i].base, "hook input")
		g.t.chains[i].rules = append(g.t.chains[i].rules, g.nativeRule(g.callees(i, kinds)))
	}
}

// callees of a chain: later ones that do no NAT, or the same kind, and lead to
// no others that do.
func (g *nativeGenerator) callees(i int, kinds []natKind) (out []string) {
	for j := i + 1; j < len(kinds); j++ {
		if g.t.chains[j].base == "" && (kinds[j] == kinds[i] || kinds[j] == noNAT && !g.leadsToNAT(j, kinds)) {
			out = append(out, g.t.chains[j].name)
		}
	}
	return out
}

func (g *nativeGenerator) leadsToNAT(i int, kinds []natKind) bool {
	return slices.ContainsFunc(kinds[i+1:], func(k natKind) bool { return k != noNAT })
}

func (g *nativeGenerator) nativePrefix() string {
	for {
		p := g.of(g.words.prefixes...)
		if !strings.Contains(p, "/255.") {
			return p
		}
	}
}

// singleAddress is a prefix's first, or a backend.
func (g *nativeGenerator) singleAddress() string {
	a, _, _ := strings.Cut(g.of(g.of(g.words.backends...), g.nativePrefix()), "/")
	a, _, _ = strings.Cut(a, "-")
	return a
}

func nftPorts(p string) string { return strings.ReplaceAll(p, ":", "-") }

func (g *nativeGenerator) singlePort() string {
	return g.of("53", "80", "443", "8080", "30080", "5353", "8005")
}

func (g *nativeGenerator) nativeLink() string {
	name := g.of(g.words.links...)
	for name == "+" || name == "docker0+" {
		name = g.of(g.words.links...)
	}
	return `"` + strings.ReplaceAll(name, "+", "*") + `"`
}

func (g *nativeGenerator) nativeMark() string {
	return g.of("0x1", "0x4000", "0x100", "0x0", "0x4001", "0x2")
}

// disjoint intervals, for sets whose key is one.
var disjoint = map[string][]string{
	"ipv4_addr":    {"10.244.1.0/25", "10.244.1.128/25", "10.96.0.0/12", "192.0.2.0/29", "198.51.100.0/24", "203.0.113.64/26", "8.8.8.8", "10.245.1.2", "10.9.0.0/16", "10.244.2.0-10.244.2.5"},
	"ipv6_addr":    {"fd00:10:244:1::/64", "fd00:10:244:2::/64", "fd00:96::/108", "2001:db8::/64", "2001:db8:113::40/122", "2001:4860::/32", "fd00:10:245:1::2"},
	"inet_service": {"53", "80", "443", "1024-5000", "8000-8010", "8080", "30000-32767", "9000-9001"},
	"ifname":       {`"cali*"`, `"eth0"`, `"docker*"`, `"lo"`},
	"mark":         {"0x0", "0x1-0x2", "0x100", "0x4000-0x4001"},
}

// part of a set's key or data.
func (g *nativeGenerator) part(datatype string, interval bool) string {
	switch datatype {
	case "inet_service":
		if interval && g.chance(3) {
			return nftPorts(g.of("8000:8010", "1024:65535", "0:1023", "30000:32767"))
		}
		return g.singlePort()
	case "inet_proto":
		return g.of("tcp", "udp", "sctp")
	case "mark":
		return g.nativeMark()
	case "ifname":
		for {
			if l := g.nativeLink(); interval || !strings.Contains(l, "*") {
				return l
			}
		}
	}
	if interval {
		return g.nativePrefix()
	}
	return g.singleAddress()
}

func (g *nativeGenerator) makeSets(kinds []natKind) {
	keys := []string{g.address, "inet_service", g.address + " . inet_service", g.address + " . inet_proto . inet_service", "mark", "ifname", "inet_proto . inet_service", g.address + " . " + g.address}
	for i := range g.IntN(6) {
		key := g.of(keys...)
		name := fmt.Sprintf("s%d", i)
		interval := g.chance(2)
		flags := ""
		if interval {
			flags = "flags interval; "
		}
		kind, data := "set", ""
		if g.chance(2) {
			kind, data = "map", g.of("verdict", "verdict", g.address, g.address+" . inet_service", "mark")
		}
		elements, seen := []string{}, map[string]bool{}
		for range 1 + g.IntN(5) {
			var parts []string
			for _, d := range strings.Split(key, " . ") {
				if interval && d == key {
					parts = append(parts, g.of(disjoint[d]...))
				} else {
					parts = append(parts, g.part(d, interval && d != "ifname"))
				}
			}
			element := strings.Join(parts, " . ")
			if seen[element] {
				continue
			}
			seen[element] = true
			if kind == "map" {
				element += " : " + g.datum(data, kinds)
			}
			elements = append(elements, element)
		}
		declared := key
		if kind == "map" {
			declared += " : " + data
		}
		g.t.sets = append(g.t.sets, fmt.Sprintf("%s %s { type %s; %selements = { %s }; }", kind, name, declared, flags, strings.Join(elements, ", ")))
		g.sets[declared] = append(g.sets[declared], name)
	}
}

func (g *nativeGenerator) datum(data string, kinds []natKind) string {
	switch data {
	case "verdict":
		return g.mapVerdict(kinds)
	case "mark":
		return g.nativeMark()
	case g.address:
		return g.singleAddress()
	}
	return g.singleAddress() + " . " + g.singlePort()
}

// mapVerdict may stand in a map that any chain asks but the last: it leads to
// that one alone, where it does no NAT.
func (g *nativeGenerator) mapVerdict(kinds []natKind) string {
	last := len(kinds) - 1
	if g.t.chains[last].base == "" && kinds[last] == noNAT && g.chance(2) {
		return g.of("jump ", "goto ") + g.t.chains[last].name
	}
	return g.of("accept", "drop", "return", "continue", "accept")
}

func (g *nativeGenerator) nativeRule(callees []string) string {
	var words []string
	g.protocol = ""
	matches := []func() string{g.nativeAddress, g.nativeAddress, g.nativePort, g.nativeInterface, g.nativeMarkMatch, g.nativeConntrack, g.nativeFIB, g.nativeSet, g.nativeRest}
	for _, m := range matches {
		if g.chance(4) {
			words = append(words, m())
		}
	}
	if g.chance(3) {
		words = append(words, g.effect())
	}
	words = append(words, g.end(callees))
	if text := strings.TrimSpace(strings.Join(slices.DeleteFunc(words, func(w string) bool { return w == "" }), " ")); text != "" {
		return text
	}
	return "counter"
}

func (g *nativeGenerator) notEqual(oneIn float64) string {
	if g.chance(oneIn) {
		return "!= "
	}
	return ""
}

func (g *nativeGenerator) nativeAddress() string {
	side := g.of("saddr ", "daddr ")
	switch g.IntN(6) {
	case 0:
		a, b := g.singleAddress(), g.singleAddress()
		if a == b {
			return g.ip + " " + side + a
		}
		return g.ip + " " + side + g.notEqual(3) + "{ " + a + ", " + b + " }"
	case 1:
		return g.ip + " " + side + g.notEqual(4) + g.singleAddress()
	}
	return g.ip + " " + side + g.notEqual(4) + g.nativePrefix()
}

func (g *nativeGenerator) nativePort() string {
	if g.protocol == "" {
		g.protocol = g.of("tcp", "udp", "tcp", "udp", "sctp")
	}
	protocol := g.protocol
	side := g.of("dport ", "dport ", "sport ")
	switch g.IntN(9) {
	case 0:
		g.protocol = "none"
		return "meta l4proto " + g.notEqual(3) + g.of("tcp", "udp", "sctp", "{ tcp, udp }", "gre")
	case 1:
		g.protocol = "none"
		return "meta l4proto { tcp, udp } th " + side + g.notEqual(4) + nftPorts(g.of(ports...))
	case 2:
		return protocol + " " + side + g.notEqual(4) + "{ 80, 443, 8000-8010 }"
	case 3:
		g.protocol = "tcp"
		return "tcp flags " + g.of("syn / fin,syn,rst,ack", "& (syn|ack) == syn", "syn", "!= 0x0", "& fin == 0")
	case 4:
		g.protocol = "none"
		return map[string]string{"ip": "icmp type ", "ip6": "icmpv6 type "}[g.ip] + g.notEqual(3) + g.of("echo-request", "echo-reply", "{ echo-request, echo-reply }", "8", "128")
	case 5:
		return protocol + " " + side + g.of("< ", "> ", "<= ", ">= ") + g.of("1024", "80", "443", "30000")
	}
	return protocol + " " + side + g.notEqual(4) + nftPorts(g.of(ports...))
}

func (g *nativeGenerator) nativeInterface() string {
	key := g.of("iifname ", "oifname ")
	switch g.IntN(5) {
	case 0:
		return g.of("iif ", "oif ") + g.notEqual(3) + g.of(`"lo"`, "eth0", "eth1", "docker0")
	case 1:
		return key + g.notEqual(3) + "{ eth0, cali1a, lo }"
	case 2:
		return key + g.notEqual(3) + `{ "cali*", "eth1" }`
	}
	return key + g.notEqual(3) + g.nativeLink()
}

func (g *nativeGenerator) nativeMarkMatch() string {
	switch g.IntN(5) {
	case 0:
		return "meta mark & 0x4000 == 0x4000"
	case 1:
		return "meta mark & 0x100 != 0"
	case 2:
		return "ct mark " + g.notEqual(3) + g.nativeMark()
	case 3:
		return "meta mark { 0x1, 0x4000-0x4001 }"
	}
	return "meta mark " + g.notEqual(3) + g.nativeMark()
}

func (g *nativeGenerator) nativeConntrack() string {
	switch g.IntN(9) {
	case 0:
		return "ct original " + g.ip + " daddr " + g.notEqual(3) + g.nativePrefix()
	case 1:
		return "ct reply " + g.ip + " saddr " + g.notEqual(3) + g.nativePrefix()
	case 2:
		return "ct direction " + g.of("original", "reply")
	case 3:
		return "ct status " + g.of("snat", "dnat", "confirmed", "seen-reply", "dnat,snat", "& dnat != 0", "!= dnat")
	case 4:
		return "meta l4proto tcp ct original proto-dst " + g.singlePort()
	case 5:
		return "ct state != " + g.of("new", "established", "invalid")
	case 6:
		return "ct state vmap { new : " + g.of("accept", "continue", "return") + ", invalid : drop }"
	}
	return "ct state " + g.of("new", "established,related", "untracked", "invalid", "new,untracked", "{ new, established }")
}

func (g *nativeGenerator) nativeFIB() string {
	if g.incoming && g.chance(2) {
		return "fib saddr . " + g.of("iif", "mark . iif") + " oif " + g.of("exists", "missing")
	}
	switch g.IntN(4) {
	case 0:
		return "fib daddr type " + g.of("local", "unicast", "{ local, broadcast }", "!= local", "multicast")
	case 1:
		return "fib saddr type " + g.of("local", "!= local", "unicast")
	}
	return "fib daddr type " + g.of("local", "!= local")
}

// nativeSet asks a set of the table.
func (g *nativeGenerator) nativeSet() string {
	var types []string
	for declared := range g.sets {
		if !strings.Contains(declared, " : ") {
			types = append(types, declared)
		}
	}
	if len(types) == 0 {
		return ""
	}
	slices.Sort(types)
	key := g.of(types...)
	return g.key(key) + " " + g.notEqual(4) + "@" + g.of(g.sets[key]...)
}

// key is an expression of a type.
func (g *nativeGenerator) key(declared string) string {
	var parts []string
	protocol := strings.Contains(declared, "inet_proto")
	for _, d := range strings.Split(declared, " . ") {
		switch d {
		case "inet_service":
			if protocol {
				parts = append(parts, "th dport")
			} else {
				parts = append(parts, g.transport()+g.of(" dport", " dport", " sport"))
			}
		case "inet_proto":
			parts = append(parts, "meta l4proto")
		case "mark":
			parts = append(parts, "meta mark")
		case "ifname":
			parts = append(parts, g.of("iifname", "oifname"))
		default:
			parts = append(parts, g.ip+" "+g.of("saddr", "daddr", "daddr"))
		}
	}
	return strings.Join(parts, " . ")
}

// transport is the protocol that the rule asks for, which two parts of it must
// not contradict.
func (g *nativeGenerator) transport() string {
	if g.protocol == "" || g.protocol == "none" {
		g.protocol = g.of("tcp", "udp")
	}
	return g.protocol
}

func (g *nativeGenerator) nativeRest() string {
	switch g.IntN(9) {
	case 0:
		if g.t.family != "inet" {
			return ""
		}
		return "meta nfproto " + g.notEqual(3) + g.of("ipv4", "ipv6")
	case 1:
		return "numgen random mod 2 0"
	case 2:
		return "numgen random mod 10 < 3"
	case 3:
		return g.ip + " saddr . " + g.ip + " daddr { " + g.singleAddress() + " . " + g.singleAddress() + " }"
	case 4:
		return g.ip + " daddr & " + map[string]string{"ip": "255.255.0.255 == 10.244.0.7", "ip6": "ffff:ffff::ffff == fd00:10::7"}[g.ip]
	case 5:
		return "meta pkttype " + g.of("host", "broadcast", "!= host")
	case 7:
		return "meta l4proto { tcp, udp } ct original proto-src " + g.notEqual(3) + "10000-20000"
	case 6:
		return "meta mark . " + g.ip + " daddr { 0x0 . " + g.nativePrefix() + ", 0x1 . " + g.singleAddress() + " }"
	}
	return map[string]string{"ip": "ip protocol ", "ip6": "ip6 nexthdr "}[g.ip] + g.notEqual(3) + g.of("tcp", "udp", "{ tcp, sctp }")
}

// effect changes something and goes on.
func (g *nativeGenerator) effect() string {
	switch g.IntN(9) {
	case 0:
		return "meta mark set meta mark | 0x100"
	case 1:
		return "meta mark set mark and 0xff"
	case 2:
		return "ct mark set " + g.nativeMark()
	case 3:
		return "ct mark set meta mark"
	case 4:
		return "meta mark set ct mark"
	case 5:
		return g.of("meta mark set meta mark ^ 0x4000", "meta mark set numgen random mod 2 map { 0 : 0x1, 1 : 0x100 }", g.ip+" dscp set cs1", "ct mark set ct mark | 0x2", "meta mark set (meta mark & 0xffffff00) | 0x1")
	case 6:
		for declared, names := range g.sets {
			if key, data, ok := strings.Cut(declared, " : "); ok && data == "mark" {
				return "meta mark set " + g.key(key) + " map @" + names[0]
			}
		}
		return "counter"
	}
	return "meta mark set " + g.nativeMark()
}

// end of a rule: a verdict, a translation, or nothing.
func (g *nativeGenerator) end(callees []string) string {
	if g.kind != noNAT && g.chance(1.8) {
		return g.nativeNAT()
	}
	if len(callees) > 0 && g.chance(2.5) {
		return g.of("jump ", "jump ", "goto ") + g.of(callees...)
	}
	for _, declared := range sortedKeys(g.sets) {
		if key, data, ok := strings.Cut(declared, " : "); ok && data == "verdict" && !g.last && g.chance(2) {
			return g.key(key) + " vmap @" + g.of(g.sets[declared]...)
		}
	}
	switch g.IntN(12) {
	case 0:
		return "drop"
	case 1:
		if g.kind == noNAT && g.chance(2) {
			return "return"
		}
		return "accept"
	case 2, 3:
		return "accept"
	case 4:
		return "return"
	case 5:
		return "counter"
	case 6:
		if len(callees) > 0 {
			return "numgen random mod 3 vmap { 0 : jump " + g.of(callees...) + ", 1 : accept, 2 : return }"
		}
	case 7:
		return g.transport() + " dport vmap { 80 : accept, 443 : drop, 8000-8010 : return }"
	}
	return ""
}

func sortedKeys(m map[string][]string) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (g *nativeGenerator) natFlags() string {
	return g.of("", "", "", " random", " fully-random", " persistent")
}

func (g *nativeGenerator) nativeNAT() string {
	ip := ""
	if g.t.family == "inet" {
		ip = g.ip + " "
	}
	port := func(a, p string) string {
		if g.ip == "ip6" {
			a = "[" + strings.ReplaceAll(a, "-", "]-[") + "]"
		}
		return a + ":" + p
	}
	transport := g.transport() + " dport 1-65535 "
	if g.kind == inputNAT {
		return "snat " + ip + "to " + g.of(g.words.sources...) + g.natFlags()
	}
	if g.kind == sourceNAT {
		source := g.of(g.words.sources...)
		switch g.IntN(6) {
		case 0:
			return transport + "snat " + ip + "to " + port(source, g.of("20000-20100", "40000-40100")) + g.natFlags()
		case 1, 2:
			return "masquerade" + g.of("", "", "", " random", " fully-random")
		case 3:
			return transport + "masquerade to :" + g.of("1024-29999", "5000-5100")
		case 4:
			return "snat " + ip + "to " + g.ip + " saddr" // keeps it
		case 5:
			if g.chance(2) {
				return "snat " + g.ip + " prefix to " + g.ip + " saddr map { " + g.of(g.words.prefixes[0], disjoint[g.address][1]) + " : " + g.of(g.words.networks...) + " }"
			}
		}
		return "snat " + ip + "to " + source + g.natFlags()
	}
	backend := g.of(g.words.backends...)
	for _, declared := range sortedKeys(g.sets) {
		if key, data, ok := strings.Cut(declared, " : "); ok && g.chance(2) {
			name := g.sets[declared][0]
			switch data {
			case g.address:
				return "dnat " + ip + "to " + g.key(key) + " map @" + name
			case g.address + " . inet_service":
				return transport + "dnat " + g.ip + " to " + g.key(key) + " map @" + name
			}
		}
	}
	switch g.IntN(9) {
	case 7:
		return "dnat " + ip + "to " + g.of("jhash "+g.ip+" saddr mod 2", "symhash mod 2", "jhash "+g.ip+" saddr . "+g.ip+" daddr mod 2 seed 0x7", "numgen inc mod 2") +
			" map { 0 : " + g.singleAddress() + ", 1 : " + g.singleAddress() + " }"
	case 8:
		return "dnat " + g.ip + " prefix to " + g.ip + " daddr map { " + g.of(disjoint[g.address][:2]...) + " : " + g.of(g.words.networks[1:]...) + " }"
	case 0:
		return transport + "dnat " + ip + "to " + port(backend, g.of("8080", "9000", "9000-9010")) + g.natFlags()
	case 1:
		return "redirect"
	case 2:
		return transport + "redirect to :" + g.of("8080", "9000-9010")
	case 3:
		return "dnat " + ip + "to numgen random mod 2 map { 0 : " + g.singleAddress() + ", 1 : " + g.singleAddress() + " }"
	case 4:
		return transport + "dnat to :8080"
	}
	return "dnat " + ip + "to " + backend + g.natFlags()
}

// nativeHints reads a rule's text, and that of the sets that it asks.
func nativeHints(rule string, t *nativeTable) (h hints) {
	side := "daddr"
	for _, w := range nativeWords(rule) {
		w = strings.Trim(w, `"`)
		switch w {
		case "saddr", "daddr", "sport", "dport", "iifname", "iif", "oifname", "oif", "proto-dst", "to":
			side = w
			continue
		case "tcp", "udp", "sctp", "gre", "icmp", "ipv6-icmp":
			h.protocols = append(h.protocols, protocolNumbers(w)...)
			continue
		}
		if name, isSet := strings.CutPrefix(w, "@"); isSet {
			for _, s := range t.sets {
				if strings.Fields(s)[1] == name {
					_, elements, _ := strings.Cut(s, "elements")
					h.add(nativeHints(side+" "+elements, t))
				}
			}
			continue
		}
		h.addNative(side, w)
	}
	return h
}

func (h *hints) addNative(side, w string) {
	switch {
	case side == "iifname" || side == "iif":
		h.in = append(h.in, strings.TrimSuffix(w, "*"))
	case side == "oifname" || side == "oif":
		h.out = append(h.out, strings.TrimSuffix(w, "*"))
	case strings.HasPrefix(w, "[") || strings.Contains(w, ".") && strings.Contains(w, ":"): // ADDRESS:PORT
		address, port := target(w)
		h.destinations, h.destinationPorts = append(h.destinations, edges(address)...), append(h.destinationPorts, portEdges(port)...)
	case isNumber(strings.ReplaceAll(strings.TrimPrefix(w, ":"), "-", "")):
		ports := portEdges(strings.ReplaceAll(strings.TrimPrefix(w, ":"), "-", ":"))
		if side == "sport" {
			h.sourcePorts = append(h.sourcePorts, ports...)
		} else {
			h.destinationPorts = append(h.destinationPorts, ports...)
		}
	case side == "saddr":
		h.sources = append(h.sources, edges(w)...)
	default:
		h.destinations = append(h.destinations, edges(w)...)
	}
}

func isNumber(w string) bool {
	return w != "" && strings.Trim(w, "0123456789") == ""
}

// hashes says whether a rule picks by a hash, which is the same for a packet
// with the same addresses.
func (r *ruleset) hashes() bool {
	return slices.ContainsFunc(r.native, func(t *nativeTable) bool {
		return slices.ContainsFunc(t.chains, func(c *nativeChain) bool {
			return slices.ContainsFunc(c.rules, func(rule string) bool { return strings.Contains(rule, "hash ") })
		})
	})
}
