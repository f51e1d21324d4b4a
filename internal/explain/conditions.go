package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
)

// seen is what a packet has where a rule sees it. Ports are sim.UnknownPort and
// interfaces empty where not known.
type seen struct {
	source, destination netip.Addr
	protocol            uint8
	sport, dport        int
	in, out             string
	local               bool
	// asked is the destination before any translation; elements are those of sets
	// and maps that a native rule found the packet in.
	asked    netip.Addr
	elements []*nftables.Element
}

// seenBy is the packet at the rule that decided: behind DNAT, where it was
// before that.
func seenBy(at sim.RuleRef, q sim.Question, o *sim.Outcome) seen {
	s := seen{
		source: q.Source, destination: q.Destination, protocol: q.Protocol, sport: q.SourcePort, dport: q.DestinationPort,
		in: o.InInterface, local: q.Local, asked: q.Destination,
	}
	if o.Protocol != 0 {
		s.protocol = o.Protocol
	}
	for _, step := range o.Steps {
		if step.At == at && step.Matched {
			break
		}
		if changesDestination(step) {
			s.destination, s.dport = o.Destination, o.DestinationPort
		}
	}
	if !slices.ContainsFunc(o.Steps, changesDestination) {
		s.dport = o.DestinationPort
	}
	if leaves(at, o) {
		s.out = o.OutInterface
	}
	for _, step := range o.Steps {
		if step.At == at && step.Matched {
			s.elements = step.Elements
		}
	}
	return s
}

// leaves says whether the rule sees the interface that the packet leaves by.
func leaves(at sim.RuleRef, o *sim.Outcome) bool {
	if at.Table.Native == nil {
		return at.Chain.Name != "PREROUTING" && at.Chain.Name != "INPUT"
	}
	return slices.ContainsFunc(o.Steps, func(s sim.Step) bool {
		return s.At == at && s.Matched && s.Hook != "prerouting" && s.Hook != "input"
	})
}

func changesDestination(s sim.Step) bool {
	if !s.Matched || s.Hook == "postrouting" || s.Hook == "input" && s.At.Rule != nil {
		return false
	}
	if s.At.Rule == nil {
		return strings.HasPrefix(s.Effect, "IPVS ")
	}
	if s.At.Rule.Native != nil {
		return strings.HasPrefix(s.Effect, "dnat to ")
	}
	switch s.At.Rule.Target.(type) {
	case ruleset.DNAT, ruleset.Redirect, ruleset.NetMap:
		return true
	}
	return false
}

// conditions pairs what a rule asks for with what the packet has.
func conditions(rule *ruleset.Rule, p seen) []string {
	var all []string
	add := func(negated bool, condition, has string) {
		if negated {
			condition = "! " + condition
		}
		if has != "" {
			condition += ": " + has
		}
		all = append(all, condition)
	}
	if rule.Native != nil {
		return nativeConditions(rule.Native, p)
	}
	if x := rule.Source; x.Prefix.IsValid() {
		add(x.Not, "-s "+x.Prefix.String(), "the source is "+p.source.String())
	}
	if x := rule.Destination; x.Prefix.IsValid() {
		add(x.Not, "-d "+x.Prefix.String(), "the destination is "+p.destination.String())
	}
	if x := rule.In; x != (ruleset.Interface{}) {
		add(x.Not, "-i "+interfaceText(x), cameBy(p))
	}
	if x := rule.Out; x != (ruleset.Interface{}) {
		has := "the interface isn't known"
		if p.out != "" {
			has = "it leaves by " + p.out
		}
		add(x.Not, "-o "+interfaceText(x), has)
	}
	if x := rule.Protocol; x.Is {
		has := "any was asked for"
		if p.protocol != 0 {
			has = "it is " + protocolName(p.protocol)
		}
		add(x.Not, "-p "+protocolName(x.Number), has)
	}
	for _, m := range rule.Matches {
		if negated, condition, has := matchText(m, p); condition != "" {
			add(negated, condition, has)
		}
	}
	return all
}

func cameBy(p seen) string {
	switch {
	case p.local:
		return "the node itself sends it"
	case p.in == "":
		return "the interface isn't known"
	}
	return "it came in by " + p.in
}

func interfaceText(i ruleset.Interface) string {
	if i.Wildcard {
		return i.Name + "+"
	}
	return i.Name
}

