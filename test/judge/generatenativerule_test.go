package judge_test

import (
	"maps"
	"slices"
	"strings"
)

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
	if g.incoming && g.chance(3) {
		keys := g.of("daddr", "saddr", "daddr . iif", "daddr . mark", "saddr . mark")
		if g.chance(2) {
			return "fib " + keys + " oif " + g.of("exists", "missing")
		}
		return "fib " + keys + " oifname " + g.notEqual(3) + g.of(`"lo"`, "eth0", "eth1", "docker0")
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
	for _, declared := range slices.Sorted(maps.Keys(g.sets)) {
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
