// Package route is the model of a node's links, addresses, routes and routing
// rules, with readers for what `ip` prints (JSON and plain), the kernel's
// lookup as a pure function, and the choice of the address that masquerade takes.
package route

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
)

// Network is what is known of a node's links and routing. The Known fields say
// what was given at all: an empty list that was given means there are none.
type Network struct {
	Links     []Link
	Addresses []Address
	Routes    []Route
	Rules     []Rule
	// Neighbors and Forwarding are the neighbour and bridge forwarding tables;
	// they say where a VXLAN packet goes.
	Neighbors  []Neighbor
	Forwarding []Forward

	KnownLinks, KnownAddresses bool
	// Of routes, per family: whether the main table was given, whether all
	// tables were (`ip route show table all`), and whether the rules were.
	IPv4, IPv6 Known

	// names holds the tables that a dump names without a number, with the number
	// that stands for each here.
	names map[string]uint32
	// given are single tables that were given whole.
	given map[tableKey]bool
	// unread says what of a family's routing a reader could not make out.
	unread map[packet.Family][]string
	// addressLost: an address of the family could not be read.
	addressLost map[packet.Family]bool
	// index is what Complete makes.
	index *index
}

// tableKey names a table of a family.
type tableKey struct {
	family packet.Family
	table  uint32
}

// Known says what was given of one family.
type Known struct{ Main, AllTables, Rules bool }

// Of returns what was given of a family.
func (n *Network) Of(f packet.Family) *Known {
	if f == packet.IPv4Family {
		return &n.IPv4
	}
	return &n.IPv6
}

// Link is an interface.
type Link struct {
	Index int
	Name  string
	// Kind as `ip -d link` names it: bridge, veth, vxlan, ipip, …; empty for hardware.
	Kind string
	// Master is the bridge or VRF that it belongs to.
	Master string
	Up     bool
	// Carrier is false where the link is down below (NO-CARRIER, linkdown).
	Carrier bool
	MAC     string
	// Local and Remote are a tunnel's outer addresses, Port its UDP port (0
	// where it has none), Underlay the link that it is bound to; VNI its number.
	Local, Remote netip.Addr
	Port          uint16
	Underlay      string
	VNI           uint32
	// Group of the link, by the name or number that `ip link` prints.
	Group string
	// Table of a VRF.
	Table uint32
	// Hairpin of a bridge's port: "on" where it gives back what came from there, "off"
	// where it drops that; empty where that wasn't given.
	Hairpin string
}

// Scope of an address or route, as the kernel numbers it.
type Scope uint8

const (
	ScopeUniverse Scope = 0
	ScopeSite     Scope = 200
	ScopeLink     Scope = 253
	ScopeHost     Scope = 254
	ScopeNowhere  Scope = 255
)

// Address of an interface.
type Address struct {
	Interface string
	// Prefix holds the address itself with its length: 10.0.0.7/24.
	Prefix netip.Prefix
	// Peer of a point-to-point address; its prefix then is the connected one.
	Peer  netip.Prefix
	Scope Scope
	// Broadcast address, where it has one.
	Broadcast                                           netip.Addr
	Secondary, Deprecated, Tentative, Temporary, Failed bool
	// Optimistic addresses are used although still tentative.
	Optimistic bool
	// NoPrefixRoute: the kernel made no route to its subnet.
	NoPrefixRoute bool
}

// Numbers of the tables that every node has.
const (
	TableDefault uint32 = 253
	TableMain    uint32 = 254
	TableLocal   uint32 = 255
)

// Type of a route: the kernel's RTN_… names as `ip` prints them.
type Type uint8

const (
	Unicast Type = iota
	Local
	Broadcast
	Anycast
	Multicast
	Blackhole
	Unreachable
	Prohibit
	Throw
)

func (t Type) String() string {
	return [...]string{
		"unicast", "local", "broadcast", "anycast", "multicast", "blackhole", "unreachable", "prohibit", "throw",
	}[t]
}

// Route is one route.
type Route struct {
	Family packet.Family
	Type   Type
	// Table number: 255 local, 254 main, 253 default.
	Table       uint32
	Destination netip.Prefix
	// From restricts IPv6 routes to sources (subtrees).
	From     netip.Prefix
	Metric   uint32
	Scope    Scope
	Protocol string
	// Source is the preferred source (src).
	Source netip.Addr
	TOS    uint8
	// Nexthops, at least one for unicast routes.
	Nexthops []Nexthop
	// Preference of an IPv6 router: 1 high, 0 medium, -1 low.
	Preference int8
	// Unknown is the part that wasn't understood, or what the dump leaves out:
	// where the route leads can't be told. Empty for all others.
	Unknown string
	// Text is the route as the dump has it.
	Text string
}

// Nexthop of a route.
type Nexthop struct {
	Interface string
	// Via is the gateway, of either family; invalid on connected routes.
	Via            netip.Addr
	Weight         int
	OnLink         bool
	Dead, LinkDown bool
	// Encap is the text of a lightweight tunnel, empty without.
	Encap string
}

// Rule is a routing policy rule (ip rule).
type Rule struct {
	Family   packet.Family
	Priority uint32
	Not      bool
	From, To netip.Prefix
	// In, Out are iif and oif.
	In, Out string
	// Mark & Mask must equal Mark where Mask isn't 0.
	Mark, Mask       uint32
	Protocol         uint8
	SourcePorts      *[2]uint16
	DestinationPorts *[2]uint16
	UIDs             *[2]uint32
	TOS              uint8
	// L3MDev: the rule that leads to a VRF's table.
	L3MDev bool
	// Action: Unicast is a lookup in Table; Blackhole, Unreachable, Prohibit.
	Action Type
	Table  uint32
	// Goto is the priority to go on from, 0 without. NoOperation: nop.
	Goto        uint32
	NoOperation bool
	// SuppressPrefixLength rejects routes of at most that length; -1 without.
	SuppressPrefixLength int
	SuppressGroup        string
	// Unknown is the part that wasn't understood: whether the rule matches can't
	// be told.
	Unknown string
	Text    string
}

// Neighbor is an entry of `ip neigh`.
type Neighbor struct {
	Address   netip.Addr
	Interface string
	MAC       string
}

// Forward is an entry of `bridge fdb`.
type Forward struct {
	MAC       string
	Interface string
	Remote    netip.Addr
}
