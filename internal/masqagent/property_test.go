package masqagent_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/unmasq/unmasq/internal/masqagent"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// Networks that lists and flows are made of: some nest, some are pods'.
var (
	networks = []string{"10.0.0.0/8", "10.244.0.0/16", "10.9.0.0/16", "172.16.0.0/12", "203.0.113.0/24", "0.0.0.0/0", "fd00::/8", "fd00:10:244::/48", "2001:db8::/32", "::/0"}
	ends     = []string{"10.244.1.7", "10.244.2.9", "10.9.1.1", "172.30.0.5", "192.168.1.1", "203.0.113.9", "169.254.7.7", "fd00:10:244::7", "fd00:9::1", "2001:db8::9", "fe80::1", "2600::1"}
	podCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")}
)

func within(all []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(a) })
}

// chain is what ip-masq-agent's says of a packet to an address.
func chain(c *masqagent.Config, to netip.Addr) (masquerade bool) {
	for _, d := range c.Destinations {
		if d.Contains(to) {
			return false
		}
	}
	linkLocal, switched := netip.MustParsePrefix("169.254.0.0/16"), c.MasqLinkLocal
	if to.Is6() {
		linkLocal, switched = netip.MustParsePrefix("fe80::/10"), c.MasqLinkLocalIPv6
	}
	return switched || !linkLocal.Contains(to)
}

// TestMeansTheSame: whatever is configured, a packet is masqueraded where the agent's
// chain says so, and nowhere else, but for what is meant: those to pods are left alone
// unless Inbound; and pods' are pinned to the list.
func TestMeansTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := masqagent.Settings{
			Dialect:    rapid.SampledFrom([]masqagent.Dialect{masqagent.Kubernetes, masqagent.Azure}).Draw(t, "dialect"),
			EnableIPv6: rapid.Bool().Draw(t, "ipv6"), Inbound: rapid.Bool().Draw(t, "inbound"), AllReserved: rapid.Bool().Draw(t, "reserved"),
		}
		c, loaded := configured(t, s)
		from := netip.MustParseAddr(rapid.SampledFrom(ends).Draw(t, "from"))
		to := netip.MustParseAddr(rapid.SampledFrom(ends).Draw(t, "to"))
		if from.Is4() != to.Is4() || from.IsLinkLocalUnicast() && from.Is6() {
			return
		}
		flow := packet.Flow{Source: from, Destination: to, Protocol: packet.TCP, DestinationPort: 80, Local: rapid.Bool().Draw(t, "local"), OutInterface: "eth0"}
		got := policy.Decide(&loaded.Policy, &policy.Facts{PodCIDRs: podCIDRs}, flow)

		pod := within(podCIDRs, from) && !flow.Local
		on := to.Is4() || s.EnableIPv6
		want := on && chain(&c, to) && (s.Inbound || pod || !within(podCIDRs, to))
		if masqueraded := got.Action == policy.Masquerade; masqueraded != want {
			t.Fatalf("%s → %s, local: %v: masqueraded: %v by %+v, by ip-masq-agent: %v", from, to, flow.Local, masqueraded, got.Rule, chain(&c, to))
		}
		listed := slices.ContainsFunc(c.Destinations, func(d masqagent.Destination) bool { return d.Contains(to) })
		linkLocal := to.IsLinkLocalUnicast() && !map[bool]bool{true: c.MasqLinkLocal, false: c.MasqLinkLocalIPv6}[to.Is4()]
		if pinned := got.Action == policy.Keep; pinned != (on && pod && listed && !linkLocal) {
			t.Fatalf("%s → %s, local: %v, listed: %v: pinned: %v", from, to, flow.Local, listed, pinned)
		}
	})
}

// configured draws a file.
func configured(t *rapid.T, s masqagent.Settings) (masqagent.Config, *policy.Loaded) {
	var files []masqagent.File
	if rapid.Bool().Draw(t, "file") {
		list := rapid.SliceOfN(rapid.SampledFrom(networks), 0, 4).Draw(t, "list")
		if !s.EnableIPv6 {
			list = slices.DeleteFunc(list, func(n string) bool { return strings.Contains(n, ":") })
		}
		var text strings.Builder
		if rapid.Bool().Draw(t, "listed") {
			text.WriteString("nonMasqueradeCIDRs: ['" + strings.Join(list, "', '") + "']\n")
			if len(list) == 0 {
				text.Reset()
				text.WriteString("nonMasqueradeCIDRs:\n")
			}
		}
		for _, key := range []string{"masqLinkLocal", "masqLinkLocalIPv6"} {
			if rapid.Bool().Draw(t, key) {
				text.WriteString(key + ": true\n")
			}
		}
		files = append(files, file("f", text.String()))
	}
	c, _, err := masqagent.Parse(files, s)
	if err != nil {
		t.Fatal(err)
	}
	d := c.Document()
	source, err := d.Source("f")
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := policy.Load([]policy.Source{source}, policy.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c, loaded
}
