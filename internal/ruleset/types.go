// Package ruleset is the model of a node's packet-filter rules as a dump shows
// them: iptables tables of either variant and either family, their chains and
// rules, with every match and target that is understood as a value of its own
// type, and an explicit [Unknown] for whatever is not.
//
// It holds no logic: package ruleset/iptables reads dumps into it, package sim
// runs packets through it, package owner says who wrote a rule.
//
// Native nftables tables stand among them ([FromNative]): their rules keep the
// form that package nftables gives them.
package ruleset

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// Variant is the kernel interface that an iptables table lives behind.
type Variant uint8

const (
	// VariantUnknown: the dump doesn't say. A node with one such table per name
	// and family is taken as using one variant.
	VariantUnknown Variant = iota
	// Legacy is ip_tables (iptables-legacy).
	Legacy
	// NFT is nf_tables through iptables-nft.
	NFT
	// Native is an nftables table that no iptables program wrote.
	Native
)

func (v Variant) String() string {
	return [...]string{"iptables", "iptables-legacy", "iptables-nft", "nftables"}[v]
}

// Ruleset is all that was read of one node.
type Ruleset struct {
	Tables []*Table
}

// Table is one iptables table of one family.
type Table struct {
	Family  packet.Family
	Variant Variant
	// Name is raw, mangle, nat, filter or security.
	Name string
	// Chains in the order of the dump.
	Chains []*Chain
	// Excerpt: not all of the table was given (lines without a table header, a
	// listing of one chain), so a chain that is missing here may exist.
	Excerpt bool
	// Unread: the program that lists it failed, so that nothing of it is known.
	Unread bool
	// File is where it was read from, for people.
	File string
	// Native is the table as nft has it; nil for iptables.
	Native *nftables.Table

	// byName holds the chains that came by Add.
	byName map[string]*Chain
}

// Add appends a chain, and lets Chain find it at once: kube-proxy makes tens of
// thousands. A table whose Chains were set otherwise works as well, only slower.
func (t *Table) Add(c *Chain) {
	if t.byName == nil {
		t.byName = map[string]*Chain{}
	}
	if _, taken := t.byName[c.Name]; !taken {
		t.byName[c.Name] = c
	}
	t.Chains = append(t.Chains, c)
}

// Chain of that name, the first where there are several, nil without.
func (t *Table) Chain(name string) *Chain {
	if len(t.byName) == len(t.Chains) {
		return t.byName[name]
	}
	for _, c := range t.Chains {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Chain is a built-in chain (PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING) or
// one that a program made.
type Chain struct {
	Name string
	// Policy of a built-in chain, ACCEPT or DROP; empty for others, and where
	// the dump doesn't show it.
	Policy string
	Rules  []Rule
	// Native is the chain as nft has it; nil for iptables.
	Native *nftables.Chain
}

// Rule is one rule. The zero value of each field means: whatever it is.
type Rule struct {
	// Text is the rule as the dump has it, without counters: "-A FORWARD …" or
	// the line of a listing.
	Text string
	// Line in the table's file, from 1. Index within the chain, from 1, as
	// `iptables --line-numbers` counts.
	Line, Index int
	// Packets and Bytes where Counted.
	Packets, Bytes uint64
	Counted        bool

	Source, Destination Address
	In, Out             Interface
	Protocol            Protocol
	// Matches of extensions, in the order of the rule. All must hold.
	Matches []Match
	// Target; nil where the rule has none: it only counts.
	Target  Target
	Comment string
	// NoInterfaces: the form of the dump (iptables -L without -v) doesn't show
	// interfaces, so the rule may have some.
	NoInterfaces bool
	// Native is the rule as nft has it; nil for iptables. Then what it matches
	// and does stands there alone.
	Native *nftables.Rule
}

// Address is -s or -d. The zero Prefix is any.
type Address struct {
	Prefix netip.Prefix
	Not    bool
}

// Interface is -i or -o. The empty Name with Wildcard false is any.
type Interface struct {
	// Name, without the + of a wildcard: {Name: "cali", Wildcard: true} is cali+.
	// {Wildcard: true} alone is +, which every name matches.
	Name     string
	Wildcard bool
	Not      bool
}

// Protocol is -p. Any protocol where Is is false.
type Protocol struct {
	Number uint8
	Is     bool
	Not    bool
}

// PortRange is inclusive. A single port has both ends equal.
type PortRange struct{ First, Last uint16 }

// Side says which end of a packet is meant.
type Side uint8

const (
	Source Side = iota
	Destination
	// Either end (multiport --ports).
	Either
)

// Match is one match extension of a rule.
type Match interface{ match() }

// Target is what a rule does with a packet that it matches.
type Target interface{ target() }
