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
	// ID is the kernel's name of the entry while it lives; 0 where it wasn't given.
	ID uint32
	// Packets and Bytes of the original and the reply direction; Counted says
	// whether the kernel counts them (net.netfilter.nf_conntrack_acct).
	Packets, Bytes [2]uint64
	Counted        bool
	// Start and Stop in nanoseconds since 1970; 0 where the kernel doesn't record
	// them (net.netfilter.nf_conntrack_timestamp).
	Start, Stop uint64
	// Text is the line, Line its number.
	Text string
	Line int
}

// SeenAs is the source address and port that the peer sees.
func (e *Entry) SeenAs() (netip.Addr, uint16) { return e.Reply.Destination, e.Reply.DestinationPort }

// Backend is where packets end up: of a service, what stands behind it.
func (e *Entry) Backend() (netip.Addr, uint16) { return e.Reply.Source, e.Reply.SourcePort }

// SourceTranslated says whether the peer sees another address than the sender's. A
// port alone may change, too, where the same one was taken.
func (e *Entry) SourceTranslated() bool { return e.Reply.Destination != e.Original.Source }

// DestinationTranslated says whether packets end up elsewhere than they were sent to.
func (e *Entry) DestinationTranslated() bool {
	return e.Reply.Source != e.Original.Destination || e.Reply.SourcePort != e.Original.DestinationPort
}

// Problem is a line that wasn't understood, wholly or in part.
type Problem struct {
	Line int
	// Text of the line, cut where it is very long.
	Text string
	Why  string
}
