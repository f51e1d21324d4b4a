// Package link reads what a host's interfaces say about it: its own addresses,
// its subnets' broadcast addresses, the bridges that its pods hang on, and the
// UDP ports of its tunnels. It changes nothing.
//
// Read takes the state out of the kernel as a plain Host; what follows from it
// is computed by Host's methods, which are pure:
//
//	host, err := link.Read()
//	for _, a := range host.NodeAddresses() {
//		fmt.Println(a.Value, a.Origin) // 192.168.5.138 interface eth0
//	}
package link

import "net/netip"

// Host is the interfaces of one network namespace at one moment.
type Host struct {
	Links []Link
	// DefaultRoutes are the indexes of the links that default routes of any
	// routing table leave by.
	DefaultRoutes []int
}

// Link is one interface.
type Link struct {
	Index int
	Name  string
	// Kind is rtnetlink's IFLA_INFO_KIND: bridge, veth, vxlan, tun, …; "device"
	// where there is none (physical interfaces, lo).
	Kind string
	// Up as an administrator set it, with or without carrier: a bridge without
	// containers has none, and its address is the host's nevertheless.
	Up       bool
	Loopback bool
	// Master is the index of the bridge or bond that the link is a port of; 0: none.
	Master    int
	Addresses []Address
	// TunnelPort is the UDP port of a vxlan, geneve or wireguard link; 0: none or unknown.
	TunnelPort uint16
}

// Address of an interface.
type Address struct {
	Addr netip.Addr
	// Subnet on the link, masked; with a peer address, the peer's.
	Subnet netip.Prefix
	// Broadcast as configured (IFA_BROADCAST); the zero Addr where absent.
	Broadcast netip.Addr
}
