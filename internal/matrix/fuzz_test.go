package matrix_test

import (
	"net/netip"
	"testing"

	"github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// FuzzReadPlaces: no text panics; what is read are places that a matrix can be made of.
func FuzzReadPlaces(f *testing.F) {
	for _, seed := range []string{
		"places:\n- {kind: outside, name: office, node: node-a, interface: eth1, addresses: [192.168.200.10, \"2001:db8::7\"], only: source}",
		"places:\n- {kind: network, cidr: 0.0.0.0/0}", "places:\n- {kind: network, cidr: \"::/0\"}", "places:\n- {kind: network, cidr: 255.255.255.255/32}",
		"places: [{kind: pod, name: a, addresses: [10.0.0.1], port: 80}, {kind: node, name: b, addresses: [fe80::1]}]", "places: &a [*a]", "{}", "",
	} {
		f.Add(seed)
	}
	host, err := snapshot.Read([]string{"../../docs/example/node-a"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		places, err := matrix.ReadPlaces("f", text)
		if err != nil {
			if places != nil {
				t.Fatalf("%q: %v, and places", text, err)
			}
			return
		}
		for _, p := range places {
			if p.Name == "" || len(p.Addresses) == 0 || len(p.Addresses) > 2 {
				t.Fatalf("%q: %+v", text, p)
			}
			for _, a := range p.Addresses {
				if !a.IsValid() || p.Address(packet.Of(a)) != a {
					t.Fatalf("%q: %+v", text, p)
				}
			}
			if p.CIDR != (netip.Prefix{}) && !p.CIDR.Contains(p.Addresses[0]) {
				t.Fatalf("%q: %s isn't in %s", text, p.Addresses[0], p.CIDR)
			}
		}
		s := matrix.Situation{Nodes: []matrix.Node{{Name: "node-a", Host: host}}, Places: places[:min(len(places), 4)]}
		if s.Check() == nil {
			m := matrix.Predict(s)
			_ = m.Text()
		}
	})
}

// FuzzReadExpected: no text panics, and what is read can be compared.
func FuzzReadExpected(f *testing.F) {
	for _, seed := range []string{
		"cells:\n- {row: pod-here, column: outside, sees: [kept, as node-a]}", "cells: [{row: a, column: b, family: ipv6, sees: lost}]",
		`{"version":1,"cells":[{"row":"a","column":"b","family":"ipv4","predicted":[{"verdict":"kept","share":1,"source":"10.0.0.1","as":"itself"}]}]}`,
		"cells: &a [*a]", "cells:", "{}", "",
	} {
		f.Add(seed)
	}
	host, err := snapshot.Read([]string{"../../docs/example/node-a"}, nil)
	if err != nil {
		f.Fatal(err)
	}
	m := matrix.Predict(matrix.Situation{Nodes: []matrix.Node{{Name: "node-a", Host: host}}})
	f.Fuzz(func(t *testing.T, text string) {
		e, err := matrix.ReadExpected("f", text)
		if err != nil {
			return
		}
		for _, x := range e.Cells {
			if x.Row == "" || x.Column == "" || len(x.Sees) == 0 || x.Line == 0 {
				t.Fatalf("%q: %+v", text, x)
			}
		}
		if c := m.Compare(e); c.Compared+len(c.Differences) < len(e.Cells) {
			t.Fatalf("%q: %d expected, %s", text, len(e.Cells), c.Text())
		}
	})
}
