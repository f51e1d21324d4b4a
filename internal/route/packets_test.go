package route_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// sender puts packets as they are on a link of a random network: on p0, so that
// they come in by v0.
type sender struct {
	fd    int
	index int
	to    net.HardwareAddr
}

func newSender(t *testing.T, ns *netns.NS, from, to string) *sender {
	t.Helper()
	s := &sender{}
	err := ns.Do(func() error {
		out, err := net.InterfaceByName(from)
		if err != nil {
			return err
		}
		in, err := net.InterfaceByName(to)
		if err != nil {
			return err
		}
		s.index, s.to = out.Index, in.HardwareAddr
		s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(s.fd) })
	return s
}

// udp sends an empty datagram.
func (s *sender) udp(t *testing.T, source, destination netip.Addr, sport, dport uint16) {
	t.Helper()
	udp := binary.BigEndian.AppendUint16(nil, sport)
	udp = binary.BigEndian.AppendUint16(udp, dport)
	udp = append(udp, 0, 8, 0, 0) // length; the checksum follows
	pseudo := append(append(source.AsSlice(), destination.AsSlice()...), 0, packet.UDP, 0, 8)
	binary.BigEndian.PutUint16(udp[6:], checksum(append(pseudo, udp...)))
	header := []byte{0x60, 0, 0, 0, 0, 8, packet.UDP, 64}
	protocol := uint16(unix.ETH_P_IPV6)
	if source.Is4() {
		header = []byte{0x45, 0, 0, 28, 0, 1, 0, 0, 64, packet.UDP, 0, 0}
		protocol = unix.ETH_P_IP
	}
	header = append(append(header, source.AsSlice()...), destination.AsSlice()...)
	if source.Is4() {
		binary.BigEndian.PutUint16(header[10:], checksum(header))
	}
	to := &unix.SockaddrLinklayer{Protocol: protocol<<8 | protocol>>8, Ifindex: s.index, Halen: 6}
	copy(to.Addr[:], s.to)
	if err := unix.Sendto(s.fd, append(header, udp...), 0, to); err != nil {
		t.Fatal(err)
	}
}

