package judge_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

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
		if g.chance(3) {
			n.t.family = g.of("netdev", "bridge")
		}
		n.fill()
		tables = append(tables, n.t)
	}
	return tables
}

var nativePriorities = []string{"-300", "-250", "-199", "-150", "-120", "-110", "-101", "-100", "-99", "-50", "-10", "-1", "0", "0", "1", "5", "49", "51", "99", "100", "101", "120", "150", "200", "300"}

// bases that a chain may have.
func (g *nativeGenerator) base() (text string, kind natKind) {
	priority := g.of(nativePriorities...)
	if g.t.family == "netdev" || g.t.family == "inet" && g.chance(12) {
		hook := "ingress"
		if g.t.family == "netdev" {
			hook = g.of("ingress", "ingress", "egress")
		}
		devices := g.of("device eth0", "device docker0", "device eth1", "device cali1a", "devices = { eth0, docker0 }", "devices = { eth0, eth1, docker0, cali1a, cali1b }", "device lo", "device vethd", "devices = { vethd, eth1 }")
		return fmt.Sprintf("type filter hook %s %s priority %s; policy %s;", hook, devices, priority, g.policy()), noNAT
	}
	if g.t.family == "bridge" {
		return fmt.Sprintf("type filter hook %s priority %s; policy %s;", g.of("prerouting", "prerouting", "input", "forward", "output", "postrouting"), priority, g.policy()), noNAT
	}
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
		g.incoming = strings.Contains(g.t.chains[i].base, "hook prerouting") || strings.Contains(g.t.chains[i].base, "hook input") || strings.Contains(g.t.chains[i].base, "hook ingress")
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
