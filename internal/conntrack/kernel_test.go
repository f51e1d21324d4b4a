package conntrack_test

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/unmasq/unmasq/internal/conntrack"
	kernel "github.com/unmasq/unmasq/internal/kernel/conntrack"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// flow is a real connection, as its ends have it.
type flow struct {
	protocol uint8
	zone     uint16
	// client sends from and to; the server, at, sees seen.
	from, to, at, seen netip.AddrPort
	replied            bool
}

// rules translate both ends of what goes to .9 or ::9, and give UDP a zone and TCP a mark.
const rules4 = `*nat
-A OUTPUT -d 10.9.0.9 -p tcp -j DNAT --to-destination 10.9.0.2:7000
-A OUTPUT -d 10.9.0.9 -p udp -j DNAT --to-destination 10.9.0.2:7000
-A POSTROUTING -s 10.9.0.1 -p tcp -j SNAT --to-source 10.9.0.7:30000-40000
-A POSTROUTING -s 10.9.0.1 -j SNAT --to-source 10.9.0.7
COMMIT
*raw
-A OUTPUT -p udp -j CT --zone 7
-A PREROUTING -p udp -j CT --zone 7
COMMIT
*mangle
-A OUTPUT -p tcp -j CONNMARK --set-mark 0x1234
COMMIT
`

func rules6() string {
	r := strings.NewReplacer("10.9.0.2:7000", "[fd00:9::2]:7000", "10.9.0.7:30000", "[fd00:9::7]:30000", "10.9.0.7", "fd00:9::7", "10.9.0.", "fd00:9::")
	return r.Replace(rules4)
}

