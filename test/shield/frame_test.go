package shield_test

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
)

// action of the policy's rules.
type action int

const (
	keep action = iota
	masquerade
	snat
	actions
)

func (a action) String() string { return [...]string{"Keep", "Masquerade", "SNAT"}[a] }

const (
	etherHeader   = 14
	tcpHeader     = 20
	udpHeader     = 8
	payloadLength = 4 + 2 + 2 + 16
	magic         = 0x756e6d71
	// ports of pods: above those of the policy's Masquerade.
	firstPort, portCount = 30000, 30011
)

// flow is the first packet of a connection.
type flow struct {
	family   packet.Family
	protocol byte
	action   action
	phase    uint16
	// from and to before any translation.
	from, to netip.AddrPort
}

// flowNumber gives the n-th flow. No two of the first 10 million have the same
// destination address, port and source port, so that no translation to one
// address ever finds its tuple taken.
func flowNumber(n int, phase uint16, of [2]addresses) flow {
	f := flow{phase: phase, family: packet.Families[n%2], protocol: packet.UDP}
	a := &of[n%2]
	f.action = action(n / 2 % int(actions))
	if n/6%3 == 0 {
		f.protocol = packet.TCP
	}
	n /= 6
	f.from = netip.AddrPortFrom(a.pods[n%len(a.pods)], uint16(firstPort+n%portCount))
	host := a.destinations[f.action].Addr().AsSlice()
	host[len(host)-1] = byte(1 + n/20000%250)
	to, _ := netip.AddrFromSlice(host)
	f.to = netip.AddrPortFrom(to, uint16(1+n%20000))
	return f
}

// append appends the flow's frame to b. Its payload tells the receiver what it was.
func (f *flow) append(b []byte, to, from net.HardwareAddr) []byte {
	b = append(append(b, to...), from...)
	header := udpHeader
	if f.protocol == packet.TCP {
		header = tcpHeader
	}
	if f.family == packet.IPv4Family {
		b = f.appendIPv4(b, header+payloadLength)
	} else {
		b = f.appendIPv6(b, header+payloadLength)
	}
	start := len(b)
	b = binary.BigEndian.AppendUint16(b, f.from.Port())
	b = binary.BigEndian.AppendUint16(b, f.to.Port())
	sumAt := start + 6
	if f.protocol == packet.TCP {
		b = append(b, 0, 0, 0, 1, 0, 0, 0, 0, tcpHeader/4<<4, 0x02 /* SYN */, 0xff, 0xff, 0, 0, 0, 0)
		sumAt = start + 16
	} else {
		b = append(b, 0, udpHeader+payloadLength, 0, 0)
	}
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint16(b, f.phase)
	b = binary.BigEndian.AppendUint16(b, f.from.Port())
	source := f.from.Addr().As16()
	b = append(b, source[:]...)
	pseudo := sum(f.from.Addr().AsSlice()) + sum(f.to.Addr().AsSlice()) + uint32(f.protocol) + uint32(len(b)-start)
	binary.BigEndian.PutUint16(b[sumAt:], ^fold(pseudo+sum(b[start:])))
	return b
}

func (f *flow) appendIPv4(b []byte, length int) []byte {
	b = append(b, 0x08, 0x00)
	start := len(b)
	b = append(b, 0x45, 0, 0, byte(20+length), 0, 0, 0, 0, 64, f.protocol, 0, 0)
	b = append(append(b, f.from.Addr().AsSlice()...), f.to.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(b[start+10:], ^fold(sum(b[start:])))
	return b
}

func (f *flow) appendIPv6(b []byte, length int) []byte {
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0, 0, byte(length), f.protocol, 64)
	return append(append(b, f.from.Addr().AsSlice()...), f.to.Addr().AsSlice()...)
}

// sum is the unfolded Internet checksum; b has an even length.
func sum(b []byte) (s uint32) {
	for ; len(b) > 1; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	return s
}

func fold(s uint32) uint16 {
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return uint16(s)
}

// sighting is a flow's packet as the outside saw it.
type sighting struct {
	flow
	seen netip.AddrPort
}

// parse reads a frame; ok is false for what isn't one of our flows.
func parse(b []byte, of [2]addresses) (s sighting, ok bool) {
	if len(b) < etherHeader+20 {
		return s, false
	}
	ip := b[etherHeader:]
	var src, dst netip.Addr
	var rest []byte
	var a *addresses
	switch {
	case ip[0] == 0x45:
		s.family, s.protocol, a = packet.IPv4Family, ip[9], &of[0]
		src, dst, rest = netip.AddrFrom4([4]byte(ip[12:])), netip.AddrFrom4([4]byte(ip[16:])), ip[20:]
	case ip[0]>>4 == 6 && len(ip) >= 40:
		s.family, s.protocol, a = packet.IPv6Family, ip[6], &of[1]
		src, dst, rest = netip.AddrFrom16([16]byte(ip[8:])), netip.AddrFrom16([16]byte(ip[24:])), ip[40:]
	default:
		return s, false
	}
	header := map[byte]int{packet.UDP: udpHeader, packet.TCP: tcpHeader}[s.protocol]
	if header == 0 || len(rest) < header+payloadLength || binary.BigEndian.Uint32(rest[header:]) != magic {
		return s, false
	}
	p := rest[header+4:]
	s.phase = binary.BigEndian.Uint16(p)
	s.from = netip.AddrPortFrom(netip.AddrFrom16([16]byte(p[4:])).Unmap(), binary.BigEndian.Uint16(p[2:]))
	s.seen = netip.AddrPortFrom(src, binary.BigEndian.Uint16(rest))
	s.to = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(rest[2:]))
	for s.action = 0; s.action < actions; s.action++ {
		if a.destinations[s.action].Contains(dst) {
			return s, true
		}
	}
	return s, false
}
