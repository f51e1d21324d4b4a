package route_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// networks that the agreement with the kernel is tested on.
const networks = 30

func TestLookupAgreesWithKernel(t *testing.T) {
	checked, open, martians := 0, map[string]int{}, 0
	for seed := range uint64(networks) {
		ns, s := newNetwork(t, seed)
		n := readBoth(t, ns)
		k := newKernel(t, ns, n)
		for _, f := range packet.Families {
			for _, destination := range s.destinations(n, f) {
				for range 3 {
					q := s.query(n, destination)
					r, want := n.Lookup(q), k.get(t, q)
					if why := leftOpen(q, r); why != "" {
						open[why]++
						continue
					}
					if want.errno == unix.EINVAL && martian(n, q, r) {
						martians++
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
	t.Logf("checked: %d lookups against the kernel, %d refused for their source as foreseen; left open: %v", checked, martians, open)
	for why, n := range open {
		if n > checked/10 {
			t.Errorf("%d lookups were left open: %s", n, why)
		}
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

// leftOpen says why a lookup isn't compared, empty where it is.
func leftOpen(q route.Query, r route.Result) string {
	if !r.Known {
		for _, allowed := range []string{"the user who sends it", "another routing rule", "gateway answers", "several interfaces", "which next hop is chosen"} {
			if strings.Contains(r.Why, allowed) {
				return allowed
			}
		}
		return ""
	}
	switch {
	case q.InInterface != "" && q.Destination.IsMulticast():
		return "whether a group was joined"
	case q.InInterface != "" && q.Destination.Is4() && (q.Destination.IsLoopback() || q.Destination.IsUnspecified()):
		return "martian"
	case q.InInterface == "" && q.Source.Is4() && q.Source.IsLoopback():
		return "loopback source"
	}
	return ""
}

// martian says whether the kernel refuses an IPv4 packet that comes in for its
// source: the way back leads to no neighbour (fib_validate_source).
func martian(n *route.Network, q route.Query, r route.Result) bool {
	if q.InInterface == "" || q.Destination.Is6() || !r.Found || r.Type >= route.Blackhole {
		return false
	}
	outs := []string{""}
	if r.Type == route.Unicast {
		outs = outs[:0]
		for _, h := range r.Nexthops { // one of them was chosen
			outs = append(outs, h.Interface)
		}
	}
	if r.Type == route.Broadcast {
		q.Destination = netip.Addr{}
	}
	q.Mark = 0
	return slices.ContainsFunc(outs, func(out string) bool {
		_, kind, found, known := n.ReverseRoute(q, out)
		return !known || found && kind != route.Unicast
	})
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
