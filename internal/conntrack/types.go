// Package conntrack is the model of connection-tracking entries, with a reader
// for what `conntrack -L` and /proc/net/nf_conntrack print, and a table that
// finds the entry of a packet as the kernel does: by its protocol, tuple and zone.
//
//	entries, problems := conntrack.Read(text, 1)
//	entry, reply := conntrack.NewTable(entries).Find(packet.TCP, tuple, 0)
package conntrack

import "net/netip"

// Tuple is one direction of a connection. Ports of TCP, UDP, SCTP and the like,
// and the keys of GRE; for ICMP they are 0 and ID, Type and Code hold.
type Tuple struct {
	Source, Destination         netip.Addr
	SourcePort, DestinationPort uint16
	ID                          uint16
	Type, Code                  uint8
}

// Entry is a tracked connection.
type Entry struct {
	Protocol uint8
	// Original is what the first packet had, Reply what an answer has: the
	// reply's destination is the source address that the peer sees.
	Original, Reply Tuple
	// State is TCP's, such as ESTABLISHED; empty for others.
	State string
	// SeenReply and Assured are status bits; without SeenReply the line says [UNREPLIED].
	SeenReply, Assured bool
	// Offloaded: a flow table or hardware forwards its packets past all hooks
	// ([OFFLOAD], [HW_OFFLOAD]); such a line hides Assured.
	Offloaded bool
	Mark      uint32
	// Zone of both directions. OriginalZone and ReplyZone are each direction's;
	// they differ where a rule gave a zone to one of them alone (zone-orig=, zone-reply=).
	Zone                    uint16
	OriginalZone, ReplyZone uint16
	// Text is the line, Line its number.
	Text string
	Line int
}

// Problem is a line that wasn't understood, wholly or in part.
type Problem struct {
	Line int
	// Text of the line, cut where it is very long.
	Text string
	Why  string
}
