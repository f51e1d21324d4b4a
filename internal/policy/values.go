package policy

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/packet"
)

// mostAddresses a rule may spread its sources over, in one family.
const mostAddresses = 1024

// prefixes reads a list of CIDRs; what is wrong is noted and left out.
func (d *document) prefixes(path string, texts []v1alpha1.CIDR) []netip.Prefix {
	d.notEmpty(path, texts == nil, len(texts))
	var out []netip.Prefix
	for i, text := range texts {
		if p, ok := d.prefix(indexPath(path, i), string(text)); ok {
			out = append(out, p)
		}
	}
	return out
}

// prefix reads "10.0.0.0/8" or "2001:db8::/32".
func (d *document) prefix(path, text string) (netip.Prefix, bool) {
	address, length, slash := strings.Cut(text, "/")
	a, err := netip.ParseAddr(address)
	if err != nil {
		d.fail(path, quoted(text), "is not a CIDR; expected one such as 10.0.0.0/8 or 2001:db8::/32")
		return netip.Prefix{}, false
	}
	bits, err := strconv.ParseUint(length, 10, 8)
	if err == nil && a.Is4In6() && 96 <= bits && bits <= 128 {
		d.fail(path, quoted(text), "is IPv4 written as IPv6; expected it as IPv4: %s", netip.PrefixFrom(a.Unmap(), int(bits)-96).Masked())
		return netip.Prefix{}, false
	}
	if !d.plainAddress(path, text, a) {
		return netip.Prefix{}, false
	}
	if !slash {
		d.fail(path, quoted(text), "is an address; expected a prefix such as %s/%d", a, a.BitLen())
		return netip.Prefix{}, false
	}
	if err != nil || int(bits) > a.BitLen() {
		d.fail(path, quoted(text), "has a wrong prefix length; expected /0 to /%d", a.BitLen())
		return netip.Prefix{}, false
	}
	p := netip.PrefixFrom(a, int(bits))
	if p.Masked() != p {
		d.fail(path, quoted(text), "has host bits set; the network is %s", p.Masked())
		return netip.Prefix{}, false
	}
	return p, true
}

// plainAddress refuses IPv4-mapped addresses and zones.
func (d *document) plainAddress(path, text string, a netip.Addr) bool {
	switch {
	case a.Zone() != "":
		d.fail(path, quoted(text), "has a zone; expected %s without %%%s", a.WithZone(""), a.Zone())
	case a.Is4In6():
		d.fail(path, quoted(text), "is IPv4 written as IPv6; expected it as IPv4: %s", a.Unmap())
	default:
		return true
	}
	return false
}

// addresses reads a list of single addresses.
func (d *document) addresses(path string, texts []string) []netip.Addr {
	d.notEmpty(path, texts == nil, len(texts))
	var out []netip.Addr
	for i, text := range texts {
		if a, ok := d.address(indexPath(path, i), text); ok {
			out = append(out, a)
		}
	}
	return out
}

// address reads one address that a host can have.
func (d *document) address(path, text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil {
		if p, prefixErr := netip.ParsePrefix(text); prefixErr == nil {
			d.fail(path, quoted(text), "is a CIDR; expected an address, without /%d", p.Bits())
		} else {
			d.fail(path, quoted(text), "is not an address; expected one such as 192.0.2.7 or 2001:db8::7")
		}
		return netip.Addr{}, false
	}
	if !d.plainAddress(path, text, a) {
		return netip.Addr{}, false
	}
	if kind := unfit(a); kind != "" {
		d.fail(path, quoted(text), "is %s; expected the address of a host", kind)
		return netip.Addr{}, false
	}
	return a, true
}

// unfit names what an address is that no packet may carry as its source into a network.
func unfit(a netip.Addr) string {
	switch {
	case a.IsUnspecified():
		return "the unspecified address"
	case a.IsLoopback():
		return "a loopback address"
	case a.IsMulticast():
		return "a multicast address"
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "the broadcast address"
	}
	return ""
}

// addressRange reads "192.0.2.7" or "192.0.2.16-192.0.2.23".
func (d *document) addressRange(path, text string) (first, last netip.Addr, ok bool) {
	if p, err := netip.ParsePrefix(text); err == nil {
		if p = p.Masked(); p.IsSingleIP() {
			d.fail(path, quoted(text), "is a CIDR; write %s", p.Addr())
		} else {
			d.fail(path, quoted(text), "is a CIDR; write a range: %s-%s", p.Addr(), lastOf(p))
		}
		return first, last, false
	}
	from, to, isRange := strings.Cut(text, "-")
	first, ok = d.address(path, strings.TrimSpace(from))
	if !ok || !isRange {
		return first, first, ok
	}
	if last, ok = d.address(path, strings.TrimSpace(to)); !ok {
		return first, last, false
	}
	switch {
	case packet.Of(first) != packet.Of(last):
		d.fail(path, quoted(text), "mixes IPv4 and IPv6; expected a range in one of them")
	case last.Less(first):
		d.fail(path, quoted(text), "is reversed; expected %s-%s", last, first)
	default:
		return first, last, true
	}
	return first, last, false
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for bit := p.Bits(); bit < 8*len(b); bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// mark reads "VALUE/MASK" or "VALUE", each hexadecimal (0x4000) or decimal.
func (d *document) mark(path, text string) (Mark, bool) {
	number := func(s string) (uint32, error) {
		base := 10
		if hex, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok {
			s, base = hex, 16
		}
		n, err := strconv.ParseUint(s, base, 32)
		return uint32(n), err
	}
	valueText, maskText, hasMask := strings.Cut(text, "/")
	if !hasMask {
		maskText = valueText
	}
	value, err := number(valueText)
	mask, maskErr := number(maskText)
	switch {
	case err != nil || maskErr != nil:
		d.fail(path, quoted(text), "is not a mark; expected VALUE/MASK, such as 0x4000/0x4000")
	case mask == 0:
		d.fail(path, quoted(text), "has an empty mask, which matches no packet; expected bits in it")
	case value&^mask != 0:
		d.fail(path, quoted(text), "has bits in its value that are not in its mask; expected a value within 0x%x", mask)
	case value == 0:
		d.fail(path, quoted(text), "would match every packet without a mark; expected a value that isn't 0")
	default:
		return Mark{value, mask}, true
	}
	return Mark{}, false
}

// notEmpty refuses a list that is there and holds nothing.
func (d *document) notEmpty(path string, absent bool, length int) {
	if !absent && length == 0 {
		d.fail(path, "[]", "is empty; expected at least one entry, or leave the field out")
	}
}
