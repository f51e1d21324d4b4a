// Package nftables is the model of native nftables rules, and their readers:
// nft's JSON, its text, and the command form. All three of one ruleset give the
// same model.
//
// The model keeps the structure of what nft prints, and values as they are
// printed; [Table.Resolve] gives each its type, as the kernel compares it.
package nftables

import "strings"

// Ruleset is what one node's nft printed.
type Ruleset struct {
	Tables []*Table
	// Excerpt: something was lost of which the table isn't known.
	Excerpt bool
}

// Table is one table. Tables of iptables-nft are among them: [Table.IPTables].
type Table struct {
	// Family is nft's own word: ip, ip6, inet, bridge, netdev, arp.
	Family, Name string
	// Handle is 0 where it isn't known. Tables made later have higher ones.
	Handle uint64
	// Flags: dormant (none of its chains is asked), owner, persist.
	Flags   []string
	Comment string
	Chains  []*Chain
	// Sets are the named sets and maps.
	Sets []*Set
	// Objects are named counters, quotas, limits, helpers and the like.
	Objects []Object
	// IPTables: nft says that an iptables program manages it.
	IPTables bool
	// Excerpt: not all of it was given.
	Excerpt bool
	File    string
	Line    int

	chains map[string]*Chain
	sets   map[string]*Set
}

// Chain of a table.
type Chain struct {
	Name   string
	Handle uint64
	// Base is nil for chains that are only jumped to.
	Base    *Base
	Comment string
	Rules   []*Rule
}

// Base is where a base chain is registered.
type Base struct {
	// Type is filter, nat or route.
	Type string
	// Hook: prerouting, input, forward, output, postrouting, ingress, egress.
	Hook string
	// Priority as a number, names resolved for the table's family.
	Priority int
	// Devices of netdev's and inet's ingress and egress.
	Devices []string
	// Drop is the policy; else accept.
	Drop bool
}

// Rule is a list of statements, read from left to right.
type Rule struct {
	// Handle is 0 where it isn't known; Index counts from 1 in the chain.
	Handle     uint64
	Index      int
	Statements []Statement
	Comment    string
	// Text as nft prints it; where the dump was JSON, as nft would.
	Text string
	Line int
}

// Statement is a part of a rule: one of the types below.
type Statement interface{ statement() }

// Match goes on where the comparison holds.
type Match struct {
	// Op: ==, !=, <, >, <=, >=, or "in", which for flags means that one of them
	// is set ("ct state established,related"), else as ==.
	Op          string
	Left, Right Expr
}

// VerdictKind is what a verdict does.
type VerdictKind uint8

const (
	Accept VerdictKind = iota
	Drop
	Continue
	Return
	Jump
	Goto
	// Queue hands the packet to a program.
	Queue
)

func (k VerdictKind) String() string {
	return [...]string{"accept", "drop", "continue", "return", "jump", "goto", "queue"}[k]
}

// Verdict ends the rule. Chain is set for Jump and Goto.
type Verdict struct {
	Kind  VerdictKind
	Chain string
	// Text of Queue, with its flags and numbers; empty for the others.
	Text string
}

// VerdictMap looks a verdict up; it goes on where there is none. Map is a
// [SetRef] or [SetLiteral].
type VerdictMap struct{ Key, Map Expr }

// Assign is "meta mark set …", "ct mark set …", "ip saddr set …".
type Assign struct{ Key, Value Expr }

// NATKind is a translation.
type NATKind uint8

const (
	SNAT NATKind = iota
	DNAT
	Masquerade
	Redirect
)

func (k NATKind) String() string {
	return [...]string{"snat", "dnat", "masquerade", "redirect"}[k]
}

// NAT translates. Address and Port are nil where left out; a concatenation in
// Address stands for address and port (dnat ip to ip daddr . th dport map @m).
type NAT struct {
	Kind NATKind
	// Family ip or ip6 where it was written, in table inet.
	Family        string
	Address, Port Expr
	// Flags.
	Random, FullyRandom, Persistent bool
	// Prefix: the host part of the address stays (snat ip prefix to …).
	Prefix bool
	// Interval: addresses are a range from a map.
	Interval bool
}

