package route_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// TestLocalTableDerived: without table local the addresses tell the same, and
// where they don't, the answer isn't known.
func TestLocalTableDerived(t *testing.T) {
	checked, open := 0, 0
	for seed := range uint64(networks) {
		if seed%4 == 0 {
			continue // with routes of one's own in table local
		}
		ns, s := newNetwork(t, seed)
		full := read(t, ns, true)
		less := *full
		less.Routes = slices.DeleteFunc(slices.Clone(full.Routes), func(r route.Route) bool { return r.Table == route.TableLocal })
		less.IPv4.AllTables, less.IPv6.AllTables = false, false
		less.Complete()
		for _, f := range packet.Families {
			for _, destination := range s.destinations(full, f) {
				q := s.query(full, destination)
				a, b := full.Lookup(q), less.Lookup(q)
				if !b.Known && (!a.Known || strings.Contains(b.Why, "wasn't given") || strings.Contains(b.Why, "depends on sysctl forwarding") ||
					strings.Contains(b.Why, "several interfaces have it")) {
					open++
					continue
				}
				checked++
				if !sameWay(a, b) && !(destination.IsMulticast() && destination.Is6()) { // whose first interface is
					t.Fatalf("seed %d, %+v:\n whole:  %+v %v\n derived: %+v %v", seed, q, a, a.Route, b, b.Route)
				}
				local, _ := full.IsLocal(destination)
				derived, known := less.IsLocal(destination)
				if known && local != derived {
					t.Fatalf("seed %d: %s is local: %v, derived %v, known %v", seed, destination, local, derived, known)
				}
			}
		}
	}
	t.Logf("checked: %d lookups without table local, %d left open", checked, open)
	if open > checked {
		t.Error("too many were left open")
	}
}

func sameWay(a, b route.Result) bool {
	if a.Known && a.Type == route.Local { // which of several interfaces that have it, nobody asks
		return b.Known && b.Type == route.Local
	}
	return a.Known == b.Known && a.Found == b.Found && a.Type == b.Type && a.Interface == b.Interface && a.Source == b.Source &&
		slices.EqualFunc(a.Nexthops, b.Nexthops, func(a, b route.Nexthop) bool {
			a.LinkDown, b.LinkDown = false, false // of no consequence
			return a == b
		})
}
