// Package ipset is the model of the kernel's IP sets, with readers for what
// `ipset save` and `ipset list` print, and the membership test that -m set makes.
package ipset

import "net/netip"

// Answer of a question that a dump may not be able to answer.
type Answer uint8

const (
	No Answer = iota
	Yes
	// Unknown: the set's type or an element isn't understood, or the packet
	// lacks what the set asks for.
	Unknown
)

// Packet is what a set can look at. A port of -1 and an empty interface are not
// known; ICMP has Port values of its own, see [Set.Contains].
type Packet struct {
	Source, Destination         netip.Addr
	Protocol                    uint8
	SourcePort, DestinationPort int
	InInterface, OutInterface   string
	Mark                        uint32
}

// Sets by name.
type Sets map[string]*Set
