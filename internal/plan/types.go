// Package plan compiles a policy and its facts into what must stand in the
// kernel: one nftables table with static rules and changing sets, as plain data.
//
// Nothing here touches a kernel. internal/render prints a Table as nft text,
// internal/kernel/nft installs it; a test proves that both mean the same.
//
//	table := plan.Compile(pol, facts, plan.Options{})
//	fmt.Print(render.Table(table))
package plan

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

const (
	// TableName of the one table (family inet) that unmasq writes, and of the
	// helper that stands in for it while the table itself is made anew.
	TableName    = "unmasq"
	HandoverName = "unmasq-handover"
	BaseChain    = "postrouting"
	// Priority of the base chain. The kernel refuses NAT chains at or below -200,
	// where conntrack itself hooks in (net/netfilter/nf_tables_api.c,
	// nft_chain_parse_hook), so this is the first place among NAT chains.
	Priority = -199
	// Layout of the table: the name of an empty chain in it. It changes when the
	// base chain's name, hook or priority does.
	Layout = "layout-1"
)

// Table is everything in the table. The first of Chains is the base chain.
type Table struct {
	Counters []Counter
	Sets     []Set
	Chains   []Chain
}

// Counter is a named counter object, one for each rule of the policy.
type Counter struct {
	Name string
}

// KeyType is the type of a set's keys, as nft spells it.
type KeyType string

const (
	IPv4Addr    KeyType = "ipv4_addr"
	IPv6Addr    KeyType = "ipv6_addr"
	IPv4Pair    KeyType = "ipv4_addr . ipv4_addr"
	IPv6Pair    KeyType = "ipv6_addr . ipv6_addr"
	InetService KeyType = "inet_service"
)

// Set is a named set, or a verdict map where Map is true.
type Set struct {
	Name string
	Key  KeyType
	// Interval sets hold ranges; others single keys.
	Interval bool
	Map      bool
	// Elements are sorted by First and don't overlap.
	Elements []Element
}

// Element is a key, or in interval sets a range of keys with both ends included.
// Keys are in network byte order, as long as the set's key type.
type Element struct {
	First, Last string
	// Verdict of a verdict map's element.
	Verdict Verdict
}

// Chain is a chain; Base says that it hooks into postrouting.
type Chain struct {
	Name  string
	Base  bool
	Rules []Rule
}

// Rule is a list of statements, evaluated from left to right, with a comment
// of at most 128 bytes.
type Rule struct {
	Statements []Statement
	Comment    string
}

// Statement is one nft statement: a match, a lookup, or an action.
type Statement interface{ statement() }

// Statements, each with the nft text that it stands for.
type (
	// OutLoopback is `oif "lo"`.
	OutLoopback struct{}
	// NoInput is `iif 0`: no input interface, as packets have that this host sends.
	//
	// So have packets between ports of a bridge where br_netfilter shows them to
	// the IP hooks (br_nf_post_routing), whose source is somebody else's. A tunnel's
	// outer packet has one: since "netfilter: Support iif matches in POSTROUTING"
	// (2019) the input interface that postrouting sees for it is the tunnel's link.
	NoInput struct{}
	// SourceIsLocal is `fib saddr type local`: the source is an address of this
	// host. A forwarded packet has none (martian), a tunnel's outer packet has one.
	SourceIsLocal struct{}
	// OutInterface is `oifname "eth0"`; a trailing * matches any ending.
	OutInterface struct{ Name string }
	// NFProto is `meta nfproto ipv4`.
	NFProto struct{ Family packet.Family }
	// L4Proto is `meta l4proto tcp`, or `meta l4proto { tcp, udp }`.
	L4Proto struct{ Protocols []uint8 }
	// InSet is `ip saddr @set`: the field must be in the set. Ports have no family.
	// Bits, where not 0, masks the address first: `ip daddr & 255.255.255.0 @set`.
	// Not turns it round: `ip daddr != @set`.
	InSet struct {
		Family packet.Family
		Field  Field
		Set    string
		Bits   int
		Not    bool
	}
	// VerdictMap is `ip saddr vmap @map`; without an element, evaluation goes on.
	// Bits is as for InSet.
	VerdictMap struct {
		Family packet.Family
		Field  Field
		Map    string
		Bits   int
	}
	// DNATed is `ct status dnat`.
	DNATed struct{}
	// IPsec is `rt ipsec exists`.
	IPsec struct{}
	// MarkIs is `meta mark & MASK == VALUE`.
	MarkIs struct{ Mark policy.Mark }
	// ClearMark is `meta mark set meta mark & ~MASK`.
	ClearMark struct{ Mask uint32 }
	// Count is `counter name "NAME"`.
	Count struct{ Counter string }
	// Keep is `snat ip to ip saddr`: identity NAT.
	Keep struct{ Family packet.Family }
	// Masquerade is `masquerade [to :FIRST-LAST] [fully-random]`.
	Masquerade struct {
		Ports       policy.PortRange
		FullyRandom bool
	}
	// SNAT is `snat ip to ADDR [fully-random]`, or with several addresses
	// `snat ip to jhash ip saddr mod N seed HashSeed map { 0 : ADDR, … }`.
	SNAT struct {
		Family      packet.Family
		Addresses   []netip.Addr
		FullyRandom bool
	}
)

// Field is the part of the packet that a lookup takes as its key.
type Field uint8

const (
	SourceAddress       Field = iota // ip saddr, ip6 saddr
	DestinationAddress               // ip daddr
	BothAddresses                    // ip saddr . ip daddr
	SourcePort                       // th sport
	DestinationPort                  // th dport
	OriginalDestination              // ct original ip daddr: before DNAT
	OriginalPort                     // ct original proto-dst
)

// VerdictKind is what a Verdict does.
type VerdictKind uint8

const (
	NoVerdict VerdictKind = iota
	Accept
	Goto
	Jump
	Return
)

// Verdict ends a rule, or is a verdict map's value.
type Verdict struct {
	Kind  VerdictKind
	Chain string
}

func (OutLoopback) statement()   {}
func (NoInput) statement()       {}
func (SourceIsLocal) statement() {}
func (OutInterface) statement()  {}
func (NFProto) statement()       {}
func (L4Proto) statement()       {}
func (InSet) statement()         {}
func (VerdictMap) statement()    {}
func (DNATed) statement()        {}
func (IPsec) statement()         {}
func (MarkIs) statement()        {}
func (ClearMark) statement()     {}
func (Count) statement()         {}
func (Keep) statement()          {}
func (Masquerade) statement()    {}
func (SNAT) statement()          {}
func (Verdict) statement()       {}
