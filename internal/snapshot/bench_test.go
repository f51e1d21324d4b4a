package snapshot_test

import (
	"testing"

	"github.com/unmasq/unmasq/internal/ruleset/iptables"
	"github.com/unmasq/unmasq/internal/ruleset/rulesettest"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// BenchmarkRead reads kube-proxy's rules for 10,000 services of 3 endpoints, beside
// what the reader of iptables-save takes of it alone.
func BenchmarkRead(b *testing.B) {
	text := rulesettest.KubeProxy(10_000, 3)
	b.Run("whole", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			host, err := snapshot.FromFiles(map[string][]byte{snapshot.FileIPTables: []byte(text)})
			if err != nil || len(host.Notes) > 0 {
				b.Fatal(err, host.Notes)
			}
		}
	})
	b.Run("iptables alone", func(b *testing.B) {
		b.SetBytes(int64(len(text)))
		for b.Loop() {
			iptables.ReadSave(text, iptables.Options{FirstLine: 1})
		}
	})
}