func checksum(b []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(b)-1; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// run is a program that must work.
func run(t *testing.T, ns *netns.NS, stdin, name string, args ...string) string {
	t.Helper()
	out, err := ns.Run(stdin, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestMasqueradeAgreesWithKernel sends packets through random networks that
// masquerade everything, and looks at conntrack for the source that was taken.
func TestMasqueradeAgreesWithKernel(t *testing.T) {
	checked, dropped := 0, 0
	for seed := range uint64(networks / 2) {
		ns, s := newNetwork(t, 1000+seed)
		run(t, ns, "table inet masq {\n chain post {\n type nat hook postrouting priority 100\n masquerade\n }\n}\n", "nft", "-f", "-")
		n := read(t, ns, true)
		from := newSender(t, ns, "p0", "v0")
		sent := map[uint16]masqueraded{}
		for _, f := range packet.Families {
			source := netip.MustParseAddr(map[packet.Family]string{packet.IPv4Family: "198.51.100.7", packet.IPv6Family: "3fff::7"}[f])
			for _, destination := range s.destinations(n, f) {
				q := route.Query{
					Source: source, Destination: destination, InInterface: "v0", Protocol: packet.UDP, SourcePort: 4000 + len(sent), DestinationPort: 80,
				}
				want, ok := expected(n, q)
				if !ok {
					continue
				}
				sent[uint16(q.SourcePort)] = want
				from.udp(t, source, destination, uint16(q.SourcePort), 80)
			}
		}
		taken := translated(t, ns)
		for port, want := range sent {
			checked++
			if !want.source.IsValid() {
				dropped++
			}
			if got := taken[port]; got != want.source {
				t.Errorf("seed %d: to %s: %s, we say %s (by %s)\n%s", seed, want.destination, got, want.source, want.out, strings.Join(s.lines, "\n"))
				dump(t, n)
				return
			}
		}
	}
	t.Logf("checked: %d masqueraded packets against the kernel, %d of them dropped", checked, dropped)
	if checked < 1000 {
		t.Error("too few packets")
	}
}

type masqueraded struct {
	destination, source netip.Addr
	out                 string
}

// expected is what we say of a forwarded packet; ok is false where it doesn't
// leave by one way only.
func expected(n *route.Network, q route.Query) (m masqueraded, ok bool) {
	r := n.Lookup(q)
	if !r.Known || !r.Found || r.Type != route.Unicast || len(r.Nexthops) != 1 || martian(n, q, r) || q.Destination.IsMulticast() ||
		q.Destination.IsLoopback() || q.Destination.IsLinkLocalUnicast() {
		return m, false
	}
	hop := r.Nexthops[0]
	if !hop.Via.IsValid() {
		hop.Via = q.Destination
	}
	a, ok, known := n.MasqueradeAddress(hop.Interface, hop.Via, q.Destination)
	if !known {
		return m, false
	}
	if !ok {
		a = netip.Addr{}
	}
	return masqueraded{q.Destination, a, hop.Interface}, true
}

// translated reads conntrack: the source that each packet got, by its port.
func translated(t *testing.T, ns *netns.NS) map[uint16]netip.Addr {
	t.Helper()
	taken := map[uint16]netip.Addr{}
	for _, family := range []string{"ipv4", "ipv6"} {
		for line := range strings.Lines(run(t, ns, "", "conntrack", "-L", "-f", family, "-p", "udp")) {
			var sources, destinations, ports []string
			for _, word := range strings.Fields(line) {
				switch name, value, _ := strings.Cut(word, "="); name {
				case "src":
					sources = append(sources, value)
				case "dst":
					destinations = append(destinations, value)
				case "sport":
					ports = append(ports, value)
				}
			}
			var port uint16
			if _, err := fmt.Sscan(ports[0], &port); err != nil {
				t.Fatal(err)
			}
			if len(sources) == 2 {
				taken[port] = netip.MustParseAddr(destinations[1])
			}
		}
	}
	return taken
}

// TestAddressTypesAgreeWithKernel sends packets to addresses of all kinds and
// counts what rules with -m addrtype match.
func TestAddressTypesAgreeWithKernel(t *testing.T) {
	checked := 0
	for seed := range uint64(networks / 6) {
		ns, s := newNetwork(t, 2000+seed)
		n := read(t, ns, true)
		from := newSender(t, ns, "p0", "v0")
		for _, f := range packet.Families {
			checked += checkTypes(t, ns, s, n, from, f)
		}
	}
	t.Logf("checked: %d questions of -m addrtype against the kernel", checked)
}

// rtn are the kernel's types with their names, in the order of their bits.
var rtn = []string{"UNSPEC", "UNICAST", "LOCAL", "BROADCAST", "ANYCAST", "MULTICAST", "BLACKHOLE", "UNREACHABLE", "PROHIBIT", "THROW"}

func checkTypes(t *testing.T, ns *netns.NS, s *scenario, n *route.Network, from *sender, f packet.Family) (checked int) {
	t.Helper()
	program, source, types := "iptables", netip.MustParseAddr("198.51.100.7"), rtn
	if f == packet.IPv6Family {
		program, source, types = "ip6tables", netip.MustParseAddr("3fff::7"), []string{"UNSPEC", "UNICAST", "LOCAL", "ANYCAST", "MULTICAST", "UNREACHABLE"}
	}
	type question struct {
		a        netip.Addr
		wanted   uint16
		dev      string
		answered bool
	}
	var questions []question
	rules := "*raw\n:ASK - [0:0]\n"
	asked := map[netip.Addr]bool{}
	for _, a := range s.destinations(n, f) {
		if asked[a] || a == netip.MustParseAddr("255.255.255.255") || a.Is6() && (a.IsLoopback() || a == netip.MustParseAddr("ff00::")) {
			continue // such packets don't come that far
		}
		asked[a] = true
		for _, dev := range []string{"", "v0"} {
			for _, name := range append(types, "LOCAL,BROADCAST", "UNICAST,LOCAL") {
				if f == packet.IPv6Family && strings.Contains(name, "BROADCAST") {
					continue
				}
				limit := ""
				if dev != "" {
					limit = "--limit-iface-in"
				}
				rules += fmt.Sprintf("-A PREROUTING -d %s -m addrtype --dst-type %s %s -m comment --comment %d -j ASK\n", a, name, limit, len(questions))
				questions = append(questions, question{a: a, wanted: bits(name), dev: dev})
			}
		}
	}
	run(t, ns, rules+"COMMIT\n", program+"-restore")
	for a := range asked {
		from.udp(t, source, a, 4000, 80)
	}
	saved := run(t, ns, "", program+"-save", "-c", "-t", "raw")
	for line := range strings.Lines(saved) {
		var number, count int
		if _, after, ok := strings.Cut(line, "--comment "); ok {
			if _, err := fmt.Sscanf(line, "[%d:", &count); err != nil {
				t.Fatal(line)
			}
			if _, err := fmt.Sscan(strings.Trim(strings.Fields(after)[0], `"`), &number); err != nil {
				t.Fatal(line)
			}
			questions[number].answered = count > 0
		}
	}
	for _, q := range questions {
		has, known := n.HasType(q.a, q.wanted, q.dev)
		if !known {
			continue
		}
		checked++
		if has != q.answered {
			t.Errorf("%s has one of %#x, dev %q: %v, the kernel says %v", q.a, q.wanted, q.dev, has, q.answered)
		}
	}
	if t.Failed() {
		dump(t, n)
	}
	return checked
}

func bits(names string) (wanted uint16) {
	for i, name := range rtn {
		for part := range strings.SplitSeq(names, ",") {
			if part == name {
				wanted |= 1 << i
			}
		}
	}
	return wanted
}

// TestReversePathAgreesWithKernel counts what rules with -m rpfilter match.
func TestReversePathAgreesWithKernel(t *testing.T) {
	checked, refused := 0, 0
	for seed := range uint64(networks / 2) {
		ns, s := newNetwork(t, 3000+seed)
		n := read(t, ns, true)
		from := newSender(t, ns, "p0", "v0")
		for _, f := range packet.Families {
			program, destination := "iptables", netip.MustParseAddr("198.51.100.7")
			if f == packet.IPv6Family {
				program, destination = "ip6tables", netip.MustParseAddr("3fff::7")
			}
			var sources []netip.Addr
			rules := "*raw\n"
			for i, a := range s.destinations(n, f) {
				rules += fmt.Sprintf("-A PREROUTING -s %s -p udp --sport %d -m rpfilter\n", a, 5000+i)
				sources = append(sources, a)
			}
			run(t, ns, rules+"COMMIT\n", program+"-restore")
			for i, a := range sources {
				from.udp(t, a, destination, uint16(5000+i), 80)
			}
			matched := map[int]bool{}
			for line := range strings.Lines(run(t, ns, "", program+"-save", "-c", "-t", "raw")) {
				var port int
				if _, after, ok := strings.Cut(line, "--sport "); ok && !strings.HasPrefix(line, "[0:") {
					if _, err := fmt.Sscan(after, &port); err != nil {
						t.Fatal(line)
					}
					matched[port-5000] = true
				}
			}
			for i, a := range sources {
				back, kind, found, known := n.ReversePath(a, destination, "v0", 0)
				if !known || a.Is4() && a.IsUnspecified() {
					continue
				}
				checked++
				ours := found && kind == route.Unicast && back == "v0"
				if !ours {
					refused++
				}
				if ours != matched[i] {
					t.Errorf("seed %d: way back to %s: %v by %s, %s; the kernel says %v\n%s", seed, a, ours, back, kind, matched[i], strings.Join(s.lines, "\n"))
					dump(t, n)
					return
				}
			}
		}
	}
	t.Logf("checked: %d ways back against -m rpfilter, %d refused", checked, refused)
}
