package route

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/unmasq/unmasq/internal/packet"
)

// tableNumber is a table's number. A name of /etc/iproute2/rt_tables has none
// that the dump tells: it gets one that stands for it in this network.
func (n *Network) tableNumber(name string) uint32 {
	switch name {
	case "local":
		return TableLocal
	case "main", "":
		return TableMain
	case "default":
		return TableDefault
	case "unspec":
		return 0
	}
	if number, err := strconv.ParseUint(name, 0, 32); err == nil {
		return uint32(number)
	}
	number, ok := n.names[name]
	if !ok {
		const first = 0xffff0000 // far from what people choose
		number = first + uint32(len(n.names))
		if n.names == nil {
			n.names = map[string]uint32{}
		}
		n.names[name] = number
	}
	return number
}

// finishRoutes gives the routes of a block the family and table that lines leave
// open, and adds them.
func (r *reader) finishRoutes() {
	r.endText()
	if r.command.Partial {
		if len(r.routes) > 0 {
			r.line = r.routes[0].line
			r.problem(r.routes[0].Text, "a part of a table: not used, since the rest isn't known")
		}
		return
	}
	family := r.blockFamily()
	local := r.isLocalTable()
	tables := map[packet.Family]bool{} // where a line names its table, all were shown
	readable := 0
	for i := range r.routes {
		l := &r.routes[i]
		if l.Family == 0 {
			l.Family = family
			if l.preferred {
				l.Family = packet.IPv6Family
			}
		}
		if l.Text == "" {
			r.n.lose(l.Family, "route", l.line)
			continue
		}
		readable++
		if l.settle(r.n, r.command.Table, local); l.Unknown == noHop {
			r.line = l.line
			r.complain(l)
		}
		tables[l.Family] = tables[l.Family] || l.table != ""
	}
	r.giveTables(family, local, tables, readable)
	r.n.addRoutes(r.routes)
}

const noHop = "no next hop is given"

// settle fills in what the line leaves open.
func (l *routeLine) settle(n *Network, table string, local bool) {
	if !l.Destination.IsValid() {
		l.Destination = l.Family.Everywhere()
	}
	switch {
	case l.table != "":
		l.Table = n.tableNumber(l.table)
	case table != "" && table != "all":
		l.Table = n.tableNumber(table)
	case local:
		l.Table = TableLocal
	default:
		l.Table = TableMain
	}
	for i := range l.Nexthops {
		l.Nexthops[i].Weight = max(l.Nexthops[i].Weight, 1)
	}
	if len(l.Nexthops) == 0 && l.Type <= Multicast && l.Unknown == "" {
		l.Unknown = noHop
	}
}

// blockFamily is the family of lines that don't tell: the command's, the
// caller's, or that of the other lines.
func (r *reader) blockFamily() packet.Family {
	switch {
	case r.command.Family != 0:
		return r.command.Family
	case r.family != 0:
		return r.family
	}
	family := packet.IPv4Family
	for i := range r.routes {
		switch l := &r.routes[i]; {
		case l.Family == packet.IPv4Family:
			return l.Family
		case l.Family == packet.IPv6Family || l.preferred:
			family = packet.IPv6Family
		}
	}
	return family
}

// isLocalTable: without a command or a table in any line, addresses that the
// kernel itself put there mean `ip route show table local`.
func (r *reader) isLocalTable() bool {
	found := false
	for i := range r.routes {
		l := &r.routes[i]
		if l.table != "" {
			return false
		}
		found = found || l.Type >= Local && l.Type <= Multicast && l.Protocol == "kernel"
	}
	return found && r.command.Table == ""
}

// giveTables notes which tables the block was.
func (r *reader) giveTables(family packet.Family, local bool, tables map[packet.Family]bool, readable int) {
	if readable == 0 && len(r.routes) > 0 {
		return
	}
	families := map[packet.Family]bool{family: true}
	for i := range r.routes {
		families[r.routes[i].Family] = true
	}
	for f := range families {
		switch {
		case r.command.Table == "all" || r.command.Table == "0" || tables[f]:
			known := r.n.Of(f)
			known.Main, known.AllTables = true, true
		case r.command.Table != "":
			r.n.give(f, r.n.tableNumber(r.command.Table))
		case local:
			r.n.give(f, TableLocal)
		default:
			r.n.give(f, TableMain)
		}
	}
}

