package wires

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
)

// collection finds for what comes out the flow that it belongs to.
type collection struct {
	first uint64
	flows []packet.Flow
	fates []Fate
}

// left takes an Ethernet frame that came out of a link.
func (c *collection) left(link string, frame []byte) {
	if s, ok := ParsePacket(frame); ok {
		s.Interface = link
		if fate := c.of(s.ID); fate != nil {
			fate.Out = &s
		}
		return
	}
	if len(frame) > 14 {
		c.answer(frame[14:])
	}
}

// arrived takes an IP packet that the node itself received.
func (c *collection) arrived(ip []byte) {
	if s, ok := parseIP(ip); ok {
		if fate := c.of(s.ID); fate != nil {
			fate.In = &s
		}
		return
	}
	c.answer(ip)
}

func (c *collection) of(id uint64) *Fate {
	if id < c.first || id-c.first >= uint64(len(c.fates)) {
		return nil
	}
	return &c.fates[id-c.first]
}

// answer takes what may be an error: an ICMP error with the packet in it, or a
// TCP reset, which is known by its tuple alone.
func (c *collection) answer(ip []byte) {
	header, protocol := 0, uint8(0)
	switch {
	case len(ip) >= 20 && ip[0]>>4 == 4:
		header, protocol = int(ip[0]&15)*4, ip[9]
	case len(ip) >= 40 && ip[0]>>4 == 6:
		header, protocol = 40, ip[6]
	}
	if header == 0 || len(ip) < header+8 {
		return
	}
	body := ip[header:]
	if name := icmpError(protocol, body[0], body[1]); name != "" {
		if s, ok := parseIP(body[8:]); ok {
			if fate := c.of(s.ID); fate != nil {
				fate.Error = name
			}
		}
		return
	}
	const reset = 0x04
	if protocol == packet.TCP && len(body) >= 20 && body[13]&reset != 0 {
		if i := slices.IndexFunc(c.flows, func(f packet.Flow) bool { return answers(ip, body, f) }); i >= 0 {
			c.fates[i].Error = "tcp-reset"
		}
	}
}

// answers says whether a TCP segment goes back the way of a flow.
func answers(ip, tcp []byte, f packet.Flow) bool {
	var source, destination netip.Addr
	if ip[0]>>4 == 4 {
		source, destination = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
	} else {
		source, destination = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	}
	return f.Protocol == packet.TCP && f.Source == destination && f.Destination == source &&
		f.SourcePort == binary.BigEndian.Uint16(tcp[2:]) && f.DestinationPort == binary.BigEndian.Uint16(tcp)
}

// icmpError is the error's name as REJECT's --reject-with has it; empty for what
// is no error.
func icmpError(protocol, kind, code uint8) string {
	const unreachable, unreachable6 = 3, 1
	var names map[uint8]string
	switch {
	case protocol == packet.ICMP && kind == unreachable:
		names = map[uint8]string{
			0: "icmp-net-unreachable", 1: "icmp-host-unreachable", 2: "icmp-proto-unreachable", 3: "icmp-port-unreachable",
			9: "icmp-net-prohibited", 10: "icmp-host-prohibited", 13: "icmp-admin-prohibited",
		}
	case protocol == packet.ICMPv6 && kind == unreachable6:
		names = map[uint8]string{
			0: "icmp6-no-route", 1: "icmp6-adm-prohibited", 3: "icmp6-addr-unreachable", 4: "icmp6-port-unreachable",
			5: "icmp6-policy-fail", 6: "icmp6-reject-route",
		}
	default:
		return ""
	}
	if name, ok := names[code]; ok {
		return name
	}
	return "icmp"
}
