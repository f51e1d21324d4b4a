package explain

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// protocol has the names that /etc/protocols knows it by, the one that answers
// use first.
type protocol struct {
	number uint8
	ports  bool
	names  []string
}

var protocols = [...]protocol{
	{0, false, []string{"any", "all"}},
	{packet.TCP, true, []string{"tcp"}},
	{packet.UDP, true, []string{"udp"}},
	{packet.SCTP, true, []string{"sctp"}},
	{packet.ICMP, false, []string{"icmp"}},
	{packet.ICMPv6, false, []string{"icmpv6", "ipv6-icmp", "icmp6"}},
	{packet.GRE, false, []string{"gre"}},
	{packet.ESP, false, []string{"esp"}},
	{packet.AH, false, []string{"ah"}},
	{packet.IPIP, false, []string{"ipip", "ipencap"}},
	{packet.IPv6, false, []string{"ipv6"}},
	{33, true, []string{"dccp"}},
	{136, true, []string{"udplite"}},
	{2, false, []string{"igmp"}},
}

// HasPorts says whether a protocol's packets have ports that rules can ask for.
func HasPorts(n uint8) bool { return hasPorts(n) }

// ParseProtocol reads a name, or a number; 0 is any.
func ParseProtocol(text string) (uint8, error) { return parseProtocol(text) }

// protocolName is the name of a number, or the number.
func protocolName(n uint8) string {
	for _, p := range protocols {
		if p.number == n {
			return p.names[0]
		}
	}
	return strconv.Itoa(int(n))
}

// isProtocol says whether a number is one with a name.
func isProtocol(n int) bool {
	return slices.ContainsFunc(protocols[:], func(p protocol) bool { return int(p.number) == n && n != 0 })
}

func hasPorts(number uint8) bool {
	return slices.ContainsFunc(protocols[:], func(p protocol) bool { return p.number == number && p.ports })
}

// parseProtocol reads a name or number.
func parseProtocol(text string) (uint8, error) {
	for _, p := range protocols {
		if slices.Contains(p.names, strings.ToLower(text)) {
			return p.number, nil
		}
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("protocol %q; expected tcp, udp, sctp, icmp, icmpv6, gre, esp, or a number up to 255", text)
	}
	return uint8(n), nil
}
