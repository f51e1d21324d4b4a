package route_test

import (
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// networks that the agreement with the kernel is tested on.
const networks = 25

func TestLookupAgreesWithKernel(t *testing.T) {
	checked, open := 0, 0
	for seed := range uint64(networks) {
		ns, s := newNetwork(t, seed)
		n := readBoth(t, ns)
		k := newKernel(t, ns, n)
		for _, f := range packet.Families {
			for _, destination := range s.destinations(n, f) {
				for range 3 {
					q := s.query(n, destination)
					r, want := n.Lookup(q), k.get(t, q)
					if skipped(n, q, r, want) {
						open++
						continue
					}
					checked++
					if d := disagreement(q, r, want); d != "" {
						t.Errorf("seed %d, %+v: %s\n ours: %+v %v\n kernel: %v\n%s", seed, q, d, r, r.Route, want, strings.Join(s.lines, "\n"))
						dump(t, n)
						return
					}
				}
			}
		}
	}
	t.Logf("checked: %d lookups against the kernel, %d left open", checked, open)
	if open > checked/10 {
		t.Errorf("%d of %d lookups were left open", open, checked)
	}
}

// query is a random one for a destination.
func (s *scenario) query(n *route.Network, destination netip.Addr) route.Query {
	q := route.Query{
		Destination: destination, Mark: pick(s.Rand, uint32(0), 0, 1, 0x10, 0x13),
		Protocol: pick(s.Rand, uint8(packet.TCP), packet.UDP), SourcePort: pick(s.Rand, 53, 4000), DestinationPort: pick(s.Rand, 80, 443),
		TOS: pick(s.Rand, uint8(0), 0, 0x10),
	}
	switch s.IntN(4) {
	case 0: // forwarded
		q.InInterface = s.dev()
		q.Source = netip.MustParseAddr("198.51.100.7")
		if destination.Is6() {
			q.Source = netip.MustParseAddr(s.address6())
		} else if s.IntN(2) == 0 {
			q.Source = netip.MustParseAddr(s.address4())
		}
	case 1: // from an address of its own
		a := n.Addresses[s.IntN(len(n.Addresses))].Prefix.Addr()
		if a.Is4() == destination.Is4() {
			q.Source = a
		}
	case 2:
		q.OutInterface = s.dev()
	}
	return q
}

// skipped: what a dump doesn't tell, and what the kernel refuses for its source.
func skipped(n *route.Network, q route.Query, r route.Result, want answer) bool {
	if !r.Known {
		return strings.Contains(r.Why, "user") || strings.Contains(r.Why, "another routing rule") || strings.Contains(r.Why, "gateway answers")
	}
	if q.InInterface != "" && q.Destination.IsMulticast() {
		return true // whether a group was joined
	}
	if q.InInterface == "" || q.Destination.Is6() {
		return q.Source.IsLoopback() && want.errno == unix.EINVAL // leaves by no other interface
	}
	if q.Destination.IsLoopback() || q.Destination.IsUnspecified() {
		return true // martians
	}
	out := ""
	if r.Type == route.Unicast {
		out = want.device
	}
	_, kind, found, known := n.ReverseRoute(q.Source, q.Destination, q.InInterface, out, 0)
	return !known || found && kind != route.Unicast
}

func dump(t *testing.T, n *route.Network) {
	t.Helper()
	for _, a := range n.Addresses {
		t.Logf("%+v", a)
	}
	for _, r := range n.Rules {
		t.Log(r.Family, r.Text)
	}
	for _, r := range n.Routes {
		t.Log(r.Text)
	}
}
