package snapshot

import (
	"net/netip"
	"strconv"
	"strings"
)

// WireGuardPeer is one that a WireGuard link sends to.
type WireGuardPeer struct {
	Link string
	// Endpoint is invalid where the peer's isn't known yet.
	Endpoint netip.AddrPort
	Allowed  []netip.Prefix
	// Mark of the link's outer packets.
	Mark uint32
}

// wireGuard are the peers of wg.txt:
//
//	fwmark wg0 0xca6c
//	endpoints wg0 peer-1 192.0.2.12:51820
//	allowed-ips wg0 peer-1 10.9.0.0/24 fd00:9::/64
func wireGuard(text string) []WireGuardPeer {
	type peer struct{ link, name string }
	var all []WireGuardPeer
	at := map[peer]int{}
	marks := map[string]uint32{}
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 3 {
			continue
		}
		if words[0] == "fwmark" {
			if mark, err := strconv.ParseUint(words[2], 0, 32); err == nil { // else off
				marks[words[1]] = uint32(mark)
			}
			continue
		}
		if words[0] != "endpoints" && words[0] != "allowed-ips" {
			continue
		}
		p := peer{words[1], words[2]}
		if _, known := at[p]; !known {
			at[p] = len(all)
			all = append(all, WireGuardPeer{Link: p.link})
		}
		for _, word := range words[3:] {
			all[at[p]].add(words[0], word)
		}
	}
	for i := range all {
		all[i].Mark = marks[all[i].Link]
	}
	return all
}

// add a word of a line; (none) is no address.
func (p *WireGuardPeer) add(what, word string) {
	if what == "endpoints" {
		if at, err := netip.ParseAddrPort(word); err == nil {
			p.Endpoint = at
		}
		return
	}
	if prefix, err := netip.ParsePrefix(word); err == nil {
		p.Allowed = append(p.Allowed, prefix.Masked())
	}
}

// PeerTo is the peer that a link sends a destination's packets to: the one that may have the
// longest prefix with it. False where none may.
func (h *Host) PeerTo(link string, to netip.Addr) (best WireGuardPeer, found bool) {
	bits := -1
	for _, p := range h.WireGuard {
		for _, allowed := range p.Allowed {
			if p.Link == link && allowed.Contains(to) && allowed.Bits() > bits {
				best, found, bits = p, true, allowed.Bits()
			}
		}
	}
	return best, found
}
