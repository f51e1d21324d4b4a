package sim

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// openPort is a port: known, or what rules asked so far leave of it.
type openPort struct {
	known bool
	port  uint16
	// left are the ports that it may still be, ascending.
	left []ruleset.PortRange
}

func portOf(n int) openPort {
	if n == UnknownPort {
		return openPort{left: []ruleset.PortRange{{First: 0, Last: 65535}}}
	}
	return openPort{known: true, port: uint16(n)}
}

func (p *openPort) number() int {
	if !p.known {
		return UnknownPort
	}
	return int(p.port)
}

// within asks whether the port is in the ranges; of an open port it chooses.
func (r *run) within(p *openPort, side ruleset.Side, ranges []ruleset.PortRange) bool {
	if p.known {
		for _, g := range ranges {
			if g.First <= p.port && p.port <= g.Last {
				return true
			}
		}
		return false
	}
	inside, outside := split(p.left, ranges)
	if len(inside) == 0 {
		return false
	}
	if len(outside) == 0 {
		return true
	}
	const why = "the question leaves it open"
	name := "destination port"
	if side == ruleset.Source {
		name = "source port"
	}
	if r.choose("", name, alternative{why: why, when: "it is " + portsText(inside)}, alternative{why: why, when: "it isn't " + portsText(inside)}) == 0 {
		p.left = inside
		return true
	}
	p.left = outside
	return false
}

// split parts the ports of left into those in ranges and the others.
func split(left, ranges []ruleset.PortRange) (inside, outside []ruleset.PortRange) {
	outside = left
	for _, g := range ranges {
		var rest []ruleset.PortRange
		for _, l := range outside {
			first, last := max(l.First, g.First), min(l.Last, g.Last)
			if first > last {
				rest = append(rest, l)
				continue
			}
			inside = append(inside, ruleset.PortRange{First: first, Last: last})
			if l.First < first {
				rest = append(rest, ruleset.PortRange{First: l.First, Last: first - 1})
			}
			if last < l.Last {
				rest = append(rest, ruleset.PortRange{First: last + 1, Last: l.Last})
			}
		}
		outside = rest
	}
	return inside, outside
}

func portsText(ranges []ruleset.PortRange) string {
	var b strings.Builder
	for i, g := range ranges {
		if i > 0 {
			b.WriteString(", ")
		}
		if i == 4 {
			b.WriteString("…")
			break
		}
		if g.First == g.Last {
			fmt.Fprintf(&b, "%d", g.First)
		} else {
			fmt.Fprintf(&b, "%d-%d", g.First, g.Last)
		}
	}
	return b.String()
}

// openInterface is the name of an interface: known (empty where there is none),
// or what rules asked so far say about it.
type openInterface struct {
	known bool
	name  string
	// is and isNot are the patterns that it was taken to match, and not to.
	is, isNot []ruleset.Interface
	// among are all names that it may be, where those are known.
	among []string
	// what it is called, and why it isn't known. Empty where it was known all along.
	what, why string
}

func interfaceNamed(name string) openInterface { return openInterface{known: true, name: name} }

func matchesName(pattern ruleset.Interface, name string) bool {
	if pattern.Wildcard {
		return strings.HasPrefix(name, pattern.Name)
	}
	return pattern.Name == name
}

// covers says whether every name that b matches is matched by a.
func covers(a, b ruleset.Interface) bool {
	return matchesName(a, b.Name) && (a.Wildcard || !b.Wildcard)
}

// disjoint says whether no name matches both.
func disjoint(a, b ruleset.Interface) bool {
	switch {
	case a.Wildcard && b.Wildcard:
		return !strings.HasPrefix(a.Name, b.Name) && !strings.HasPrefix(b.Name, a.Name)
	case a.Wildcard:
		return !matchesName(a, b.Name)
	}
	return !matchesName(b, a.Name)
}

// interfaceIs asks whether the interface matches a pattern, Not left aside.
// preferred is the answer that is followed first.
func (r *run) interfaceIs(i *openInterface, pattern ruleset.Interface, preferred bool) bool {
	if i.known {
		return matchesName(pattern, i.name)
	}
	isNot := func(name string) bool { return !matchesName(pattern, name) }
	if i.among != nil && !slices.ContainsFunc(i.among, isNot) {
		return true
	}
	if i.among != nil && !slices.ContainsFunc(i.among, func(name string) bool { return !isNot(name) }) {
		return false
	}
	for _, p := range i.is {
		if covers(pattern, p) {
			return true
		}
		if disjoint(pattern, p) {
			return false
		}
	}
	for _, p := range i.isNot {
		if covers(p, pattern) {
			return false
		}
	}
	if pattern.Name == "" && pattern.Wildcard {
		return true
	}
	text := pattern.Name
	if pattern.Wildcard {
		text += "+"
	}
	pattern.Not = false
	answers := [2]alternative{{why: i.why, when: "it is " + text}, {why: i.why, when: "it isn't " + text}}
	first := 0
	if !preferred {
		first = 1
	}
	if (r.choose("", i.what, answers[first], answers[1-first]) == 0) == preferred {
		i.is = append(i.is, pattern)
		if !pattern.Wildcard {
			i.known, i.name = true, pattern.Name
		}
		i.narrow(isNot)
		return true
	}
	i.isNot = append(i.isNot, pattern)
	i.narrow(func(name string) bool { return !isNot(name) })
	return false
}

// narrow takes names from those that it may be.
func (i *openInterface) narrow(without func(string) bool) {
	if i.among == nil || i.known {
		return
	}
	if i.among = slices.DeleteFunc(slices.Clone(i.among), without); len(i.among) == 1 {
		i.known, i.name = true, i.among[0]
	}
}
