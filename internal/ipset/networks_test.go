package ipset

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestNetworks: what a set is said as has the addresses that the set has.
func TestNetworks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := []string{"create s hash:net family inet", "create a hash:ip family inet", "create all list:set size 8", "add all s", "add all a"}
		elements := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3", "192.0.2.0/25", "128.0.0.0/1", "0.0.0.0/1"}), rapid.ID[string]).Draw(t, "elements")
		for _, e := range elements {
			lines = append(lines, "add s "+e+rapid.SampledFrom([]string{"", "", " nomatch"}).Draw(t, "nomatch"))
		}
		lines = append(lines, "add a 10.1.2.4", "add a 203.0.113.0/30")
		sets, problems := Read(strings.Join(lines, "\n")+"\n", 1)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		for _, name := range []string{"s", "a", "all"} {
			in, except, why := sets[name].Networks(sets)
			if why != "" {
				continue
			}
			for _, text := range []string{"10.1.2.3", "10.1.2.4", "10.1.3.1", "10.2.0.1", "192.0.2.1", "192.0.2.200", "8.8.8.8", "203.0.113.2"} {
				a := netip.MustParseAddr(text)
				holds := func(p netip.Prefix) bool { return p.Contains(a) }
				said := slices.ContainsFunc(in, holds) && !slices.ContainsFunc(except, holds)
				answer, _ := sets[name].Contains(sets, Packet{Source: a}, []bool{true})
				if said != (answer == Yes) {
					t.Fatalf("%s in %s: %v, said as %v except %v\n%s", a, name, answer, in, except, strings.Join(lines, "\n"))
				}
			}
		}
	})
}

// What can't be said has a reason.
func TestNoNetworks(t *testing.T) {
	for text, want := range map[string]string{
		"create s hash:ip,port family inet\n":                                                          "its type is hash:ip,port",
		"create s hash:ip family inet netmask 24\n":                                                    "under a mask",
		"create s hash:net family inet\nadd s 10.0.0.0/8 nomatch\nadd s 10.1.0.0/16\n":                 "within its nomatch elements",
		"create s list:set size 8\nadd s other\n":                                                      "its member other wasn't given",
		"create s list:set size 8\nadd s n\ncreate n hash:net family inet\nadd n 10.0.0.0/8 nomatch\n": "its member n",
		"add s 10.0.0.1\n": "the line that creates it",
	} {
		sets, _ := Read(text, 1)
		if _, _, why := sets["s"].Networks(sets); !strings.Contains(why, want) {
			t.Errorf("%q: %q, want %q", text, why, want)
		}
	}
}
