package matrix_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/ruleset/rulesettest"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// BenchmarkPredict on nodes with many services, whose snapshot is read already.
func BenchmarkPredict(b *testing.B) {
	for _, services := range []int{100, 10000} {
		for _, mode := range []struct {
			name, file string
			rules      func(int, int) string
		}{{"iptables", "iptables-save.txt", rulesettest.KubeProxy}, {"nftables", "nft.txt", rulesettest.KubeProxyNFT}} {
			n := busy(b, services, mode.file, mode.rules(services, 3))
			for _, all := range []bool{false, true} {
				if all && services > 100 {
					continue
				}
				b.Run(fmt.Sprintf("%s/services=%d/all=%t", mode.name, services, all), func(b *testing.B) {
					for b.Loop() {
						m := matrix.Predict(matrix.Situation{Nodes: []matrix.Node{n}, AllServices: all})
						b.ReportMetric(float64(len(m.Cells)), "cells")
					}
				})
			}
		}
	}
}

// busy node: the first of the example with other rules.
func busy(t testing.TB, services int, file, rules string) matrix.Node {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"ip-link.json", "ip-addr.json", "ip-route.json", "ip-rule.json", "ip-neigh.json", "bridge-fdb.json", "sysctl.txt"} {
		text, err := os.ReadFile(filepath.Join("../../docs/example/node-a", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	host, err := snapshot.Read([]string{dir}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return matrix.Node{Name: "node-a", Host: host}
}

// TestBusyNode: a node with many services has a table as small as any other.
func TestBusyNode(t *testing.T) {
	n := busy(t, 1000, "iptables-save.txt", rulesettest.KubeProxy(1000, 3))
	m := matrix.Predict(matrix.Situation{Nodes: []matrix.Node{n}})
	if len(m.Columns) > 12 || len(m.Cells) > 60 {
		t.Errorf("%d columns, %d cells", len(m.Columns), len(m.Cells))
	}
	if all := matrix.Predict(matrix.Situation{Nodes: []matrix.Node{n}, AllServices: true}); len(all.Columns) < 1000 {
		t.Errorf("--all-services: %d columns", len(all.Columns))
	}
}

// TestManyBackends: of a service with hundreds all count.
func TestManyBackends(t *testing.T) {
	n := busy(t, 1, "iptables-save.txt", rulesettest.KubeProxy(1, 600))
	m := matrix.Predict(matrix.Situation{Nodes: []matrix.Node{n}})
	asked := 0
	for _, c := range m.Cells {
		sum := 0.0
		for _, s := range c.Predicted {
			if s.Share == nil {
				t.Fatalf("%s to %s: a share depends on %q", c.Row, c.Column, s.DependsOn)
			}
			sum += *s.Share
		}
		if len(c.Predicted) > 0 && (sum < 0.999 || sum > 1.001) {
			t.Errorf("%s to %s: the shares are %v in all", c.Row, c.Column, sum)
		}
		if c.Column == "cluster-ip-both" && len(c.Predicted) > 0 {
			asked++
		}
	}
	if asked == 0 {
		t.Error("the service isn't asked about")
	}
}
