package snapshot

import (
	"net/netip"
	"strings"
)

// ipsecOut are the policies for what leaves, of `ip xfrm policy`:
//
//	src 10.244.1.0/24 dst 172.30.0.0/16
//		dir out priority 375423 ptype main
//		tmpl src 192.0.2.1 dst 203.0.113.1
//			proto esp spi 0xc3f1 reqid 1 mode tunnel
//
// A policy without a template lets packets pass as they are.
func ipsecOut(text string) []IPsecPolicy {
	var all []IPsecPolicy
	var p IPsecPolicy
	out := false
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		switch {
		case len(words) >= 4 && words[0] == "src" && words[2] == "dst":
			source, err := netip.ParsePrefix(words[1])
			destination, err2 := netip.ParsePrefix(words[3])
			p, out = IPsecPolicy{source, destination}, false
			if err != nil || err2 != nil {
				p = IPsecPolicy{}
			}
		case len(words) >= 2 && words[0] == "dir":
			out = words[1] == "out" && p.Source.IsValid()
		case len(words) >= 1 && words[0] == "tmpl" && out:
			all = append(all, p)
			out = false
		}
	}
	return all
}
