// Package ipset is the model of the kernel's IP sets, with a reader for what
// `ipset save` and `ipset list` print, and the membership test that -m set makes.
//
//	sets, problems := ipset.Read(text, 1)
//	answer, why := sets["trusted"].Contains(sets, packet, []bool{true}) // src
package ipset

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
)

// Answer of a question that a dump may not be able to answer.
type Answer uint8

const (
	No Answer = iota
	Yes
	// Unknown: the set's type or an element isn't understood, or the packet
	// lacks what the set asks for.
	Unknown
)

// Packet is what a set can look at. A port of -1, a protocol of 0 and an empty
// interface are not known. For ICMP and ICMPv6 both ports are type<<8 | code;
// those of protocols without ports don't matter.
type Packet struct {
	Source, Destination         netip.Addr
	Protocol                    uint8
	SourcePort, DestinationPort int
	InInterface, OutInterface   string
	// NoIn and NoOut: the packet has no such interface where the set is asked,
	// an incoming one in the output hook for example; InInterface or
	// OutInterface is empty then.
	NoIn, NoOut bool
	Mark        uint32
}

// Sets by name.
type Sets map[string]*Set

// Problem is a line that wasn't understood, wholly or in part.
type Problem struct {
	// Line of the file; 0 for all of it.
	Line int
	// Text of the line, cut where it is very long.
	Text string
	Why  string
}

// Set is one IP set. It doesn't change after it was read, and any number may ask it at once.
type Set struct {
	Name string
	// Type such as hash:ip,port; empty where only elements were given, without
	// the line that creates the set.
	Type string
	// Family of the addresses; 0 for types that hold either or none.
	Family  packet.Family
	Options Options
	// Members of a list:set, in order; nil for other types.
	Members []string
	// Line that creates it.
	Line int

	kind kind
	// other set of the same name, read before.
	other *Set
	// doubt says why no answer is sure, missing why elements are perhaps not all
	// known. missingNegates: one of those could be a nomatch one.
	doubt, missing string
	missingNegates bool

	// tables in the order in which the kernel tries prefix lengths.
	tables []*table
	byBits map[[2]uint8]*table
	// more holds the rests of elements whose addresses are the same.
	more [][]rest
	// interfaces are the names that rests refer to.
	interfaces []string
	numbers    map[string]uint32
	length     int
	// announced is `Number of entries`, -1 where it isn't stated. listed: the
	// heading Members was there, or it was printed by ipset save.
	announced int
	listed    bool
}

// Options of a set, the zero value where they aren't stated.
type Options struct {
	// Text of all, as written.
	Text string
	// Mask of netmask or bitmask: packets and elements are compared under it.
	Mask netip.Addr
	// Range and the ports are what a bitmap can hold.
	Range               cidr.Range
	FirstPort, LastPort uint16
	// MarkMask is what hash:ip,mark compares of a mark.
	MarkMask uint32
	// Timeout: elements can go by themselves.
	Timeout, Counters, Comment, SKBInfo bool
}

// Before is the set of the same name that was given before this one, nil without:
// what they don't agree on, Contains doesn't answer.
func (s *Set) Before() *Set { return s.other }

// Join adds the sets of another text about the same node. Of a name that is
// there already, Contains answers only where all agree. It returns such names
// whose sets differ in type, options or the number of elements.
func (s Sets) Join(more Sets) (differ []string) {
	for _, name := range slices.Sorted(maps.Keys(more)) {
		set := more[name]
		before := s[name]
		s[name] = set
		if before == nil {
			continue
		}
		if before.Type != set.Type || before.length != set.length || before.Family != set.Family || before.Options.Mask != set.Options.Mask {
			differ = append(differ, name)
		}
		set.follow(before)
	}
	return differ
}

// follow puts another set of the name, and those before it, behind this one.
func (s *Set) follow(before *Set) {
	count, last := 1, s
	for ; last.other != nil; last = last.other {
		count++
	}
	for o := before; o != nil; o = o.other {
		count++
	}
	if count > maxSame {
		s.doubt, s.other = "it was given too often", nil
		return
	}
	last.other = before
}

// Len is the number of elements as written, of a range of them too.
func (s *Set) Len() int { return s.length }
