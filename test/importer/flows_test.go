package importer_test

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// Rows of the usual flows, by which differences name them.
const (
	podToPod       = "pod to a pod here"
	podToRemote    = "pod to a pod of another node"
	podToOwnNode   = "pod to its node"
	podToNode      = "pod to another node"
	podToOutside   = "pod to the outside"
	podToUplink    = "pod to a second uplink's network"
	podOnNode      = "the node's own address among the pods to the outside"
	outsideToPod   = "outside to a pod here"
	outsideToPod2  = "outside to a pod of another node"
	outsideThrough = "outside through the node"
	remoteToPod    = "pod of another node to a pod here"
	remoteThrough  = "pod of another node to the outside"
	nodeToPod      = "node to a pod here"
	nodeToRemote   = "node to a pod of another node"
	nodeToOutside  = "node to the outside"
)

// usualFlows are the rows in both families and by four protocols; more are rows that a
// kind adds, as "name: FROM TO" in each family, see row.
func usualFlows(more ...row) (all []flow) {
	for _, r := range append(usualRows(), more...) {
		all = append(all, r.flows()...)
	}
	return all
}

// row of flows: link that they come in by ("": the node sends them), addresses in both
// families.
type row struct {
	name, link     string
	source, target [2]string
	// port, where not 0, is the only one; protocols, where not nil, the only ones.
	port      uint16
	protocols []uint8
	chance    bool
}

func usualRows() []row {
	pod, local, remote := [2]string{"10.244.1.7", "fd00:10:244:1::7"}, [2]string{"10.244.1.8", "fd00:10:244:1::8"}, [2]string{"10.244.2.7", "fd00:10:244:2::7"}
	own, other := [2]string{"192.168.5.10", "fd00:192:168:5::10"}, [2]string{"192.168.5.11", "fd00:192:168:5::11"}
	outside, uplink := [2]string{"203.0.113.5", "2001:db8:113::5"}, [2]string{"172.31.0.99", "fd00:172:31::99"}
	gateway := [2]string{"10.244.1.1", "fd00:10:244:1::1"}
	return []row{
		{name: podToPod, link: "cni0", source: pod, target: local},
		{name: podToRemote, link: "cni0", source: pod, target: remote},
		{name: podToOwnNode, link: "cni0", source: pod, target: own},
		{name: podToNode, link: "cni0", source: pod, target: other},
		{name: podToOutside, link: "cni0", source: pod, target: outside},
		{name: podToUplink, link: "cni0", source: pod, target: uplink},
		{name: outsideToPod, link: "eth0", source: outside, target: pod},
		{name: outsideToPod2, link: "eth0", source: outside, target: remote},
		{name: outsideThrough, link: "eth0", source: outside, target: uplink},
		{name: remoteToPod, link: "eth0", source: remote, target: pod},
		{name: remoteThrough, link: "eth0", source: remote, target: uplink},
		{name: nodeToPod, source: own, target: pod},
		{name: nodeToRemote, source: own, target: remote},
		{name: nodeToOutside, source: own, target: outside},
		{name: podOnNode, source: gateway, target: outside},
	}
}

func (r row) flows() (all []flow) {
	for i, family := range packet.Families {
		protocols := r.protocols
		if protocols == nil {
			icmp := uint8(packet.ICMP)
			if family == packet.IPv6Family {
				icmp = packet.ICMPv6
			}
			protocols = []uint8{packet.TCP, packet.UDP, packet.SCTP, icmp}
		}
		if r.source[i] == "" {
			continue
		}
		for _, p := range protocols {
			f := packet.Flow{Source: netip.MustParseAddr(r.source[i]), Destination: netip.MustParseAddr(r.target[i]), Protocol: p, InInterface: r.link, Local: r.link == ""}
			if f.HasPorts() {
				f.SourcePort, f.DestinationPort = 20000, 443
				if r.port != 0 {
					f.DestinationPort = r.port
				}
			}
			all = append(all, flow{f, r.name, r.chance})
		}
	}
	return all
}

// keptHere is a difference's test: the component hides the sources of flows of these
// rows, its import doesn't.
func keptHere(rows ...string) func(flow, string, string) bool {
	return func(f flow, peer, ours string) bool {
		return slices.Contains(rows, f.row) && f.kept(ours) && !f.kept(peer)
	}
}

// hiddenHere is the other way round.
func hiddenHere(rows ...string) func(flow, string, string) bool {
	return func(f flow, peer, ours string) bool {
		return slices.Contains(rows, f.row) && !f.kept(ours) && f.kept(peer)
	}
}

// kept says whether a fate, or one of several, has the flow's own source.
func (f flow) kept(fate string) bool { return strings.Contains(fate, " "+f.Source.String()+" to ") }

// moved puts other addresses in, in pairs of old and new.
func moved(flows []flow, pairs ...string) []flow {
	for i := range flows {
		for n := 0; n < len(pairs); n += 2 {
			for _, a := range []*netip.Addr{&flows[i].Source, &flows[i].Destination} {
				if *a == netip.MustParseAddr(pairs[n]) {
					*a = netip.MustParseAddr(pairs[n+1])
				}
			}
		}
	}
	return flows
}
