package probe

import (
	"encoding/binary"

	"github.com/unmasq/unmasq/internal/packet"
)

// ICMP echo types (RFC 792, RFC 4443).
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
	echoHeader               = 8
)

// echoRequest encodes an ICMP echo request. The kernel fills ICMPv6's checksum
// in (RFC 3542, 3.1), ICMPv4's is ours.
func echoRequest(f packet.Family, id uint16, payload string) []byte {
	b := make([]byte, echoHeader, echoHeader+len(payload))
	b[0] = echoRequest4
	if f == packet.IPv6Family {
		b[0] = echoRequest6
	}
	binary.BigEndian.PutUint16(b[4:], id)
	binary.BigEndian.PutUint16(b[6:], 1)
	b = append(b, payload...)
	if f == packet.IPv4Family {
		binary.BigEndian.PutUint16(b[2:], checksum(b))
	}
	return b
}

// parseEcho decodes an ICMP message; ok is false for anything but an echo
// request or reply.
func parseEcho(f packet.Family, b []byte) (reply bool, payload string, ok bool) {
	if len(b) < echoHeader {
		return false, "", false
	}
	request, answer := byte(echoRequest4), byte(echoReply4)
	if f == packet.IPv6Family {
		request, answer = echoRequest6, echoReply6
	}
	if b[0] != request && b[0] != answer {
		return false, "", false
	}
	return b[0] == answer, string(b[echoHeader:]), true
}

// stripIPv4 takes the header off that reading from a raw IPv4 socket leaves on
// (raw(7)); raw IPv6 sockets have none.
func stripIPv4(f packet.Family, b []byte) []byte {
	if f != packet.IPv4Family || len(b) == 0 {
		return b
	}
	return b[min(int(b[0]&0x0f)*4, len(b)):]
}

// checksum is the Internet checksum (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// parseSYN returns the source port of a TCP segment that opens a connection
// (SYN without ACK) to one of ours.
func parseSYN(b []byte, ours uint16) (port uint16, ok bool) {
	const header, syn, ack = 20, 0x02, 0x10
	if len(b) < header || b[13]&(syn|ack) != syn || binary.BigEndian.Uint16(b[2:]) != ours {
		return 0, false
	}
	return binary.BigEndian.Uint16(b), true
}

// parseUDP returns the source port and the text of a datagram to a port of ours.
func parseUDP(b []byte, ours uint16) (port uint16, text string, ok bool) {
	const header = 8
	if len(b) < header || binary.BigEndian.Uint16(b[2:]) != ours {
		return 0, "", false
	}
	return binary.BigEndian.Uint16(b), string(b[header:]), true
}
