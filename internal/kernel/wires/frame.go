package wires

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
)

// Every packet ends with a payload of magic and a number, by which it is known
// again behind any translation.
const (
	magic       = 0x756e6d71
	payloadSize = 12
)

// Seen is a packet as it came out.
type Seen struct {
	// Interface is the node's link that it left by.
	Interface           string
	Source, Destination netip.Addr
	Protocol            uint8
	// Ports; for an ICMP echo SourcePort is its identifier.
	SourcePort, DestinationPort uint16
	ID                          uint64
}

// AppendPacket appends the IP packet of a flow with its number.
func AppendPacket(b []byte, f packet.Flow, id uint64) []byte {
	start := len(b)
	b = appendHeader(b, f, transportSize(f.Protocol)+payloadSize)
	at := len(b)
	b = appendTransport(b, f)
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint64(b, id)
	sum := checksum(b[at:], pseudoSum(f, len(b)-at))
	switch f.Protocol {
	case packet.TCP:
		binary.BigEndian.PutUint16(b[at+16:], sum)
	case packet.UDP:
		if sum == 0 {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(b[at+6:], sum)
	case packet.ICMP, packet.ICMPv6:
		binary.BigEndian.PutUint16(b[at+2:], sum)
	case packet.SCTP: // RFC 9260, appendix A
		binary.LittleEndian.PutUint32(b[at+8:], crc32.Checksum(b[at:], crc32.MakeTable(crc32.Castagnoli)))
	}
	if f.Source.Is4() {
		binary.BigEndian.PutUint16(b[start+10:], checksum(b[start:start+20], 0))
	}
	return b
}

func appendHeader(b []byte, f packet.Flow, payload int) []byte {
	if f.Source.Is4() {
		b = append(b, 0x45, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(20+payload))
		b = append(b, 0, 0, 0, 0, 64, f.Protocol, 0, 0)
	} else {
		b = append(b, 0x60, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(payload))
		b = append(b, f.Protocol, 64)
	}
	b = append(b, f.Source.AsSlice()...)
	return append(b, f.Destination.AsSlice()...)
}

func transportSize(protocol uint8) int {
	switch protocol {
	case packet.TCP:
		return 20
	case packet.UDP, packet.ICMP, packet.ICMPv6:
		return 8
	case packet.SCTP:
		return sctpHeader + sctpInit + sctpParameter
	case packet.GRE:
		return greHeader
	}
	return 0
}

// Sizes of what an SCTP packet has before the payload: the common header,
// an INIT chunk, and the head of a parameter that receivers skip.
const sctpHeader, sctpInit, sctpParameter = 12, 20, 4

// greHeader is that of version 0 without options (RFC 2784).
const greHeader = 4

// appendTransport appends a TCP SYN, a UDP header, an ICMP echo request, an SCTP
// INIT, a GRE header, or nothing; checksums are 0.
func appendTransport(b []byte, f packet.Flow) []byte {
	switch f.Protocol {
	case packet.TCP:
		b = binary.BigEndian.AppendUint16(b, f.SourcePort)
		b = binary.BigEndian.AppendUint16(b, f.DestinationPort)
		return append(b, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, 0x02, 0xff, 0xff, 0, 0, 0, 0)
	case packet.UDP:
		b = binary.BigEndian.AppendUint16(b, f.SourcePort)
		b = binary.BigEndian.AppendUint16(b, f.DestinationPort)
		return append(b, 0, 8+payloadSize, 0, 0)
	case packet.ICMP, packet.ICMPv6:
		b = append(b, echo(f.Protocol), 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, f.SourcePort)
		return append(b, 0, 1)
	case packet.GRE:
		return append(b, 0, 0, 0x08, 0x00) // what it says of its content isn't looked at
	case packet.SCTP:
		b = binary.BigEndian.AppendUint16(b, f.SourcePort)
		b = binary.BigEndian.AppendUint16(b, f.DestinationPort)
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, sctpInit+sctpParameter+payloadSize)
		b = append(b, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1) // tag, window, streams, TSN
		return append(b, 0xbf, 0xff, 0, sctpParameter+payloadSize)
	}
	return b
}

// echo is the type of an echo request.
func echo(protocol uint8) byte {
	if protocol == packet.ICMPv6 {
		return 128
	}
	return 8
}

// pseudoSum is the sum over the pseudo header; 0 for ICMP, which has none.
func pseudoSum(f packet.Flow, size int) uint32 {
	if f.Protocol == packet.ICMP {
		return 0
	}
	sum := uint32(f.Protocol) + uint32(size)
	for _, a := range []netip.Addr{f.Source, f.Destination} {
		sum = add(sum, a.AsSlice())
	}
	return sum
}

func checksum(b []byte, sum uint32) uint16 {
	sum = add(sum, b)
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func add(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	return sum
}

// ParsePacket reads an Ethernet frame; false where it isn't one of ours.
func ParsePacket(frame []byte) (s Seen, ok bool) {
	if len(frame) < 14 {
		return s, false
	}
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800, 0x86dd:
		return parseIP(frame[14:])
	}
	return s, false
}

// parseIP reads an IP packet; false where it isn't one of ours.
func parseIP(ip []byte) (s Seen, ok bool) {
	if len(ip) < 20+payloadSize {
		return s, false
	}
	var rest []byte
	switch ip[0] >> 4 {
	case 4:
		s.Source, s.Destination = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
		s.Protocol = ip[9]
		total := int(binary.BigEndian.Uint16(ip[2:]))
		header := int(ip[0]&15) * 4
		if total > len(ip) || header > total {
			return s, false
		}
		rest = ip[header:total]
	case 6:
		if len(ip) < 40 {
			return s, false
		}
		s.Source, s.Destination = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
		s.Protocol = ip[6]
		rest = ip[40:min(len(ip), 40+int(binary.BigEndian.Uint16(ip[4:])))]
	default:
		return s, false
	}
	if len(rest) < transportSize(s.Protocol)+payloadSize {
		return s, false
	}
	switch s.Protocol {
	case packet.TCP, packet.UDP, packet.SCTP:
		s.SourcePort, s.DestinationPort = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
	case packet.ICMP, packet.ICMPv6:
		if rest[0] != echo(s.Protocol) {
			return s, false // an error or a redirect, with one of our packets in it
		}
		s.SourcePort = binary.BigEndian.Uint16(rest[4:])
	}
	payload := rest[len(rest)-payloadSize:]
	s.ID = binary.BigEndian.Uint64(payload[4:])
	return s, binary.BigEndian.Uint32(payload) == magic
}
