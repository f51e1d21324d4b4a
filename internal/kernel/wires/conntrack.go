package wires

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/packet"
)

// Connection is an entry of connection tracking. Ports are those of TCP and UDP
// alone.
type Connection struct {
	Protocol                      uint8
	Source, Destination           netip.AddrPort
	ReplySource, ReplyDestination netip.AddrPort
}

// Connections that a node tracks.
func Connections(node *netns.NS, f packet.Family) ([]Connection, error) {
	family := netlink.InetFamily(unix.AF_INET)
	if f == packet.IPv6Family {
		family = unix.AF_INET6
	}
	var entries []*netlink.ConntrackFlow
	err := node.Do(func() (err error) {
		entries, err = netlink.ConntrackTableList(netlink.ConntrackTable, family)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("connections of %s: %w", node.Name(), err)
	}
	all := make([]Connection, 0, len(entries))
	for _, e := range entries {
		all = append(all, Connection{
			Protocol: e.Forward.Protocol,
			Source:   addrPort(e.Forward.SrcIP, e.Forward.SrcPort), Destination: addrPort(e.Forward.DstIP, e.Forward.DstPort),
			ReplySource: addrPort(e.Reverse.SrcIP, e.Reverse.SrcPort), ReplyDestination: addrPort(e.Reverse.DstIP, e.Reverse.DstPort),
		})
	}
	return all, nil
}

// Forget deletes a node's connections, so that the next packet of any is the first.
func Forget(node *netns.NS) error {
	err := node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	if err != nil {
		return fmt.Errorf("forget connections of %s: %w", node.Name(), err)
	}
	return nil
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}
