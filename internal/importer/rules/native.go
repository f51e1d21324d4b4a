package rules

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// nativeRule is a rule of nftables on its way to be steps.
type nativeRule struct {
	*reader
	family packet.Family
	table  *nftables.Table
	chains map[string]*chain
	steps  []step
	// step that the statements add to.
	step
}

// native makes steps of a rule of nftables: one for each statement that does
// something, and one for each element of a verdict map.
func (r *reader) native(f packet.Family, t *nftables.Table, rule *nftables.Rule, all map[string]*chain) []step {
	n := &nativeRule{reader: r, family: f, table: t, chains: all}
	for _, statement := range rule.Statements {
		n.add(statement)
	}
	return n.steps
}

// emit what was asked for so far, with something to do.
func (n *nativeRule) emit(do func(*step)) {
	s := n.step
	s.parts, s.marks, s.unsaid = append([]part(nil), s.parts...), append([]markTest(nil), s.marks...), append([]string(nil), s.unsaid...)
	do(&s)
	n.steps = append(n.steps, s)
}

func (n *nativeRule) not(what string) { n.unsaid = append(n.unsaid, what) }

func (n *nativeRule) add(statement nftables.Statement) {
	switch s := statement.(type) {
	case nftables.Match:
		n.match(s)
	case nftables.Verdict:
		n.emit(func(to *step) { n.verdict(to, s) })
	case nftables.VerdictMap:
		n.verdictMap(s)
	case nftables.NAT:
		n.emit(func(to *step) { n.nat(to, s) })
	case nftables.Assign:
		n.assign(s)
	case nftables.Inert:
	case nftables.Stateful:
		n.not(s.Name)
	case nftables.XT:
		if s.Kind == "target" {
			n.emit(func(to *step) {
				to.act, to.losses = stop, []string{"the listing doesn't show what " + s.Name + " does (iptables-save does)"}
			})
			return
		}
		if s.Name == "comment" {
			return // every packet matches it
		}
		n.not("-m " + s.Name + ", whose parameters the listing doesn't show (iptables-save does)")
	case nftables.SetUpdate:
		n.not("room in set " + s.Set)
	default:
		n.emit(func(to *step) {
			to.act, to.losses = stop, []string{"a policy has no " + nftables.StatementText(statement)}
		})
	}
}

func (n *nativeRule) verdict(to *step, v nftables.Verdict) {
	switch v.Kind {
	case nftables.Accept:
		to.act = accept
	case nftables.Return:
		to.act = goBack
	case nftables.Jump, nftables.Goto:
		to.act = jump
		if v.Kind == nftables.Goto {
			to.act = leap
		}
		to.to(v.Chain, n.chains)
	case nftables.Continue:
	default:
		to.act, to.losses = stop, []string{"a policy doesn't " + v.Kind.String()}
	}
}

// verdictMap of one key that regions know: a step for each element, of which a packet
// fits one at most.
func (n *nativeRule) verdictMap(m nftables.VerdictMap) {
	elements, ok := n.elements(m.Map)
	if !ok {
		n.emit(func(to *step) { to.act, to.unsaid = stop, append(to.unsaid, "map "+nftables.ExprText(m.Map)) })
		return
	}
	for _, e := range elements {
		v, is := e.Data.(nftables.VerdictValue)
		before := n.step
		n.match(nftables.Match{Op: "==", Left: m.Key, Right: e.Key})
		n.emit(func(to *step) {
			if n.verdict(to, v.Verdict); !is {
				to.act, to.unsaid = stop, append(to.unsaid, "map "+nftables.ExprText(m.Map))
			}
		})
		n.step = before
	}
}

// elements of a set or map.
func (n *nativeRule) elements(e nftables.Expr) ([]nftables.Element, bool) {
	switch e := e.(type) {
	case nftables.SetLiteral:
		return e.Elements, true
	case nftables.SetRef:
		if s := n.table.Set(strings.TrimPrefix(e.Name, "@")); s != nil {
			return s.Elements, len(s.Elements) <= mostElements
		}
		return nil, false
	}
	return []nftables.Element{{Key: e}}, true
}

// intervals that the right of a comparison stands for.
func (n *nativeRule) intervals(datatype string, e nftables.Expr) (all []nftables.Interval, ok bool) {
	d, known := nftables.DatatypeOf(datatype)
	elements, ok := n.elements(e)
	if !known || !ok {
		return nil, false
	}
	for _, element := range elements {
		i, err := nftables.Parse(d, element.Key)
		if err != nil || len(element.Statements) > 0 {
			return nil, false
		}
		all = append(all, i)
	}
	return all, true
}

