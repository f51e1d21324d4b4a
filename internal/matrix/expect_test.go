package matrix_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/matrix"
)

// TestExpect: what a person writes by hand, and what comes of it.
func TestExpect(t *testing.T) {
	m := matrix.Predict(matrix.Situation{Nodes: example(t, nil)})
	for _, c := range []struct{ name, cells, want string }{
		{"as they are", `
- {row: pod-here, column: pod-there, sees: kept}
- {row: pod-here, column: outside, family: ipv4, sees: as node-a}
- {row: pod-here, column: outside, sees: as node-a's eth0}
- {row: pod-here, column: outside, sees: as 192.0.2.11}
- {row: pod-here, column: outside, sees: masqueraded}
- {row: outside, column: default/web:http, sees: [as node-a's cni0, as node-a's flannel.1]}
- {row: outside, column: cluster-ip-both, sees: as node-a}
- {row: pod on node-a, column: itself, sees: as node-a}
- {row: this-node, column: itself, sees: none}
`, "9 cells compared, 0 differ\n"},
		{"otherwise", `
- {row: pod-here, column: outside, sees: kept}
- row: pod-there
  column: outside
  sees: [as node-b, lost]
- {row: pod-here, column: pod-there, sees: as node-a}
- {row: pod-here, column: outside, sees: as node-b}
- {row: pod-here, column: outside, sees: as 192.0.2.12}
- {row: this-node, column: outside, sees: as node-a's cni0}
- {row: this-node, column: outside, sees: none}
`, `f:2: pod-here to outside (ipv4): expected kept, is as node-a's eth0
f:3: pod-there to outside (ipv4): expected as node-b, lost, is as node-b's eth0
f:6: pod-here to pod-there (ipv4): expected as node-a, is kept
f:7: pod-here to outside (ipv4): expected as node-b, is as node-a's eth0
f:8: pod-here to outside (ipv4): expected as 192.0.2.12, is as node-a's eth0
f:9: this-node to outside (ipv4): expected as node-a's cni0, is kept (eth0)
f:10: this-node to outside (ipv4): expected none, is kept (eth0)
7 cells compared, 7 differ
`},
		{"not to be answered", `
- {row: pod-here, column: outside, sees: as node-a}
- {row: office, column: outside, sees: lost}
- {row: pod-here, column: node-port-local, sees: kept}
- {row: pod-here, column: outside, family: ipv6, sees: kept}
- {row: outside, column: outside, sees: kept}
`, `f:3: office to outside: expected lost, can't be answered: the table has no row "office"
f:4: pod-here to node-port-local: expected kept, can't be answered: the table has no column "node-port-local"
f:5: pod-here to outside (ipv6): expected kept, can't be answered: nothing is known
f:6: outside to outside: expected kept, can't be answered: both are outside
1 cells compared, 0 differ, 4 can't be answered
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, err := matrix.ReadExpected("f", "cells:"+c.cells)
			if err != nil {
				t.Fatal(err)
			}
			got := m.Compare(e)
			if diff := cmp.Diff(c.want, got.Text()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestExpectWhatWasPrinted: the JSON of a matrix expects just that matrix, and sees
// what is otherwise in another.
func TestExpectWhatWasPrinted(t *testing.T) {
	printed := func(m matrix.Matrix) matrix.Expected {
		text, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		e, err := matrix.ReadExpected("expected.json", string(text))
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	usual := matrix.Predict(matrix.Situation{Nodes: []matrix.Node{dumped(t, "kube-proxy-v1.37.1-nft")}})
	for _, name := range []string{"kube-proxy-v1.37.1-nft", "kube-proxy-v1.34.4-legacy", "kube-proxy-v1.36.3-nftables"} {
		m := matrix.Predict(matrix.Situation{Nodes: []matrix.Node{dumped(t, name)}})
		if c := m.Compare(printed(usual)); len(c.Differences) > 0 || c.Compared < 60 {
			t.Errorf("%s: %s", name, c.Text())
		}
	}
	all := matrix.Predict(matrix.Situation{Nodes: []matrix.Node{dumped(t, "kube-proxy-v1.37.1-masquerade-all-nft")}})
	c := all.Compare(printed(usual))
	var cells []string
	for _, d := range c.Differences {
		if d.Family == "ipv4" {
			cells = append(cells, d.Row+" to "+d.Column+": "+d.Want+", is "+d.Got)
		}
	}
	want := []string{
		"pod-here to cluster-ip-here: kept, is as n1's cni0",
		"pod-here to cluster-ip-there: kept, is as n1's eth0",
		"pod-here to cluster-ip-both: kept, is as n1's cni0 50 %, as n1's eth0 50 %",
	}
	if diff := cmp.Diff(want, cells); diff != "" {
		t.Errorf("masqueradeAll\n-want +got\n%s", diff)
	}
	if d := c.Differences[0]; d.Line == 0 {
		t.Error("no line")
	}
}

// TestMeasuredCounts: what was measured is compared, not what was predicted.
func TestMeasuredCounts(t *testing.T) {
	m := matrix.Predict(matrix.Situation{Nodes: example(t, nil)})
	e, err := matrix.ReadExpected("f", "cells: [{row: pod-here, column: outside, sees: as node-a}]")
	if err != nil {
		t.Fatal(err)
	}
	for i := range m.Cells {
		if c := &m.Cells[i]; c.Row == "pod-here" && c.Column == "outside" {
			c.Measured, c.Differs = []matrix.Sight{{Verdict: matrix.Kept, Source: netip.MustParseAddr("10.244.1.2"), As: matrix.Itself}}, true
		}
	}
	m.Measured = true
	if c := m.Compare(e); len(c.Differences) != 1 || c.Differences[0].Got != "kept" {
		t.Error(c.Text())
	}
	if text := m.Text(); !strings.Contains(text, "measured: kept") {
		t.Errorf("the difference isn't shown:\n%s", text)
	}
}

// TestRefused: files that can't be read, each with what is wrong and what was expected.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "f: is empty; expected cells:"},
		{"# nothing", "f: is empty; expected cells:"},
		{"cells: []", "f:1: cells: nothing is expected there; expected a list of row, column and sees"},
		{"- {row: a}", "f:1: found a list; expected a mapping with version, nodes, policies, rows, columns, cells, notes, measured"},
		{"cell: []", `f:1: "cell" is no field; expected version, nodes, policies, rows, columns, cells, notes, measured`},
		{"version: 2\ncells: []", `f:1: version: found "2"; expected 1`},
		{"cells: {}", "f:1: cells: found a mapping; expected a list"},
		{"cells:\n- kept", `f:2: cells[0]: found "kept"; expected a mapping with row, column, family, sees, source, destination, predicted, before, measured, differs, why`},
		{"cells:\n- {row: a, sees: kept}", "f:2: cells[0]: expected row and column, as the table names them"},
		{"cells:\n- {row: a, column: b}", "f:2: cells[0].sees: missing; expected kept, pinned, masqueraded, snat, lost, refused, unknown, none, or as NAME, or a list of these"},
		{"cells:\n- {row: a, column: b, sees: keep}", `f:2: cells[0].sees: "keep"; expected kept, pinned, masqueraded, snat, lost, refused, unknown, none, or as NAME, or a list of these`},
		{"cells:\n- {row: a, column: b, sees: as}", `f:2: cells[0].sees: "as"; expected kept, pinned, masqueraded, snat, lost, refused, unknown, none, or as NAME, or a list of these`},
		{"cells:\n- {row: a, column: b, sees: []}", "f:2: cells[0].sees: is empty; expected kept, pinned, masqueraded, snat, lost, refused, unknown, none, or as NAME, or a list of these"},
		{"cells:\n- {row: a, column: b, sees: [kept, {}]}", "f:2: cells[0].sees: found a mapping; expected a word"},
		{"cells:\n- {row: a, column: b, sees: }", "f:2: cells[0].sees: found nothing; expected a word"},
		{"cells:\n- {row: a, column: b, sees: kept, predicted: []}", "f:2: cells[0]: has sees and predicted; expected one of them"},
		{"cells:\n- {row: a, column: b, predicted: [{verdict: keep}]}", `f:2: cells[0].predicted[0].verdict: "keep"; expected one of [kept pinned masqueraded snat lost refused unknown none]`},
		{"cells:\n- {row: a, column: b, family: inet, sees: kept}", `f:2: cells[0].family: "inet"; expected ipv4 or ipv6, or leave it out`},
		{"cells:\n- {row: a, row: b, column: b, sees: kept}", "f:2: cells[0]: row stands there twice"},
		{"cells:\n- {row: a\n", "f:"},
		{"cells: []\n---\ncells: []", "f:3: a second document; expected one"},
		{"cells: \xff", "f:1: byte 0xff is not UTF-8"},
	} {
		_, err := matrix.ReadExpected("f", c.text)
		if err == nil || err.Error() != c.want && !(c.want == "f:" && strings.HasPrefix(err.Error(), "f:")) {
			t.Errorf("%q: %v\nwant %s", c.text, err, c.want)
		}
	}
}

// TestPlacesFile reads all that a place may have, and refuses what it can't.
func TestPlacesFile(t *testing.T) {
	got, err := matrix.ReadPlaces("f", `
places:
- {kind: outside, name: office, node: node-a, interface: eth1, addresses: [192.168.200.10, "2001:db8::7"], only: source}
- {kind: network, cidr: 192.168.201.0/24}
- {kind: network, name: six, cidr: "2001:db8:1::/48", port: 443}
- {kind: pod, name: default/web-0, addresses: [10.244.1.8], port: 8080, only: destination}
- {kind: node, name: node-c, addresses: [192.0.2.13]}
`)
	if err != nil {
		t.Fatal(err)
	}
	address := netip.MustParseAddr
	want := []matrix.Place{
		{Kind: matrix.Outside, Name: "office", Node: "node-a", Interface: "eth1", Addresses: []netip.Addr{address("192.168.200.10"), address("2001:db8::7")}, Only: matrix.Source},
		{Kind: matrix.Network, Name: "192.168.201.0/24", CIDR: netip.MustParsePrefix("192.168.201.0/24"), Addresses: []netip.Addr{address("192.168.201.1")}},
		{Kind: matrix.Network, Name: "six", CIDR: netip.MustParsePrefix("2001:db8:1::/48"), Addresses: []netip.Addr{address("2001:db8:1::1")}, Port: 443},
		{Kind: matrix.Pod, Name: "default/web-0", Addresses: []netip.Addr{address("10.244.1.8")}, Port: 8080, Only: matrix.Destination},
		{Kind: matrix.Host, Name: "node-c", Addresses: []netip.Addr{address("192.0.2.13")}},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	for _, c := range []struct{ text, want string }{
		{"", "f: is empty; expected places:"},
		{"places: []", "f:1: places: none are there; expected a list of them"},
		{"places:\n- {kind: host, name: a}", `f:2: places[0].kind: "host"; expected pod, node, outside or network`},
		{"places:\n- {kind: pod, name: a, addres: 1}", `f:2: places[0]: "addres" is no field; expected kind, name, node, interface, addresses, cidr, port, only`},
		{"places:\n- {kind: pod, addresses: [10.0.0.1]}", "f:2: places[0]: has no name"},
		{"places:\n- {kind: pod, name: a}", "f:2: places[0].addresses: none; expected one of each family that it has"},
		{"places:\n- {kind: pod, name: a, addresses: 10.0.0.1}", `f:2: places[0].addresses: found "10.0.0.1"; expected a list`},
		{"places:\n- {kind: pod, name: a, addresses: [10.0.0.256]}", `f:2: places[0].addresses[0]: "10.0.0.256"; expected a host's address`},
		{"places:\n- {kind: pod, name: a, addresses: [127.0.0.1]}", `f:2: places[0].addresses[0]: "127.0.0.1"; expected a host's address`},
		{"places:\n- {kind: pod, name: a, addresses: [10.0.0.1, 10.0.0.2]}", "f:2: places[0].addresses[1]: 10.0.0.2 is a second IPv4 address; expected one of each family"},
		{"places:\n- {kind: pod, name: a, addresses: [10.0.0.1], port: 0}", `f:2: places[0].port: "0"; expected a number from 1 to 65535`},
		{"places:\n- {kind: pod, name: a, addresses: [10.0.0.1], only: sources}", `f:2: places[0].only: "sources"; expected source or destination`},
		{"places:\n- {kind: pod, name: a, addresses: [10.0.0.1], cidr: 10.0.0.0/8}", "f:2: places[0].cidr: is for kind network; expected addresses"},
		{"places:\n- {kind: network, name: a}", "f:2: places[0].cidr: missing; expected a network such as 192.168.200.0/24"},
		{"places:\n- {kind: network, cidr: 10.0.0.1/8}", `f:2: places[0].cidr: "10.0.0.1/8"; expected a network such as 192.168.200.0/24`},
		{"places:\n- {kind: network, cidr: 10.0.0.0/8, addresses: [10.0.0.1]}", "f:2: places[0].addresses: isn't for kind network; expected cidr"},
		{"places:\n- {kind: pod, name: a, addresses: [10.0.0.1]}\n- {kind: node, name: a, addresses: [10.0.0.2]}", `f:3: places[1].name: "a" is another place's name too`},
	} {
		if _, err := matrix.ReadPlaces("f", c.text); err == nil || err.Error() != c.want {
			t.Errorf("%q: %v\nwant %s", c.text, err, c.want)
		}
	}
}

// TestColumnOfOneFamily that nobody is asked about stands in a table of both, with its
// own address.
func TestColumnOfOneFamily(t *testing.T) {
	place := matrix.Place{Kind: matrix.Pod, Name: "elsewhere", Only: matrix.Destination, Addresses: []netip.Addr{netip.MustParseAddr("2001:db8:9::9")}}
	s := matrix.Situation{Nodes: []matrix.Node{dumped(t, "kube-proxy-v1.37.1-nft")}, Places: []matrix.Place{place}}
	m := matrix.Predict(s)
	for i := range m.Cells { // as if nothing of it were known
		if c := &m.Cells[i]; c.Column == "pod-there" {
			c.Predicted, c.Why = nil, "not known"
		}
	}
	page := m.HTML()
	if strings.Count(page, "<table>") != 1 || !strings.Contains(page, "[2001:db8:9::9]:8080") || strings.Count(page, "10.244.1.40:8080") != 1 {
		t.Errorf("%d tables:\n%s", strings.Count(page, "<table>"), page)
	}
}
