package iptables

import (
	"math/bits"
	"net/netip"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/names"
)

// Why a value isn't known, for people.
const (
	whyBlackedOut = "address is blacked out"
	whyName       = "a name instead of a number"
	whyUnknown    = "not understood"
	whyHidden     = "the program that printed it is too old for it, or too new"
)

// number reads decimal, 0x… and 0… numbers, as strtoul with base 0 does.
func number(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 0, 32)
	return uint32(n), err == nil && !strings.Contains(s, "_")
}

// small reads a decimal number below 256.
func small(s string) (uint8, bool) {
	n, ok := number(s)
	return uint8(n), ok && n < 256
}

// masked reads VALUE[/MASK]; the mask is all ones where there is none.
func masked(s string) (value, mask uint32, ok bool) {
	v, m, both := strings.Cut(s, "/")
	value, ok = number(v)
	mask = ^uint32(0)
	if ok && both {
		mask, ok = number(m)
	}
	return value, mask, ok
}

// port reads a number or the name of a service.
func port(s string) (uint16, bool) {
	if s != "" && s[0] >= '0' && s[0] <= '9' {
		n, err := strconv.ParseUint(s, 10, 16)
		return uint16(n), err == nil
	}
	return names.Service(s)
}

// portRange reads PORT, FIRST<sep>LAST, and with a colon also FIRST: and :LAST.
func portRange(s string, sep byte) (ruleset.PortRange, bool) {
	// The hyphen stands in the names of services too.
	if p, ok := port(s); ok {
		return ruleset.PortRange{First: p, Last: p}, true
	}
	i := strings.IndexByte(s, sep)
	if i < 0 {
		return ruleset.PortRange{}, false
	}
	first, last := s[:i], s[i+1:]
	r := ruleset.PortRange{First: 0, Last: 65535}
	okFirst, okLast := true, true
	if first != "" || sep != ':' {
		r.First, okFirst = port(first)
	}
	if last != "" || sep != ':' {
		r.Last, okLast = port(last)
	}
	return r, okFirst && okLast && r.First <= r.Last
}

// ports reads the list of multiport: 80,443,1000:2000.
func ports(s string) ([]ruleset.PortRange, bool) {
	ranges := make([]ruleset.PortRange, 0, min(strings.Count(s, ",")+1, 15))
	for one := range strings.SplitSeq(s, ",") {
		r, ok := portRange(one, ':')
		if !ok || len(ranges) == 15 { // XT_MULTI_PORTS
			return nil, false
		}
		ranges = append(ranges, r)
	}
	return ranges, true
}

// protocol reads -p: a number, a name of /etc/protocols, or all.
func protocol(s string) (ruleset.Protocol, bool) {
	switch s {
	case "tcp":
		return ruleset.Protocol{Number: packet.TCP, Is: true}, true
	case "udp":
		return ruleset.Protocol{Number: packet.UDP, Is: true}, true
	case "all", "0", "ip":
		return ruleset.Protocol{}, true
	}
	if n, ok := small(s); ok {
		return ruleset.Protocol{Number: n, Is: true}, true
	}
	n, ok := names.Protocol(s)
	return ruleset.Protocol{Number: n, Is: true}, ok
}

// address is what -s and -d hold: a prefix, or an address and a mask that is no
// prefix length. Why is empty where it was understood.
type address struct {
	prefix    netip.Prefix
	base, net netip.Addr // net is valid where the mask is no prefix length
	why       string
}

// parseAddress reads ADDRESS[/LENGTH] and ADDRESS[/MASK].
func parseAddress(s string) address {
	text, mask, hasMask := strings.Cut(s, "/")
	a, err := netip.ParseAddr(text)
	if err != nil {
		var known bool
		if a, known = namedAddress(s); !known {
			return address{why: whyNoAddress(s)}
		}
	}
	if a.Zone() != "" {
		return address{why: "an address with a zone"}
	}
	if !hasMask {
		return address{prefix: netip.PrefixFrom(a, a.BitLen())}
	}
	if n, err := strconv.ParseUint(mask, 10, 8); err == nil && int(n) <= a.BitLen() {
		return address{prefix: netip.PrefixFrom(a, int(n)).Masked()}
	}
	m, err := netip.ParseAddr(mask)
	if err != nil || m.BitLen() != a.BitLen() {
		return address{why: whyNoAddress(s)}
	}
	if n, ok := prefixLength(m); ok {
		return address{prefix: netip.PrefixFrom(a, n).Masked()}
	}
	return address{base: and(a, m), net: m}
}

