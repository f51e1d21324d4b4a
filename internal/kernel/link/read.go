package link

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dumpAttempts: a list that changes while the kernel writes it is read again
// (NLM_F_DUMP_INTR), this often at most. A host that changes all the time is
// read with what it has; Watch calls again for what was missed.
const dumpAttempts = 5

// Read takes the state of the caller's network namespace. No privilege is
// needed, but for wireguard's ports: without CAP_NET_ADMIN they stay 0.
func Read() (Host, error) {
	links, err := dump(netlink.LinkList)
	if err != nil {
		return Host{}, fmt.Errorf("list links: %w", err)
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return Host{}, fmt.Errorf("list addresses: %w", err)
	}
	var h Host
	bridges := false
	for _, l := range links {
		h.Links = append(h.Links, linkOf(l, addrs))
		bridges = bridges || l.Type() == "bridge"
	}
	if bridges { // the only question that routes answer; a router may have a million of them
		if h.DefaultRoutes, err = dump(defaultRoutes); err != nil {
			return Host{}, fmt.Errorf("list routes: %w", err)
		}
	}
	return h.sorted(), nil
}

func dump[T any](list func() ([]T, error)) (all []T, err error) {
	for range dumpAttempts {
		if all, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return all, err
		}
	}
	return all, nil
}

func linkOf(l netlink.Link, addrs []netlink.Addr) Link {
	at := l.Attrs()
	link := Link{
		Index:      at.Index,
		Name:       at.Name,
		Kind:       l.Type(),
		Up:         at.Flags&net.FlagUp != 0,
		Loopback:   at.Flags&net.FlagLoopback != 0,
		Master:     at.MasterIndex,
		TunnelPort: tunnelPort(l),
	}
	for _, a := range addrs {
		if a.LinkIndex != at.Index {
			continue
		}
		if address, ok := addressOf(a); ok {
			link.Addresses = append(link.Addresses, address)
		}
	}
	return link
}

// addressOf converts one address; false for what isn't IPv4 or IPv6.
func addressOf(a netlink.Addr) (Address, bool) {
	if a.IPNet == nil {
		return Address{}, false
	}
	addr, ok := netip.AddrFromSlice(a.IP)
	if !ok {
		return Address{}, false
	}
	on := a.IPNet
	if a.Peer != nil {
		on = a.Peer
	}
	peer, ok := netip.AddrFromSlice(on.IP)
	if !ok {
		return Address{}, false
	}
	bits, _ := on.Mask.Size()
	subnet, err := peer.Prefix(bits)
	if err != nil {
		return Address{}, false
	}
	broadcast, _ := netip.AddrFromSlice(a.Broadcast)
	return Address{Addr: addr, Subnet: subnet, Broadcast: broadcast}, true
}

func tunnelPort(l netlink.Link) uint16 {
	switch l := l.(type) {
	case *netlink.Vxlan:
		return uint16(l.Port)
	case *netlink.Geneve:
		return l.Dport
	case *netlink.Wireguard:
		return wireguardPort(l.Attrs().Index)
	}
	return 0
}

// defaultRoutes lists the links of default routes in all tables, both families.
func defaultRoutes() ([]int, error) {
	var indexes []int
	err := netlink.RouteListFilteredIter(netlink.FAMILY_ALL,
		&netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE,
		func(r netlink.Route) bool {
			if r.Dst != nil {
				if ones, _ := r.Dst.Mask.Size(); ones != 0 {
					return true
				}
			}
			if r.LinkIndex != 0 {
				indexes = append(indexes, r.LinkIndex)
			}
			for _, hop := range r.MultiPath {
				indexes = append(indexes, hop.LinkIndex)
			}
			return true
		})
	return indexes, err
}
