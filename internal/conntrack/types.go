// Package conntrack is the model of connection-tracking entries, with a reader
// for what `conntrack -L` prints.
package conntrack

import "net/netip"

// Tuple is one direction of a connection. Ports of TCP, UDP, SCTP and the like;
// for ICMP they are 0 and ID, Type and Code hold.
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
	Mark               uint32
	Zone               uint16
	// Text is the line, Line its number.
	Text string
	Line int
}
