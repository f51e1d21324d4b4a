package ipset_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/packet"
)

// maker makes sets of few values, so that elements meet, contain and contradict
// each other.
type maker struct {
	*rand.Rand
	family packet.Family
}

// setTypes are all that ipset knows.
var setTypes = []string{
	"hash:ip", "hash:mac", "hash:ip,mac", "hash:ip,mark", "hash:ip,port", "hash:ip,port,ip", "hash:ip,port,net",
	"hash:net", "hash:net,net", "hash:net,port", "hash:net,port,net", "hash:net,iface",
	"bitmap:ip", "bitmap:ip,mac", "bitmap:port", "list:set",
}

func pick[T any](m *maker, from []T) T { return from[m.IntN(len(from))] }

var (
	seeds4 = []string{"10.1.2.3", "10.1.2.200", "10.1.3.1", "10.128.0.1", "192.168.7.9", "203.0.113.255", "0.0.0.1", "255.255.255.254"}
	seeds6 = []string{"fd00:1:2::3", "fd00:1:2::200", "fd00:1:3:0:1::", "2001:db8::1", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "fe80::9"}
	bits4  = []int{1, 5, 8, 9, 16, 22, 23, 24, 25, 30, 31, 32}
	bits6  = []int{1, 7, 8, 16, 32, 47, 48, 63, 64, 65, 96, 127, 128}

	portNumbers = []int{0, 1, 53, 79, 80, 81, 443, 65534, 65535}
	icmpValues  = []int{0, 8 << 8, 8<<8 | 1, 3<<8 | 4, 128 << 8, 129 << 8, 255<<8 | 255}
	interfaces  = []string{"eth0", "eth1", "eth10", "e", "wlan0"}
)

func (m *maker) address() netip.Addr {
	if m.family == packet.IPv4Family {
		return netip.MustParseAddr(pick(m, seeds4))
	}
	return netip.MustParseAddr(pick(m, seeds6))
}

func (m *maker) prefix() netip.Prefix {
	bits := pick(m, bits4)
	if m.family == packet.IPv6Family {
		bits = pick(m, bits6)
	}
	return netip.PrefixFrom(m.address(), bits).Masked()
}

// host is an address that a set of addresses holds, at times one of the next.
func (m *maker) host() string {
	a := m.address()
	if m.IntN(3) == 0 {
		a = pick(m, addressBorders(netip.PrefixFrom(a, a.BitLen())))
	}
	return a.String()
}

func (m *maker) port() string {
	switch m.IntN(8) {
	case 0, 1, 2:
		return fmt.Sprintf("tcp:%d", pick(m, portNumbers))
	case 3:
		return fmt.Sprintf("udp:%d", pick(m, portNumbers))
	case 4:
		return fmt.Sprintf("%s:%d", pick(m, []string{"sctp", "udplite"}), pick(m, portNumbers))
	case 5:
		return fmt.Sprintf("%s:0", pick(m, []string{"gre", "esp", "200", "dccp"}))
	case 6:
		return fmt.Sprintf("tcp:%d-%d", 60+m.IntN(20), 80+m.IntN(20))
	}
	v, name := pick(m, icmpValues), "icmp"
	if m.family == packet.IPv6Family {
		name = "icmpv6"
	}
	return fmt.Sprintf("%s:%d/%d", name, v>>8, v&255)
}

func (m *maker) mac() string { return fmt.Sprintf("02:00:00:00:00:%02x", 9+m.IntN(3)) }

func (m *maker) part(kind string) string {
	switch kind {
	case "ip":
		return m.host()
	case "net":
		return m.prefix().String()
	case "port":
		return m.port()
	case "mac":
		return m.mac()
	case "mark":
		return fmt.Sprintf("0x%x", m.IntN(4)<<(8*m.IntN(3)))
	}
	name := pick(m, interfaces)
	if m.IntN(4) == 0 {
		return "physdev:" + name
	}
	return name
}

// element of a hash type, with its options.
func (m *maker) element(typeName string) string {
	kinds := strings.Split(strings.TrimPrefix(typeName, "hash:"), ",")
	var parts []string
	for _, kind := range kinds {
		parts = append(parts, m.part(kind))
	}
	text := strings.Join(parts, ",")
	if typeName == "hash:net,iface" && m.IntN(8) == 0 {
		text = "0.0.0.0/0," + parts[1]
		if m.family == packet.IPv6Family {
			text = "::/0," + parts[1]
		}
	}
	if typeName == "hash:net,iface" && m.IntN(3) == 0 {
		text += " wildcard"
	}
	if strings.Contains(typeName, "net") && m.IntN(3) == 0 {
		text += " nomatch"
	}
	return text
}

