package route_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// commands whose output is read.
var commands = []struct {
	kind route.Kind
	args string
	f    packet.Family
}{
	{route.Links, "ip -d link", 0},
	{route.Addresses, "ip addr", 0},
	{route.Routes, "ip -4 route show table all", packet.IPv4Family},
	{route.Routes, "ip -6 route show table all", packet.IPv6Family},
	{route.Rules, "ip rule", packet.IPv4Family},
	{route.Rules, "ip -6 rule", packet.IPv6Family},
	{route.Neighbors, "ip neigh", 0},
	{route.BridgeLinks, "bridge link", 0},
	{route.FDB, "bridge fdb", 0},
}

// read reads a namespace's state back, as JSON or as plain text.
func read(t *testing.T, ns *netns.NS, json bool) *route.Network {
	t.Helper()
	n := &route.Network{}
	for _, c := range commands {
		args := strings.Fields(c.args)
		if json {
			args = append(args[:1:1], append([]string{"-j"}, args[1:]...)...)
		}
		out, err := ns.Run("", args[0], args[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		read := n.ReadText
		if json {
			read = n.ReadJSON
		}
		if problems := read(c.kind, out, 1, c.f); len(problems) > 0 {
			t.Errorf("%s: %+v\n%s", c.args, problems, out)
		}
	}
	n.Complete()
	return n
}

// readBoth reads JSON and plain text, which must be the same.
func readBoth(t *testing.T, ns *netns.NS) *route.Network {
	t.Helper()
	fromJSON, fromText := read(t, ns, true), read(t, ns, false)
	if d := cmp.Diff(fromJSON, fromText, equal...); d != "" {
		t.Fatalf("JSON and plain text differ (-json +text):\n%s", d)
	}
	return fromJSON
}

var equal = cmp.Options{
	cmpopts.IgnoreFields(route.Network{}, "Neighbors", "Forwarding"), // learnt between two dumps
	cmpopts.IgnoreUnexported(route.Network{}), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}),
	cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "Routes.Text" }, cmp.Comparer(func(a, b string) bool { return sameButExpiry(a, b) || sameButExpiry(b, a) })),
}

// sameButExpiry: seconds pass between two dumps, and JSON doesn't say lock.
func sameButExpiry(a, b string) bool {
	return withoutExpiry(a) == strings.ReplaceAll(withoutExpiry(b), " lock ", " ")
}

func withoutExpiry(s string) string {
	before, after, ok := strings.Cut(s, " expires ")
	if !ok {
		return s
	}
	_, after, _ = strings.Cut(after, " ")
	return before + " " + after
}

// kernel asks a namespace's kernel for routes.
type kernel struct {
	conn  *netlink.Conn
	links map[uint32]string
	index map[string]uint32
}

func newKernel(t *testing.T, ns *netns.NS, n *route.Network) *kernel {
	t.Helper()
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: ns.Fd()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	k := &kernel{conn: conn, links: map[uint32]string{}, index: map[string]uint32{}}
	for _, l := range n.Links {
		k.links[uint32(l.Index)], k.index[l.Name] = l.Name, uint32(l.Index)
	}
	return k
}

// answer of RTM_GETROUTE.
type answer struct {
	errno  unix.Errno
	kind   uint8
	table  uint32
	device string
	via    netip.Addr
	source netip.Addr
	metric uint32
}

func (a answer) String() string {
	if a.errno != 0 {
		return a.errno.Error()
	}
	return fmt.Sprintf("type %d table %d dev %s via %v src %v metric %d", a.kind, a.table, a.device, a.via, a.source, a.metric)
}

