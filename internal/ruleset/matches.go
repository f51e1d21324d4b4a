package ruleset

import "net/netip"

// Ports is --sport, --dport of tcp, udp, sctp, udplite, dccp, and multiport. The
// protocol is in the rule.
type Ports struct {
	Side   Side
	Ranges []PortRange
	Not    bool
}

// TCPFlags is --tcp-flags MASK SET and --syn. Bits as in the TCP header: FIN 1,
// SYN 2, RST 4, PSH 8, ACK 16, URG 32.
type TCPFlags struct {
	Mask, Set uint8
	Not       bool
}

// ICMPType is --icmp-type and --icmpv6-type. AnyCode: the rule names a type alone.
// Any: --icmp-type any.
type ICMPType struct {
	Type, Code   uint8
	AnyCode, Any bool
	Not          bool
}

// MaskedAddress is -s or -d with a mask that is no prefix length: address & Mask
// is compared with Address.
type MaskedAddress struct {
	Side          Side
	Address, Mask netip.Addr
	Not           bool
}

// Mark is -m mark, and -m connmark where Connection: mark & Mask == Value.
type Mark struct {
	Value, Mask uint32
	Connection  bool
	Not         bool
}

// AddressTypes is a set of the kernel's routing types (1 << RTN_…).
type AddressTypes uint16

// Bits of AddressTypes: include/uapi/linux/rtnetlink.h, RTN_UNSPEC is 0.
const (
	TypeUnspec AddressTypes = 1 << iota
	TypeUnicast
	TypeLocal
	TypeBroadcast
	TypeAnycast
	TypeMulticast
	TypeBlackhole
	TypeUnreachable
	TypeProhibit
	TypeThrow
	TypeNAT
	TypeXResolve
)

// AddressType is -m addrtype. A zero set is not asked for.
type AddressType struct {
	Source, Destination       AddressTypes
	NotSource, NotDestination bool
	// LimitIn, LimitOut: --limit-iface-in, --limit-iface-out.
	LimitIn, LimitOut bool
}

// States of a connection as -m conntrack --ctstate and -m state name them.
type States uint8

const (
	StateNew States = 1 << iota
	StateEstablished
	StateRelated
	StateInvalid
	StateUntracked
	// StateSNAT and StateDNAT are virtual: the connection's source or
	// destination was translated.
	StateSNAT
	StateDNAT
)

// Statuses of --ctstatus.
type Statuses uint8

const (
	StatusNone Statuses = 1 << iota
	StatusExpected
	StatusSeenReply
	StatusAssured
	StatusConfirmed
)

// Conntrack is -m conntrack and -m state. What is zero is not asked for.
type Conntrack struct {
	States                                                                                 States
	NotStates                                                                              bool
	Status                                                                                 Statuses
	NotStatus                                                                              bool
	Protocol                                                                               Protocol
	OriginalSource, OriginalDestination, ReplySource, ReplyDestination                     Address
	OriginalSourcePorts, OriginalDestinationPorts, ReplySourcePorts, ReplyDestinationPorts *Ports
	// Direction: "" both, "ORIGINAL" or "REPLY".
	Direction string
	// Expire: --ctexpire is asked for, which no dump tells.
	Expire bool
}

// Statistic is -m statistic. Probability in [0, 1] in random mode; Every > 0 in
// nth mode, where Packet is the counter value that matches.
type Statistic struct {
	Probability   float64
	Every, Packet uint32
	Not           bool
}

// Set is -m set --match-set NAME DIRECTIONS, one direction a dimension. Not
// inverts. Options: further set options (--return-nomatch, counters) as text,
// which make the match depend on more than membership.
type Set struct {
	Name       string
	Directions []Side
	Not        bool
	Options    string
}

// IPRange is -m iprange for one side; a rule with both has two.
type IPRange struct {
	Side        Side
	First, Last netip.Addr
	Not         bool
}

// PhysDev is -m physdev: the bridge ports of a bridged packet.
type PhysDev struct {
	In, Out Interface
	// IsIn, IsOut, IsBridged are asked for where not Unasked.
	IsIn, IsOut, IsBridged Asked
}

// Asked is a yes-or-no question that a rule may ask.
type Asked uint8

const (
	Unasked Asked = iota
	AskedYes
	AskedNo
)

// Owner is -m owner: the socket of a packet that the node itself sends. Ranges
// are inclusive.
type Owner struct {
	UID, GID       *[2]uint32
	NotUID, NotGID bool
	SocketExists   Asked
	// SupplementaryGroups: GID is compared with these too.
	SupplementaryGroups bool
}

// RPFilter is -m rpfilter: the route back to the source leaves by the interface
// that the packet came in by.
type RPFilter struct {
	Loose, ValidMark, AcceptLocal, Invert bool
}

// PacketType is -m pkttype.
type PacketType struct {
	// Type is unicast, broadcast or multicast.
	Type string
	Not  bool
}

// Stateful is a match on what happened before, which a dump can't tell: limit,
// hashlimit, recent, connlimit, connbytes, quota, time, nth of others.
type Stateful struct {
	// Name of the extension, Text as in the rule.
	Name, Text string
}

// Always is an extension that every packet matches, such as -m nfacct (counts) and -m recent --set (writes down).
type Always struct{ Name, Text string }

// Unknown is an extension that isn't understood, or whose text hides something
// (an address that somebody blacked out): it may match or not.
type Unknown struct {
	Name, Text string
	// Why in a few words, for people: "not understood", "address is blacked out".
	Why string
}

func (Ports) match()         {}
func (TCPFlags) match()      {}
func (ICMPType) match()      {}
func (MaskedAddress) match() {}
func (Mark) match()          {}
func (AddressType) match()   {}
func (Conntrack) match()     {}
func (Statistic) match()     {}
func (Set) match()           {}
func (IPRange) match()       {}
func (PhysDev) match()       {}
func (Owner) match()         {}
func (RPFilter) match()      {}
func (PacketType) match()    {}
func (Stateful) match()      {}
func (Always) match()        {}
func (Unknown) match()       {}
