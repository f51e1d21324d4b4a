package render

import (
	"net/netip"

	"go4.org/netipx"
)

// addrRange prints a prefix where the range is one, as nft does.
func addrRange(first, last netip.Addr) string {
	if p, ok := netipx.IPRangeFrom(first, last).Prefix(); ok {
		return p.String()
	}
	return first.String() + "-" + last.String()
}
