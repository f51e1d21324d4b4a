package sim

import (
	"slices"

	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// metaSubject is meta KEY: net/netfilter/nft_meta.c.
func metaSubject(e nftables.Meta) subject {
	switch e.Key {
	case "mark":
		return subject{value: func(r *run) (nftables.Value, state) {
			if r.markOpen {
				return "", open
			}
			return r.values.number32(r.mark), known
		}, why: "the chain that could mark it isn't in the dump"}
	case "iifname", "iif":
		return interfaceSubject(func(r *run) *openInterface { return &r.in })
	case "oifname", "oif":
		return interfaceSubject(func(r *run) *openInterface { return &r.out })
	case "l4proto":
		return subject{value: func(r *run) (nftables.Value, state) { return number8(r.protocol), known }}
	case "nfproto":
		return subject{value: func(r *run) (nftables.Value, state) {
			if r.table.Native.Family == "netdev" {
				return number8(5), known // NFPROTO_NETDEV
			}
			if r.hook.onBridge() {
				return number8(7), known // NFPROTO_BRIDGE
			}
			if r.family == packet.IPv4Family {
				return number8(2), known
			}
			return number8(10), known
		}}
	case "protocol":
		return subject{value: func(r *run) (nftables.Value, state) {
			if r.family == packet.IPv4Family {
				return number16(0x0800), known
			}
			return number16(0x86dd), known
		}}
	case "pkttype":
		return subject{value: packetType}
	case "skuid", "skgid", "cgroup":
		return subject{value: func(r *run) (nftables.Value, state) {
			if !r.local || r.hook == postrouting && r.isGroup() {
				return "", broken
			}
			return "", open
		}, text: "the sending process", why: "its user and group aren't known"}
	case "ibrname", "obrname":
		return subject{value: func(r *run) (nftables.Value, state) { return r.bridgeName(e.Key == "ibrname") }, text: "bridge ports", why: "the bridge port isn't known"}
	}
	return opened(e, "it isn't in a dump")
}

// bridgeName is that of the bridge which the in- or out-interface is a port of.
func (r *run) bridgeName(in bool) (nftables.Value, state) {
	switch hasIn, hasOut := r.hook <= bridgeForward, r.hook >= bridgeForward; {
	case r.hook.onBridge() && (in && !hasIn || !in && !hasOut):
		return "", broken
	case r.hook.onBridge():
		return interfaceName(r.bridge), known
	case r.bridged:
		return "", open
	}
	return "", broken
}

func packetType(r *run) (nftables.Value, state) {
	if r.hook == ingress && len(r.lower) > 0 {
		return "", open // the port's link address isn't the bridge's
	}
	for i, name := range []string{"unicast", "broadcast", "multicast"} {
		switch r.certainPacketType(ruleset.PacketType{Type: name}) {
		case ipset.Yes:
			return number8(uint8(i)), known
		case ipset.Unknown:
			return "", open
		}
	}
	return number8(3), known // another host's
}

// interfaceSubject: where there is none, the name is empty.
func interfaceSubject(of func(*run) *openInterface) subject {
	return subject{
		value: func(r *run) (nftables.Value, state) {
			if i := of(r); i.known {
				return interfaceName(i.name), known
			}
			return "", open
		},
		within: func(r *run, set []nftables.Interval) bool {
			return slices.ContainsFunc(set, func(g nftables.Interval) bool { return r.interfaceIs(of(r), pattern(g), true) })
		},
	}
}

// pattern is a range of names as iptables writes it: eth0, or eth+.
func pattern(g nftables.Interval) ruleset.Interface {
	n := 0
	for n < len(g.First) && n < len(g.Last) && g.First[n] == g.Last[n] && g.First[n] != 0 {
		n++
	}
	return ruleset.Interface{Name: string(g.First[:n]), Wildcard: g.First != g.Last}
}

// portSubject is a port: what is open of it is narrowed by what rules ask.
func portSubject(side ruleset.Side, has func(*run) bool) subject {
	of := func(r *run) *openPort {
		if side == ruleset.Source {
			return &r.sport
		}
		return &r.dport
	}
	return subject{
		value: func(r *run) (nftables.Value, state) {
			switch {
			case !has(r):
				return "", broken
			case of(r).known:
				if side == ruleset.Source {
					return r.values.port(r.sport.port), known
				}
				return r.values.port(r.dport.port), known
			}
			return "", open
		},
		within: func(r *run, set []nftables.Interval) bool {
			ranges := make([]ruleset.PortRange, len(set))
			for i, g := range set {
				ranges[i] = ruleset.PortRange{First: uint16(number(g.First)), Last: uint16(number(g.Last))}
			}
			return r.within(of(r), side, ranges)
		},
	}
}
