package route_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// seeds are the files of testdata.
func seeds(f *testing.F) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		f.Fatal(names, err)
	}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range txtar.Parse(data).Files {
			for kind := range route.FDB {
				f.Add(uint8(kind+1), string(file.Data))
			}
		}
	}
}

func FuzzReadText(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, kind uint8, text string) {
		n := &route.Network{}
		n.ReadText(route.Kind(kind), text, 1, 0)
		checkRead(t, n)
	})
}

func FuzzReadJSON(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, kind uint8, text string) {
		n := &route.Network{}
		n.ReadJSON(route.Kind(kind), text, 1, 0)
		checkRead(t, n)
	})
}

// checkRead: whatever was read is well formed, and can be asked.
func checkRead(t *testing.T, n *route.Network) {
	for _, r := range n.Routes {
		if r.Family != packet.IPv4Family && r.Family != packet.IPv6Family || !r.Destination.IsValid() || r.Destination != r.Destination.Masked() ||
			packet.Of(r.Destination.Addr()) != r.Family || r.Text == "" {
			t.Errorf("route %+v", r)
		}
	}
	for _, r := range n.Rules {
		if r.Family != packet.IPv4Family && r.Family != packet.IPv6Family || r.Text == "" {
			t.Errorf("rule %+v", r)
		}
	}
	for _, a := range n.Addresses {
		if !a.Prefix.IsValid() || a.Interface == "" {
			t.Errorf("address %+v", a)
		}
	}
	n.IPv4.Main, n.IPv6.Main = true, true
	n.Complete()
	for _, a := range []string{"10.0.0.1", "8.8.8.8", "255.255.255.255", "2001:db8::1", "fe80::1", "ff02::1"} {
		a := netip.MustParseAddr(a)
		n.Lookup(route.Query{Destination: a, SourcePort: -1, DestinationPort: -1})
		n.Lookup(route.Query{Source: a, Destination: a, InInterface: "v0"})
		n.TypeOf(a, "v0")
		n.HasType(a, 0xffff, "")
		n.ReversePath(a, a, "v0", 1)
		n.MasqueradeAddress("v0", a, a)
	}
	n.Boundaries(packet.IPv4Family)
	n.Boundaries(packet.IPv6Family)
}
