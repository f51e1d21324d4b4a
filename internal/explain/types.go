// Package explain turns a question about a packet into an answer for people and
// for scripts: who is seen as whom, which rule decides, whose it is, how to
// change it, and what the answer depends on. Package sim computes, package owner
// names; here it becomes text, JSON, and a drawing.
package explain

import "net/netip"

// Answer is what `explain -o json` prints. Fields are only ever added.
type Answer struct {
	Version int  `json:"version"`
	Flow    Flow `json:"flow"`
	// Node that the flow starts on, where several snapshots were given.
	Node     string    `json:"node,omitempty"`
	Warnings []string  `json:"warnings"`
	Outcomes []Outcome `json:"outcomes"`
	// Replay is nil where none was asked for.
	Replay *Replay `json:"replay,omitempty"`
}

// Flow is the question.
type Flow struct {
	Family          string     `json:"family"`
	Protocol        string     `json:"protocol"`
	Source          netip.Addr `json:"source"`
	SourcePort      *int       `json:"sourcePort,omitempty"`
	Destination     netip.Addr `json:"destination"`
	DestinationPort *int       `json:"destinationPort,omitempty"`
	InInterface     string     `json:"inInterface,omitempty"`
	Mark            uint32     `json:"mark,omitempty"`
	Local           bool       `json:"local,omitempty"`
}

// Outcome is one thing that can happen.
type Outcome struct {
	// Probability is null where it depends on state.
	Probability *float64 `json:"probability"`
	// Verdict: accepted, dropped, rejected, unknown.
	Verdict string `json:"verdict"`
	// Protocol where the outcome is one protocol's alone.
	Protocol string `json:"protocol,omitempty"`
	// Source is null where masqueraded but no address is known.
	Source *netip.Addr `json:"source"`
	// SourceRange is the first and last of the addresses that Source is one of,
	// where destinations of a network get different ones.
	SourceRange []netip.Addr `json:"sourceRange,omitempty"`
	// SourcePort is a number, [min, max], or null.
	SourcePort any `json:"sourcePort"`
	// SourceKind: kept, pinned, masqueraded, snat, unknown.
	SourceKind      string     `json:"sourceKind"`
	Destination     netip.Addr `json:"destination"`
	DestinationPort *int       `json:"destinationPort,omitempty"`
	// InInterface that it came in by; not for what the node sends.
	InInterface  string `json:"inInterface,omitempty"`
	OutInterface string `json:"outInterface,omitempty"`
	// ToNode: it is delivered to the node itself.
	ToNode       bool          `json:"toNode,omitempty"`
	RejectWith   string        `json:"rejectWith,omitempty"`
	DecidedBy    *Decider      `json:"decidedBy"`
	DependsOn    []Dependency  `json:"dependsOn"`
	Steps        []Step        `json:"steps"`
	Encapsulated *Encapsulated `json:"encapsulated,omitempty"`
	// Next is the packet on the following node, where several snapshots were given.
	Next *Next `json:"next,omitempty"`
}

// Next is a packet that has come to another node.
type Next struct {
	Node     string    `json:"node"`
	Flow     Flow      `json:"flow"`
	Outcomes []Outcome `json:"outcomes"`
}

// Decider is what decided.
type Decider struct {
	// Kind: rule, conntrack, route.
	Kind   string `json:"kind"`
	Family string `json:"family,omitempty"`
	// Variant: iptables-legacy, iptables-nft or nftables, where known.
	Variant string `json:"variant,omitempty"`
	Table   string `json:"table,omitempty"`
	Chain   string `json:"chain,omitempty"`
	Rule    string `json:"rule,omitempty"`
	// Index counts from 1 like --line-numbers; 0 for a chain's policy.
	Index  int    `json:"index,omitempty"`
	Handle uint64 `json:"handle,omitempty"`
	// File and Line of the dump.
	File  string `json:"file,omitempty"`
	Line  int    `json:"line,omitempty"`
	Owner string `json:"owner,omitempty"`
	// OwnerVersion says what the form of the rule tells of the owner's version or mode.
	OwnerVersion string `json:"ownerVersion,omitempty"`
	// MarkedBy is the rule that marked the packet for the one that decided.
	MarkedBy string `json:"markedBy,omitempty"`
	// Because: why the owner's rule takes the packet; Why: each condition of the
	// rule with what the packet has.
	Because string   `json:"because,omitempty"`
	Why     []string `json:"why,omitempty"`
	// Setting of the owner that produces the rule, and what to change.
	Setting string   `json:"setting,omitempty"`
	Change  []string `json:"change,omitempty"`
	// Trap is what comes back, or goes wrong, after such a change.
	Trap string `json:"trap,omitempty"`
	// Policy is a SourcePolicy that has the other effect, as YAML.
	Policy string `json:"policy,omitempty"`
}

// Dependency is something that wasn't given.
type Dependency struct {
	What string `json:"what"`
	// Why it is open, with the condition.
	Why string `json:"why"`
	// If is the condition alone under which the outcome comes about.
	If string `json:"if,omitempty"`
	// reason is Why without the condition.
	reason string
}

// Step on the way.
type Step struct {
	Hook   string `json:"hook"`
	Table  string `json:"table,omitempty"`
	Chain  string `json:"chain,omitempty"`
	Rule   string `json:"rule,omitempty"`
	Owner  string `json:"owner,omitempty"`
	Effect string `json:"effect"`
	// Elements of nftables' sets and maps that the rule found the packet in.
	Elements []string `json:"elements,omitempty"`
	// Because: why the rule takes the packet, where its owner is known.
	Because string `json:"because,omitempty"`
	// Matched is false, with -v, for rules that were looked at in vain.
	Matched bool `json:"matched"`
}

// Encapsulated is the outer packet of a tunnel.
type Encapsulated struct {
	Interface string    `json:"interface"`
	Flow      Flow      `json:"flow"`
	Outcomes  []Outcome `json:"outcomes"`
}
