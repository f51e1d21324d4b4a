package judge_test

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/rig"
)

// witness asks connection tracking, which saw each packet too: the reply that
// it expects must be the inverse of what came out on the wire. It says how the
// two disagree, and how many connections it was asked about.
func (n *node) witness(flows []packet.Flow, fates []rig.Fate) (asked int, disagreement string, err error) {
	var entries []*netlink.ConntrackFlow
	err = n.ns.Do(func() (err error) {
		entries, err = netlink.ConntrackTableList(netlink.ConntrackTable, netlink.InetFamily(familyNumber(flows[0])))
		return err
	})
	if err != nil {
		return 0, "", fmt.Errorf("connections: %w", err)
	}
	type tuple struct {
		protocol            uint8
		source, destination netip.AddrPort
	}
	known := map[tuple]*netlink.ConntrackFlow{}
	for _, e := range entries {
		known[tuple{e.Forward.Protocol, addrPort(e.Forward.SrcIP, e.Forward.SrcPort), addrPort(e.Forward.DstIP, e.Forward.DstPort)}] = e
	}
	for i, f := range flows {
		seen := fates[i].Out
		if fates[i].In != nil {
			seen = fates[i].In
		}
		// The library reads no other protocols' ports. Where nobody listens on a
		// TCP port of the node's, its reset has ended the connection already.
		if seen == nil || f.Protocol != packet.UDP && (f.Protocol != packet.TCP || fates[i].In != nil) {
			continue
		}
		asked++
		e := known[tuple{f.Protocol, netip.AddrPortFrom(f.Source, f.SourcePort), netip.AddrPortFrom(f.Destination, f.DestinationPort)}]
		if e == nil {
			return asked, "no connection of " + flowText(f), nil
		}
		from, to := addrPort(e.Reverse.DstIP, e.Reverse.DstPort), addrPort(e.Reverse.SrcIP, e.Reverse.SrcPort)
		if from != netip.AddrPortFrom(seen.Source, seen.SourcePort) || to != netip.AddrPortFrom(seen.Destination, seen.DestinationPort) {
			return asked, fmt.Sprintf("%s: %s, but the connection's reply is for %s → %s", flowText(f), fateText(fates[i]), from, to), nil
		}
	}
	return asked, "", nil
}

func familyNumber(f packet.Flow) uint8 {
	if f.Source.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func addrPort(ip net.IP, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	return netip.AddrPortFrom(a.Unmap(), port)
}
