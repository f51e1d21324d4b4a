package judge_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// setKinds that are generated; a bitmap holds IPv4 addresses or ports alone.
var setKinds = []string{
	"hash:ip", "hash:net", "hash:net", "hash:ip,port", "hash:net,port", "hash:ip,port,ip", "hash:ip,port,net", "hash:net,iface", "bitmap:ip", "bitmap:port",
}

// rareKinds are not in every kernel.
var rareKinds = []string{"hash:net,net", "hash:ip,mark", "hash:net,port,net"}

// addRareKinds to those that are generated, as far as the node's kernel has them.
func addRareKinds(n *node) (kinds []string) {
	kinds = slices.Clone(setKinds)
	for i, kind := range rareKinds {
		name := fmt.Sprintf("probe%d", i)
		if _, err := n.ns.Run("", "ipset", "create", name, kind); err == nil {
			kinds = append(kinds, kind)
			_, _ = n.ns.Run("", "ipset", "destroy", name)
		}
	}
	return kinds
}

// set makes one with elements from the family's words.
func (g *generator) set(name string) *set {
	kind := g.of(g.kinds...)
	if g.family == packet.IPv6Family && kind == "bitmap:ip" {
		kind = "hash:ip"
	}
	s := &set{name: name, options: kind}
	switch {
	case kind == "bitmap:ip":
		s.options += " range 10.244.0.0-10.244.255.255"
	case kind == "bitmap:port":
		s.options += " range 0-65535"
	case g.family == packet.IPv6Family:
		s.options += " family inet6"
	}
	for range 1 + g.IntN(5) {
		e := g.element(kind)
		if !slicesContains(s.elements, e) {
			s.elements = append(s.elements, e)
		}
	}
	return s
}

// slicesContains ignores what follows an element's key.
func slicesContains(elements []string, e string) bool {
	key, _, _ := strings.Cut(e, " ")
	for _, x := range elements {
		if k, _, _ := strings.Cut(x, " "); k == key {
			return true
		}
	}
	return false
}

func (g *generator) element(kind string) string {
	family, parts, _ := strings.Cut(kind, ":")
	if family == "bitmap" {
		if parts == "port" {
			return g.of("53", "80", "443", "8000-8010", "30000-32767")
		}
		return g.of("10.244.1.5", "10.244.1.7", "10.244.1.128/25", "10.244.2.1-10.244.2.9")
	}
	var out []string
	nets := 0
	for _, p := range strings.Split(parts, ",") {
		switch p {
		case "ip":
			out = append(out, g.plainAddress())
		case "net":
			nets++
			out = append(out, g.plainPrefix())
		case "port":
			out = append(out, g.of("tcp:80", "tcp:443", "udp:53", "tcp:30080", "sctp:80", "tcp:8080"))
		case "iface":
			out = append(out, g.of("eth0", "eth1", "docker0", "cali1a"))
		case "mark":
			out = append(out, g.of("0x4000", "0x1", "0x100"))
		}
	}
	text := strings.Join(out, ",")
	if nets > 0 && g.chance(5) {
		text += " nomatch"
	}
	return text
}

// plainAddress is one that set elements and rules know.
func (g *generator) plainAddress() string {
	for {
		if a := g.of(append(g.words.prefixes, g.words.backends...)...); !strings.ContainsAny(a, "/-") {
			return a
		}
	}
}

func (g *generator) plainPrefix() string {
	for {
		a := g.of(g.words.prefixes...)
		if !strings.Contains(a, "/255.") {
			if !strings.Contains(a, "/") && g.family == packet.IPv4Family {
				a += "/32"
			}
			return a
		}
	}
}

func (g *generator) setMatch() string {
	if len(g.sets) == 0 {
		return g.mark()
	}
	s := g.sets[g.IntN(len(g.sets))]
	kind, _, _ := strings.Cut(s.options, " ")
	dimensions := strings.Count(kind, ",") + 1
	if kind == "list:set" {
		dimensions = 1 + g.IntN(2)
	}
	var sides []string
	for range dimensions {
		sides = append(sides, g.of("src", "dst"))
	}
	return "-m set " + g.not(3) + "--match-set " + s.name + " " + strings.Join(sides, ",")
}
