// Package sim runs one packet through a node's rules as the kernel would: the
// tables at their hooks, routing, connection tracking, and network address
// translation. What the kernel would decide by dice, or by something that the
// dump doesn't tell, gives several outcomes, each with what it depends on.
//
// It is pure: a [snapshot.Host] and a [Question] give outcomes, the same ones
// each time.
package sim

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// UnknownPort is a port that the question leaves open.
const UnknownPort = -1

// Question is the first packet of a connection.
type Question struct {
	Source, Destination netip.Addr
	// Protocol 0 is any: the answer then tells protocols apart where rules do.
	Protocol uint8
	// Ports, UnknownPort where open. Only for TCP, UDP, SCTP.
	SourcePort, DestinationPort int
	// InInterface is where a forwarded packet comes from; left out, it is where
	// the route to Source leaves by. OutInterface stands in for a route.
	InInterface, OutInterface string
	Mark                      uint32
	// Local: the node itself sends it. Also so where Source is an address of the node.
	Local bool
	// Via is the next hop, where the routes aren't to be asked.
	Via netip.Addr
	// At names the node that has the packet first, where several are known; left out,
	// it is the one that the source belongs to.
	At string
}

// Family of the question.
func (q Question) Family() packet.Family { return packet.Of(q.Source) }

// Verdict is what becomes of the packet.
type Verdict string

const (
	Accepted       Verdict = "accepted"
	Dropped        Verdict = "dropped"
	Rejected       Verdict = "rejected"
	VerdictUnknown Verdict = "unknown"
)

// SourceKind says where the source address that the peer sees comes from.
type SourceKind string

const (
	// Kept: no rule translated it.
	Kept SourceKind = "kept"
	// Pinned: a rule translated it to itself, so that no later one can.
	Pinned        SourceKind = "pinned"
	Masqueraded   SourceKind = "masqueraded"
	SNATed        SourceKind = "snat"
	SourceUnknown SourceKind = "unknown"
)

// Outcome is one thing that can happen.
type Outcome struct {
	// Probability in (0, 1]; 0 where it depends on state or on something unknown.
	Probability float64
	Verdict     Verdict
	// Source that the peer sees; invalid where it is translated to an address
	// that isn't known.
	Source     netip.Addr
	SourceKind SourceKind
	SourcePort Port
	// Destination and its port (UnknownPort where open) after DNAT.
	Destination     netip.Addr
	DestinationPort int
	// Protocol, where the outcome holds for one alone; 0 for any.
	Protocol uint8
	// InInterface that it came in by, given or by the route to its source; empty
	// where not known, and for what the node sends.
	InInterface string
	// OutInterface is empty where not known, and for the node itself.
	OutInterface string
	// outAssumed: no route told OutInterface, a rule's question did.
	outAssumed bool
	// NextHop on OutInterface: a gateway; invalid where Destination itself is.
	NextHop netip.Addr
	// ToNode: it is delivered to the node itself.
	ToNode bool
	Mark   uint32
	// DecidedBy is what decided the source address, or, of a dropped or rejected
	// packet, what dropped it; nil where nothing did.
	DecidedBy *Decider
	// RejectWith is the error that a rejected packet's sender gets.
	RejectWith   string
	DependsOn    []Dependency
	Steps        []Step
	Encapsulated *Encapsulated
	// Next is the packet on the following node, where several are known.
	Next *Next
}

// Next is a packet that has come to another node.
type Next struct {
	Node     string
	Question Question
	Outcomes []Outcome
}

// Port of the source after translation.
type Port struct {
	// First and Last: equal where it is known. Random: any that is free.
	First, Last uint16
	Random      bool
	// Known is false where the question left the port open and nothing changed it.
	Known bool
}

// Decider is a rule, a connection or a route. One of its pointers is set.
type Decider struct {
	Rule       *RuleRef
	Connection *conntrack.Entry
	Route      *route.Route
	// Text says in words what decided, where it is neither: a sysctl, no route.
	Text string
}

// RuleRef is a rule with its place. For a chain's policy, Rule is nil.
type RuleRef struct {
	Table *ruleset.Table
	Chain *ruleset.Chain
	Rule  *ruleset.Rule
}

// Dependency is something that the answer depends on and that wasn't given.
type Dependency struct {
	// What: a short word such as routes, set NAME, chain NAME, interface, source
	// port, state; Why: a sentence without a full stop.
	What, Why string
	// If is the condition under which the outcome comes about; empty where it
	// does in several ways, some of which depend on it.
	If string
}

// Text is the reason with the condition.
func (d Dependency) Text() string {
	switch {
	case d.If == "":
		return d.Why
	case d.Why == "":
		return "if " + d.If
	}
	return d.Why + "; if " + d.If
}

// Step is one thing that happened on the way, or, when traced, one rule that was
// looked at.
type Step struct {
	// Hook: prerouting, input, forward, output, postrouting (of IP, or of a bridge),
	// ingress, egress, routing.
	Hook string
	// At is the rule or chain policy; zero for steps of the kernel's own.
	At RuleRef
	// Matched is false for rules that were looked at in vain (only when traced).
	Matched bool
	// Effect in a few words: jump KUBE-SVC-…, mark 0x4000, masquerade, accept.
	Effect string
	// Elements of sets and maps that a native rule found the packet in, in the
	// order of its statements.
	Elements []*nftables.Element
	// Translation that a native rule came to, its maps looked up; nil for others.
	Translation ruleset.Target
}

// Encapsulated is the outer packet of a tunnel.
type Encapsulated struct {
	Interface string
	Question  Question
	Outcomes  []Outcome
}

// Options of a run.
type Options struct {
	// Trace records every rule looked at, not only those that mattered.
	Trace bool
	// Each, where it isn't nil, is called with each way and where it led.
	Each func(*Outcome, Way)
}
