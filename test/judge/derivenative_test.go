package judge_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// ofFamily says whether a native table is asked about packets of a family.
func ofFamily(t *nftables.Table, f packet.Family) bool {
	name := "ip"
	if f == packet.IPv6Family {
		name = "ip6"
	}
	return !t.IPTables && (t.Family == name || t.Family == "inet")
}

// native makes packets from a table of nft's own: as from one of iptables, and
// for each element of the sets and maps that a rule asks one that has it, with
// its neighbours.
func (g *derivation) native(t *nftables.Table) {
	rules := map[*nftables.Rule]nativeRule{}
	callers := map[string][]caller{}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			x := readNative(t, r)
			rules[r] = x
			for _, e := range append(x.elements, element{hints: x.own, leads: x.leads}) {
				if e.leads != "" {
					callers[e.leads] = append(callers[e.leads], caller{c.Name, e.with(x)})
				}
			}
		}
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			x := rules[r]
			for _, way := range ways(c.Name, callers, 5) {
				g.about(element{}.with(x), way)
				for _, e := range x.elements {
					g.about(e.with(x), way)
				}
			}
		}
	}
}

// nativeRule is what packets can be made of.
type nativeRule struct {
	// own hints of what the rule compares with; elements are of the sets and maps
	// that it asks, each of which may lead to another chain, as the rule itself may.
	own      hints
	elements []element
	leads    string
	// firsts are the first element of each set.
	firsts hints
}

type element struct {
	hints
	leads string
}

// with puts behind the element's hints the rule's own, and elements of the other
// sets that it asks.
func (e element) with(x nativeRule) (h hints) {
	h.add(e.hints)
	h.add(x.own)
	h.add(x.firsts)
	return h
}

func readNative(t *nftables.Table, r *nftables.Rule) (x nativeRule) {
	for _, s := range r.Statements {
		switch s := s.(type) {
		case nftables.Match:
			if elements := elementsOf(t, s.Right); elements != nil {
				x.ask(s.Left, elements)
				continue
			}
			h := valueHints(s.Left, s.Right)
			if s.Op == "!=" { // by any other link
				h.in, h.out = nil, nil
			}
			x.own.add(h)
		case nftables.VerdictMap:
			x.ask(s.Key, elementsOf(t, s.Map))
		case nftables.Assign:
			if l, is := s.Value.(nftables.Lookup); is {
				x.ask(l.Key, elementsOf(t, l.Map))
			}
		case nftables.NAT:
			x.translate(t, s)
		case nftables.Verdict:
			x.leads = s.Chain
		}
	}
	return x
}

// ask adds the elements of a set or map.
func (x *nativeRule) ask(key nftables.Expr, elements []nftables.Element) {
	x.own.add(keyHints(key))
	if len(elements) > 0 {
		x.firsts.add(valueHints(key, elements[0].Key))
	}
	for _, e := range elements {
		y := element{hints: valueHints(key, e.Key)}
		if v, is := e.Data.(nftables.VerdictValue); is {
			y.leads = v.Verdict.Chain
		}
		x.elements = append(x.elements, y)
	}
}

// Keys that stand for what packets are translated to.
var (
	anAddress = nftables.Payload{Protocol: "ip", Field: "daddr"}
	aPort     = nftables.Payload{Protocol: "th", Field: "dport"}
)

// translate adds what packets of the rule are sent to.
func (x *nativeRule) translate(t *nftables.Table, n nftables.NAT) {
	if l, is := n.Address.(nftables.Lookup); is {
		x.own.add(keyHints(l.Key))
		for _, e := range elementsOf(t, l.Map) {
			h := valueHints(l.Key, e.Key)
			h.add(targetHints(e.Data))
			x.elements = append(x.elements, element{hints: h})
		}
		return
	}
	x.own.add(targetHints(n.Address))
	x.own.add(valueHints(aPort, n.Port))
}

func targetHints(value nftables.Expr) (h hints) {
	key := nftables.Expr(anAddress)
	if c, is := value.(nftables.Concat); is {
		key = nftables.Concat{Parts: []nftables.Expr{anAddress, aPort}}
		h.aim(valueText(c.Parts[0]))
	} else {
		h.aim(valueText(value))
	}
	h.add(valueHints(key, value))
	return h
}

// elementsOf a set, map or literal; nil for what is none.
func elementsOf(t *nftables.Table, e nftables.Expr) []nftables.Element {
	switch e := e.(type) {
	case nftables.SetRef:
		if s := t.Set(e.Name); s != nil {
			return s.Elements
		}
	case nftables.SetLiteral:
		return e.Elements
	}
	return nil
}

// keyHints are of what a key is of: "tcp dport" is asked of TCP.
func keyHints(key nftables.Expr) (h hints) {
	switch key := key.(type) {
	case nftables.Payload:
		h.protocols = protocolNumbers(key.Protocol)
	case nftables.Concat:
		for _, p := range key.Parts {
			h.add(keyHints(p))
		}
	}
	return h
}

// valueHints are of a value that a key is compared with.
func valueHints(key, value nftables.Expr) (h hints) {
	switch value := value.(type) {
	case nil:
		return h
	case nftables.SetLiteral:
		for _, e := range value.Elements {
			h.add(valueHints(key, e.Key))
		}
		return h
	case nftables.Concat:
		keys, is := key.(nftables.Concat)
		for i, p := range value.Parts {
			if is && i < len(keys.Parts) {
				h.add(valueHints(keys.Parts[i], p))
			}
		}
		return h
	}
	h = keyHints(key)
	text, name := valueText(value), ""
	switch key := key.(type) {
	case nftables.Payload:
		name = key.Field
	case nftables.CT:
		name = map[string]string{"original": "", "reply": "reply "}[key.Direction] + key.Key
	case nftables.Meta:
		name = key.Key
	case nftables.Binary:
		return valueHints(key.Left, value)
	}
	switch name {
	case "saddr", "reply daddr":
		h.sources = edges(text)
	case "daddr", "reply saddr":
		h.destinations = edges(text)
	case "sport":
		h.sourcePorts = portEdges(text)
	case "dport", "proto-dst":
		h.destinationPorts = portEdges(text)
	case "iifname", "iif":
		h.in = []string{strings.Trim(text, `"`)}
	case "oifname", "oif":
		h.out = []string{strings.Trim(text, `"`)}
	case "l4proto", "protocol", "nexthdr":
		h.protocols = append(protocolNumbers(text), h.protocols...)
	}
	return h
}

// valueText writes a value as edges and portEdges read it.
func valueText(e nftables.Expr) string {
	switch e := e.(type) {
	case nftables.Literal:
		return e.Text
	case nftables.Range:
		return valueText(e.First) + "-" + valueText(e.Last)
	case nftables.Prefix:
		return fmt.Sprintf("%s/%d", valueText(e.Address), e.Length)
	}
	return ""
}

// nativeNeighbours are the addresses that the tables name, and those beside them.
func nativeNeighbours(r *nftables.Ruleset, f packet.Family) (all []netip.Addr) {
	for _, t := range r.Tables {
		if ofFamily(t, f) {
			t.Addresses(func(first, last netip.Addr) {
				all = slices.Concat(all, edges(first.String()+"-"+last.String()))
			})
		}
	}
	return all
}
