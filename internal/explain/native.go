package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
)

// native says whether the decider is a rule of a native nftables table.
func (d *Decider) native() bool { return d.Variant == ruleset.Native.String() }

// nativeConditions pairs what a native rule asks for, as nft writes it, with what
// the packet has.
//
//	ip saddr 10.244.0.0/16: the source is 10.244.1.5
//	ip daddr . meta l4proto . th dport vmap @service-ips: element 10.96.83.77 . tcp . 80
func nativeConditions(rule *nftables.Rule, p seen) []string {
	var all []string
	add := func(condition, has string) {
		if has != "" {
			condition += ": " + has
		}
		all = append(all, condition)
	}
	for _, s := range rule.Statements {
		switch s := s.(type) {
		case nftables.Match:
			if isSet(s.Right) && s.Op != "!=" {
				add(nftables.ExprText(s.Left)+" "+setText(s.Right), p.elementIn(s.Left, s.Right))
			} else {
				add(nftables.StatementText(s), p.has(s.Left))
			}
		case nftables.VerdictMap:
			add(nftables.ExprText(s.Key)+" vmap "+setText(s.Map), p.elementIn(s.Key, s.Map))
		case nftables.NAT:
			p.targets(s, add)
		case nftables.Stateful:
			add(s.Text, "taken as holding; it depends on what was before")
		case nftables.XT:
			if s.Name == "comment" {
				continue
			}
			add(nftables.StatementText(s), "taken as holding; nft doesn't show its parameters")
		case nftables.UnknownStatement:
			add(s.Text, "taken as holding; it isn't understood")
		}
	}
	return all
}

// targets are the maps that a translation looks into.
func (p seen) targets(s nftables.NAT, add func(condition, has string)) {
	for _, e := range []nftables.Expr{s.Address, s.Port} {
		if m, ok := e.(nftables.Lookup); ok {
			add(nftables.ExprText(m.Key)+" map "+setText(m.Map), p.elementIn(m.Key, m.Map))
		}
	}
}

func isSet(e nftables.Expr) bool {
	switch e.(type) {
	case nftables.SetLiteral, nftables.SetRef:
		return true
	}
	return false
}

// setText is a set as it is named; one without a name may have thousands of
// elements.
func setText(e nftables.Expr) string {
	const most = 4
	if l, ok := e.(nftables.SetLiteral); ok && len(l.Elements) > most {
		return fmt.Sprintf("{ … %d elements }", len(l.Elements))
	}
	return nftables.ExprText(e)
}

// elementIn names the element that the packet was found in. Those of sets without
// a name are told by where they lie.
func (p seen) elementIn(key, set nftables.Expr) string {
	literal, _ := set.(nftables.SetLiteral)
	i := slices.IndexFunc(p.elements, func(e *nftables.Element) bool {
		return literal.Elements == nil || among(literal.Elements, e)
	})
	if i < 0 {
		return p.has(key)
	}
	text := "element " + nftables.ExprText(p.elements[i].Key)
	if has := p.has(key); hasRange(p.elements[i].Key) && has != "" {
		text += ", " + has
	}
	return text
}

func among(all []nftables.Element, e *nftables.Element) bool {
	for i := range all {
		if &all[i] == e {
			return true
		}
	}
	return false
}

// hasRange: the element alone doesn't say what the packet has.
func hasRange(e nftables.Expr) bool {
	switch e := e.(type) {
	case nftables.Range, nftables.Prefix, nftables.Any:
		return true
	case nftables.Concat:
		return slices.ContainsFunc(e.Parts, hasRange)
	}
	return false
}

// has is what the packet has where an expression looks; empty where that can't be
// put in words.
func (p seen) has(e nftables.Expr) string {
	switch e := e.(type) {
	case nftables.Payload:
		return p.field(e)
	case nftables.Meta:
		return p.meta(e.Key)
	case nftables.CT:
		return p.conntrack(e)
	case nftables.FIB:
		return p.fib(e)
	case nftables.Numgen:
		if e.Random {
			return fmt.Sprintf("one chance in %d", e.Modulus)
		}
		return fmt.Sprintf("one packet in %d", e.Modulus)
	case nftables.Binary:
		return p.has(e.Left)
	case nftables.Lookup:
		return p.elementIn(e.Key, e.Map)
	case nftables.Concat:
		return p.parts(e)
	case nftables.UnknownExpr:
		return "taken as holding; it isn't understood"
	}
	return ""
}

