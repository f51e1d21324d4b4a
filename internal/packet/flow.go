// Package packet holds the words that every other package uses for what
// crosses a node: the flow and its family. It knows nothing of policies.
package packet

import "net/netip"

// IP protocol numbers that the policy or the guards name (IANA protocol-numbers).
const (
	ICMP   = 1
	IPIP   = 4
	TCP    = 6
	UDP    = 17
	IPv6   = 41
	GRE    = 47
	ESP    = 50
	AH     = 51
	ICMPv6 = 58
	SCTP   = 132
)

// Family is an IP version.
type Family uint8

const (
	IPv4Family Family = 4
	IPv6Family Family = 6
)

// Families lists both, in the order that output uses.
var Families = [...]Family{IPv4Family, IPv6Family}

// Of returns the family of a valid address.
func Of(a netip.Addr) Family {
	if a.Is4() {
		return IPv4Family
	}
	return IPv6Family
}

// Everywhere is the prefix that holds every address of the family.
func (f Family) Everywhere() netip.Prefix {
	if f == IPv4Family {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

func (f Family) String() string {
	if f == IPv4Family {
		return "IPv4"
	}
	return "IPv6"
}

// Flow is the first packet of a connection as the postrouting hook sees it:
// after DNAT, before any source translation.
type Flow struct {
	Source, Destination netip.Addr
	// Protocol is the IP protocol number.
	Protocol uint8
	// Ports of TCP, UDP and SCTP; 0 for others.
	SourcePort, DestinationPort uint16
	// InInterface is empty for packets that this host sends.
	InInterface, OutInterface string
	// Local: sent by this host from an address of its own, not forwarded.
	Local bool
	// Mark is the packet's firewall mark (skb->mark).
	Mark uint32
	// OriginalDestination is what the packet was sent to before DNAT; the zero
	// Addr where there was no DNAT.
	OriginalDestination netip.Addr
	// OriginalPort is the destination port before DNAT; it says nothing without
	// OriginalDestination.
	OriginalPort uint16
	// IPsec: the route has a transformation, the packet will be encapsulated.
	IPsec bool
}

// Family of the flow.
func (f Flow) Family() Family { return Of(f.Source) }

// DNATed says whether the destination was translated.
func (f Flow) DNATed() bool { return f.OriginalDestination.IsValid() }

// Asked is what the connection was made to: destination and port before DNAT.
func (f Flow) Asked() (netip.Addr, uint16) {
	if f.DNATed() {
		return f.OriginalDestination, f.OriginalPort
	}
	return f.Destination, f.DestinationPort
}

// HasPorts says whether the protocol is one whose ports a policy can name.
func (f Flow) HasPorts() bool {
	return f.Protocol == TCP || f.Protocol == UDP || f.Protocol == SCTP
}
