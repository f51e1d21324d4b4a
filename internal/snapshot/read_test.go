package snapshot_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/snapshot"
)

var update = flag.Bool("update", false, "write what is read into testdata")

// TestRead: each file of testdata holds files as people send them, and what is
// read of them. A comment "args: a.txt b.txt" says what is given; without, it is
// the directory of all files.
func TestRead(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { readFile(t, file) })
	}
}

func readFile(t *testing.T, name string) {
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	want := -1
	for i, f := range archive.Files {
		if f.Name == "want" {
			want = i
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	paths := []string{dir}
	if _, args, ok := strings.Cut(string(archive.Comment), "args:"); ok {
		paths = nil
		for _, a := range strings.Fields(args) {
			paths = append(paths, filepath.Join(dir, a))
		}
	}
	host, err := snapshot.Read(paths, nil)
	got := ""
	if err != nil {
		got = "error: " + strings.ReplaceAll(err.Error(), dir+"/", "") + "\n"
	} else {
		got = describe(host, dir)
	}
	if want < 0 {
		archive.Files = append(archive.Files, txtar.File{Name: "want"})
		want = len(archive.Files) - 1
	}
	if diff := cmp.Diff(string(archive.Files[want].Data), got); diff != "" && !*update {
		t.Errorf("-want +got\n%s", diff)
	}
	if *update {
		archive.Files[want].Data = []byte(got)
		if err := os.WriteFile(name, txtar.Format(archive), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// describe says in lines what a host holds.
func describe(h *snapshot.Host, dir string) string {
	var b strings.Builder
	if h.Name != "" {
		fmt.Fprintln(&b, "name", h.Name)
	}
	for _, f := range packet.Families {
		if h.IPTables[f] {
			fmt.Fprintln(&b, "all tables of", f)
		}
	}
	for _, x := range h.Rules.Tables {
		if x.Native != nil {
			describeNative(&b, x.Native)
			continue
		}
		rules := 0
		var names []string
		for _, c := range x.Chains {
			rules += len(c.Rules)
			names = append(names, c.Name)
		}
		kind := "whole"
		if x.Excerpt {
			kind = "excerpt"
		}
		fmt.Fprintf(&b, "%s %s %s %s of %s: %d rules in %s\n", x.Variant, x.Family, x.Name, kind, strings.TrimPrefix(x.File, dir+"/"), rules, strings.Join(names, " "))
	}
	for _, name := range slices.Sorted(maps.Keys(h.Sets)) {
		fmt.Fprintf(&b, "set %s %s: %d\n", name, h.Sets[name].Type, h.Sets[name].Len())
	}
	describeNetwork(&b, h)
	for _, name := range slices.Sorted(maps.Keys(h.Sysctls)) {
		fmt.Fprintf(&b, "sysctl %s = %s\n", name, h.Sysctls[name])
	}
	for _, c := range h.Connections {
		fmt.Fprintf(&b, "connection %s → %s\n", c.Original.Source, c.Reply.Source)
	}
	for _, v := range h.VirtualServers {
		fmt.Fprintf(&b, "virtual server %d %s %s: %v\n", v.Protocol, v.Address, v.Scheduler, v.Servers)
	}
	given(&b, h)
	for _, n := range h.Notes {
		fmt.Fprintf(&b, "note %s:%d: %s: %s\n", strings.TrimPrefix(n.File, dir+"/"), n.Line, n.Why, n.Text)
	}
	return b.String()
}

func describeNetwork(b *strings.Builder, h *snapshot.Host) {
	n := &h.Network
	for _, l := range n.Links {
		fmt.Fprintln(b, "link", l.Index, l.Name, l.Kind, l.Master)
	}
	for _, a := range n.Addresses {
		fmt.Fprintln(b, "address", a.Interface, a.Prefix)
	}
	for _, r := range n.Routes {
		fmt.Fprintf(b, "route %s %s table %d:", r.Type, r.Destination, r.Table)
		for _, hop := range r.Nexthops {
			fmt.Fprintf(b, " via %s dev %s", hop.Via, hop.Interface)
		}
		fmt.Fprintln(b)
	}
	for _, r := range n.Rules {
		fmt.Fprintln(b, "rule", r.Family, r.Priority, "table", r.Table)
	}
	for _, x := range n.Neighbors {
		fmt.Fprintln(b, "neighbour", x.Address, x.Interface, x.MAC)
	}
	for _, x := range n.Forwarding {
		fmt.Fprintln(b, "forward", x.MAC, x.Interface, x.Remote)
	}
}

// given lists what was given at all.
func given(b *strings.Builder, h *snapshot.Host) {
	var words []string
	for _, x := range []struct {
		given bool
		word  string
	}{
		{h.Sets != nil, "sets"}, {h.ConnectionsGiven, "connections"}, {h.VirtualServersGiven, "virtual servers"}, {h.AllSysctls, "all sysctls"},
		{h.NFTGiven, "nft"}, {h.Network.KnownLinks, "links"}, {h.Network.KnownAddresses, "addresses"},
		{h.Network.IPv4.Main, "IPv4 routes"}, {h.Network.IPv4.AllTables, "all IPv4 routes"}, {h.Network.IPv4.Rules, "IPv4 rules"},
		{h.Network.IPv6.Main, "IPv6 routes"}, {h.Network.IPv6.AllTables, "all IPv6 routes"}, {h.Network.IPv6.Rules, "IPv6 rules"},
	} {
		if x.given {
			words = append(words, x.word)
		}
	}
	if len(words) > 0 {
		fmt.Fprintln(b, "given:", strings.Join(words, ", "))
	}
}

func describeNative(b *strings.Builder, t *nftables.Table) {
	for _, c := range t.Chains {
		if c.Base != nil {
			fmt.Fprintf(b, "native %s %s %s: %s at %s %d, %d rules, handle %d\n", t.Family, t.Name, c.Name, c.Base.Type, c.Base.Hook, c.Base.Priority, len(c.Rules), t.Handle)
		}
	}
}
