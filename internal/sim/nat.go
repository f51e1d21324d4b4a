package sim

import (
	"encoding/binary"
	"net/netip"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// track is conntrack's hook, at priority -200 of prerouting and output: a known
// connection decides before any NAT rule. Where nothing asks for connections, the
// hook isn't there, and no NAT chain sees the packet.
func (r *run) track() {
	if r.tracked {
		return
	}
	r.tracked = true
	r.noTrack = r.noTrack || r.node.untracked[r.family]
	if r.noTrack || !r.hasPorts() || !r.sport.known || !r.dport.known {
		return
	}
	r.connection, r.reply = r.node.connections.Find(r.protocol, conntrack.Tuple{
		Source: r.src, Destination: r.dst, SourcePort: r.sport.port, DestinationPort: r.dport.port,
	}, 0)
	if r.connection != nil {
		r.connMark = r.connection.Mark
		r.decider = &Decider{Connection: r.connection}
	}
}

// translate does, at the end of a hook, what a known connection asks for.
func (r *run) translate() {
	if r.connection == nil {
		return
	}
	destination, source := r.connection.Reply, r.connection.Reply
	if r.reply {
		destination, source = r.connection.Original, r.connection.Original
	}
	switch r.hook {
	case prerouting, output:
		if r.boundDest {
			return
		}
		r.boundDest = true
		if r.dst != destination.Source || r.dport.port != destination.SourcePort {
			r.dnated, r.needRoute, r.routeMark = true, true, r.mark
		}
		r.dst, r.dport = destination.Source, portOf(int(destination.SourcePort))
	case input, postrouting:
		if r.boundSource {
			return
		}
		r.boundSource = true
		if r.src != source.Destination || r.sport.port != source.DestinationPort {
			r.snated, r.kind = true, SNATed
		}
		r.src, r.sport = source.Destination, portOf(int(source.DestinationPort))
		r.port = Port{First: r.sport.port, Last: r.sport.port, Known: true}
	}
}

// bindSource gives the connection its source; later NAT chains aren't asked.
// The zero address is one that isn't known.
func (r *run) bindSource(at RuleRef, kind SourceKind, a netip.Addr, ports *ruleset.PortRange, flags ruleset.NATFlags) verdict {
	r.boundSource = true
	r.decider = &Decider{Rule: &at}
	r.kind = kind
	if kind == SNATed && a == r.src && ports == nil && !flags.Random && !flags.RandomFully {
		r.kind = Pinned
	}
	before := r.src
	r.port = r.newPort(ports, flags)
	r.sourceKnown = a.IsValid()
	if r.sourceKnown {
		r.src = a
	}
	r.snated = !r.sourceKnown || a != before || r.hasPorts() && r.sport.known && (r.port.First != r.port.Last || r.port.First != r.sport.port)
	if r.hasPorts() && r.port.First == r.port.Last && r.port.Known {
		r.sport = portOf(int(r.port.First))
	} else if r.hasPorts() && !r.port.Known {
		r.sport = portOf(UnknownPort)
	} else if r.hasPorts() {
		r.sport = openPort{left: []ruleset.PortRange{{First: r.port.First, Last: r.port.Last}}}
	}
	return accept
}

// newPort is the source port after translation, by nf_nat_l4proto_unique_tuple:
// kept where it may be, else from the range stated, else from 1024 up.
func (r *run) newPort(ports *ruleset.PortRange, flags ruleset.NATFlags) Port {
	random := flags.Random || flags.RandomFully
	switch {
	case !r.hasPorts():
		return Port{}
	case ports != nil && !random && r.sport.known && ports.First <= r.sport.port && r.sport.port <= ports.Last:
		return Port{First: r.sport.port, Last: r.sport.port, Known: true}
	case ports != nil:
		return Port{First: ports.First, Last: ports.Last, Known: true}
	case random:
		first, last := randomPorts(r.sport)
		return Port{First: first, Last: last, Random: true}
	case r.sport.known:
		return Port{First: r.sport.port, Last: r.sport.port, Known: true}
	case r.kind == Pinned:
		return Port{}
	}
	return Port{First: 1024, Last: 65535, Known: true}
}

// randomPorts are those that a random port comes from where no range is stated:
// a privileged port gets another one.
func randomPorts(p openPort) (first, last uint16) {
	switch {
	case p.known && p.port < 512:
		return 1, 511
	case p.known && p.port < 1024:
		return 600, 1023
	}
	return 1024, 65535
}

// masquerade is nf_nat_masquerade_ipv4 and _ipv6.
func (r *run) masquerade(at RuleRef, t ruleset.Masquerade) verdict {
	r.step(at, "masquerade")
	if r.src.IsUnspecified() {
		return accept
	}
	if !r.out.known {
		return r.bindSource(at, Masqueraded, netip.Addr{}, t.Ports, t.NATFlags)
	}
	a, ok, known := r.node.host.Network.MasqueradeAddress(r.out.name, r.hop(), r.dst)
	if !known {
		r.lacks("addresses", "those of "+r.out.name+" weren't given")
		return r.bindSource(at, Masqueraded, netip.Addr{}, t.Ports, t.NATFlags)
	}
	if !ok {
		r.stop(Dropped, at, "dropped: "+r.out.name+" has no address to masquerade with")
		return drop
	}
	return r.bindSource(at, Masqueraded, a, t.Ports, t.NATFlags)
}

// snat is SNAT --to-source.
func (r *run) snat(at RuleRef, t ruleset.SNAT) verdict {
	a := r.src
	if t.First.IsValid() {
		a = r.bestAddress(t.NATRange, t.NATFlags, true)
	}
	r.step(at, "snat to "+a.String())
	return r.bindSource(at, SNATed, a, t.Ports, t.NATFlags)
}

// dnat is DNAT --to-destination.
func (r *run) dnat(at RuleRef, t ruleset.DNAT) verdict {
	a := r.dst
	if t.First.IsValid() {
		a = r.bestAddress(t.NATRange, t.NATFlags, false)
	}
	return r.bindDestination(at, a, t.Ports, t.BasePort, t.NATFlags)
}

// bindDestination gives the connection its destination.
func (r *run) bindDestination(at RuleRef, a netip.Addr, ports *ruleset.PortRange, base uint16, flags ruleset.NATFlags) verdict {
	r.boundDest = true
	before, portBefore := r.dst, r.dport.number()
	r.dst = a
	if ports != nil && r.hasPorts() {
		r.dport = r.newDestinationPort(*ports, base, flags)
	}
	if r.dst != before || r.dport.number() != portBefore {
		r.dnated = true
	}
	if r.hook == output && r.dst != before {
		r.needRoute, r.routeMark = true, r.mark
	}
	switch {
	case r.hasPorts() && r.toText != "":
		r.step(at, r.toText)
	case r.hasPorts() && r.dport.known:
		r.step(at, "dnat to "+netip.AddrPortFrom(a, r.dport.port).String())
	default:
		r.step(at, "dnat to "+a.String())
	}
	return accept
}

// newDestinationPort: kept where it is in the range, shifted where a base is
// stated, else the first of the range.
func (r *run) newDestinationPort(ports ruleset.PortRange, base uint16, flags ruleset.NATFlags) openPort {
	size := int(ports.Last) - int(ports.First) + 1
	switch {
	case ports.First == ports.Last:
		return portOf(int(ports.First))
	case flags.Random || flags.RandomFully || !r.dport.known:
		return openPort{left: []ruleset.PortRange{ports}}
	case base != 0:
		return portOf(int(ports.First) + int(r.dport.port-base)%size)
	case ports.First <= r.dport.port && r.dport.port <= ports.Last:
		return r.dport
	}
	return portOf(int(ports.First))
}

// redirect is nf_nat_redirect: to loopback for what the node sends, else to the
// first address of the interface that the packet came in by.
func (r *run) redirect(at RuleRef, t ruleset.Redirect) verdict {
	if r.hook == output {
		a := netip.IPv6Loopback()
		if r.family == packet.IPv4Family {
			a = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		return r.bindDestination(at, a, t.Ports, 0, t.NATFlags)
	}
	n := &r.node.host.Network
	if !r.in.known || !n.KnownAddresses {
		r.lacks("addresses", "the redirect's target is the first address of the in-interface")
		v := r.bindDestination(at, r.dst, t.Ports, 0, t.NATFlags)
		r.redirected = true
		return v
	}
	for i := range n.Addresses {
		a := n.Addresses[i].Prefix.Addr()
		usable := packet.Of(a) == r.family && (a.Is4() || a.IsLinkLocalUnicast() || !r.dst.IsLinkLocalUnicast())
		if n.Addresses[i].Interface == r.in.name && usable {
			return r.bindDestination(at, a, t.Ports, 0, t.NATFlags)
		}
	}
	r.stop(Dropped, at, "dropped: "+r.in.name+" has no address to redirect to")
	return drop
}

// netmap replaces the network part of the destination, or, behind routing, of
// the source.
func (r *run) netmap(at RuleRef, t ruleset.NetMap) verdict {
	old := r.dst
	if r.hook == input || r.hook == postrouting {
		old = r.src
	}
	to := t.To.Masked().Addr().AsSlice()
	host := old.AsSlice()
	for i := range to {
		mask := byte(0xff)
		if left := t.To.Bits() - 8*i; left >= 8 {
			mask = 0
		} else if left > 0 {
			mask >>= left
		}
		to[i] |= host[i] & mask
	}
	a, _ := netip.AddrFromSlice(to)
	if r.hook == input || r.hook == postrouting {
		r.step(at, "netmap to "+a.String())
		return r.bindSource(at, SNATed, a, nil, ruleset.NATFlags{})
	}
	return r.bindDestination(at, a, nil, 0, ruleset.NATFlags{})
}

// bestAddress is the kernel's find_best_ips_proto: a source that lies in the
// range is kept; else the hash of both ends picks one.
func (r *run) bestAddress(g ruleset.NATRange, flags ruleset.NATFlags, source bool) netip.Addr {
	if g.First == g.Last {
		return g.First
	}
	if source && !flags.Random && !flags.RandomFully && g.First.Compare(r.src) <= 0 && r.src.Compare(g.Last) <= 0 && portFits(g.Ports, &r.sport) {
		return r.src
	}
	src, dst := words(r.src), words(r.dst)
	last := 0
	if r.family == packet.IPv6Family {
		last = 3
	}
	key := make([]byte, 16)
	for i, w := range src {
		binary.LittleEndian.PutUint32(key[4*i:], w)
	}
	seed := uint32(0)
	if !flags.Persistent {
		seed = dst[last]
	}
	j := packet.JHash(key, seed)
	lo, hi := words(g.First), words(g.Last)
	var out [4]uint32
	full := false
	for i := 0; i <= last; i++ {
		low, distance := swap(lo[i]), swap(hi[i])-swap(lo[i])+1
		if full {
			low, distance = 0, ^uint32(0)
		}
		out[i] = swap(low + uint32(uint64(j)*uint64(distance)>>32))
		full = full || out[i] != hi[i]
		switch {
		case flags.Persistent:
		case source:
			j ^= dst[i]
		default:
			j ^= out[i] // the kernel writes into the tuple that it hashes
		}
	}
	b := make([]byte, 16)
	for i, w := range out {
		binary.LittleEndian.PutUint32(b[4*i:], w)
	}
	a, _ := netip.AddrFromSlice(b[:4*(last+1)])
	return a
}

func portFits(ports *ruleset.PortRange, p *openPort) bool {
	return ports == nil || p.known && ports.First <= p.port && p.port <= ports.Last
}

// words are the four words of a nf_inet_addr as a little-endian machine has them.
func words(a netip.Addr) (w [4]uint32) {
	b := a.AsSlice()
	for i := 0; 4*i < len(b); i++ {
		w[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return w
}

func swap(w uint32) uint32 {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], w)
	return binary.BigEndian.Uint32(b[:])
}