// TestKernel makes connections with both addresses translated, and holds the
// kernel's table, in all forms, against what their ends saw.
func TestKernel(t *testing.T) {
	ns := netnstest.Test(t, "conntrack")
	for program, rules := range map[string]string{"iptables-legacy-restore": rules4, "ip6tables-legacy-restore": rules6()} {
		if _, err := ns.Run(rules, program); err != nil {
			t.Fatal(err)
		}
	}
	var flows []flow
	for _, f := range packet.Families {
		for _, host := range []string{"1", "2", "7"} {
			a := address(f, host)
			if err := ns.Addr("lo", netip.PrefixFrom(a, a.BitLen())); err != nil {
				t.Fatal(err)
			}
		}
		translated := address(f, "9")
		if err := ns.Route(netip.PrefixFrom(translated, translated.BitLen()), netip.Addr{}, "lo"); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			port := uint16(5000 + i)
			flows = append(flows, tcp(t, ns, f, port), udp(t, ns, f, port, i%2 == 0))
		}
		flows = append(flows, raw(t, ns, f, 47), raw(t, ns, f, 200))
		ping(t, ns, f)
	}

	checked := 0
	var first []conntrack.Entry
	for _, command := range []string{"conntrack -L", "conntrack -L -o extended,id,ktimestamp", "cat /proc/net/nf_conntrack"} {
		words := strings.Fields(command)
		text, err := ns.Run("", words[0], words[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		if words[1] == "-L" { // the other family is asked for by itself
			six, err := ns.Run("", words[0], append(words[1:], "-f", "ipv6")...)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(text, "fd00:9::") {
				text += six
			}
		}
		entries, problems := conntrack.Read(text, 1)
		for _, p := range problems {
			t.Errorf("%s: %+v", command, p)
		}
		table := conntrack.NewTable(entries)
		for _, f := range flows {
			checked += check(t, command, table, f)
		}
		checked += checkPings(t, command, table)
		if first == nil {
			first = entries
			continue
		}
		same := cmp.Options{
			cmpopts.SortSlices(func(a, b conntrack.Entry) bool { return key(a) < key(b) }),
			cmpopts.IgnoreFields(conntrack.Entry{}, "Text", "Line", "ID"), cmpopts.EquateComparable(netip.Addr{}),
		}
		if diff := cmp.Diff(first, entries, same); diff != "" {
			t.Errorf("%s (-conntrack -L +this):\n%s", command, diff)
		}
	}
	t.Logf("checked: %d directions of %d entries", checked, len(first))
	overNetlink(t, ns)
}

// overNetlink: the kernel tells the same entries, with their ids, as the program prints.
func overNetlink(t *testing.T, ns *netns.NS) {
	var printed, told []conntrack.Entry
	for _, family := range []string{"ipv4", "ipv6"} {
		text, err := ns.Run("", "conntrack", "-L", "-o", "extended,id", "-f", family)
		if err != nil {
			t.Fatal(err)
		}
		entries, _ := conntrack.Read(text, 1)
		printed = append(printed, entries...)
	}
	var stats kernel.Stats
	err := ns.Do(func() error {
		r, err := kernel.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		stats, err = r.Dump(t.Context(), 0, func(e *conntrack.Entry) bool {
			told = append(told, *e)
			return true
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Entries != len(told) || stats.Strange != 0 || len(told) < 80 {
		t.Errorf("%+v, %d entries", stats, len(told))
	}
	same := cmp.Options{
		cmpopts.SortSlices(func(a, b conntrack.Entry) bool { return key(a) < key(b) }),
		cmpopts.IgnoreFields(conntrack.Entry{}, "Text", "Line"), cmpopts.EquateComparable(netip.Addr{}),
	}
	if diff := cmp.Diff(printed, told, same); diff != "" {
		t.Errorf("-conntrack -L +netlink:\n%s", diff)
	}
}

func key(e conntrack.Entry) string { return fmt.Sprint(e.Protocol, e.Original, e.Zone) }

func address(f packet.Family, host string) netip.Addr {
	if f == packet.IPv4Family {
		return netip.MustParseAddr("10.9.0." + host)
	}
	return netip.MustParseAddr("fd00:9::" + host)
}

// check finds both directions of a flow.
func check(t *testing.T, command string, table *conntrack.Table, f flow) int {
	t.Helper()
	original := conntrack.Tuple{Source: f.from.Addr(), SourcePort: f.from.Port(), Destination: f.to.Addr(), DestinationPort: f.to.Port()}
	back := conntrack.Tuple{Source: f.at.Addr(), SourcePort: f.at.Port(), Destination: f.seen.Addr(), DestinationPort: f.seen.Port()}
	e, reply := table.Find(f.protocol, original, f.zone)
	if e == nil || reply {
		t.Fatalf("%s: not found: %+v", command, f)
	}
	other, reply := table.Find(f.protocol, back, f.zone)
	if other != e || !reply {
		t.Fatalf("%s: the reply of %+v isn't that of %s", command, f, e.Text)
	}
	if e.SeenReply != f.replied || e.Zone != f.zone || f.protocol == packet.TCP && (e.Mark != 0x1234 || e.State != "ESTABLISHED" || !e.Assured) {
		t.Errorf("%s: %+v is %s", command, f, e.Text)
	}
	loose := table.FindLoose(f.protocol, f.from.Addr(), f.to.Addr(), int(f.to.Port()), f.zone)
	found := false
	for _, l := range loose {
		found = found || l == e
	}
	if !found {
		t.Errorf("%s: %+v isn't among %d without a source port", command, f, len(loose))
	}
	return 2
}

func tcp(t *testing.T, ns *netns.NS, family packet.Family, port uint16) flow {
	t.Helper()
	f := flow{protocol: packet.TCP, replied: true}
	err := ns.Do(func() error {
		listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(address(family, "2"), 7000)))
		if err != nil {
			return err
		}
		t.Cleanup(func() { listener.Close() })
		from := net.TCPAddrFromAddrPort(netip.AddrPortFrom(address(family, "1"), port))
		client, err := net.DialTCP("tcp", from, net.TCPAddrFromAddrPort(netip.AddrPortFrom(address(family, "9"), 80)))
		if err != nil {
			return err
		}
		t.Cleanup(func() { client.Close() })
		server, err := listener.AcceptTCP()
		if err != nil {
			return err
		}
		t.Cleanup(func() { server.Close() })
		listener.Close()
		f.from, f.to = addrPort(client.LocalAddr()), addrPort(client.RemoteAddr())
		f.at, f.seen = addrPort(server.LocalAddr()), addrPort(server.RemoteAddr())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func udp(t *testing.T, ns *netns.NS, family packet.Family, port uint16, answer bool) flow {
	t.Helper()
	f := flow{protocol: packet.UDP, zone: 7, replied: answer}
	err := ns.Do(func() error {
		server, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(address(family, "2"), 7000)))
		if err != nil {
			return err
		}
		defer server.Close()
		from := net.UDPAddrFromAddrPort(netip.AddrPortFrom(address(family, "1"), port))
		client, err := net.DialUDP("udp", from, net.UDPAddrFromAddrPort(netip.AddrPortFrom(address(family, "9"), 53)))
		if err != nil {
			return err
		}
		defer client.Close()
		if _, err := client.Write([]byte("question")); err != nil {
			return err
		}
		b := make([]byte, 16)
		_, seen, err := server.ReadFromUDPAddrPort(b)
		if err != nil {
			return err
		}
		if answer {
			if _, err := server.WriteToUDPAddrPort(b[:1], seen); err != nil {
				return err
			}
			if _, err := client.Read(b); err != nil {
				return err
			}
		}
		f.from, f.to = addrPort(client.LocalAddr()), addrPort(client.RemoteAddr())
		f.at, f.seen = addrPort(server.LocalAddr()), netip.AddrPortFrom(seen.Addr().Unmap(), seen.Port())
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// raw sends one packet of a protocol whose ports or keys, if any, are 0.
func raw(t *testing.T, ns *netns.NS, family packet.Family, protocol uint8) flow {
	t.Helper()
	from, to := address(family, "1"), address(family, "2")
	send(t, ns, protocol, from, to, make([]byte, 40))
	return flow{
		protocol: protocol, from: netip.AddrPortFrom(from, 0), to: netip.AddrPortFrom(to, 0),
		at: netip.AddrPortFrom(to, 0), seen: netip.AddrPortFrom(seenAs(from), 0),
	}
}

// seenAs is what the rules make of .1.
func seenAs(from netip.Addr) netip.Addr {
	if from.Is4() {
		return address(packet.IPv4Family, "7")
	}
	return address(packet.IPv6Family, "7")
}

func send(t *testing.T, ns *netns.NS, protocol uint8, from, to netip.Addr, body []byte) {
	t.Helper()
	network := fmt.Sprintf("ip4:%d", protocol)
	if from.Is6() {
		network = fmt.Sprintf("ip6:%d", protocol)
	}
	err := ns.Do(func() error {
		c, err := net.DialIP(network, &net.IPAddr{IP: from.AsSlice()}, &net.IPAddr{IP: to.AsSlice()})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(body)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

const pingID = 4711

// ping asks .2, which the kernel answers.
func ping(t *testing.T, ns *netns.NS, family packet.Family) {
	t.Helper()
	body := []byte{8, 0, 0, 0, pingID >> 8, pingID & 255, 0, 1}
	protocol := uint8(packet.ICMP)
	if family == packet.IPv6Family {
		protocol, body[0] = packet.ICMPv6, 128 // the kernel makes the checksum
	} else {
		sum := ^(uint16(8)<<8 + pingID + 1)
		body[2], body[3] = byte(sum>>8), byte(sum)
	}
	send(t, ns, protocol, address(family, "1"), address(family, "2"), body)
}

func checkPings(t *testing.T, command string, table *conntrack.Table) int {
	t.Helper()
	for _, p := range []struct {
		family           packet.Family
		protocol         uint8
		question, answer uint8
	}{{packet.IPv4Family, packet.ICMP, 8, 0}, {packet.IPv6Family, packet.ICMPv6, 128, 129}} {
		from, to := address(p.family, "1"), address(p.family, "2")
		asked, reply := table.Find(p.protocol, conntrack.Tuple{Source: from, Destination: to, Type: p.question, ID: pingID}, 0)
		if asked == nil || reply || !asked.SeenReply {
			t.Fatalf("%s: ping from %s: %+v", command, from, asked)
		}
		answered, reply := table.Find(p.protocol, conntrack.Tuple{Source: to, Destination: seenAs(from), Type: p.answer, ID: pingID}, 0)
		if answered != asked || !reply {
			t.Errorf("%s: the answer to %s isn't found", command, from)
		}
	}
	return 4
}

func addrPort(a net.Addr) netip.AddrPort {
	p := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