// addRoutes adds those that an earlier dump hasn't told. Of two dumps that tell
// one, ip route says more than route -n.
func (n *Network) addRoutes(lines []routeLine) {
	known := make(map[string]int, len(n.Routes))
	for i := range n.Routes {
		known[n.Routes[i].key()] = i
	}
	earlier := len(known) > 0
	n.Routes = slices.Grow(n.Routes, len(lines))
	for i := range lines {
		l := &lines[i]
		if l.Text == "" {
			continue
		}
		if earlier {
			if at, told := known[l.key()]; told {
				if len(l.Text) > len(n.Routes[at].Text) {
					n.Routes[at] = l.Route
				}
				continue
			}
		}
		n.Routes = append(n.Routes, l.Route)
	}
}

// key is the same for a route however it was told.
func (rt *Route) key() string {
	hops := ""
	for _, h := range rt.Nexthops {
		hops += fmt.Sprint(h.Interface, h.Via, h.Weight, h.Encap)
	}
	return fmt.Sprint(rt.Family, rt.Table, rt.Type, rt.Destination, rt.From, rt.Metric, rt.TOS, hops, rt.Unknown)
}

// ruleLine is a rule whose family the line itself may leave open.
type ruleLine struct {
	Rule
	line int
}

// finishRules adds the rules of a block.
func (r *reader) finishRules() {
	if r.command.Partial {
		if len(r.rules) > 0 {
			r.line = r.rules[0].line
			r.problem(r.rules[0].Text, "a part of the rules: not used, since the rest isn't known")
		}
		return
	}
	family := r.ruleFamily()
	known := map[string]bool{}
	for i := range r.n.Rules {
		known[r.n.Rules[i].key()] = true
	}
	for i := range r.rules {
		l := &r.rules[i]
		if l.Family == 0 {
			l.Family = family
		}
		if l.Text == "" {
			r.n.lose(l.Family, "routing rule", l.line)
			continue
		}
		if !known[l.key()] {
			r.n.Rules = append(r.n.Rules, l.Rule)
		}
	}
	r.n.Of(family).Rules = true
}

// key: the text of a rule says all of it.
func (rule *Rule) key() string { return fmt.Sprint(rule.Family, rule.Priority, rule.Text) }

// ruleFamily is that of an address in any rule. Without one, table default
// tells: IPv4 alone has a rule that leads to it.
func (r *reader) ruleFamily() packet.Family {
	switch {
	case r.command.Family != 0:
		return r.command.Family
	case r.family != 0:
		return r.family
	}
	for i := range r.rules {
		if r.rules[i].Family != 0 {
			return r.rules[i].Family
		}
	}
	if len(r.rules) == 2 && r.rules[0].Table == TableLocal && r.rules[1].Table == TableMain {
		return packet.IPv6Family
	}
	return packet.IPv4Family
}

// ruleLine reads a line of ip rule:
//
//	100:	not from 10.0.0.0/24 to 10.3.0.0/16 fwmark 0x10/0xf0 iif v0 oif v9 [detached] lookup 100
//	200:	from 10.0.0.5 uidrange 0-100 ipproto tcp sport 5 dport 80-90 lookup main suppress_prefixlength 0
//	300:	from all goto 500
//	501:	from 10.3.3.3 prohibit
//	1000:	from all lookup [l3mdev-table]
func (r *reader) ruleLine(words []string) {
	l := ruleLine{line: r.line}
	l.SuppressPrefixLength = -1
	priority, isRule := cutColon(words[0])
	if !isRule {
		r.problem(joined(words), "expected PRIORITY: first")
		if slices.Contains(words, "lookup") || slices.Contains(words, "from") { // more than a word in passing
			r.rules = append(r.rules, ruleLine{line: r.line})
		}
		return
	}
	l.Priority = priority
	l.Text = joined(words)
	for rest := words[1:]; len(rest) > 0; {
		used := l.word(r.n, rest)
		if used == 0 {
			l.Unknown = "not understood: " + joined(rest)
			r.problem(l.Text, "%s", l.Unknown)
			break
		}
		rest = rest[used:]
	}
	r.rules = append(r.rules, l)
}

func cutColon(word string) (uint32, bool) {
	if len(word) < 2 || word[len(word)-1] != ':' {
		return 0, false
	}
	n, err := strconv.ParseUint(word[:len(word)-1], 10, 32)
	return uint32(n), err == nil
}

// side reads from and to.
func (l *ruleLine) side(p *netip.Prefix, value string) bool {
	if value == "all" || value == "default" {
		return true
	}
	prefix, ok := prefixOf(value)
	if !ok {
		return false
	}
	if l.Family == 0 {
		l.Family = packet.Of(prefix.Addr())
	}
	*p = prefix
	return true
}