// Reject with an ICMP error or TCP reset.
type Reject struct {
	// Type: tcp reset, icmp, icmpv6, icmpx; empty is the family's port-unreachable.
	Type string
	// Code is a name or number: port-unreachable, admin-prohibited, 3.
	Code string
}

// NoTrack switches connection tracking, and with it NAT, off.
type NoTrack struct{}

// Stateful goes on or not, by what the kernel has counted: limit, quota, ct
// count, a dynamic set's statement.
type Stateful struct{ Name, Text string }

// SetUpdate is "add @s { … }", "update", "delete": it goes on unless the set is full.
type SetUpdate struct {
	Op   string
	Set  string
	Key  Expr
	Data Expr
	// Timeout of the element, where it isn't the set's.
	Timeout string
	// Statements of the element; a Stateful one among them decides.
	Statements []Statement
}

// Inert does nothing to the packet's way: counter, log, comment, meta nftrace,
// ct helper set, dup, secmark.
type Inert struct{ Name, Text string }

// XT is an extension of iptables: nft shows its name, not its parameters.
type XT struct {
	// Kind: match, target, watcher.
	Kind, Name string
}

// UnknownStatement wasn't understood, or can't be told: tproxy, synproxy, fwd,
// flow add. Why is for people.
type UnknownStatement struct{ Name, Text, Why string }

func (Match) statement()            {}
func (Verdict) statement()          {}
func (VerdictMap) statement()       {}
func (Assign) statement()           {}
func (NAT) statement()              {}
func (Reject) statement()           {}
func (NoTrack) statement()          {}
func (Stateful) statement()         {}
func (SetUpdate) statement()        {}
func (Inert) statement()            {}
func (XT) statement()               {}
func (UnknownStatement) statement() {}

// Expr is an expression: one of the types below.
type Expr interface{ expr() }

type (
	// Meta is meta KEY: mark, iifname, iif, oifname, oif, l4proto, nfproto,
	// protocol, pkttype, length, skuid, skgid, cgroup, iifkind, iiftype, ibrname, cpu, ….
	Meta struct{ Key string }
	// CT is ct [original|reply] [ip|ip6] KEY: state, status, mark, direction,
	// saddr, daddr, proto-src, proto-dst, protocol, l3proto, zone, id, ….
	CT struct{ Key, Direction, Family string }
	// Payload is a header's field: ip saddr, tcp dport, th dport, icmp type, ether saddr.
	Payload struct{ Protocol, Field string }
	// RawPayload is @nh,96,32: Offset and Length in bits; Base: ll, nh, th, ih.
	RawPayload struct {
		Base           string
		Offset, Length int
	}
	// FIB is fib KEYS result: Keys of saddr, daddr, mark, iif, oif; Result: type,
	// oif, oifname, check.
	FIB struct {
		Keys   []string
		Result string
	}
	// RT is rt KEY: nexthop, classid, mtu, ipsec.
	RT struct{ Key, Family string }
	// Numgen is numgen random|inc mod N offset M.
	Numgen struct {
		Random          bool
		Modulus, Offset uint32
	}
	// JHash is jhash KEY mod N seed S offset M; SymHash has no key.
	JHash struct {
		Key                   Expr
		Modulus, Seed, Offset uint32
		// Seeded: else the kernel draws a seed when the rule is made.
		Seeded bool
	}
	SymHash struct{ Modulus, Offset uint32 }
	// Binary is a bit operation: & | ^ << >>.
	Binary struct {
		Op          string
		Left, Right Expr
	}
	// Concat is A . B . C.
	Concat struct{ Parts []Expr }
	// Lookup is KEY map @m, KEY map { … }. Map is a SetRef or SetLiteral.
	Lookup struct{ Key, Map Expr }

	// Literal is a value as printed: 10.0.0.1, 0x4000, "eth*", tcp, established, 2h.
	Literal struct{ Text string }
	// Range is First-Last, both inclusive.
	Range struct{ First, Last Expr }
	// Prefix is ADDRESS/LENGTH.
	Prefix struct {
		Address Expr
		Length  int
	}
	// List is a comma-separated list of flags.
	List struct{ Values []Expr }
	// SetRef is @name.
	SetRef struct{ Name string }
	// SetLiteral is { a, b } or { a : b }.
	SetLiteral struct{ Elements []Element }
	// Any is *, the element for all others.
	Any struct{}
	// VerdictValue is a verdict as a map's data.
	VerdictValue struct{ Verdict Verdict }
	// UnknownExpr wasn't understood, or isn't followed: exthdr, tcp option,
	// socket, osf, tunnel, xfrm. Why is for people.
	UnknownExpr struct{ Name, Text, Why string }
)

