package judge_test

import (
	"fmt"
	"net/netip"

	"github.com/unmasq/unmasq/internal/kernel/wires"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/rig"
)

// witness asks connection tracking, which saw each packet too: the reply that
// it expects must be the inverse of what came out on the wire. It says how the
// two disagree, and how many connections it was asked about.
func (n *node) witness(flows []packet.Flow, fates []rig.Fate) (asked int, disagreement string, err error) {
	entries, err := wires.Connections(n.ns, flows[0].Family())
	if err != nil {
		return 0, "", err
	}
	type tuple struct {
		protocol            uint8
		source, destination netip.AddrPort
	}
	known := map[tuple]wires.Connection{}
	for _, e := range entries {
		known[tuple{e.Protocol, e.Source, e.Destination}] = e
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
		e, tracked := known[tuple{f.Protocol, netip.AddrPortFrom(f.Source, f.SourcePort), netip.AddrPortFrom(f.Destination, f.DestinationPort)}]
		if !tracked {
			return asked, "no connection of " + flowText(f), nil
		}
		if e.ReplyDestination != netip.AddrPortFrom(seen.Source, seen.SourcePort) || e.ReplySource != netip.AddrPortFrom(seen.Destination, seen.DestinationPort) {
			return asked, fmt.Sprintf("%s: %s, but the connection's reply is for %s → %s", flowText(f), fateText(fates[i]), e.ReplyDestination, e.ReplySource), nil
		}
	}
	return asked, "", nil
}
