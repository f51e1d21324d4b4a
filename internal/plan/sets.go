package plan

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// portSet is a named set of the destination ports of one protocol.
type portSet struct {
	protocol uint8
	set      string
	ranges   []policy.PortRange
}

// sharedSets adds the sets that the guards look up.
func (c *compiler) sharedSets(views []*view) {
	if len(views) > 0 && c.opts.Without != policy.GuardTunnel {
		// Single ports in a hash: each UDP flow looks them up twice.
		c.set(Set{Name: tunnelPortsSet, Key: InetService, Elements: portElements(singles(c.facts.TunnelPorts))})
	}
	for _, f := range packet.Families {
		if !anyFamily(views, f) {
			continue
		}
		if c.opts.Without != policy.GuardBroadcast {
			c.set(Set{Name: name("broadcast", f), Key: addrKey(f), Interval: true, Elements: rangeElements(c.broadcasts(f))})
		}
		if c.opts.Without == policy.GuardHairpin {
			continue
		}
		if c.facts.PodsKnown {
			c.set(Set{Name: name("own", f), Key: pairKey(f), Elements: c.ownPairs(f)})
		} else {
			c.set(Set{Name: name("local-pods", f), Key: addrKey(f), Interval: true,
				Elements: rangeElements(ranges(c.facts.LocalPodCIDRs, f))})
		}
	}
}

// singles are the well-known tunnel ports and more, sorted.
func singles(more []uint16) []policy.PortRange {
	ports := slices.Concat(policy.WellKnownTunnelPorts, more)
	slices.Sort(ports)
	var out []policy.PortRange
	for _, p := range slices.Compact(ports) {
		out = append(out, policy.PortRange{First: p, Last: p})
	}
	return out
}

// broadcasts are the destinations of multicast and broadcast.
func (c *compiler) broadcasts(f packet.Family) []cidr.Range {
	if f == packet.IPv6Family {
		return []cidr.Range{cidr.FromPrefix(netip.MustParsePrefix("ff00::/8"))}
	}
	out := []cidr.Range{
		cidr.FromPrefix(netip.MustParsePrefix("224.0.0.0/4")),
		cidr.FromPrefix(netip.MustParsePrefix("255.255.255.255/32")),
	}
	for _, a := range familyAddrs(c.facts.Broadcasts, f) {
		out = append(out, cidr.FromAddr(a))
	}
	return out
}

// ownPairs are the local pods' addresses, each beside itself.
func (c *compiler) ownPairs(f packet.Family) []Element {
	var out []Element
	for i := range c.facts.Pods {
		for _, a := range familyAddrs(c.facts.Pods[i].Addresses, f) {
			out = append(out, Element{First: key(a) + key(a), Last: key(a) + key(a)})
		}
	}
	slices.SortFunc(out, func(a, b Element) int { return strings.Compare(a.First, b.First) })
	return slices.Compact(out)
}

func (p *portSet) definition() Set {
	return Set{Name: p.set, Key: InetService, Interval: true, Elements: portElements(p.ranges)}
}

// portSets divides ports of a rule by protocol.
func portSets(v *view, kind string, r *policy.Rule, ports []policy.PortMatch) []portSet {
	var out []portSet
	for _, protocol := range []uint8{packet.TCP, packet.UDP, packet.SCTP} {
		var rs []policy.PortRange
		for _, p := range ports {
			if p.Protocol == protocol {
				rs = append(rs, p.PortRange)
			}
		}
		if len(rs) > 0 {
			set := v.setName(kind+"-"+ProtocolName(protocol), r)
			out = append(out, portSet{protocol, set, mergePorts(rs)})
		}
	}
	return out
}

// mergePorts sorts ranges and joins those that overlap or touch.
func mergePorts(rs []policy.PortRange) []policy.PortRange {
	rs = slices.Clone(rs)
	slices.SortFunc(rs, func(a, b policy.PortRange) int { return int(a.First) - int(b.First) })
	var out []policy.PortRange
	for _, r := range rs {
		if n := len(out); n > 0 && int(r.First) <= int(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// ProtocolName is the name that nft gives to a protocol with ports.
func ProtocolName(protocol uint8) string {
	switch protocol {
	case packet.TCP:
		return "tcp"
	case packet.UDP:
		return "udp"
	case packet.SCTP:
		return "sctp"
	}
	return fmt.Sprint(protocol)
}

func element(r cidr.Range, v Verdict) Element {
	first := key(r.First)
	if r.First == r.Last {
		return Element{First: first, Last: first, Verdict: v}
	}
	return Element{First: first, Last: key(r.Last), Verdict: v}
}

// key is an address in network byte order.
func key(a netip.Addr) string {
	if a.Is4() {
		b := a.As4()
		return string(b[:])
	}
	b := a.As16()
	return string(b[:])
}

// rangeElements are the elements of a set of these addresses, without overlaps.
func rangeElements(rs []cidr.Range) []Element {
	var out []Element
	for _, p := range cidr.FirstMatch(rs) {
		out = append(out, element(p.Range, Verdict{}))
	}
	return out
}

func portElements(rs []policy.PortRange) []Element {
	port := func(p uint16) string { return string(binary.BigEndian.AppendUint16(nil, p)) }
	var out []Element
	for _, r := range rs {
		out = append(out, Element{First: port(r.First), Last: port(r.Last)})
	}
	return out
}

func addrKey(f packet.Family) KeyType {
	if f == packet.IPv4Family {
		return IPv4Addr
	}
	return IPv6Addr
}

func pairKey(f packet.Family) KeyType {
	if f == packet.IPv4Family {
		return IPv4Pair
	}
	return IPv6Pair
}

// ranges of the prefixes of one family.
func ranges(prefixes []netip.Prefix, f packet.Family) []cidr.Range {
	var out []cidr.Range
	for _, p := range prefixes {
		if packet.Of(p.Addr()) == f {
			out = append(out, cidr.FromPrefix(p))
		}
	}
	return out
}

func familyAddrs(addrs []netip.Addr, f packet.Family) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if packet.Of(a) == f {
			out = append(out, a)
		}
	}
	return out
}

func contains(rs []cidr.Range, a netip.Addr) bool {
	return slices.ContainsFunc(rs, func(r cidr.Range) bool { return r.Contains(a) })
}

// actsOn says whether a rule can do its action in a family: SNAT needs an address of it.
func actsOn(r *policy.Rule, f packet.Family) bool {
	return r.Action != policy.SNAT || len(familyAddrs(r.Addresses, f)) > 0
}

func anyOf(views []*view, o origin) bool {
	return slices.ContainsFunc(views, func(v *view) bool { return v.origin == o })
}

func anyFamily(views []*view, f packet.Family) bool {
	return slices.ContainsFunc(views, func(v *view) bool { return v.family == f })
}

func orNone(names []string) []string {
	if len(names) == 0 {
		return []string{""}
	}
	return names
}
