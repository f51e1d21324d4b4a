package iptables

import (
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// anyICMPType stands for --icmp-type any, which the kernel holds as type 255.
const anyICMPType = 255

// icmpTypes are the names of extensions/libxt_icmp.h, IPv4, lower case.
var icmpTypes = map[string]ruleset.ICMPType{
	"any":        {Any: true},
	"echo-reply": {Type: 0, AnyCode: true}, "pong": {Type: 0, AnyCode: true},
	"destination-unreachable": {Type: 3, AnyCode: true},
	"network-unreachable":     {Type: 3, Code: 0}, "host-unreachable": {Type: 3, Code: 1},
	"protocol-unreachable": {Type: 3, Code: 2}, "port-unreachable": {Type: 3, Code: 3},
	"fragmentation-needed": {Type: 3, Code: 4}, "source-route-failed": {Type: 3, Code: 5},
	"network-unknown": {Type: 3, Code: 6}, "host-unknown": {Type: 3, Code: 7},
	"network-prohibited": {Type: 3, Code: 9}, "host-prohibited": {Type: 3, Code: 10},
	"tos-network-unreachable": {Type: 3, Code: 11}, "tos-host-unreachable": {Type: 3, Code: 12},
	"communication-prohibited": {Type: 3, Code: 13}, "host-precedence-violation": {Type: 3, Code: 14},
	"precedence-cutoff": {Type: 3, Code: 15},
	"source-quench":     {Type: 4, AnyCode: true},
	"redirect":          {Type: 5, AnyCode: true}, "network-redirect": {Type: 5, Code: 0}, "host-redirect": {Type: 5, Code: 1},
	"tos-network-redirect": {Type: 5, Code: 2}, "tos-host-redirect": {Type: 5, Code: 3},
	"echo-request": {Type: 8, AnyCode: true}, "ping": {Type: 8, AnyCode: true},
	"router-advertisement": {Type: 9, AnyCode: true}, "router-solicitation": {Type: 10, AnyCode: true},
	"time-exceeded": {Type: 11, AnyCode: true}, "ttl-exceeded": {Type: 11, AnyCode: true},
	"ttl-zero-during-transit": {Type: 11, Code: 0}, "ttl-zero-during-reassembly": {Type: 11, Code: 1},
	"parameter-problem": {Type: 12, AnyCode: true},
	"ip-header-bad":     {Type: 12, Code: 0}, "required-option-missing": {Type: 12, Code: 1},
	"timestamp-request": {Type: 13, AnyCode: true}, "timestamp-reply": {Type: 14, AnyCode: true},
	"address-mask-request": {Type: 17, AnyCode: true}, "address-mask-reply": {Type: 18, AnyCode: true},
}

// icmp6Types are those of IPv6.
var icmp6Types = map[string]ruleset.ICMPType{
	"destination-unreachable": {Type: 1, AnyCode: true},
	"no-route":                {Type: 1, Code: 0}, "communication-prohibited": {Type: 1, Code: 1}, "beyond-scope": {Type: 1, Code: 2},
	"address-unreachable": {Type: 1, Code: 3}, "port-unreachable": {Type: 1, Code: 4},
	"failed-policy": {Type: 1, Code: 5}, "reject-route": {Type: 1, Code: 6},
	"packet-too-big": {Type: 2, AnyCode: true},
	"time-exceeded":  {Type: 3, AnyCode: true}, "ttl-exceeded": {Type: 3, AnyCode: true},
	"ttl-zero-during-transit": {Type: 3, Code: 0}, "ttl-zero-during-reassembly": {Type: 3, Code: 1},
	"parameter-problem": {Type: 4, AnyCode: true},
	"bad-header":        {Type: 4, Code: 0}, "unknown-header-type": {Type: 4, Code: 1}, "unknown-option": {Type: 4, Code: 2},
	"echo-request": {Type: 128, AnyCode: true}, "ping": {Type: 128, AnyCode: true},
	"echo-reply": {Type: 129, AnyCode: true}, "pong": {Type: 129, AnyCode: true},
	"mld-listener-query": {Type: 130, AnyCode: true}, "mld-listener-report": {Type: 131, AnyCode: true},
	"mld-listener-done": {Type: 132, AnyCode: true}, "mld-listener-reduction": {Type: 132, AnyCode: true},
	"router-solicitation": {Type: 133, AnyCode: true}, "router-advertisement": {Type: 134, AnyCode: true},
	"neighbour-solicitation": {Type: 135, AnyCode: true}, "neighbor-solicitation": {Type: 135, AnyCode: true},
	"neighbour-advertisement": {Type: 136, AnyCode: true}, "neighbor-advertisement": {Type: 136, AnyCode: true},
	"redirect": {Type: 137, AnyCode: true},
}

// icmpType reads a name, TYPE, or TYPE/CODE.
func icmpType(s string, v6 bool) (ruleset.ICMPType, bool) {
	names := icmpTypes
	if v6 {
		names = icmp6Types
	}
	if t, ok := names[strings.ToLower(s)]; ok {
		return t, true
	}
	first, second, both := strings.Cut(s, "/")
	kind, ok := small(first)
	if !ok {
		return ruleset.ICMPType{}, false
	}
	if kind == anyICMPType && !v6 {
		return ruleset.ICMPType{Any: true}, true
	}
	t := ruleset.ICMPType{Type: kind, AnyCode: !both}
	if both {
		t.Code, ok = small(second)
	}
	return t, ok
}

// tcpFlags reads SYN,ACK or ALL or NONE or, as -L -n prints it, 0x17.
func tcpFlags(s string) (uint8, bool) {
	if strings.HasPrefix(s, "0x") {
		return small(s)
	}
	var flags uint8
	for name := range strings.SplitSeq(s, ",") {
		switch strings.ToUpper(name) {
		case "FIN":
			flags |= 1
		case "SYN":
			flags |= 2
		case "RST":
			flags |= 4
		case "PSH":
			flags |= 8
		case "ACK":
			flags |= 16
		case "URG":
			flags |= 32
		case "ALL":
			flags |= 63
		case "NONE":
		default:
			return 0, false
		}
	}
	return flags, true
}

// addressTypes reads LOCAL,UNICAST.
func addressTypes(s string) (types ruleset.AddressTypes, ok bool) {
	names := [...]string{"UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST",
		"BLACKHOLE", "UNREACHABLE", "PROHIBIT", "THROW", "NAT", "XRESOLVE"}
	return bitset[ruleset.AddressTypes](s, names[:])
}

// states reads NEW,ESTABLISHED.
func states(s string) (ruleset.States, bool) {
	names := [...]string{"NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED", "SNAT", "DNAT"}
	return bitset[ruleset.States](s, names[:])
}

// statuses reads SEEN_REPLY,ASSURED.
func statuses(s string) (ruleset.Statuses, bool) {
	names := [...]string{"NONE", "EXPECTED", "SEEN_REPLY", "ASSURED", "CONFIRMED"}
	return bitset[ruleset.Statuses](s, names[:])
}

// bitset reads a list of names; each one's place in names is its bit.
func bitset[T ~uint8 | ~uint16](s string, names []string) (set T, ok bool) {
	for one := range strings.SplitSeq(s, ",") {
		found := false
		for i, name := range names {
			if strings.EqualFold(one, name) {
				set |= 1 << i
				found = true
			}
		}
		if !found {
			return 0, false
		}
	}
	return set, true
}

// sides reads the directions of a set match: src,dst,dst.
func sides(s string) ([]ruleset.Side, bool) {
	directions := make([]ruleset.Side, 0, 3)
	for one := range strings.SplitSeq(s, ",") {
		switch {
		case len(directions) == 6: // IPSET_DIM_MAX
			return nil, false
		case strings.EqualFold(one, "src"):
			directions = append(directions, ruleset.Source)
		case strings.EqualFold(one, "dst"):
			directions = append(directions, ruleset.Destination)
		default:
			return nil, false
		}
	}
	return directions, true
}
