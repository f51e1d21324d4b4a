package policy

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
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
	h := packet.JHash(source.AsSlice(), HashSeed)
	return addresses[uint64(h)*uint64(len(addresses))>>32]
}
