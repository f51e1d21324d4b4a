package cidr

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func ranges(t testing.TB, texts ...string) []Range {
	t.Helper()
	var out []Range
	for _, s := range texts {
		out = append(out, FromPrefix(netip.MustParsePrefix(s)))
	}
	return out
}

func show(pieces []Piece) string {
	var b strings.Builder
	for _, p := range pieces {
		fmt.Fprintf(&b, "%s-%s:%d ", p.First, p.Last, p.Owner)
	}
	return strings.TrimSpace(b.String())
}

func TestFirstMatch(t *testing.T) {
	tests := []struct {
		name  string
		lists [][]Range
		want  string
	}{
		{"nothing", nil, ""},
		{"neighbours stay apart", [][]Range{ranges(t, "10.0.1.0/24", "10.0.0.0/24")}, "10.0.0.0-10.0.0.255:0 10.0.1.0-10.0.1.255:0"},
		{"nested are joined", [][]Range{ranges(t, "10.0.0.0/16", "10.0.1.0/24")}, "10.0.0.0-10.0.255.255:0"},
		{"the first list wins", [][]Range{ranges(t, "10.0.1.0/24"), ranges(t, "10.0.0.0/22")},
			"10.0.0.0-10.0.0.255:1 10.0.1.0-10.0.1.255:0 10.0.2.0-10.0.3.255:1"},
		{"a covered list disappears", [][]Range{ranges(t, "10.0.0.0/8"), ranges(t, "10.1.0.0/16")}, "10.0.0.0-10.255.255.255:0"},
		{"up to the last address", [][]Range{ranges(t, "255.255.255.0/24"), ranges(t, "0.0.0.0/0")},
			"0.0.0.0-255.255.254.255:1 255.255.255.0-255.255.255.255:0"},
		{"IPv6", [][]Range{ranges(t, "fd00::/8"), ranges(t, "::/0")},
			"::-fcff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:1 fd00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:0 fe00::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff:1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := show(FirstMatch(tt.lists...)); got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestSubtract(t *testing.T) {
	got := Subtract(ranges(t, "10.0.0.0/24"), ranges(t, "10.0.0.128/25"))
	want := []Range{{netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.0.0.127")}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Every address belongs to the first list that holds it, and pieces are in order.
func TestFirstMatchAgreesWithAScan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		addr := rapid.Custom(func(t *rapid.T) netip.Addr {
			// Few bits vary, so that overlaps and touching borders are common.
			b := rapid.SampledFrom([]byte{0, 1, 2, 127, 128, 254, 255}).Draw(t, "byte")
			hi := rapid.SampledFrom([]byte{0, 10, 255}).Draw(t, "high")
			return netip.AddrFrom4([4]byte{hi, hi, hi, b})
		})
		var lists [][]Range
		for range rapid.IntRange(0, 4).Draw(t, "lists") {
			var l []Range
			for range rapid.IntRange(0, 5).Draw(t, "ranges") {
				a, b := addr.Draw(t, "a"), addr.Draw(t, "b")
				if b.Less(a) {
					a, b = b, a
				}
				l = append(l, Range{a, b})
			}
			lists = append(lists, l)
		}
		pieces := FirstMatch(lists...)
		for i := 1; i < len(pieces); i++ {
			if !pieces[i-1].Last.Less(pieces[i].First) {
				t.Fatalf("out of order: %s", show(pieces))
			}
		}
		for range 20 {
			a := addr.Draw(t, "probe")
			want := slices.IndexFunc(lists, func(l []Range) bool {
				return slices.ContainsFunc(l, func(r Range) bool { return r.Contains(a) })
			})
			got := -1
			if i := slices.IndexFunc(pieces, func(p Piece) bool { return p.Contains(a) }); i >= 0 {
				got = pieces[i].Owner
			}
			if got != want {
				t.Fatalf("%s belongs to %d, want %d; pieces %s", a, got, want, show(pieces))
			}
		}
	})
}
