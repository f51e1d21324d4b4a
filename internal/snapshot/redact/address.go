package redact

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"strings"
)

// special are prefixes whose meaning is in their leading bits: those bits stay,
// and below them addresses are mapped. whole ones stay as they are.
var special = []struct {
	netip.Prefix
	whole bool
}{
	// IPv4: RFC 6890, and inside of each what people use as private.
	{netip.MustParsePrefix("0.0.0.0/8"), true},
	{netip.MustParsePrefix("10.0.0.0/8"), false},
	{netip.MustParsePrefix("100.64.0.0/10"), false},
	{netip.MustParsePrefix("127.0.0.0/8"), true},
	{netip.MustParsePrefix("169.254.0.0/16"), true},
	{netip.MustParsePrefix("172.16.0.0/12"), false},
	{netip.MustParsePrefix("192.168.0.0/16"), false},
	{netip.MustParsePrefix("224.0.0.0/3"), true},
	// IPv6: the policy table of RFC 6724, and link-local, whose interface
	// identifiers hold MAC addresses.
	{netip.MustParsePrefix("::/8"), true},
	{netip.MustParsePrefix("64:ff9b::/96"), true},
	{netip.MustParsePrefix("2000::/3"), false},
	{netip.MustParsePrefix("2001::/32"), false},
	{netip.MustParsePrefix("2001:db8::/32"), false},
	{netip.MustParsePrefix("2002::/16"), false},
	{netip.MustParsePrefix("3ffe::/16"), false},
	{netip.MustParsePrefix("fc00::/8"), false},
	{netip.MustParsePrefix("fd00::/8"), false},
	{netip.MustParsePrefix("fe80::/64"), false},
	{netip.MustParsePrefix("fec0::/10"), false},
	{netip.MustParsePrefix("ff00::/8"), true},
}

// keptFrom is the bit from which on addresses keep theirs: the last octet.
func keptFrom(a netip.Addr) int { return a.BitLen() - 8 }

// Address maps one address. A zone stays.
func (r *Redactor) Address(a netip.Addr) netip.Addr {
	if a.Is4In6() {
		return netip.AddrFrom16(r.Address(a.Unmap()).As16())
	}
	zone := a.Zone()
	a = a.WithZone("")
	if out, ok := r.known[a]; ok {
		return out.WithZone(zone)
	}
	out := r.permute(a)
	r.known[a] = out
	return out.WithZone(zone)
}

// Prefix maps the leading bits of a prefix; those beyond stay 0.
func (r *Redactor) Prefix(p netip.Prefix) netip.Prefix {
	if p.Masked() != p {
		return netip.PrefixFrom(r.Address(p.Addr()), p.Bits())
	}
	out, _ := r.Address(p.Addr()).Prefix(p.Bits())
	return out
}

// permute flips bit i by what a cipher makes of the bits before it (Xu, Fan,
// Ammar, Moon: Prefix-preserving IP address anonymization, 2002).
func (r *Redactor) permute(a netip.Addr) netip.Addr {
	in := a.AsSlice()
	out := a.AsSlice()
	fixed := fixedBits(a)
	for i := 0; i < keptFrom(a); i++ {
		if len(r.frozen) > 0 && r.isFrozen(a, i) {
			break
		}
		if i < fixed || leadingZeros(a, i) {
			continue
		}
		var block [16]byte
		copy(block[:], in)
		// The bits before i, then one, then zeros: no two prefixes are the same block.
		clearFrom(block[:], i)
		block[i/8] |= 0x80 >> (i % 8)
		if a.Is4() {
			block[15] = 4
		}
		r.addresses.Encrypt(block[:], block[:])
		if block[0]&1 != 0 {
			out[i/8] ^= 0x80 >> (i % 8)
		}
	}
	mapped, _ := netip.AddrFromSlice(out)
	return mapped
}

// fixedBits is how many leading bits stay for every address that shares them.
func fixedBits(a netip.Addr) int {
	fixed := 0
	for _, s := range special {
		if s.Addr().BitLen() != a.BitLen() {
			continue
		}
		common := min(commonBits(a, s.Addr()), s.Bits())
		if common < s.Bits() {
			common++ // where it leaves the way to a special prefix; so does its sibling
		} else if s.whole {
			return a.BitLen()
		}
		fixed = max(fixed, common)
	}
	return fixed
}

// isFrozen says whether a range lies below the first bits of an address.
func (r *Redactor) isFrozen(a netip.Addr, bits int) bool {
	p, _ := a.Prefix(bits)
	return r.frozen[p]
}

// leadingZeros says whether all bits of an interface identifier before this one
// are 0, as those of ::1 are: this one stays too.
func leadingZeros(a netip.Addr, bit int) bool {
	const half = 64
	if !a.Is6() || bit < half {
		return false
	}
	b := a.As16()
	for i := half; i < bit; i++ {
		if b[i/8]&(0x80>>(i%8)) != 0 {
			return false
		}
	}
	return true
}

// clearFrom sets the bits from i on to 0.
func clearFrom(b []byte, i int) {
	if i%8 != 0 {
		b[i/8] &= 0xff << (8 - i%8)
		i += 8 - i%8
	}
	for i /= 8; i < len(b); i++ {
		b[i] = 0
	}
}

// commonBits is how many leading bits two addresses of a family share.
func commonBits(a, b netip.Addr) int {
	x, y := a.AsSlice(), b.AsSlice()
	for i := range x {
		if d := x[i] ^ y[i]; d != 0 {
			return 8*i + bits.LeadingZeros8(d)
		}
	}
	return 8 * len(x)
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < 8*len(b); i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// mac maps a MAC address: the first octet, which says whether it is a group's
// and whether it was made up, stays, as all of a group's or of none does.
func (r *Redactor) mac(text, format string) string {
	var m [6]byte
	for i, octet := range strings.Split(text, ":") {
		n, err := strconv.ParseUint(octet, 16, 8)
		if err != nil || i >= len(m) {
			return text
		}
		m[i] = byte(n)
	}
	if m[0]&1 != 0 || m == [6]byte{} {
		return text
	}
	block := [16]byte{15: 6}
	copy(block[:], m[1:])
	r.addresses.Encrypt(block[:], block[:])
	out := make([]string, len(m))
	for i, b := range append([]byte{m[0]}, block[:5]...) {
		out[i] = fmt.Sprintf(format, b)
	}
	return strings.Join(out, ":")
}
