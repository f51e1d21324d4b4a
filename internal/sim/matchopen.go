package sim

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// chooseInterfaces asks for interfaces that aren't known.
func (r *run) chooseInterfaces(rule *ruleset.Rule) bool {
	if rule.NoInterfaces {
		// A listing without -v hides interfaces; whether it does is asked for
		// rules that do something.
		if !r.chooseHidden(rule) {
			return false
		}
	}
	for _, side := range []struct {
		open    *openInterface
		pattern ruleset.Interface
	}{{&r.in, rule.In}, {&r.out, rule.Out}} {
		p := side.pattern
		if p == (ruleset.Interface{}) || side.open.known {
			continue
		}
		if r.interfaceIs(side.open, p, !p.Not) == p.Not {
			return false
		}
	}
	return true
}

// chooseHidden asks whether a rule of a listing without interfaces matches.
func (r *run) chooseHidden(rule *ruleset.Rule) bool {
	switch rule.Target.(type) {
	case nil, ruleset.Inert:
		return true
	}
	const why = "the listing doesn't show them (iptables -v does)"
	return r.choose("", "interfaces",
		alternative{why: why, when: "the rule has none, or these: " + rule.Text},
		alternative{why: why, when: "the rule has others: " + rule.Text}) == 0
}

// chooseMatches asks what isn't certain, in the rule's order.
func (r *run) chooseMatches(rule *ruleset.Rule) bool {
	for _, m := range rule.Matches {
		if r.certainly(m) == ipset.Unknown && !r.chooseMatch(m) {
			return false
		}
	}
	return true
}

// chooseMatch answers a match that is open.
func (r *run) chooseMatch(match ruleset.Match) bool {
	switch m := match.(type) {
	case ruleset.Ports:
		return r.choosePorts(m)
	case ruleset.Set:
		return r.chooseSet(m)
	case ruleset.Mark:
		return r.chooseMark(m)
	case ruleset.AddressType:
		return r.chooseTypes(m)
	case ruleset.Statistic:
		return r.chooseStatistic(m)
	case ruleset.Owner:
		return r.assume(fmt.Sprintf("owner %+v", m), "the sending process", "its user and group aren't known", true)
	case ruleset.PhysDev:
		return r.assume(fmt.Sprintf("physdev %+v", m), "bridge ports", "the bridge port isn't known", true)
	case ruleset.RPFilter:
		return r.assume(fmt.Sprintf("rpfilter %+v", m), "routes", "the route back to the source isn't known", !m.Invert)
	case ruleset.TCPFlags:
		return r.assume(fmt.Sprintf("flags %+v", m), "TCP flags", "those of a later packet aren't known", true)
	case ruleset.PacketType:
		return r.assume("pkttype "+m.Type, "packet type", "whether "+r.dst.String()+" is "+m.Type+" isn't known", m.Type == "unicast") != m.Not
	case ruleset.Stateful:
		return r.assume("", "state", "what -m "+m.Name+" counts isn't in a dump ("+strings.TrimSpace(m.Text)+")", true)
	case ruleset.Unknown:
		why := m.Why
		if why == "" {
			why = "not understood"
		}
		return r.assume("unknown "+m.Text, "match "+m.Name, why+": "+strings.TrimSpace(m.Text), true)
	}
	panic(fmt.Sprintf("no choice for match %T", match))
}

// assume chooses whether something open holds, once a run for each key; first
// is what is followed first.
func (r *run) assume(key, what, why string, first bool) bool {
	return r.chooseText(key, what, why, "it matches", "it doesn't match", first)
}

func (r *run) chooseText(key, what, why, yes, no string, first bool) bool {
	if key != "" {
		if taken, ok := r.recall(key); ok {
			return (taken == 0) == first
		}
	}
	holds, doesnt := alternative{why: why, when: yes}, alternative{why: why, when: no}
	if !first {
		holds, doesnt = doesnt, holds
	}
	return (r.choose(key, what, holds, doesnt) == 0) == first
}

func (r *run) chooseSet(m ruleset.Set) bool {
	_, why := r.inSet(m)
	var ends []string
	for _, d := range m.Directions {
		ends = append(ends, r.sideOf(d).String())
	}
	asked := strings.Join(ends, ",")
	key := "set " + m.Name + " " + asked + fmt.Sprint(m.Directions) + m.Options
	return r.chooseText(key, "set "+m.Name, why, asked+" is in it", asked+" isn't in it", !m.Not) != m.Not
}

// chooseMark asks whether something in a chain that the excerpt lacks has
// marked the packet.
func (r *run) chooseMark(m ruleset.Mark) bool {
	as := r.mark&m.Mask == m.Value
	key := fmt.Sprintf("mark %#x/%#x", m.Value, m.Mask)
	why := "the chain that could mark it isn't in the dump"
	is := r.chooseText(key, "mark", why, fmt.Sprintf("it is %#x/%#x", m.Value, m.Mask), fmt.Sprintf("it isn't %#x/%#x", m.Value, m.Mask), as)
	if is {
		r.mark = r.mark&^m.Mask | m.Value
	}
	return is != m.Not
}

func (r *run) chooseStatistic(m ruleset.Statistic) bool {
	if m.Every > 0 {
		return r.assume("", "state", fmt.Sprintf("it is one packet in %d", m.Every), true)
	}
	p := m.Probability
	if m.Not {
		p = 1 - p
	}
	return r.choose("", "dice", alternative{weight: p}, alternative{weight: 1 - p}) == 0
}

func (r *run) choosePorts(m ruleset.Ports) bool {
	switch m.Side {
	case ruleset.Source:
		return r.within(&r.sport, m.Side, m.Ranges) != m.Not
	case ruleset.Destination:
		return r.within(&r.dport, m.Side, m.Ranges) != m.Not
	}
	return (r.within(&r.dport, ruleset.Destination, m.Ranges) || r.within(&r.sport, ruleset.Source, m.Ranges)) != m.Not
}

// chooseTypes: what isn't known to be the node's own is either that or unicast.
func (r *run) chooseTypes(m ruleset.AddressType) bool {
	for _, side := range []struct {
		a     netip.Addr
		types ruleset.AddressTypes
		not   bool
	}{{r.src, m.Source, m.NotSource}, {r.dst, m.Destination, m.NotDestination}} {
		if side.types == 0 || r.certainType(side.a, side.types, r.limit(m), side.not) == ipset.Yes {
			continue
		}
		t := route.Unicast
		if r.isLocal(side.a) {
			t = route.Local
		}
		if (side.types&typeBit(t) != 0) == side.not {
			return false
		}
	}
	return true
}
