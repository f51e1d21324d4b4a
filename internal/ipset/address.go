package ipset

import (
	"encoding/binary"
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
)

// address is an IPv4 or IPv6 address, IPv4 in the highest bits, so that a prefix
// length means the same for both. A netip.Addr as the key of a map would cost
// twice the time.
type address struct{ high, low uint64 }

func addressOf(a netip.Addr) address {
	if a.Is4() {
		b := a.As4()
		return address{high: uint64(binary.BigEndian.Uint32(b[:])) << 32}
	}
	b := a.As16()
	return address{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func (a address) netip(f packet.Family) netip.Addr {
	if f == packet.IPv4Family {
		var b [4]byte
		binary.BigEndian.PutUint32(b[:], uint32(a.high>>32))
		return netip.AddrFrom4(b)
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], a.high)
	binary.BigEndian.PutUint64(b[8:], a.low)
	return netip.AddrFrom16(b)
}

// masked keeps the first bits.
func (a address) masked(bits uint8) address {
	if bits < 64 {
		return address{high: a.high &^ (^uint64(0) >> bits)}
	}
	return address{a.high, a.low &^ (^uint64(0) >> (bits - 64))}
}

func (a address) and(m address) address { return address{a.high & m.high, a.low & m.low} }

// pair are the addresses of an element, the second zero where there is one.
type pair [2]address

func (p pair) masked(bits [2]uint8) pair {
	return pair{p[0].masked(bits[0]), p[1].masked(bits[1])}
}

// prefix of an element.
type prefix struct {
	address address
	bits    uint8
}
