package explain

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
)

// protocols by the names that /etc/protocols has for them.
var protocols = map[string]uint8{
	"any": 0, "tcp": packet.TCP, "udp": packet.UDP, "sctp": packet.SCTP, "icmp": packet.ICMP, "icmpv6": packet.ICMPv6,
	"ipv6-icmp": packet.ICMPv6, "icmp6": packet.ICMPv6, "gre": packet.GRE, "esp": packet.ESP, "ah": packet.AH,
	"ipip": packet.IPIP, "dccp": 33, "udplite": 136,
}

// protocolName is the name of a protocol number, any for 0.
func protocolName(n uint8) string {
	switch n {
	case packet.ICMPv6:
		return "icmpv6"
	}
	for name, number := range protocols {
		if number == n {
			return name
		}
	}
	return strconv.Itoa(int(n))
}

// ParseDestination reads ADDR[:PORT][/PROTOCOL]; IPv6 with a port is [ADDR]:PORT.
// The protocol is tcp where a port is given, else any (0).
func ParseDestination(text string, names Names) (a netip.Addr, port int, protocol uint8, err error) {
	port = sim.UnknownPort
	rest, protocolText, stated := strings.Cut(text, "/")
	if stated {
		if protocol, err = ParseProtocol(protocolText); err != nil {
			return netip.Addr{}, 0, 0, fmt.Errorf("destination %q: %w", text, err)
		}
	}
	host, portText := splitPort(rest)
	if portText != "" {
		n, err := strconv.ParseUint(portText, 10, 16)
		if err != nil || n == 0 {
			return netip.Addr{}, 0, 0, fmt.Errorf("destination %q: port %q; expected a number from 1 to 65535", text, portText)
		}
		port = int(n)
		if !stated {
			protocol = packet.TCP
		}
	}
	if a, err = names.Address(host); err != nil {
		return netip.Addr{}, 0, 0, fmt.Errorf("destination %q: %w", text, err)
	}
	if port != sim.UnknownPort && !hasPorts(protocol) {
		return netip.Addr{}, 0, 0, fmt.Errorf("destination %q: %s has no ports", text, protocolName(protocol))
	}
	return a, port, protocol, nil
}

func hasPorts(protocol uint8) bool {
	switch protocol {
	case packet.TCP, packet.UDP, packet.SCTP, 33, 136:
		return true
	}
	return false
}

// splitPort parts HOST:PORT; a bare IPv6 address has no port.
func splitPort(text string) (host, port string) {
	if inner, ok := strings.CutPrefix(text, "["); ok {
		host, rest, closed := strings.Cut(inner, "]")
		if closed && (rest == "" || strings.HasPrefix(rest, ":")) {
			return host, strings.TrimPrefix(rest, ":")
		}
		return text, ""
	}
	if strings.Count(text, ":") != 1 {
		return text, ""
	}
	host, port, _ = strings.Cut(text, ":")
	return host, port
}

// ParseProtocol reads a name or number.
func ParseProtocol(text string) (uint8, error) {
	if n, ok := protocols[strings.ToLower(text)]; ok {
		return n, nil
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("protocol %q; expected tcp, udp, sctp, icmp, icmpv6, another name, or a number up to 255", text)
	}
	return uint8(n), nil
}

// Check says what is wrong with a question: families that contradict, a source
// that nobody can have.
func Check(q sim.Question) error {
	source, destination := packet.Of(q.Source), packet.Of(q.Destination)
	if source != destination {
		return fmt.Errorf("source %s is %s, destination %s is %s; expected one family", q.Source, source, q.Destination, destination)
	}
	switch {
	case q.Source.IsMulticast():
		return fmt.Errorf("source %s: a multicast address is no interface's; expected a host's address", q.Source)
	case q.Source.IsUnspecified() || q.Source == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return fmt.Errorf("source %s: no interface has that address; expected a host's address", q.Source)
	case q.Destination.IsUnspecified():
		return fmt.Errorf("destination %s: no packet goes there; expected an address", q.Destination)
	case q.Source.IsLoopback() && q.InInterface != "" && q.InInterface != "lo":
		return fmt.Errorf("source %s comes in by no interface but lo; expected --local", q.Source)
	case q.Protocol == packet.ICMP && source == packet.IPv6Family:
		return errors.New("protocol icmp is IPv4's; expected icmpv6")
	case q.Protocol == packet.ICMPv6 && source == packet.IPv4Family:
		return errors.New("protocol icmpv6 is IPv6's; expected icmp")
	case q.SourcePort != sim.UnknownPort && !hasPorts(q.Protocol):
		return fmt.Errorf("--source-port %d: %s has no ports; expected /tcp, /udp or /sctp behind the destination", q.SourcePort, protocolName(q.Protocol))
	case q.Via.IsValid() && packet.Of(q.Via) != source:
		return fmt.Errorf("--via %s is %s, the flow is %s; expected one family", q.Via, packet.Of(q.Via), source)
	case q.Local && q.InInterface != "":
		return fmt.Errorf("--local with --in-interface %s: what the node sends comes in by none; expected one of them", q.InInterface)
	}
	return nil
}
