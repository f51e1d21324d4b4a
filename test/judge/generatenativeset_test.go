package judge_test

import (
	"fmt"
	"strings"
)

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