// matchText is what an extension asks for, and what the packet has there; has is
// empty where that can't be put in words.
func matchText(match ruleset.Match, p seen) (negated bool, condition, has string) {
	switch m := match.(type) {
	case ruleset.Ports:
		return m.Not, portsText(m), p.portOf(m.Side)
	case ruleset.TCPFlags:
		return m.Not, "--tcp-flags", "it is a connection's first packet: SYN alone"
	case ruleset.ICMPType:
		return m.Not, fmt.Sprintf("--icmp-type %d", m.Type), "it is taken as an echo request"
	case ruleset.MaskedAddress:
		return m.Not, fmt.Sprintf("%s %s/%s", sideFlag(m.Side), m.Address, m.Mask), p.endOf(m.Side)
	case ruleset.Mark:
		if m.Connection {
			return m.Not, fmt.Sprintf("connmark %#x/%#x", m.Value, m.Mask), ""
		}
		return m.Not, fmt.Sprintf("mark %#x/%#x", m.Value, m.Mask), "rules before, or the question, have marked it so"
	case ruleset.AddressType:
		return false, addressTypes(m), addressTypesOf(m, p)
	case ruleset.Conntrack:
		return m.NotStates, conntrackText(m), "it is the first packet of a connection"
	case ruleset.Statistic:
		if m.Every > 0 {
			return m.Not, "-m statistic", fmt.Sprintf("one packet in %d", m.Every)
		}
		return m.Not, "-m statistic", fmt.Sprintf("a chance of %.3g", m.Probability)
	case ruleset.Set:
		return m.Not, "--match-set " + m.Name, p.endsOf(m.Directions)
	case ruleset.IPRange:
		return m.Not, fmt.Sprintf("-m iprange %s-%s", m.First, m.Last), p.endOf(m.Side)
	case ruleset.PhysDev:
		return false, "-m physdev", "bridge ports"
	case ruleset.Owner:
		return false, "-m owner", "the socket that sends it"
	case ruleset.RPFilter:
		return m.Invert, "-m rpfilter", "the route back to " + p.source.String()
	case ruleset.PacketType:
		return m.Not, "-m pkttype " + m.Type, ""
	case ruleset.Stateful:
		return false, strings.TrimSpace(m.Text), "taken as holding; it depends on what was before"
	case ruleset.Always:
		return false, "", ""
	case ruleset.Unknown:
		return false, strings.TrimSpace(m.Text), "taken as holding; it isn't understood"
	}
	panic(fmt.Sprintf("no words for match %T", match))
}

func portsText(m ruleset.Ports) string {
	var all []string
	for _, r := range m.Ranges {
		if r.First == r.Last {
			all = append(all, fmt.Sprint(r.First))
		} else {
			all = append(all, fmt.Sprintf("%d:%d", r.First, r.Last))
		}
	}
	flag := map[ruleset.Side]string{ruleset.Source: "--sport ", ruleset.Destination: "--dport ", ruleset.Either: "--ports "}[m.Side]
	return flag + strings.Join(all, ",")
}

func (p seen) portOf(s ruleset.Side) string {
	text := func(what string, n int) string {
		if n == sim.UnknownPort {
			return "the " + what + " port was left open"
		}
		return fmt.Sprintf("the %s port is %d", what, n)
	}
	switch s {
	case ruleset.Source:
		return text("source", p.sport)
	case ruleset.Destination:
		return text("destination", p.dport)
	}
	return text("source", p.sport) + ", " + text("destination", p.dport)
}

func sideFlag(s ruleset.Side) string {
	if s == ruleset.Source {
		return "-s"
	}
	return "-d"
}

func (p seen) endOf(s ruleset.Side) string {
	if s == ruleset.Source {
		return "the source is " + p.source.String()
	}
	return "the destination is " + p.destination.String()
}

// endsOf says what a set is asked about; a set's last dimensions may be ports.
func (p seen) endsOf(directions []ruleset.Side) string {
	var all []string
	for _, d := range directions {
		if text := p.endOf(d); !slices.Contains(all, text) {
			all = append(all, text)
		}
	}
	return strings.Join(all, ", ")
}

// typeNames and stateNames are in the order of their bits.
var (
	typeNames = [...]string{
		"UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT", "THROW", "NAT", "XRESOLVE",
	}
	stateNames = [...]string{"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "SNAT", "DNAT"}
)

func bitNames(set uint, names []string) string {
	var all []string
	for i, name := range names {
		if set&(1<<i) != 0 {
			all = append(all, name)
		}
	}
	return strings.Join(all, ",")
}

// conntrackText names the states, which most rules ask for and nothing else.
func conntrackText(m ruleset.Conntrack) string {
	if m.States == 0 {
		return "-m conntrack"
	}
	return "--ctstate " + bitNames(uint(m.States), stateNames[:])
}

func addressTypes(m ruleset.AddressType) string {
	var all []string
	add := func(flag string, types ruleset.AddressTypes, not bool) {
		if types == 0 {
			return
		}
		if not {
			flag = "! " + flag
		}
		all = append(all, flag+" "+bitNames(uint(types), typeNames[:]))
	}
	add("--src-type", m.Source, m.NotSource)
	add("--dst-type", m.Destination, m.NotDestination)
	if m.LimitIn {
		all = append(all, "--limit-iface-in")
	}
	if m.LimitOut {
		all = append(all, "--limit-iface-out")
	}
	return strings.Join(all, " ")
}

func addressTypesOf(m ruleset.AddressType, p seen) string {
	var all []string
	if m.Source != 0 {
		all = append(all, p.endOf(ruleset.Source))
	}
	if m.Destination != 0 {
		all = append(all, p.endOf(ruleset.Destination))
	}
	return strings.Join(all, ", ")
}