func (n *nativeRule) match(m nftables.Match) {
	is := m.Op == "==" || m.Op == "in" || m.Op == "!="
	if !is || !n.compare(m.Left, m.Right, m.Op == "!=") {
		n.not(nftables.StatementText(m))
	}
}

// compare a field that regions know with constants; false: they don't.
func (n *nativeRule) compare(left, right nftables.Expr, not bool) bool {
	switch l := left.(type) {
	case nftables.Payload:
		return n.payload(l, right, not)
	case nftables.Meta:
		return n.meta(l, right, not)
	case nftables.FIB:
		to := nftables.ExprText(right)
		switch nftables.ExprText(l) + " " + to {
		case "fib daddr type local": // policies leave alone what goes to the node itself
			n.never = n.never || !not
			return true
		case "fib saddr type local":
			n.where(n.family, not, func(r *Region) { r.Forwarded = false })
			return true
		}
	case nftables.CT:
		if l.Key == "state" && l.Direction == "" {
			text := nftables.ExprText(right)
			switch text {
			case "new":
				n.never = n.never || not
				return true
			case "established", "established,related", "related,established":
				n.never = n.never || !not
				return true
			}
		}
	case nftables.Binary:
		mask, ok := n.intervals("mark", l.Right)
		if meta, is := l.Left.(nftables.Meta); is && meta.Key == "mark" && l.Op == "&" && ok && len(mask) == 1 && mask[0].Single() {
			return n.mark(right, word(mask[0].First), not)
		}
	}
	return false
}

func word(v nftables.Value) uint32 { return binary.BigEndian.Uint32([]byte(v)) }

func (n *nativeRule) mark(right nftables.Expr, mask uint32, not bool) bool {
	values, ok := n.intervals("mark", right)
	if !ok || len(values) != 1 || !values[0].Single() {
		return false
	}
	n.marks = append(n.marks, markTest{word(values[0].First), mask, not})
	return true
}

func (n *nativeRule) meta(m nftables.Meta, right nftables.Expr, not bool) bool {
	switch m.Key {
	case "mark":
		return n.mark(right, ^uint32(0), not)
	case "nfproto", "protocol":
		family, ok := map[string]packet.Family{"ipv4": packet.IPv4Family, "ip": packet.IPv4Family, "ipv6": packet.IPv6Family, "ip6": packet.IPv6Family}[nftables.ExprText(right)]
		n.never = n.never || ok && (family != n.family) != not
		return ok
	case "oifname", "oif":
		return n.interfaces(right, not)
	case "iifname", "iif":
		name := strings.Trim(nftables.ExprText(right), `"`)
		if not || n.in != "" || name == "" || strings.ContainsAny(name, `*\@{`) {
			return false
		}
		n.in = name
		return true
	case "l4proto":
		protocols, ok := n.intervals("inet_proto", right)
		if !ok || len(protocols) != 1 || !protocols[0].Single() {
			return false
		}
		n.protocol(n.family, protocols[0].First[0], nil, not)
		return true
	}
	return false
}

