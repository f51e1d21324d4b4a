package rig

import "testing"

// A flow that comes out twice is seen once, so that it doesn't hide one that was lost.
func TestBitset(t *testing.T) {
	var b bitset
	for _, tt := range []struct {
		n    uint64
		want bool
	}{{0, true}, {0, false}, {63, true}, {64, true}, {1000, true}, {64, false}, {999, true}} {
		if got := b.add(tt.n); got != tt.want {
			t.Errorf("add(%d) = %v, want %v", tt.n, got, tt.want)
		}
	}
}
