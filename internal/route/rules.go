package route

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"

	"github.com/unmasq/unmasq/internal/packet"
)

// ruleIndex is a rule with its table.
type ruleIndex struct {
	*Rule
	// plain: it matches every packet.
	plain bool
	table *table
	// missing: the table wasn't given, and this is its name.
	missing string
	// jump is the place of the rule that goto leads to; -1 where there is none:
	// the rule then does nothing.
	jump int
}

// addRules sorts the rules; without any, those that every node has.
func (fi *familyIndex) addRules(ix *index) {
	var rules []*Rule
	for i := range ix.n.Rules {
		if rule := &ix.n.Rules[i]; rule.Family == fi.family {
			rules = append(rules, rule)
		}
	}
	if len(rules) == 0 && !fi.known.Rules {
		rules = defaultRules(fi.family)
	}
	slices.SortStableFunc(rules, func(a, b *Rule) int { return cmp.Compare(a.Priority, b.Priority) })
	fi.rules = make([]ruleIndex, len(rules))
	for i, rule := range rules {
		fi.rules[i] = ruleIndex{Rule: rule, jump: -1, plain: rule.isPlain()}
		r := &fi.rules[i]
		if r.isLookup() && !rule.L3MDev {
			r.table = fi.table(rule.Table)
			if hasRoutes := len(r.table.entries) > 0; !ix.n.tableGiven(fi.family, rule.Table) && (!hasRoutes || rule.Table == TableMain) {
				r.missing = ix.n.nameOf(rule.Table)
			}
		}
		if rule.Goto > rule.Priority { // the kernel takes no others
			r.jump = slices.IndexFunc(rules, func(to *Rule) bool { return to.Priority == rule.Goto })
		}
	}
	fi.ordinary = sameRules(rules, defaultRules(fi.family))
}

// isLookup: it is neither a jump nor an end by itself.
func (rule *Rule) isLookup() bool {
	return rule.Action == Unicast && rule.Goto == 0 && !rule.NoOperation
}

// isPlain: it asks for nothing.
func (rule *Rule) isPlain() bool {
	asked := *rule
	asked.Family, asked.Priority, asked.Table, asked.Action, asked.Goto, asked.NoOperation = 0, 0, 0, 0, 0, false
	asked.SuppressPrefixLength, asked.SuppressGroup, asked.Text = 0, "", ""
	asked.From, asked.To = narrowing(asked.From), narrowing(asked.To)
	return asked == Rule{}
}

// narrowing is the prefix, or none where it holds every address.
func narrowing(p netip.Prefix) netip.Prefix {
	if p.Bits() == 0 {
		return netip.Prefix{}
	}
	return p
}

func defaultRules(f packet.Family) []*Rule {
	rules := []*Rule{
		{Family: f, Priority: 0, Table: TableLocal, SuppressPrefixLength: -1, Text: "0: from all lookup local"},
		{Family: f, Priority: 32766, Table: TableMain, SuppressPrefixLength: -1, Text: "32766: from all lookup main"},
	}
	if f == packet.IPv4Family {
		rules = append(rules, &Rule{Family: f, Priority: 32767, Table: TableDefault, SuppressPrefixLength: -1, Text: "32767: from all lookup default"})
	}
	return rules
}

func sameRules(a, b []*Rule) bool {
	return slices.EqualFunc(a, b, func(a, b *Rule) bool {
		x, y := *a, *b
		x.Text, y.Text = "", ""
		return x == y
	})
}

// nameOf is how the dump calls a table.
func (n *Network) nameOf(table uint32) string {
	switch table {
	case TableLocal:
		return "local"
	case TableMain:
		return "main"
	case TableDefault:
		return "default"
	}
	for name, number := range n.names {
		if number == table {
			return name
		}
	}
	return strconv.FormatUint(uint64(table), 10)
}

// match is the answer to whether a rule matches; maybe where the query leaves
// open what it asks for.
type match uint8

const (
	no match = iota
	yes
	maybe
)

func (m match) and(condition bool) match {
	if !condition {
		return no
	}
	return m
}

// andUnknown: what isn't known leaves it open, unless another condition fails.
func (m match) andUnknown() match {
	if m == no {
		return no
	}
	return maybe
}

// matches is the kernel's fib_rule_match with fib4_rule_match or fib6_rule_match.
// why says what is open where the answer is maybe.
func (r *ruleIndex) matches(s *search) (m match, why string) {
	q := s.q
	m = yes
	m = m.and(matchesPrefix(r.From, q.Source)).and(matchesPrefix(r.To, q.Destination))
	m = m.and((r.Mark^q.Mark)&r.Mask == 0)
	m = m.and(r.Out == "" || r.Out == q.OutInterface)
	m = m.and(r.TOS == 0 || r.TOS == q.TOS&^3)
	open := func(what string) {
		if m = m.andUnknown(); m == maybe && why == "" {
			why = what
		}
	}
	switch {
	case r.In == "":
	case q.InUnknown:
		open("the interface that the packet comes in by")
	default:
		m = m.and(r.In == s.in)
	}
	switch {
	case r.Protocol == 0:
	case q.Protocol == 0:
		open("the protocol")
	default:
		m = m.and(r.Protocol == q.Protocol)
	}
	m = r.ports(m, q, open)
	if r.UIDs != nil {
		if s.forwarded() { // what is forwarded counts as root's (sock_net_uid)
			m = m.and(r.UIDs[0] == 0)
		} else {
			open("the user who sends it")
		}
	}
	if r.L3MDev {
		m = m.and(s.vrf() != "")
		if q.InUnknown || !s.ix.n.KnownLinks && s.in != "lo" {
			m = yes
			open("whether the interface belongs to a VRF")
		}
	}
	if r.Unknown != "" {
		open("what isn't understood in it")
	}
	if r.Not && m != maybe {
		m = yes - m
	}
	return m, why
}

// ports of the rule; open is called where the query's aren't known.
func (r *ruleIndex) ports(m match, q *Query, open func(string)) match {
	for _, side := range [2]struct {
		ports *[2]uint16
		port  int
		what  string
	}{{r.SourcePorts, q.SourcePort, "the source port"}, {r.DestinationPorts, q.DestinationPort, "the destination port"}} {
		switch {
		case side.ports == nil:
		case side.port < 0:
			open(side.what)
		default:
			m = m.and(side.port >= int(side.ports[0]) && side.port <= int(side.ports[1]))
		}
	}
	return m
}

// matchesPrefix: no prefix asks for nothing; an address that isn't given is all zeros.
func matchesPrefix(p netip.Prefix, a netip.Addr) bool {
	if p.Bits() <= 0 {
		return true
	}
	return p.Contains(a)
}