// get is `ip route get`.
func (k *kernel) get(t *testing.T, q route.Query) answer {
	t.Helper()
	ae := netlink.NewAttributeEncoder()
	header := make([]byte, unix.SizeofRtMsg)
	header[0], header[1], header[3] = unix.AF_INET, uint8(q.Destination.BitLen()), q.TOS
	if q.Destination.Is6() {
		header[0] = unix.AF_INET6
	}
	binary.NativeEndian.PutUint32(header[8:], unix.RTM_F_LOOKUP_TABLE)
	ae.Bytes(unix.RTA_DST, q.Destination.AsSlice())
	if q.Source.IsValid() {
		header[2] = uint8(q.Source.BitLen())
		ae.Bytes(unix.RTA_SRC, q.Source.AsSlice())
	}
	if q.InInterface != "" {
		ae.Uint32(unix.RTA_IIF, k.index[q.InInterface])
		ae.Uint32(unix.RTA_UID, 0) // as ip6_route_input has it
	}
	if q.OutInterface != "" {
		ae.Uint32(unix.RTA_OIF, k.index[q.OutInterface])
	}
	if q.Mark != 0 {
		ae.Uint32(unix.RTA_MARK, q.Mark)
	}
	if q.Protocol == packet.TCP || q.Protocol == packet.UDP {
		ae.Uint8(unix.RTA_IP_PROTO, q.Protocol)
		ae.ByteOrder = binary.BigEndian
		ae.Uint16(unix.RTA_SPORT, uint16(q.SourcePort))
		ae.Uint16(unix.RTA_DPORT, uint16(q.DestinationPort))
	}
	attributes, err := ae.Encode()
	if err != nil {
		t.Fatal(err)
	}
	replies, err := k.conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETROUTE, Flags: netlink.Request},
		Data:   append(header, attributes...),
	})
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		return answer{errno: errno}
	}
	if err != nil || len(replies) != 1 {
		t.Fatalf("%+v: %v, %d replies", q, err, len(replies))
	}
	return k.decode(t, replies[0].Data)
}

func (k *kernel) decode(t *testing.T, data []byte) answer {
	t.Helper()
	a := answer{kind: data[7], table: uint32(data[4])}
	ad, err := netlink.NewAttributeDecoder(data[unix.SizeofRtMsg:])
	if err != nil {
		t.Fatal(err)
	}
	for ad.Next() {
		switch ad.Type() {
		case unix.RTA_OIF:
			a.device = k.links[ad.Uint32()]
		case unix.RTA_GATEWAY:
			a.via, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.RTA_VIA:
			a.via, _ = netip.AddrFromSlice(ad.Bytes()[2:])
		case unix.RTA_PREFSRC:
			a.source, _ = netip.AddrFromSlice(ad.Bytes())
		case unix.RTA_TABLE:
			a.table = ad.Uint32()
		case unix.RTA_PRIORITY:
			a.metric = ad.Uint32()
		}
	}
	return a
}

var kernelTypes = map[uint8]route.Type{
	unix.RTN_UNICAST: route.Unicast, unix.RTN_LOCAL: route.Local, unix.RTN_BROADCAST: route.Broadcast,
	unix.RTN_ANYCAST: route.Anycast, unix.RTN_MULTICAST: route.Multicast,
}

// disagreement compares our result with the kernel's; empty where they agree.
func disagreement(q route.Query, r route.Result, k answer) string {
	v6 := q.Destination.Is6()
	switch {
	case !r.Known:
		return "not known: " + r.Why
	case !r.Found:
		if k.errno == unix.ENETUNREACH {
			return ""
		}
		return "not found"
	case r.Type == route.Unreachable && r.Route != nil && r.Route.Type == route.Unicast && k.device == "lo" && k.errno == 0:
		return "" // packets are refused all the same
	case r.Type >= route.Blackhole:
		want := map[route.Type]unix.Errno{route.Blackhole: unix.EINVAL, route.Prohibit: unix.EACCES, route.Unreachable: unix.EHOSTUNREACH}[r.Type]
		if r.Route == nil && r.Type == route.Unreachable {
			want = unix.ENETUNREACH
		}
		if k.errno != want {
			return fmt.Sprintf("expected %v", want)
		}
		return ""
	case k.errno != 0:
		return "found"
	case kernelTypes[k.kind] != r.Type && !(v6 && r.Type == route.Multicast): // there the route's own type
		return "type"
	case r.Route != nil && r.Type == route.Unicast && r.Route.Table != k.table && k.table != 0 &&
		!(k.table == route.TableMain && r.Route.Table == route.TableLocal): // they may be one
		return "table"
	case v6 && r.Route != nil && r.Route.Metric != k.metric:
		return "metric"
	}
	return hopDisagreement(q, r, k)
}

func hopDisagreement(q route.Query, r route.Result, k answer) string {
	if !q.Source.IsValid() && r.Source != k.source && !(len(r.Nexthops) > 1 && !r.Source.IsValid()) {
		return "source"
	}
	if r.Type == route.Local || r.Type == route.Anycast {
		if r.Type == route.Local && k.device != "lo" && k.device != r.Interface {
			return "interface of a local route"
		}
		return ""
	}
	if q.InInterface != "" && (r.Type == route.Broadcast || r.Type == route.Multicast) {
		return "" // stays here
	}
	for _, h := range r.Nexthops {
		if h.Interface == k.device && (h.Via == k.via || !k.via.IsValid() && h.Via == q.Destination) {
			return ""
		}
	}
	return "next hop"
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }
