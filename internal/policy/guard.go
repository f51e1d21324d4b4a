package policy

import (
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
)

// guardOf returns the first guard that concerns the flow, "" if none does.
// Rules with OverrideServiceMasquerade are asked in spite of an overridable one.
func guardOf(facts *Facts, flow packet.Flow) (guard Guard, overridable bool) {
	switch {
	case flow.OutInterface == "lo":
		return GuardLoopback, false
	case isBroadcast(facts, flow.Destination):
		return GuardBroadcast, false
	case isLinkLocal(flow.Source):
		return GuardLinkLocal, false
	case isHairpin(facts, flow):
		return GuardHairpin, false
	case flow.IPsec:
		return GuardIPsec, false
	case isTunnel(facts, flow):
		return GuardTunnel, false
	case facts.ServiceMark.Matches(flow.Mark):
		return GuardServiceMark, true
	case facts.HostPortMark.Matches(flow.Mark):
		return GuardHostPortMark, true
	}
	return "", false
}

func isBroadcast(facts *Facts, destination netip.Addr) bool {
	return destination.IsMulticast() || // 224.0.0.0/4, ff00::/8
		destination == netip.AddrFrom4([4]byte{255, 255, 255, 255}) ||
		slices.Contains(facts.Broadcasts, destination)
}

// isLinkLocal: 127.0.0.0/8 (localhost ports under route_localnet) and fe80::/10.
// 169.254.0.0/16 isn't meant: some networks give such addresses to pods.
func isLinkLocal(source netip.Addr) bool {
	if source.Is4() {
		return source.IsLoopback()
	}
	return source.IsLinkLocalUnicast()
}

// isHairpin: the connection was sent back to where it came from by DNAT. Were
// its source kept, the peer would answer itself.
func isHairpin(facts *Facts, flow packet.Flow) bool {
	if !flow.DNATed() {
		return false
	}
	if !facts.PodsKnown {
		return inAny(facts.LocalPodCIDRs, flow.Source) && inAny(facts.LocalPodCIDRs, flow.Destination)
	}
	return flow.Source == flow.Destination && slices.ContainsFunc(facts.Pods, func(p Pod) bool {
		return slices.Contains(p.Addresses, flow.Source)
	})
}

// isTunnel: the outer packet of a tunnel that ends on this host.
func isTunnel(facts *Facts, flow packet.Flow) bool {
	if !flow.Local {
		return false
	}
	if flow.Protocol != packet.UDP {
		return slices.Contains(TunnelProtocols, flow.Protocol)
	}
	port := func(p uint16) bool {
		return slices.Contains(WellKnownTunnelPorts, p) || slices.Contains(facts.TunnelPorts, p)
	}
	return port(flow.SourcePort) || port(flow.DestinationPort)
}
