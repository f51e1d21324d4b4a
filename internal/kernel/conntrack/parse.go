package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net/netip"

	"golang.org/x/sys/unix"

	ct "github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/packet"
)

// Messages (include/uapi/linux/netfilter/nfnetlink_conntrack.h).
const (
	msgNew    = 0 // IPCTNL_MSG_CT_NEW
	msgGet    = 1
	msgDelete = 2
)

// sizeofNfgenmsg is struct nfgenmsg: family, version, resource.
const sizeofNfgenmsg = 4

// Attributes of an entry: CTA_….
const (
	attrOriginal        = 1
	attrReply           = 2
	attrStatus          = 3
	attrProtocolState   = 4
	attrMark            = 8
	attrCountersOrig    = 9
	attrCountersReply   = 10
	attrID              = 12
	attrZone            = 18
	attrTimestamp       = 20
	attrTupleIP         = 1
	attrTupleProtocol   = 2
	attrTupleZone       = 3
	attrPackets         = 1
	attrBytes           = 2
	attrStart           = 1
	attrStop            = 2
	attrStateOfProtocol = 1 // CTA_PROTOINFO_TCP_STATE, …_SCTP_STATE, …_DCCP_STATE
)

// Bits of the status: IPS_….
const (
	statusSeenReply = 1 << 1
	statusAssured   = 1 << 2
	statusOffload   = 1<<14 | 1<<15
)

// states by the number of CTA_PROTOINFO_…, as `conntrack -L` has them.
var states = map[uint16][]string{
	1: {"NONE", "SYN_SENT", "SYN_RECV", "ESTABLISHED", "FIN_WAIT", "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT", "CLOSE", "SYN_SENT2"},
	2: {"NONE", "REQUEST", "RESPOND", "PARTOPEN", "OPEN", "CLOSEREQ", "CLOSING", "TIMEWAIT", "IGNORE", "INVALID"},
	3: {"NONE", "CLOSED", "COOKIE_WAIT", "COOKIE_ECHOED", "ESTABLISHED", "SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT", "HEARTBEAT_ACKED"},
}

// message of netlink, without its header.
type message struct {
	typ  uint16
	seq  uint32
	body []byte
}

// messages of a datagram; what is cut is left out.
func messages(b []byte) iter.Seq[message] {
	return func(yield func(message) bool) {
		for len(b) >= unix.SizeofNlMsghdr {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return
			}
			m := message{binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:size]}
			if !yield(m) {
				return
			}
			b = b[min(align(size), len(b)):]
		}
	}
}

// status that ends an answer.
func (m message) status() error {
	if len(m.body) < 4 {
		return unix.EBADMSG
	}
	if code := int32(binary.NativeEndian.Uint32(m.body)); code < 0 {
		return unix.Errno(-code)
	}
	return nil
}

func align(n int) int { return (n + 3) &^ 3 }

// attributes of a message or of an attribute. ok is false at the end where one is cut.
type attributes struct {
	rest []byte
	typ  uint16
	data []byte
	cut  bool
}

