package foreign_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
)

var update = flag.Bool("update", false, "write testdata anew")

func TestMain(m *testing.M) { netnstest.Main(m) }

func prefixes(texts ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, t := range texts {
		out = append(out, netip.MustParsePrefix(t))
	}
	return out
}

func addresses(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

func node() foreign.Node {
	return foreign.Node{
		Bridge: "cni0",
		IPv4: foreign.Addresses{
			ClusterPods: netip.MustParsePrefix("10.244.0.0/16"),
			LocalPods:   netip.MustParsePrefix("10.244.1.0/24"),
			Pods:        addresses("10.244.1.2", "10.244.1.3"),
			PodSubnets:  prefixes("10.244.1.0/24", "10.244.2.0/24"),
			Nodes:       addresses("172.18.0.11", "172.18.0.12"),
		},
		IPv6: foreign.Addresses{
			ClusterPods: netip.MustParsePrefix("fd00:10:244::/48"),
			LocalPods:   netip.MustParsePrefix("fd00:10:244:1::/64"),
			Pods:        addresses("fd00:10:244:1::2"),
			PodSubnets:  prefixes("fd00:10:244:1::/64", "fd00:10:244:2::/64"),
			Nodes:       addresses("fd00:18::11", "fd00:18::12"),
		},
	}
}

// TestRules loads each component with the real programs, in both variants,
// and compares what those list after each operation. Rules of another hand
// stand in POSTROUTING from the start, and come to its top and end before the
// restart, to show where the component's go.
func TestRules(t *testing.T) {
	for _, c := range append(foreign.Components(), foreign.KubeProxy()) {
		for _, v := range foreign.Variants {
			t.Run(c.Name+"/"+string(v), func(t *testing.T) {
				t.Parallel()
				compareGolden(t, c.Name, operate(t, c, v))
			})
		}
	}
}

func operate(t *testing.T, c foreign.Component, v foreign.Variant) string {
	ns := netnstest.Test(t, "foreign")
	exec := foreign.In(ns)
	another := func(where, comment string) {
		for _, f := range packet.Families {
			if err := foreign.Run(t.Context(), exec, []foreign.Step{anothersRule(v, f, where, comment)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	another("-A", "before")
	var out strings.Builder
	for _, op := range []struct {
		name  string
		steps foreign.Steps
	}{{"write", c.Write}, {"restart", c.Restart}, {"remove", c.Remove}} {
		if op.name == "restart" {
			another("-I", "later, at the top")
			another("-A", "later, at the end")
		}
		for _, f := range packet.Families {
			if err := foreign.Run(t.Context(), exec, op.steps(node(), v, f)); err != nil {
				t.Fatalf("%s: %v", op.name, err)
			}
		}
		fmt.Fprintf(&out, "-- %s --\n%s", op.name, listing(t, ns, c, v))
	}
	return out.String()
}

func anothersRule(v foreign.Variant, f packet.Family, where, comment string) foreign.Step {
	program := "iptables-"
	if f == packet.IPv6Family {
		program = "ip6tables-"
	}
	return foreign.Step{Program: program + string(v), Args: []string{"-t", "nat", where, "POSTROUTING", "-m", "comment", "--comment", comment, "-j", "ACCEPT"}}
}

// changing parts of listings: counters of chains, and what ipset makes up.
var changing = regexp.MustCompile(` \[\d+:\d+\]| bucketsize \d+| initval 0x[0-9a-f]+`)

func listing(t *testing.T, ns *netns.NS, c foreign.Component, v foreign.Variant) string {
	t.Helper()
	var out strings.Builder
	list := func(program string, args ...string) {
		text, err := ns.Run("", program, args...)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(changing.ReplaceAllString(text, "")) {
			if !strings.HasPrefix(line, "#") && !strings.HasSuffix(line, " ACCEPT\n") || strings.HasPrefix(line, "-A") {
				out.WriteString(line)
			}
		}
	}
	if c.Native {
		tables, err := ns.Run("", "nft", "list", "tables")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(tables) {
			if !strings.HasSuffix(line, " nat\n") {
				list("nft", append([]string{"list"}, strings.Fields(line)...)...)
			}
		}
		return out.String()
	}
	list("iptables-"+string(v)+"-save", "-t", "nat")
	list("ip6tables-"+string(v)+"-save", "-t", "nat")
	list("ipset", "-s", "save")
	return out.String()
}

func compareGolden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("listing (-want +got):\n%s", diff)
	}
}

// TestFieldRules is the text of flannel's four rules as operators see them.
func TestFieldRules(t *testing.T) {
	n := foreign.Node{IPv4: foreign.Addresses{
		ClusterPods: netip.MustParsePrefix("172.16.0.0/16"), LocalPods: netip.MustParsePrefix("172.16.4.0/24"),
	}}
	var got []string
	for _, s := range foreign.FlannelOld().Write(n, foreign.Legacy, packet.IPv4Family) {
		got = append(got, s.String())
	}
	want := []string{
		"-s 172.16.0.0/16 -d 172.16.0.0/16 -j RETURN",
		"-s 172.16.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE",
		"! -s 172.16.0.0/16 -d 172.16.4.0/24 -j RETURN",
		"! -s 172.16.0.0/16 -d 172.16.0.0/16 -j MASQUERADE",
	}
	for i, rule := range want {
		want[i] = fmt.Sprintf("iptables-legacy --wait -t nat -C POSTROUTING %[1]s 2>/dev/null || iptables-legacy --wait -t nat -A POSTROUTING %[1]s", rule)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("steps (-want +got):\n%s", diff)
	}
	if steps := foreign.FlannelOld().Write(n, foreign.Legacy, packet.IPv6Family); steps != nil {
		t.Errorf("without IPv6 pods: %v, want none", steps)
	}
}

// TestPrintedSteps executes what String prints in a shell: it must do the same.
func TestPrintedSteps(t *testing.T) {
	for _, c := range foreign.Components() {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			direct, typed := netnstest.Test(t, "direct"), netnstest.Test(t, "typed")
			for _, f := range packet.Families {
				steps := c.Write(node(), foreign.NFT, f)
				if err := foreign.Run(t.Context(), foreign.In(direct), steps); err != nil {
					t.Fatal(err)
				}
				for _, s := range steps {
					if _, err := typed.Run("", "sh", "-c", s.String()); err != nil {
						t.Fatal(err)
					}
				}
			}
			if diff := cmp.Diff(listing(t, direct, c, foreign.NFT), listing(t, typed, c, foreign.NFT)); diff != "" {
				t.Errorf("directly and by shell:\n%s", diff)
			}
		})
	}
}