// namedAddress knows the names of networks that iptables -L without -n prints on
// every machine, from /etc/networks and the DNS: localhost, loopback/8,
// link-local/16, base-address.mcast.net/4.
func namedAddress(s string) (netip.Addr, bool) {
	switch s {
	case "localhost":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1}), true
	case "ip6-localhost":
		return netip.IPv6Loopback(), true
	case "localhost/8", "loopback/8":
		return netip.AddrFrom4([4]byte{127}), true
	case "link-local/16":
		return netip.AddrFrom4([4]byte{169, 254}), true
	case "base-address.mcast.net/4", "base-address.mcast.net/24":
		return netip.AddrFrom4([4]byte{224}), true
	}
	return netip.Addr{}, false
}

// whyNoAddress tells an address that somebody made unreadable (xx.yyy.zzz.109,
// x.x.x.x/16, <redacted>, 10.0.*.*) from the name of a host.
func whyNoAddress(s string) string {
	s, _, _ = strings.Cut(s, "/")
	lower := strings.ToLower(s)
	if strings.ContainsAny(s, "*<>#?[]{}█…") {
		return whyBlackedOut
	}
	for _, hint := range [...]string{"redact", "hidden", "masked", "censor", "removed", "private"} {
		if strings.Contains(lower, hint) {
			return whyBlackedOut
		}
	}
	separator := "."
	if strings.Contains(s, ":") {
		separator = ":"
	}
	dotted := strings.Contains(s, separator)
	for part := range strings.SplitSeq(lower, separator) {
		dotted = dotted && hiddenOrNumber(part)
	}
	if dotted {
		return whyBlackedOut
	}
	return whyName
}

// hiddenOrNumber: part of an address, or one letter that is repeated in its place.
func hiddenOrNumber(part string) bool {
	if _, err := strconv.ParseUint(part, 16, 16); err == nil || part == "" {
		return true
	}
	return len(part) <= 4 && strings.Count(part, part[:1]) == len(part)
}

// prefixLength of a mask; false where its ones are not all in front.
func prefixLength(mask netip.Addr) (int, bool) {
	n, ended := 0, false
	for _, b := range mask.AsSlice() {
		ones := bits.LeadingZeros8(^b)
		if ended && b != 0 || b != byte(uint16(0xff00)>>ones) {
			return 0, false
		}
		n += ones
		ended = ones < 8
	}
	return n, true
}

func and(a, mask netip.Addr) netip.Addr {
	bytes, m := a.AsSlice(), mask.AsSlice()
	for i := range bytes {
		bytes[i] &= m[i]
	}
	masked, _ := netip.AddrFromSlice(bytes)
	return masked
}

// addressRange reads FIRST-LAST, or a single address.
func addressRange(s string) (first, last netip.Addr, ok bool) {
	a, b, both := strings.Cut(s, "-")
	first, err := netip.ParseAddr(a)
	if err != nil {
		return first, last, false
	}
	if !both {
		return first, first, true
	}
	last, err = netip.ParseAddr(b)
	return first, last, err == nil && first.BitLen() == last.BitLen() && !last.Less(first)
}

// interfaceName reads -i and -o. "+" alone is any name, which is what no -i says.
func interfaceName(s string, not bool) ruleset.Interface {
	name, wildcard := strings.CutSuffix(s, "+")
	if name == "" && wildcard && !not {
		return ruleset.Interface{}
	}
	return ruleset.Interface{Name: name, Wildcard: wildcard, Not: not}
}