func (Meta) expr()         {}
func (CT) expr()           {}
func (Payload) expr()      {}
func (RawPayload) expr()   {}
func (FIB) expr()          {}
func (RT) expr()           {}
func (Numgen) expr()       {}
func (JHash) expr()        {}
func (SymHash) expr()      {}
func (Binary) expr()       {}
func (Concat) expr()       {}
func (Lookup) expr()       {}
func (Literal) expr()      {}
func (Range) expr()        {}
func (Prefix) expr()       {}
func (List) expr()         {}
func (SetRef) expr()       {}
func (SetLiteral) expr()   {}
func (Any) expr()          {}
func (VerdictValue) expr() {}
func (UnknownExpr) expr()  {}

// Set is a named set or map.
type Set struct {
	Name   string
	Handle uint64
	// Type of the keys: names of datatypes, one per part of a concatenation.
	// Where it was declared by "typeof", TypeOf has the expression instead.
	Type   []string
	TypeOf Expr
	// Map: it has data; DataType of it, or DataTypeOf. {"verdict"} for verdict maps.
	Map        bool
	DataType   []string
	DataTypeOf Expr
	// Flags: constant, interval, timeout, dynamic.
	Flags    []string
	Elements []Element
	Comment  string
	// Timeout and Statements as printed, for people.
	Timeout string
	Line    int
}

// Element of a set or map.
type Element struct {
	Key  Expr
	Data Expr
	// Timeout or expiry: what is there changes without anybody's doing.
	Timeout    string
	Comment    string
	Statements []Statement
}

// Object is a named object of a table.
type Object struct {
	// Kind: counter, quota, limit, ct helper, ct timeout, ct expectation, synproxy, secmark, flowtable.
	Kind, Name string
	Handle     uint64
	Text       string
}

// Problem is something that was not understood.
type Problem struct {
	Line      int
	Text, Why string
}

// Chain of that name, nil without.
func (t *Table) Chain(name string) *Chain {
	if t.chains != nil {
		return t.chains[name]
	}
	for _, c := range t.Chains {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Set of that name, nil without.
func (t *Table) Set(name string) *Set {
	if t.sets != nil {
		return t.sets[name]
	}
	for _, s := range t.Sets {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// fewNames of chains or sets are found without a map.
const fewNames = 16

// AddChain appends a chain, or returns the one of that name that is there.
func (t *Table) AddChain(name string) *Chain {
	if t.chains == nil && len(t.Chains) > fewNames {
		t.chains = map[string]*Chain{}
		for _, c := range t.Chains {
			t.chains[c.Name] = c
		}
	}
	c := t.Chain(name)
	if c == nil {
		c = &Chain{Name: name}
		t.Chains = append(t.Chains, c)
		if t.chains != nil {
			t.chains[name] = c
		}
	}
	return c
}

// AddSet appends a set, or returns the one of that name that is there.
func (t *Table) AddSet(name string) *Set {
	if t.sets == nil && len(t.Sets) > fewNames {
		t.sets = map[string]*Set{}
		for _, s := range t.Sets {
			t.sets[s.Name] = s
		}
	}
	s := t.Set(name)
	if s == nil {
		s = &Set{Name: name}
		t.Sets = append(t.Sets, s)
		if t.sets != nil {
			t.sets[name] = s
		}
	}
	return s
}

// AddRule appends a rule to the chain.
func (c *Chain) AddRule(r *Rule) {
	r.Index = len(c.Rules) + 1
	c.Rules = append(c.Rules, r)
}

// Table of a family and name, nil without.
func (r *Ruleset) Table(family, name string) *Table {
	for _, t := range r.Tables {
		if t.Family == family && t.Name == name {
			return t
		}
	}
	return nil
}

// IsDormant says whether none of its chains is asked.
func (t *Table) IsDormant() bool {
	return strings.Contains(" "+strings.Join(t.Flags, " ")+" ", " dormant ")
}
