package packet

import (
	"encoding/binary"
	"math/bits"
)

// JHash is Bob Jenkins' lookup3 as in include/linux/jhash.h, for keys whose
// length is a multiple of four, on little-endian machines; also jhash2 of as many words.
func JHash(key []byte, seed uint32) uint32 {
	a := 0xdeadbeef + uint32(len(key)) + seed
	b, c := a, a
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(key[4*i:]) }
	for len(key) > 12 {
		a, b, c = mix(a+word(0), b+word(1), c+word(2))
		key = key[12:]
	}
	switch len(key) / 4 {
	case 3:
		c += word(2)
		fallthrough
	case 2:
		b += word(1)
		fallthrough
	case 1:
		a += word(0)
		return final(a, b, c)
	}
	return c
}

func mix(a, b, c uint32) (uint32, uint32, uint32) {
	rol := bits.RotateLeft32
	a -= c
	a ^= rol(c, 4)
	c += b
	b -= a
	b ^= rol(a, 6)
	a += c
	c -= b
	c ^= rol(b, 8)
	b += a
	a -= c
	a ^= rol(c, 16)
	c += b
	b -= a
	b ^= rol(a, 19)
	a += c
	c -= b
	c ^= rol(b, 4)
	b += a
	return a, b, c
}

func final(a, b, c uint32) uint32 {
	rol := bits.RotateLeft32
	c ^= b
	c -= rol(b, 14)
	a ^= c
	a -= rol(c, 11)
	b ^= a
	b -= rol(a, 25)
	c ^= b
	c -= rol(b, 16)
	a ^= c
	a -= rol(c, 4)
	b ^= a
	b -= rol(a, 14)
	c ^= b
	c -= rol(b, 24)
	return c
}
