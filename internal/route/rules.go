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

// matches is the kernel's fib_rule_match with fib4_rule_match or fib6_rule_match.
// open says what isn't known where the answer is maybe.
func (r *ruleIndex) matches(s *search) (m match, open string) {
	fits, open := r.fits(s)
	switch {
	case fits && open != "":
		return maybe, open
	case fits != r.Not:
		return yes, ""
	}
	return no, ""
}

// fits asks all that is known; open is the first thing asked for that isn't.
func (r *ruleIndex) fits(s *search) (fits bool, open string) {
	q := s.q
	if !matchesPrefix(r.From, q.Source) || !matchesPrefix(r.To, q.Destination) || (r.Mark^q.Mark)&r.Mask != 0 ||
		r.Out != "" && r.Out != q.OutInterface || r.TOS != 0 && r.TOS != q.TOS&^3 {
		return false, ""
	}
	var what string
	if fits, open = r.fitsIn(s); !fits && open == "" {
		return false, ""
	}
	if fits, what = r.fitsPorts(s); !fits && what == "" {
		return false, ""
	}
	open = cmp.Or(open, what)
	if fits, what = r.fitsUser(s); !fits && what == "" {
		return false, ""
	}
	open = cmp.Or(open, what)
	if fits, what = r.fitsVRF(s); !fits && what == "" {
		return false, ""
	}
	open = cmp.Or(open, what)
	if r.Unknown != "" {
		open = cmp.Or(open, "what isn't understood in it")
	}
	return true, open
}

func (r *ruleIndex) fitsIn(s *search) (fits bool, open string) {
	if r.In != "" && s.q.InUnknown {
		return false, "the interface that the packet comes in by"
	}
	return r.In == "" || r.In == s.in, ""
}

func (r *ruleIndex) fitsPorts(s *search) (fits bool, open string) {
	q := s.q
	if r.Protocol != 0 && q.Protocol != 0 && r.Protocol != q.Protocol || !fitsRange(r.SourcePorts, q.SourcePort) ||
		!fitsRange(r.DestinationPorts, q.DestinationPort) {
		return false, ""
	}
	switch {
	case r.Protocol != 0 && q.Protocol == 0:
		return false, "the protocol"
	case r.SourcePorts != nil && q.SourcePort < 0:
		return false, "the source port"
	case r.DestinationPorts != nil && q.DestinationPort < 0:
		return false, "the destination port"
	}
	return true, ""
}

// fitsRange: a port that isn't known may fit.
func fitsRange(ports *[2]uint16, port int) bool {
	return ports == nil || port < 0 || port >= int(ports[0]) && port <= int(ports[1])
}

// fitsUser: what is forwarded counts as root's (sock_net_uid).
func (r *ruleIndex) fitsUser(s *search) (fits bool, open string) {
	if r.UIDs != nil && !s.forwarded() && !s.reverse {
		return false, "the user who sends it"
	}
	return r.UIDs == nil || r.UIDs[0] == 0, ""
}

func (r *ruleIndex) fitsVRF(s *search) (fits bool, open string) {
	if r.L3MDev && (s.q.InUnknown || !s.ix.n.KnownLinks && s.in != "lo") {
		return false, "whether the interface belongs to a VRF"
	}
	return !r.L3MDev || s.vrf() != "", ""
}

// matchesPrefix: no prefix asks for nothing; an address that isn't given is all zeros.
func matchesPrefix(p netip.Prefix, a netip.Addr) bool {
	if p.Bits() <= 0 {
		return true
	}
	return p.Contains(a)
}