// options of a set, by its number, so that each is there.
func (m *maker) options(typeName string, i int) string {
	family := "inet"
	if m.family == packet.IPv6Family {
		family = "inet6"
	}
	switch typeName {
	case "bitmap:ip":
		return []string{"range 10.1.0.0/16", "range 10.1.2.4-10.1.3.0", "range 10.0.0.0/8 netmask 24", "range 0.0.0.0/4 netmask 14"}[i%4]
	case "bitmap:ip,mac":
		return "range 10.1.2.0-10.1.3.0"
	case "bitmap:port":
		return []string{"range 0-65535", "range 53-443"}[i%2]
	case "list:set", "hash:mac":
		return []string{"", "timeout 600"}[i%2]
	}
	options := "family " + family + []string{"", " timeout 600", " counters comment", " skbinfo"}[i%4]
	masks := []string{" netmask 24", " netmask 9", " bitmask 255.0.255.1"}
	if m.family == packet.IPv6Family {
		masks = []string{" netmask 64", " netmask 12", " bitmask ffff:0:ff::ff"}
	}
	switch typeName {
	case "hash:ip", "hash:ip,port", "hash:net,net":
		if i%5 > 1 {
			options += masks[i%5-2]
		}
	case "hash:ip,mark":
		options += []string{"", " markmask 0xff00"}[i%2]
	}
	return options
}

// elements of a set, as text for ipset restore; members of a list are sets.
func (m *maker) elements(typeName string, i int, sets []string) []string {
	var all []string
	for range m.IntN(14) * m.IntN(3) {
		switch typeName {
		case "bitmap:ip":
			all = append(all, []string{"10.1.2.4", "10.1.2.5-10.1.2.9", "10.1.3.0", "10.1.2.200"}[m.IntN(4)])
		case "bitmap:ip,mac":
			all = append(all, []string{"10.1.2.3", "10.1.2.200," + m.mac(), "10.1.2.4", "10.1.3.0," + m.mac()}[m.IntN(4)])
		case "bitmap:port":
			all = append(all, []string{"53", "80-81", "443", "100-200"}[m.IntN(4)])
		case "list:set":
			all = append(all, pick(m, sets))
		default:
			all = append(all, m.element(typeName))
		}
	}
	if i%4 == 3 && strings.Contains(m.options(typeName, 3), "range 0.0.0.0/4") {
		return []string{"10.1.2.4", "0.1.2.3"}
	}
	return all
}

// packet to ask sets for, at a hook. No mark outlives the wire.
func (m *maker) packet(hook int) ipset.Packet {
	p := ipset.Packet{
		Source: m.near(), Destination: m.near(), InInterface: pick(m, interfaces), NoOut: true,
		Protocol: pick(m, []uint8{6, 6, 6, 17, 132, 136, 1, 1, 58, 47, 50, 200, 33}),
	}
	if hook == outputHook {
		p.Mark = uint32(m.IntN(4) << (8 * m.IntN(3)))
		p.InInterface, p.OutInterface, p.NoIn, p.NoOut = "", p.InInterface, true, false
		for b := p.Destination.AsSlice()[0]; b == 0 || b >= 240 && b != 0xfd; b = p.Destination.AsSlice()[0] {
			p.Destination = m.near() // none that can't be sent to
		}
	}
	p.SourcePort, p.DestinationPort = pick(m, portNumbers), pick(m, portNumbers)
	if m.IntN(4) == 0 {
		p.DestinationPort = 60 + m.IntN(40)
	}
	if p.Protocol == packet.ICMP || p.Protocol == packet.ICMPv6 {
		p.SourcePort = pick(m, icmpValues)
		p.DestinationPort = p.SourcePort
	}
	return p
}

// near is an address at a border of what sets hold, and one that a router takes.
func (m *maker) near() netip.Addr {
	for {
		a := pick(m, addressBorders(m.prefix()))
		if m.IntN(2) == 0 {
			a = pick(m, addressBorders(netip.PrefixFrom(m.address(), a.BitLen())))
		}
		if a.Is4() || !a.IsMulticast() && !a.IsLoopback() && !a.IsUnspecified() && !a.Is4In6() {
			return a
		}
	}
}
