package route

import (
	"slices"
	"strconv"
	"strings"
)

func joined(words []string) string { return strings.Join(words, " ") }

// word reads one part of a rule and returns how many words it has; 0 for none
// that is known.
func (l *ruleLine) word(n *Network, words []string) int {
	switch words[0] {
	case "not":
		l.Not = true
		return 1
	case "nop":
		l.NoOperation = true
		return 1
	case "blackhole", "unreachable", "prohibit":
		l.Action = typeNames[words[0]]
		return 1
	case "[detached]", "[unresolved]": // of a link that isn't there, a goto without its aim
		return 1
	case "l3mdev":
		l.L3MDev = true
		return 1
	}
	if len(words) < 2 {
		return 0
	}
	if words[0] == "lookup" || words[0] == "table" {
		l.lookup(n, words[1])
		return 2
	}
	return 2 * count(l.value(words[0], words[1]) || l.selector(words[0], words[1]))
}

func (l *ruleLine) lookup(n *Network, table string) {
	if table == "[l3mdev-table]" {
		l.L3MDev = true
		return
	}
	l.Table = n.tableNumber(table)
}

// value reads what concerns addresses, links and the way on.
func (l *ruleLine) value(name, value string) bool {
	var err error
	var number uint64
	switch name {
	case "from":
		return l.side(&l.From, value)
	case "to":
		return l.side(&l.To, value)
	case "iif":
		l.In = value
	case "oif":
		l.Out = value
	case "fwmark":
		return l.mark(value)
	case "goto":
		number, err = strconv.ParseUint(value, 10, 32)
		l.Goto = uint32(number)
	case "suppress_prefixlength":
		number, err = strconv.ParseUint(value, 10, 8)
		l.SuppressPrefixLength = int(number)
	case "suppress_ifgroup":
		l.SuppressGroup = value
	case "proto", "protocol", "realms": // who wrote it; accounting
	default:
		return false
	}
	return err == nil
}

// mark reads VALUE[/MASK].
func (l *ruleLine) mark(value string) bool {
	mark, mask, masked := strings.Cut(value, "/")
	m, err := strconv.ParseUint(mark, 0, 32)
	if err != nil {
		return false
	}
	l.Mark, l.Mask = uint32(m), ^uint32(0)
	if masked {
		m, err = strconv.ParseUint(mask, 0, 32)
		l.Mask = uint32(m)
	}
	return err == nil
}

// selector reads what concerns the packet's user, protocol and ports.
func (l *ruleLine) selector(name, value string) bool {
	switch name {
	case "uidrange":
		first, last, ok := numbers(value, 32)
		l.UIDs = &[2]uint32{uint32(first), uint32(last)}
		return ok
	case "ipproto":
		protocol, ok := protocolNamed(value)
		l.Protocol = protocol
		return ok
	case "sport":
		first, last, ok := numbers(value, 16)
		l.SourcePorts = &[2]uint16{uint16(first), uint16(last)}
		return ok
	case "dport":
		first, last, ok := numbers(value, 16)
		l.DestinationPorts = &[2]uint16{uint16(first), uint16(last)}
		return ok
	case "tos", "dsfield":
		tos, ok := tosNamed(value)
		l.TOS = tos
		return ok
	}
	return false
}

// numbers reads FIRST[-LAST].
func numbers(value string, bits int) (first, last uint64, ok bool) {
	a, b, isRange := strings.Cut(value, "-")
	first, err := strconv.ParseUint(a, 10, bits)
	if err != nil {
		return 0, 0, false
	}
	if !isRange {
		return first, first, true
	}
	last, err = strconv.ParseUint(b, 10, bits)
	return first, last, err == nil
}

// protocolNames in the order of their numbers in protocolNumbers (/etc/protocols).
var (
	protocolNames = []string{
		"icmp", "igmp", "ipencap", "ipip", "tcp", "udp", "dccp", "ipv6", "gre", "esp", "ipv6-esp", "ah", "ipv6-ah",
		"ipv6-icmp", "icmpv6", "icmp6", "ospf", "vrrp", "l2tp", "sctp", "udplite", "mptcp",
	}
	protocolNumbers = []uint8{1, 2, 4, 4, 6, 17, 33, 41, 47, 50, 50, 51, 51, 58, 58, 58, 89, 112, 115, 132, 136, 0}
)

func protocolNamed(name string) (uint8, bool) {
	name = strings.TrimPrefix(name, "ipproto-")
	if i := slices.Index(protocolNames, strings.ToLower(name)); i >= 0 {
		return protocolNumbers[i], protocolNumbers[i] != 0
	}
	n, err := strconv.ParseUint(name, 10, 8)
	return uint8(n), err == nil
}