func (n *nativeRule) interfaces(right nftables.Expr, not bool) bool {
	elements, ok := n.elements(right)
	if !ok {
		return false
	}
	var names []string
	for _, e := range elements {
		l, is := e.Key.(nftables.Literal)
		name := strings.Trim(l.Text, `"`)
		if !is || name == "" || strings.ContainsAny(name, `\`) {
			return false
		}
		names = append(names, name)
	}
	if len(names) == 1 {
		n.out(n.family, names[0], not)
		return true
	}
	n.where(n.family, not, func(r *Region) { r.Out = names })
	return len(names) > 0
}

func (n *nativeRule) payload(p nftables.Payload, right nftables.Expr, not bool) bool {
	switch p.Protocol {
	case "ip", "ip6":
		return n.address(p, right, not)
	case "tcp", "udp", "sctp":
		return p.Field == "dport" && n.ports(map[string]uint8{"tcp": packet.TCP, "udp": packet.UDP, "sctp": packet.SCTP}[p.Protocol], right, not)
	}
	return false
}

func (n *nativeRule) address(p nftables.Payload, right nftables.Expr, not bool) bool {
	datatype, family := "ipv4_addr", packet.IPv4Family
	if p.Protocol == "ip6" {
		datatype, family = "ipv6_addr", packet.IPv6Family
	}
	side, ok := map[string]ruleset.Side{"saddr": ruleset.Source, "daddr": ruleset.Destination}[p.Field]
	if !ok {
		return false
	}
	if family != n.family { // the field isn't there: the rule doesn't match, negated or not
		n.never = true
		return true
	}
	intervals, ok := n.intervals(datatype, right)
	var in []netip.Prefix
	for _, i := range intervals {
		first, _ := netip.AddrFromSlice([]byte(i.First))
		last, _ := netip.AddrFromSlice([]byte(i.Last))
		in = append(in, netipx.IPRangeFrom(first, last).Prefixes()...)
	}
	switch {
	case !ok:
		return false
	case in == nil:
		n.never = n.never || !not
	default:
		n.addresses(n.family, side, in, nil, not)
	}
	if ref, is := right.(nftables.SetRef); is {
		n.step.elements = append(n.step.elements, ref.Name)
	}
	return true
}

func (n *nativeRule) ports(protocol uint8, right nftables.Expr, not bool) bool {
	intervals, ok := n.intervals("inet_service", right)
	if !ok || len(intervals) == 0 {
		return false
	}
	var ports []ruleset.PortRange
	for _, i := range intervals {
		ports = append(ports, ruleset.PortRange{First: binary.BigEndian.Uint16([]byte(i.First)), Last: binary.BigEndian.Uint16([]byte(i.Last))})
	}
	if not { // dport != 80 asks for the protocol, too
		n.protocol(n.family, protocol, nil, false)
	}
	n.protocol(n.family, protocol, ports, not)
	return true
}

// assign: marks are followed.
func (n *nativeRule) assign(a nftables.Assign) {
	switch key := a.Key.(type) {
	case nftables.Meta:
		if key.Key != "mark" {
			return
		}
		mark, ok := n.newMark(a.Value)
		n.emit(func(to *step) {
			if to.act, to.mark = setMark, mark; !ok {
				to.unsaid = append(to.unsaid, "the mark "+nftables.ExprText(a.Value))
			}
		})
	case nftables.CT:
	default:
		n.emit(func(to *step) {
			to.act, to.losses = stop, []string{"a policy changes no " + nftables.ExprText(a.Key)}
		})
	}
}

// newMark of meta mark set VALUE, or MARK with one bit operation.
func (n *nativeRule) newMark(e nftables.Expr) (ruleset.SetMark, bool) {
	b, operation := e.(nftables.Binary)
	if operation {
		if m, is := b.Left.(nftables.Meta); !is || m.Key != "mark" {
			return ruleset.SetMark{}, false
		}
		e = b.Right
	}
	value, ok := n.intervals("mark", e)
	if !ok || len(value) != 1 || !value[0].Single() {
		return ruleset.SetMark{}, false
	}
	v := word(value[0].First)
	switch b.Op {
	case "":
		return ruleset.SetMark{Value: v, Mask: ^uint32(0)}, true
	case "&":
		return ruleset.SetMark{Mask: ^v}, true
	case "|":
		return ruleset.SetMark{Value: v, Mask: v}, true
	case "^":
		return ruleset.SetMark{Value: v}, true
	}
	return ruleset.SetMark{}, false
}

func (n *nativeRule) nat(to *step, nat nftables.NAT) {
	flags := ruleset.NATFlags{Random: nat.Random, RandomFully: nat.FullyRandom}
	switch {
	case nat.Kind == nftables.Masquerade:
		to.act = translate
		to.entry = Entry{Action: "Masquerade", FullyRandom: flags.Random || flags.RandomFully}
		if nat.Port == nil {
			return
		}
		if ports, ok := n.intervals("inet_service", nat.Port); ok && len(ports) == 1 {
			to.entry.Ports = &ruleset.PortRange{First: binary.BigEndian.Uint16([]byte(ports[0].First)), Last: binary.BigEndian.Uint16([]byte(ports[0].Last))}
			return
		}
		to.losses = append(to.losses, "its source ports are left out")
	case nat.Kind == nftables.SNAT && !nat.Prefix:
		n.snatTo(to, nat, flags)
	default:
		to.act, to.losses = stop, []string{"a policy has no such " + nat.Kind.String()}
	}
}

func (n *nativeRule) snatTo(to *step, nat nftables.NAT, flags ruleset.NATFlags) {
	datatype := "ipv4_addr"
	if n.family == packet.IPv6Family {
		datatype = "ipv6_addr"
	}
	if p, is := nat.Address.(nftables.Payload); is && p.Field == "saddr" { // identity: the source is pinned
		to.act, to.entry = translate, Entry{Action: "Keep"}
		return
	}
	addresses, ok := n.intervals(datatype, nat.Address)
	if !ok || len(addresses) != 1 {
		to.act, to.losses = stop, []string{"its address isn't one constant"}
		return
	}
	first, _ := netip.AddrFromSlice(bytes.Clone([]byte(addresses[0].First)))
	last, _ := netip.AddrFromSlice(bytes.Clone([]byte(addresses[0].Last)))
	to.snat(first, last, nat.Port != nil, flags)
}
