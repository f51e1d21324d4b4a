// Package flows turns entries of the connection table into answers to "who was
// seen as whom, and who did that". The entry has both tuples, but not which rule
// made them; so the simulator is asked what the rules, as they are now, make of a
// first packet like that entry's, and where it comes to what the entry has, it
// names rule and owner. Where it doesn't, the answer says so: the connection is
// older than the rules.
//
//	judge := flows.NewJudge(host)
//	flow := judge.Flow(&entry, flows.Names{})
//	fmt.Println(flow.Source, flow.SeenAs, flow.By())
package flows

import "net/netip"

// Flow is a connection as `flows -o json` prints it. Fields are only ever added.
type Flow struct {
	Family   string `json:"family"`
	Protocol string `json:"protocol"`
	// Source that sent the first packet. Ports are absent where the protocol has none.
	Source     netip.Addr `json:"source"`
	SourcePort *uint16    `json:"sourcePort,omitempty"`
	SourceName string     `json:"sourceName,omitempty"`
	// SeenAs is the source that the peer sees.
	SeenAs     netip.Addr `json:"seenAs"`
	SeenAsPort *uint16    `json:"seenAsPort,omitempty"`
	SeenAsName string     `json:"seenAsName,omitempty"`
	// Destination that the first packet was sent to: of a service, its address.
	Destination     netip.Addr `json:"destination"`
	DestinationPort *uint16    `json:"destinationPort,omitempty"`
	DestinationName string     `json:"destinationName,omitempty"`
	// Backend where packets end up; absent where that is Destination.
	Backend     *netip.Addr `json:"backend,omitempty"`
	BackendPort *uint16     `json:"backendPort,omitempty"`
	BackendName string      `json:"backendName,omitempty"`
	// State of protocols that have one, such as ESTABLISHED.
	State string `json:"state,omitempty"`
	// Replied: a packet came back. Assured: the kernel doesn't give the entry up
	// early. Offloaded: a flow table forwards it, past all hooks.
	Replied   bool `json:"replied"`
	Assured   bool `json:"assured,omitempty"`
	Offloaded bool `json:"offloaded,omitempty"`
	// Direction: forwarded, in (to the node), out (from the node), local; absent
	// where the node's addresses aren't known.
	Direction string `json:"direction,omitempty"`
	// SourceKind: kept, pinned, masqueraded, snat; unknown for a translation that the
	// rules as they are now don't make.
	SourceKind string `json:"sourceKind"`
	// ByRules: same where the rules as they are now make the connection what it is;
	// other where they would not, as Now says; unknown.
	ByRules string `json:"byRules"`
	// Now is what the rules as they are now would do, where that is something else,
	// or why it isn't known.
	Now string `json:"now,omitempty"`
	// DecidedBy decided the source; null where nothing did, or it isn't known.
	DecidedBy *Decider `json:"decidedBy"`
	// DestinationBy translated the destination.
	DestinationBy *Decider `json:"destinationBy,omitempty"`
	ID            uint32   `json:"id,omitempty"`
	Zone          uint16   `json:"zone,omitempty"`
	Mark          uint32   `json:"mark,omitempty"`
	// Packets and Bytes there and back, and Start and Stop in RFC 3339, where the
	// kernel records them.
	Packets *[2]uint64 `json:"packets,omitempty"`
	Bytes   *[2]uint64 `json:"bytes,omitempty"`
	Start   string     `json:"start,omitempty"`
	Stop    string     `json:"stop,omitempty"`
}

// What the rules as they are now make of a connection: values of Flow.ByRules.
const (
	Same    = "same"
	Other   = "other"
	Unknown = "unknown"
)

// Decider is a rule, as `explain` names it; explain says more of it.
type Decider struct {
	Owner   string `json:"owner,omitempty"`
	Family  string `json:"family,omitempty"`
	Variant string `json:"variant,omitempty"`
	Table   string `json:"table,omitempty"`
	Chain   string `json:"chain,omitempty"`
	Rule    string `json:"rule,omitempty"`
	// Index counts from 1 like --line-numbers; Handle is nftables'.
	Index  int    `json:"index,omitempty"`
	Handle uint64 `json:"handle,omitempty"`
	// PolicyRule is POLICY/RULE where it is one of unmasq's.
	PolicyRule string `json:"policyRule,omitempty"`
	// Service, as kube-proxy's rule has it, such as default/web:http.
	Service string `json:"service,omitempty"`
	// Because: why the owner's rule takes it; MarkedBy: the rule that marked the
	// packet for it.
	Because  string `json:"because,omitempty"`
	MarkedBy string `json:"markedBy,omitempty"`
}

// Names of addresses, such as namespace/pod; "" where there is none.
type Names interface{ Of(netip.Addr) string }
