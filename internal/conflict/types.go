// Package conflict judges what other components do on a node against policies:
// eBPF data paths that take packets past netfilter, rules that bind a source before
// unmasq's are asked, or take conntrack and all NAT away. It is pure;
// internal/kernel/others reads what it judges.
//
//	path := conflict.PathOf(programs, rules)    // do pods' packets pass netfilter?
//	found := conflict.Of(rules, pods)           // who works against a policy?
//
// What many nodes have beside a policy is none: kube-proxy, flannel, docker,
// ip-masq-agent write rules that lose against a pin.
package conflict

import "net/netip"

// Finding is something that works, or may work, against policies.
type Finding struct {
	// Reason in one word, CamelCase.
	Reason string
	// Owner is a component of internal/owner's names.
	Owner string
	// Message says what was seen, and what mends it.
	Message string
	// Maybe: it can't be told whether it does.
	Maybe bool
}

// CiliumMasquerade is the comment of the rule by which Cilium masquerades pods.
const CiliumMasquerade = "cilium masquerade non-cluster"

// Reasons of findings.
const (
	Bypassed   = "BypassedByEBPF"
	Unknown    = "UnknownProgram"
	Earlier    = "ForeignTable"
	Untracked  = "Untracked"
	TableOwned = "TableOwned"
	Changed    = "TableChanged"
)

// Device is an interface; Kind is rtnetlink's, "" where there is none.
type Device struct{ Name, Kind string }

// Program is an eBPF program at an interface.
type Program struct {
	Device Device
	// Hook is "tc ingress", "tc egress", "tcx ingress", "XDP", …
	Hook string
	// Name as its component gave it. Unnamed: who may not see programs doesn't know it.
	Name    string
	Unnamed bool
}

// Programs are the interfaces of a node and what is attached to them.
type Programs struct {
	Devices  []Device
	Programs []Program
	// Unasked is why programs that are attached by links of their own (tcx, netkit)
	// aren't known; "": they are.
	Unasked string
}

// Rules are those that may win over a policy.
type Rules struct {
	Rules []Rule
	// CiliumMasquerades by rules, so that pods' packets have to pass netfilter.
	CiliumMasquerades bool
	// Cut: there were more than are read.
	Cut bool
}

// Rule of nftables, native or of iptables, reached from a base chain; what the
// rules ask that lead there it asks too.
type Rule struct {
	Family, Table, Chain string
	// Legacy: of iptables-legacy.
	Legacy bool
	// Base chain that it is reached from: its hook and priority.
	Hook     string
	Priority int
	Comment  string
	Effect   Effect
	// Source and Destination that packets must have; invalid: any. Sources that they
	// must not have, and the like, are left out: it may concern more than it does.
	Source, Destination netip.Prefix
	// Except are sources that an accept, drop or return before it takes away.
	Except []netip.Prefix
	// Protocol and Port of the destination; 0: any.
	Protocol uint8
	Port     uint16
	// More: it asks for something else too, which isn't read.
	More bool
}

// Effect of a rule.
type Effect string

// Effects.
const (
	Translates Effect = "translates sources"
	Untracks   Effect = "switches connection tracking off"
)
