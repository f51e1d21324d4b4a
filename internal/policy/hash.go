package policy

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// HashSeed is the seed of the hash that spreads sources over SNAT addresses.
const HashSeed = 0x756e6d71

// SNATAddress returns the address that a source takes: addresses are those of
// the source's family, at least one, in the order stated. It computes what the
// kernel does for
//
//	snat ip to jhash ip saddr mod N seed 0x756e6d71 map { 0 : ADDR, … }
//
// on little-endian machines (net/netfilter/nft_hash.c: jhash over the bytes of
// the address, then reciprocal_scale to N).
func SNATAddress(addresses []netip.Addr, source netip.Addr) netip.Addr {
	if len(addresses) == 1 {
		return addresses[0]
	}
	h := jhash(source.AsSlice(), HashSeed)
	return addresses[uint64(h)*uint64(len(addresses))>>32]
}

// jhash is Bob Jenkins' lookup3 as in include/linux/jhash.h, for keys whose
// length is a multiple of four: 4 and 16 bytes here.
func jhash(key []byte, seed uint32) uint32 {
	a := 0xdeadbeef + uint32(len(key)) + seed
	b, c := a, a
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(key[4*i:]) }
	for len(key) > 12 {
		a, b, c = jhashMix(a+word(0), b+word(1), c+word(2))
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
		return jhashFinal(a, b, c)
	}
	return c
}

func jhashMix(a, b, c uint32) (uint32, uint32, uint32) {
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

func jhashFinal(a, b, c uint32) uint32 {
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
