package route_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

var update = flag.Bool("update", false, "write what is read into testdata")

var kinds = map[string]route.Kind{
	"links": route.Links, "addresses": route.Addresses, "routes": route.Routes, "rules": route.Rules,
	"neighbors": route.Neighbors, "bridgelinks": route.BridgeLinks, "fdb": route.FDB,
}

// TestRead reads the files of testdata/*.txtar: KIND[6].txt together, KIND[6].json
// together; the file want is what must come out of either.
func TestRead(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) { readArchive(t, name) })
	}
}

func readArchive(t *testing.T, name string) {
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var want *txtar.File
	networks, problems := map[string]*route.Network{}, map[string]string{}
	for i := range archive.Files {
		f := &archive.Files[i]
		kind, form, ok := strings.Cut(f.Name, ".")
		if !ok {
			want = f
			continue
		}
		kind, is6 := strings.CutSuffix(kind, "6")
		family := packet.Family(0)
		if is6 {
			family = packet.IPv6Family
		}
		n := networks[form]
		if n == nil {
			n = &route.Network{}
			networks[form] = n
		}
		read := n.ReadText
		if form == "json" {
			read = n.ReadJSON
		}
		for _, p := range read(kinds[kind], string(f.Data), 1, family) {
			problems[form] += fmt.Sprintf("problem: %s line %d: %s: %s\n", kind, p.Line, p.Text, p.Why)
		}
	}
	for form, n := range networks {
		got := problems[form] + describe(n)
		if *update {
			want.Data = []byte(got)
			if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(string(want.Data), got); d != "" {
			t.Errorf("%s (-want +got):\n%s", form, d)
		}
	}
}

// describe prints a network, a line for each part.
func describe(n *route.Network) string {
	var b strings.Builder
	for i := range n.Links {
		fmt.Fprintln(&b, "link", compact(n.Links[i]))
	}
	for i := range n.Addresses {
		fmt.Fprintln(&b, "address", compact(n.Addresses[i]))
	}
	for _, r := range n.Routes {
		fmt.Fprintln(&b, "route", compact(r))
		for _, h := range r.Nexthops {
			fmt.Fprintln(&b, "  nexthop", compact(h))
		}
	}
	for i := range n.Rules {
		fmt.Fprintln(&b, "rule", compact(n.Rules[i]))
	}
	for i := range n.Neighbors {
		fmt.Fprintln(&b, "neighbor", compact(n.Neighbors[i]))
	}
	for i := range n.Forwarding {
		fmt.Fprintln(&b, "forward", compact(n.Forwarding[i]))
	}
	fmt.Fprintln(&b, "known: links", n.KnownLinks, "addresses", n.KnownAddresses, "IPv4", compact(n.IPv4), "IPv6", compact(n.IPv6))
	return b.String()
}

// compact prints the fields of a struct that aren't zero, but for next hops and text.
func compact(s any) string {
	v := reflect.ValueOf(s)
	var out []string
	for i := range v.NumField() {
		name, f := v.Type().Field(i).Name, v.Field(i)
		if f.IsZero() || name == "Nexthops" || name == "Text" {
			continue
		}
		if f.Kind() == reflect.Pointer {
			f = f.Elem()
		}
		out = append(out, fmt.Sprintf("%s:%v", name, f.Interface()))
	}
	return strings.Join(out, " ")
}
