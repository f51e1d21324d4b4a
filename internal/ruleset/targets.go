package ruleset

import "net/netip"

// Accept, Drop and Return are the verdicts of those names.
type (
	Accept struct{}
	Drop   struct{}
	Return struct{}
)

// Jump is -j CHAIN, or -g CHAIN where Goto: at the end of that chain evaluation
// goes on where this chain was called from.
type Jump struct {
	Chain string
	Goto  bool
}

// Reject answers with an error; With as in the rule, such as icmp-port-unreachable.
type Reject struct{ With string }

// Masquerade takes an address of the outgoing interface. Ports where not nil.
type Masquerade struct {
	Ports *PortRange
	NATFlags
}

// NATFlags of SNAT, DNAT, MASQUERADE, REDIRECT.
type NATFlags struct{ Random, RandomFully, Persistent bool }

// NATRange is where an address is taken from: First to Last, equal for a single
// address; invalid where only ports are stated. Ports where not nil. BasePort:
// the port is shifted, port - BasePort + Ports.First (DNAT …:1000-2000/3000).
type NATRange struct {
	First, Last netip.Addr
	Ports       *PortRange
	BasePort    uint16
}

// SNAT is -j SNAT --to-source.
type SNAT struct {
	NATRange
	NATFlags
}

// DNAT is -j DNAT --to-destination.
type DNAT struct {
	NATRange
	NATFlags
}

// Redirect is -j REDIRECT: to an address of this node.
type Redirect struct {
	Ports *PortRange
	NATFlags
}

// NetMap is -j NETMAP --to: the network part is replaced; of the source in
// POSTROUTING and INPUT, of the destination in PREROUTING and OUTPUT.
type NetMap struct{ To netip.Prefix }

// SetMark is -j MARK in all its forms: mark = mark &^ Mask ^ Value. --set-mark
// V/M is {V, V|M}, --or-mark V is {V, V}, --and-mark V is {0, ^V}, --xor-mark V is {V, 0}.
type SetMark struct{ Value, Mask uint32 }

// ConnMarkOperation is what -j CONNMARK does.
type ConnMarkOperation uint8

const (
	// ConnMarkSet: ctmark = ctmark &^ Mask ^ Value.
	ConnMarkSet ConnMarkOperation = iota
	// ConnMarkSave: ctmark = ctmark &^ ConnMask ^ (mark & PacketMask).
	ConnMarkSave
	// ConnMarkRestore: mark = mark &^ PacketMask ^ (ctmark & ConnMask).
	ConnMarkRestore
)

// ConnMark is -j CONNMARK.
type ConnMark struct {
	Operation            ConnMarkOperation
	Value, Mask          uint32
	PacketMask, ConnMask uint32
}

// NoTrack is -j NOTRACK and -j CT --notrack: no conntrack, so no NAT.
type NoTrack struct{}

// Inert is a target after which the next rule is asked and nothing that decides
// about addresses has changed: LOG, NFLOG, TRACE, TCPMSS, CHECKSUM, CLASSIFY,
// DSCP, TOS, TTL, HL, CT with helpers or events, SET.
type Inert struct{ Name, Text string }

// UnknownTarget is one that isn't understood, or whose parameters the dump hides
// ("[unsupported revision]"). It may do anything.
type UnknownTarget struct{ Name, Text, Why string }

func (Accept) target()        {}
func (Drop) target()          {}
func (Return) target()        {}
func (Jump) target()          {}
func (Reject) target()        {}
func (Masquerade) target()    {}
func (SNAT) target()          {}
func (DNAT) target()          {}
func (Redirect) target()      {}
func (NetMap) target()        {}
func (SetMark) target()       {}
func (ConnMark) target()      {}
func (NoTrack) target()       {}
func (Inert) target()         {}
func (UnknownTarget) target() {}
