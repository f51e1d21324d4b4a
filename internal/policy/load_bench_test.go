package policy

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkLoad reads one rule with so many CIDRs.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{10, 10_000, 100_000} {
		var text strings.Builder
		text.WriteString("apiVersion: unmasq.io/v1alpha1\nkind: SourcePolicy\nmetadata: {name: a}\nspec:\n  rules:\n  - action: Keep\n    to:\n      cidrs:\n")
		for i := range n {
			fmt.Fprintf(&text, "      - 10.%d.%d.%d/32\n", i>>16, i>>8&255, i&255)
		}
		b.Run(fmt.Sprintf("cidrs=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Load([]Source{{Name: "a.yaml", Content: []byte(text.String())}}, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
