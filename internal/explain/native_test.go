package explain

import (
	"net/netip"
	"testing"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// NAT rules that are there and aren't read may translate any packet on their way:
// its source isn't known then, and the answer says whose rules they are.
func TestNativeNATIsUnknown(t *testing.T) {
	q := sim.Question{
		Source: netip.MustParseAddr("10.244.1.7"), Destination: netip.MustParseAddr("192.0.2.1"),
		SourcePort: sim.UnknownPort, DestinationPort: sim.UnknownPort,
	}
	for _, c := range []struct {
		chain ruleset.NativeChain
		kind  string
		owner string
	}{
		{ruleset.NativeChain{Family: "ip", Table: "docker-bridges", Name: "nat-POSTROUTING", Type: "nat", Hook: "postrouting", Priority: 100, Rules: 1}, "unknown", "docker"},
		{ruleset.NativeChain{Family: "ip", Table: "mine", Name: "post", Type: "nat", Hook: "postrouting", Priority: 100, Rules: 1}, "unknown", ""},
		{ruleset.NativeChain{Family: "ip", Table: "mine", Name: "fwd", Type: "filter", Hook: "forward", Rules: 1}, "kept", ""},
		{ruleset.NativeChain{Family: "ip6", Table: "mine", Name: "post", Type: "nat", Hook: "postrouting", Priority: 100, Rules: 1}, "kept", ""},
	} {
		host := &snapshot.Host{NFTGiven: true}
		host.Rules.Native = []ruleset.NativeChain{c.chain}
		a := New(Node{Host: host}).Explain(q, sim.Options{})
		if len(a.Outcomes) != 1 {
			t.Errorf("%v: %d outcomes, want 1", c.chain, len(a.Outcomes))
			continue
		}
		o := a.Outcomes[0]
		if o.SourceKind != c.kind || (o.Source == nil) != (c.kind == "unknown") || a.Unknown() != (c.kind == "unknown") {
			t.Errorf("%v: source %v, %s, unknown %t; want %s", c.chain, o.Source, o.SourceKind, a.Unknown(), c.kind)
		}
		owners := ""
		for _, d := range o.DependsOn {
			owners += d.Owner
		}
		if owners != c.owner {
			t.Errorf("%v: of %q, want %q", c.chain, owners, c.owner)
		}
	}
}