func (p seen) parts(e nftables.Concat) string {
	var all []string
	for _, part := range e.Parts {
		if text := p.has(part); text != "" && !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return strings.Join(all, ", ")
}

func (p seen) field(e nftables.Payload) string {
	ip := e.Protocol == "ip" || e.Protocol == "ip6"
	switch {
	case ip && e.Field == "saddr":
		return p.endOf(ruleset.Source)
	case ip && e.Field == "daddr":
		return p.endOf(ruleset.Destination)
	case e.Field == "sport":
		return p.portOf(ruleset.Source)
	case e.Field == "dport":
		return p.portOf(ruleset.Destination)
	case ip && (e.Field == "protocol" || e.Field == "nexthdr"):
		return p.protocolText()
	case e.Protocol == "tcp" && e.Field == "flags":
		return "it is a connection's first packet: SYN alone"
	case strings.HasPrefix(e.Protocol, "icmp") && e.Field == "type":
		return "it is taken as an echo request"
	}
	return ""
}

func (p seen) protocolText() string {
	if p.protocol == 0 {
		return "any was asked for"
	}
	return "it is " + protocolName(p.protocol)
}

func (p seen) meta(key string) string {
	switch key {
	case "iifname", "iif", "iifgroup", "iifkind", "iiftype":
		return cameBy(p)
	case "oifname", "oif", "oifgroup", "oifkind", "oiftype":
		if p.out == "" {
			return "the interface isn't known"
		}
		return "it leaves by " + p.out
	case "l4proto":
		return p.protocolText()
	case "nfproto", "protocol":
		return "it is " + family(packet.Of(p.source))
	case "mark":
		return "rules before, or the question, have marked it so"
	case "skuid", "skgid", "cgroup":
		return "the socket that sends it"
	}
	return ""
}

func (p seen) conntrack(e nftables.CT) string {
	switch e.Key {
	case "state":
		return "it is the first packet of a connection"
	case "status":
		if p.asked != p.destination {
			return fmt.Sprintf("its destination was translated from %s to %s", p.asked, p.destination)
		}
	case "direction":
		return "a connection's first packet goes the original way"
	case "daddr":
		if e.Direction == "original" {
			return "it was sent to " + p.asked.String()
		}
	case "saddr":
		if e.Direction == "original" {
			return p.endOf(ruleset.Source)
		}
	}
	return ""
}

func (p seen) fib(e nftables.FIB) string {
	switch {
	case slices.Contains(e.Keys, "daddr"):
		return p.endOf(ruleset.Destination)
	case e.Result == "type":
		return p.endOf(ruleset.Source)
	}
	return "the route back to " + p.source.String()
}

// nativeSource is the network that a rule's sources are in, where it asks for one.
func nativeSource(rule *nftables.Rule) netip.Prefix {
	for _, s := range rule.Statements {
		m, ok := s.(nftables.Match)
		if !ok || m.Op != "==" {
			continue
		}
		if field, ok := m.Left.(nftables.Payload); ok && field.Field == "saddr" {
			p, _ := netip.ParsePrefix(nftables.ExprText(m.Right))
			return p
		}
	}
	return netip.Prefix{}
}

// marksFor is the last rule on the way that set the mark that a native rule asks
// for; nil without.
func marksFor(at sim.RuleRef, o *sim.Outcome) *sim.Step {
	if at.Rule == nil || at.Rule.Native == nil || !asksForMark(at.Rule.Native) {
		return nil
	}
	own := slices.IndexFunc(o.Steps, func(s sim.Step) bool { return s.At == at && s.Matched })
	for i, s := range slices.Backward(o.Steps[:max(own, 0)]) {
		if s.Matched && s.At.Rule != nil && strings.HasPrefix(s.Effect, "mark ") {
			return &o.Steps[i]
		}
	}
	return nil
}

func asksForMark(rule *nftables.Rule) bool {
	return slices.ContainsFunc(rule.Statements, func(s nftables.Statement) bool {
		m, ok := s.(nftables.Match)
		if !ok {
			return false
		}
		left := m.Left
		if masked, ok := left.(nftables.Binary); ok {
			left = masked.Left
		}
		meta, ok := left.(nftables.Meta)
		return ok && meta.Key == "mark"
	})
}
