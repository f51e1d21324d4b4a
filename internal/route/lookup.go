package route

import "net/netip"

// Query is a packet that looks for its way.
type Query struct {
	Source, Destination netip.Addr
	Mark                uint32
	// InInterface is empty for what the node itself sends.
	InInterface, OutInterface   string
	Protocol                    uint8
	SourcePort, DestinationPort int // -1 where not known
}

// Result of a lookup.
type Result struct {
	// Known is false where the routes weren't given, or a rule asks for what the
	// query leaves open; Why then says what is missing.
	Known bool
	Why   string
	// Found is false where no route leads there (ENETUNREACH).
	Found bool
	Type  Type
	Route *Route
	// Nexthops that can be taken, with the share of each in Weight; one unless multipath.
	Nexthops []Nexthop
	// Interface of local routes and single nexthops.
	Interface string
	// Source is what the kernel would choose as source address.
	Source netip.Addr
}

// Lookup is the kernel's fib_lookup (ip6_route_lookup).
func (n *Network) Lookup(q Query) Result { return Result{Why: "no routing table was given"} }

// TypeOf is the kernel's inet_addr_type (inet_dev_addr_type where dev isn't
// empty): what -m addrtype asks. known is false where the dump can't tell.
func (n *Network) TypeOf(a netip.Addr, dev string) (t Type, known bool) { return Unicast, false }

// IsLocal says whether the address is one of the node's own.
func (n *Network) IsLocal(a netip.Addr) (local, known bool) { return false, false }

// MasqueradeAddress is the source that masquerade takes for a packet to
// destination through that next hop (the destination itself on connected
// routes): the kernel's inet_select_addr, and ipv6_dev_get_saddr. ok is false
// where the interface has none (the kernel then drops the packet); known is
// false where addresses weren't given.
func (n *Network) MasqueradeAddress(out string, nexthop, destination netip.Addr) (a netip.Addr, ok, known bool) {
	return netip.Addr{}, false, false
}

// Link of that name, nil without.
func (n *Network) Link(name string) *Link {
	for i := range n.Links {
		if n.Links[i].Name == name {
			return &n.Links[i]
		}
	}
	return nil
}