func (a *attributes) next() bool {
	if len(a.rest) == 0 {
		return false
	}
	if len(a.rest) < 4 {
		a.cut = true
		return false
	}
	size := int(binary.NativeEndian.Uint16(a.rest))
	if size < 4 || size > len(a.rest) {
		a.cut = true
		return false
	}
	const kind = ^uint16(unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
	a.typ, a.data = binary.NativeEndian.Uint16(a.rest[2:])&kind, a.rest[4:size]
	a.rest = a.rest[min(align(size), len(a.rest)):]
	return true
}

var errCut = errors.New("an attribute is cut")

// parse reads an entry from struct nfgenmsg and its attributes. Attributes that
// aren't known are newer than this, and tell nothing of who is seen as whom.
func parse(body []byte, e *ct.Entry) error {
	*e = ct.Entry{}
	if len(body) < sizeofNfgenmsg {
		return errCut
	}
	a := attributes{rest: body[sizeofNfgenmsg:]}
	var zones [3]uint16 // the entry's, of the original direction, of the reply
	for a.next() {
		if err := attribute(&a, e, &zones); err != nil {
			return err
		}
	}
	e.Zone, e.OriginalZone, e.ReplyZone = zones[0], zones[0]|zones[1], zones[0]|zones[2]
	if a.cut {
		return errCut
	}
	return complete(e)
}

func attribute(a *attributes, e *ct.Entry, zones *[3]uint16) error {
	switch a.typ {
	case attrOriginal:
		return tuple(a.data, &e.Original, &e.Protocol, &zones[1])
	case attrReply:
		return tuple(a.data, &e.Reply, &e.Protocol, &zones[2])
	case attrStatus:
		status := be32(a.data)
		e.SeenReply, e.Assured, e.Offloaded = status&statusSeenReply != 0, status&statusAssured != 0, status&statusOffload != 0
	case attrProtocolState:
		e.State = state(a.data)
	case attrMark:
		e.Mark = be32(a.data)
	case attrID:
		e.ID = be32(a.data)
	case attrZone:
		zones[0] = be16(a.data)
	case attrCountersOrig:
		e.Counted = true
		pair(a.data, attrPackets, attrBytes, &e.Packets[0], &e.Bytes[0])
	case attrCountersReply:
		pair(a.data, attrPackets, attrBytes, &e.Packets[1], &e.Bytes[1])
	case attrTimestamp:
		pair(a.data, attrStart, attrStop, &e.Start, &e.Stop)
	}
	return nil
}

// tuple is CTA_TUPLE_IP, CTA_TUPLE_PROTO and, where the directions' differ, the zone.
func tuple(b []byte, t *ct.Tuple, protocol *uint8, zone *uint16) error {
	a := attributes{rest: b}
	for a.next() {
		switch a.typ {
		case attrTupleIP:
			if err := addresses(a.data, t); err != nil {
				return err
			}
		case attrTupleProtocol:
			ports(a.data, t, protocol)
		case attrTupleZone:
			*zone = be16(a.data)
		}
	}
	if a.cut {
		return errCut
	}
	return nil
}

func addresses(b []byte, t *ct.Tuple) error {
	const v4Source, v4Destination, v6Source, v6Destination = 1, 2, 3, 4
	a := attributes{rest: b}
	for a.next() {
		address, ok := netip.AddrFromSlice(a.data)
		if !ok {
			return fmt.Errorf("an address of %d bytes", len(a.data))
		}
		switch a.typ {
		case v4Source, v6Source:
			t.Source = address
		case v4Destination, v6Destination:
			t.Destination = address
		}
	}
	return nil
}

func ports(b []byte, t *ct.Tuple, protocol *uint8) {
	a := attributes{rest: b}
	for a.next() {
		switch a.typ {
		case 1:
			*protocol = u8(a.data)
		case 2:
			t.SourcePort = be16(a.data)
		case 3:
			t.DestinationPort = be16(a.data)
		case 4, 7: // ICMP, ICMPv6
			t.ID = be16(a.data)
		case 5, 8:
			t.Type = u8(a.data)
		case 6, 9:
			t.Code = u8(a.data)
		}
	}
}

// state of a protocol that has one; "" for others.
func state(b []byte) string {
	outer := attributes{rest: b}
	for outer.next() {
		names := states[outer.typ]
		inner := attributes{rest: outer.data}
		for inner.next() {
			if n := int(u8(inner.data)); inner.typ == attrStateOfProtocol && n < len(names) {
				return names[n]
			}
		}
	}
	return ""
}

func pair(b []byte, firstType, secondType uint16, first, second *uint64) {
	a := attributes{rest: b}
	for a.next() {
		switch a.typ {
		case firstType:
			*first = be64(a.data)
		case secondType:
			*second = be64(a.data)
		}
	}
}

// complete says what an entry lacks: both tuples, of one family.
func complete(e *ct.Entry) error {
	addresses := [...]netip.Addr{e.Original.Source, e.Original.Destination, e.Reply.Source, e.Reply.Destination}
	for _, a := range addresses {
		if !a.IsValid() || packet.Of(a) != packet.Of(addresses[0]) {
			return errors.New("no tuples of one family")
		}
	}
	return nil
}

// Numbers of a wrong size read as 0, as if they weren't there.

func u8(b []byte) uint8 {
	if len(b) != 1 {
		return 0
	}
	return b[0]
}

func be16(b []byte) uint16 {
	if len(b) != 2 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

func be32(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func be64(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}
