//go:build e2e

package e2e

import (
	"context"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/parts"
)

// proxyVersions of kube-proxy that unmasq is held beside: the newest three minor ones.
var proxyVersions = []string{"v1.35.4", "v1.36.3", parts.NewestKube}

// TestBesideKubeProxy: services work beside unmasq as they do without, for each kind
// of source by each way to a service, and as a policy says where one does.
func TestBesideKubeProxy(t *testing.T) {
	program := agenttest.Program(t)
	for _, version := range proxyVersions {
		for _, mode := range []string{kube.IPTables, kube.NFTables} {
			t.Run(version+"/"+mode, func(t *testing.T) { besideProxy(t, bounded(t), kube.Proxy{Mode: mode, Version: version}, program) })
		}
	}
}

func besideProxy(t *testing.T, ctx context.Context, proxy kube.Proxy, _ string) {
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{Proxy: proxy}, {Proxy: proxy}}})
	m := newMatrix(t, ctx, c)
	alone := expected
	if proxy.Mode == kube.NFTables && proxy.Version != proxyVersions[0] {
		alone = alone.with(unmarked)
	}
	without := m.becomes(t, ctx, alone)
	t.Logf("checked: without unmasq %d cells are as expected", len(without))
	t.Log("\n" + text(without))
}

// becomes asks until all is as a table says, which takes a moment after changes.
func (m *matrix) becomes(t *testing.T, ctx context.Context, want table) map[cell]string {
	t.Helper()
	begin, cells := time.Now(), want.cells(t)
	saw := m.ask(ctx, slices.Collect(maps.Keys(cells)))
	for {
		differ, how := differing(saw, cells)
		if len(differ) == 0 {
			return saw
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("%d of %d cells aren't as expected:\n%s\n\n%s", len(differ), len(cells), how, text(saw))
		}
		maps.Copy(saw, m.ask(ctx, differ))
	}
}
