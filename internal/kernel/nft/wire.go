package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"

	"golang.org/x/sys/unix"
)

// Netlink attributes are built by appending to one buffer: a batch of 100,000
// set elements is some ten megabytes, and every copy of it shows.

// attr appends an attribute with padding.
func attr(b []byte, typ uint16, data ...byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(data)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, data...)
	return pad(b)
}

func attrString(b []byte, typ uint16, s string) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(s)+1))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = append(b, s...)
	return pad(append(b, 0))
}

// attrKey is attr for data held in a string.
func attrKey(b []byte, typ uint16, key string) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(4+len(key)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	return pad(append(b, key...))
}

// attrU32 appends a number in network byte order, as nftables wants them all.
func attrU32(b []byte, typ uint16, v uint32) []byte {
	b = binary.NativeEndian.AppendUint16(b, 8)
	b = binary.NativeEndian.AppendUint16(b, typ)
	return binary.BigEndian.AppendUint32(b, v)
}

func attrU64(b []byte, typ uint16, v uint64) []byte {
	return attr(b, typ, binary.BigEndian.AppendUint64(nil, v)...)
}

// nest begins a nested attribute; close it with end and the offset returned.
func nest(b []byte, typ uint16) ([]byte, int) {
	at := len(b)
	b = binary.NativeEndian.AppendUint16(b, 0)
	return binary.NativeEndian.AppendUint16(b, typ|unix.NLA_F_NESTED), at
}

func end(b []byte, at int) []byte {
	binary.NativeEndian.PutUint16(b[at:], uint16(len(b)-at))
	return b
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

var errShort = errors.New("netlink message is cut short")

// attrs yields the attributes in b: type without flags, and payload.
func attrs(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			size := int(binary.NativeEndian.Uint16(b))
			typ := binary.NativeEndian.Uint16(b[2:])
			if size < 4 || size > len(b) {
				return
			}
			if !yield(typ&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:size]) {
				return
			}
			b = b[min(len(b), (size+3)&^3):]
		}
	}
}

func text(b []byte) string {
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return string(b)
}

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

func u64(b []byte) uint64 {
	if len(b) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// message is one netlink message as received.
type message struct {
	typ   uint16 // without the subsystem
	subsy uint16
	flags uint16
	seq   uint32
	port  uint32
	// body starts behind the netlink header; attributes behind struct nfgenmsg.
	body []byte
}

func (m message) attributes() iter.Seq2[uint16, []byte] {
	if len(m.body) < 4 {
		return attrs(nil)
	}
	return attrs(m.body[4:])
}

// parse splits what one read returned.
func parse(b []byte) ([]message, error) {
	var out []message
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return out, errShort
		}
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return out, fmt.Errorf("message of %d bytes in %d: %w", size, len(b), errShort)
		}
		typ := binary.NativeEndian.Uint16(b[4:])
		out = append(out, message{
			typ: typ & 0xff, subsy: typ >> 8,
			flags: binary.NativeEndian.Uint16(b[6:]),
			seq:   binary.NativeEndian.Uint32(b[8:]),
			port:  binary.NativeEndian.Uint32(b[12:]),
			body:  b[unix.NLMSG_HDRLEN:size],
		})
		b = b[min(len(b), (size+3)&^3):]
	}
	return out, nil
}
