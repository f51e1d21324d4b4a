// Package rules turns the NAT rules of a node's postrouting hook, a tree of chains,
// into one ordered list of which the first entry that a packet fits decides: what a
// policy can say.
//
//	list, err := rules.Read(host)
//	for _, e := range list.Entries { … }   // region, what is done there, which rules say so
//	for _, w := range list.Warnings { … }  // rules that such a list can't say
//
// A rule that can't be said never makes the list translate more: where it would have
// let packets go, they are left alone. The list is about first packets of connections
// that carry no mark, the service mark or the hostPort mark; policies leave the marked
// ones to kube-proxy and portmap, and the node's own loopback and tunnels to nobody.
package rules

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// List is what the rules do, the first entry that fits a packet decides. A packet
// that none fits keeps its source.
type List struct {
	Entries  []Entry
	Warnings []Warning
	// Sets whose elements the entries have, as they were.
	Sets []string
}

// Entry is what is done with the packets of a region.
type Entry struct {
	Region
	// Action is Masquerade or SNAT; Keep where rules let the packet go with its
	// source, Leave where this can't be said for sure, or where the node sends it.
	Action      policy.Action
	FullyRandom bool
	// Ports of Masquerade.
	Ports *ruleset.PortRange
	// First to Last are the addresses of SNAT.
	First, Last netip.Addr
	// Rules that decided, in the order of the dump.
	Rules []Ref
}

// Ref is a rule with its place and owner.
type Ref struct {
	Table *ruleset.Table
	Chain *ruleset.Chain
	Rule  *ruleset.Rule
	Owner string
}

// Warning is a rule that the list doesn't say, or not as it is.
type Warning struct {
	Ref
	Why string
}
