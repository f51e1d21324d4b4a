package route_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// nodeWithRoutes has a thousand pods, and routes to other nodes.
func nodeWithRoutes(tb testing.TB) *route.Network {
	var routes4, routes6, addresses strings.Builder
	fmt.Fprintln(&routes4, "default via 192.168.5.1 dev eth0\n192.168.5.0/24 dev eth0 proto kernel scope link src 192.168.5.138")
	fmt.Fprintln(&routes6, "default via fe80::1 dev eth0 metric 1024 pref medium\n2001:db8::/64 dev eth0 proto kernel metric 256 pref medium")
	for i := range 500 {
		fmt.Fprintf(&routes4, "10.244.%d.%d dev veth%d scope link\n10.%d.%d.0/24 via 192.168.5.%d dev eth0\n", i/250, i%250, i, 100+i/250, i%250, 1+i%250)
		fmt.Fprintf(&routes6, "fd00:1::%x dev veth%d metric 1024 pref medium\nfd00:2:%x::/64 via fe80::%x dev eth0 metric 1024 pref medium\n", i, i, i, i+1)
	}
	fmt.Fprint(&addresses, "1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536\n    inet 127.0.0.1/8 scope host lo\n    inet6 ::1/128 scope host\n"+
		"2: eth0: <BROADCAST,UP,LOWER_UP> mtu 1500\n    inet 192.168.5.138/24 brd 192.168.5.255 scope global eth0\n    inet6 2001:db8::7/64 scope global\n")
	n := &route.Network{}
	for _, problems := range [][]route.Problem{
		n.ReadText(route.Routes, routes4.String(), 1, packet.IPv4Family), n.ReadText(route.Routes, routes6.String(), 1, packet.IPv6Family),
		n.ReadText(route.Addresses, addresses.String(), 1, 0),
	} {
		if len(problems) > 0 {
			tb.Fatal(problems)
		}
	}
	n.Complete()
	return n
}

func BenchmarkLookup(b *testing.B) {
	n := nodeWithRoutes(b)
	for _, pair := range [][2]string{{"10.244.1.7", "10.100.33.9"}, {"10.244.1.7", "8.8.8.8"}, {"fd00:1::7", "fd00:2:21::9"}, {"fd00:1::7", "2606::1"}} {
		q := route.Query{
			Source: netip.MustParseAddr(pair[0]), Destination: netip.MustParseAddr(pair[1]), InInterface: "veth7",
			Protocol: packet.TCP, SourcePort: 4000, DestinationPort: 80,
		}
		b.Run(pair[1], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if r := n.Lookup(q); !r.Found || r.Interface != "eth0" {
					b.Fatal(r)
				}
			}
		})
	}
}

func TestLookupDoesNotAllocate(t *testing.T) {
	n := nodeWithRoutes(t)
	q := route.Query{Source: netip.MustParseAddr("10.244.1.7"), Destination: netip.MustParseAddr("8.8.8.8"), InInterface: "veth7"}
	if allocs := testing.AllocsPerRun(100, func() { n.Lookup(q) }); allocs > 0 {
		t.Errorf("%v allocations a lookup", allocs)
	}
}

func BenchmarkRead(b *testing.B) {
	var text strings.Builder
	for i := range 10000 {
		fmt.Fprintf(&text, "10.%d.%d.0/24 via 192.168.5.%d dev eth0 proto bird onlink\n", i/250, i%250, 1+i%250)
	}
	b.SetBytes(int64(text.Len()))
	for b.Loop() {
		n := &route.Network{}
		n.ReadText(route.Routes, text.String(), 1, packet.IPv4Family)
		n.Complete()
	}
}
