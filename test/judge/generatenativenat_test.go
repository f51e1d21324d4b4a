package judge_test

import (
	"maps"
	"slices"
	"strings"
)

func (g *nativeGenerator) natFlags() string {
	return g.of("", "", "", " random", " fully-random", " persistent")
}

// nativeNAT is a statement that translates, of the chain's kind.
func (g *nativeGenerator) nativeNAT() string {
	switch g.kind {
	case inputNAT:
		return "snat " + g.natFamily() + "to " + g.of(g.words.sources...) + g.natFlags()
	case sourceNAT:
		return g.sourceNAT()
	}
	if text := g.mappedNAT(); text != "" {
		return text
	}
	return g.destinationNAT()
}

// natFamily is what a table of both families must be told.
func (g *nativeGenerator) natFamily() string {
	if g.t.family == "inet" {
		return g.ip + " "
	}
	return ""
}

// addressPort for snat or dnat.
func (g *nativeGenerator) addressPort(a, p string) string {
	if g.ip == "ip6" {
		a = "[" + strings.ReplaceAll(a, "-", "]-[") + "]"
	}
	return a + ":" + p
}

// ported matches what has ports, without which nft takes none to translate to.
func (g *nativeGenerator) ported() string { return g.transport() + " dport 1-65535 " }

func (g *nativeGenerator) sourceNAT() string {
	ip, source, ported := g.natFamily(), g.of(g.words.sources...), g.ported()
	switch g.IntN(6) {
	case 0:
		return ported + "snat " + ip + "to " + g.addressPort(source, g.of("20000-20100", "40000-40100")) + g.natFlags()
	case 1, 2:
		return "masquerade" + g.of("", "", "", " random", " fully-random")
	case 3:
		return ported + "masquerade to :" + g.of("1024-29999", "5000-5100")
	case 4:
		return "snat " + ip + "to " + g.ip + " saddr" // keeps it
	case 5:
		if g.chance(2) {
			return "snat " + g.ip + " prefix to " + g.ip + " saddr map { " + g.of(g.words.prefixes[0], disjoint[g.address][1]) + " : " + g.of(g.words.networks...) + " }"
		}
	}
	return "snat " + ip + "to " + source + g.natFlags()
}

// mappedNAT takes the destination from one of the table's maps; empty for none.
func (g *nativeGenerator) mappedNAT() string {
	for _, declared := range slices.Sorted(maps.Keys(g.sets)) {
		key, data, ok := strings.Cut(declared, " : ")
		if !ok || !g.chance(2) {
			continue
		}
		name := g.sets[declared][0]
		switch data {
		case g.address:
			return "dnat " + g.natFamily() + "to " + g.key(key) + " map @" + name
		case g.address + " . inet_service":
			return g.ported() + "dnat " + g.ip + " to " + g.key(key) + " map @" + name
		}
	}
	return ""
}

func (g *nativeGenerator) destinationNAT() string {
	ip, backend, ported := g.natFamily(), g.of(g.words.backends...), g.ported()
	pair := func() string { return " map { 0 : " + g.singleAddress() + ", 1 : " + g.singleAddress() + " }" }
	switch g.IntN(9) {
	case 0:
		return ported + "dnat " + ip + "to " + g.addressPort(backend, g.of("8080", "9000", "9000-9010")) + g.natFlags()
	case 1:
		return "redirect"
	case 2:
		return ported + "redirect to :" + g.of("8080", "9000-9010")
	case 3:
		return "dnat " + ip + "to numgen random mod 2" + pair()
	case 4:
		return ported + "dnat to :8080"
	case 5:
		return "dnat " + ip + "to " + g.of("jhash "+g.ip+" saddr mod 2", "symhash mod 2", "jhash "+g.ip+" saddr . "+g.ip+" daddr mod 2 seed 0x7", "numgen inc mod 2") + pair()
	case 6:
		return "dnat " + g.ip + " prefix to " + g.ip + " daddr map { " + g.of(disjoint[g.address][:2]...) + " : " + g.of(g.words.networks[1:]...) + " }"
	}
	return "dnat " + ip + "to " + backend + g.natFlags()
}
