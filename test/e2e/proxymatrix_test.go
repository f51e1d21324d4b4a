//go:build e2e

package e2e

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/parts"
)

// proxyVersions of kube-proxy that unmasq is held beside: the newest three minor ones.
var proxyVersions = []string{"v1.35.4", "v1.36.3", parts.NewestKube}

// TestBesideKubeProxy: services work beside unmasq as they do without, for each kind
// of source by each way to a service, and as a policy says where one does.
func TestBesideKubeProxy(t *testing.T) {
	program := agenttest.Program(t)
	buildProxies(t)
	for _, version := range proxyVersions {
		for _, mode := range []string{kube.IPTables, kube.NFTables} {
			t.Run(version+"/"+mode, func(t *testing.T) { besideProxy(t, bounded(t), kube.Proxy{Mode: mode, Version: version}, program) })
		}
	}
	t.Run("iptables-legacy", func(t *testing.T) {
		besideProxy(t, bounded(t), kube.Proxy{Mode: kube.IPTables, Version: parts.NewestKube, Variant: foreign.Legacy}, program)
	})
}

// buildProxies takes minutes, the first time.
func buildProxies(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Minute)
	defer cancel()
	for _, version := range proxyVersions {
		if err := kube.Build(ctx, "", kube.NodeConfig{Proxy: kube.Proxy{Mode: kube.NFTables, Version: version}}); err != nil {
			t.Fatal(err)
		}
	}
}

func besideProxy(t *testing.T, ctx context.Context, proxy kube.Proxy, program string) {
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{Proxy: proxy}, {Proxy: proxy}}})
	uses(t, c.Node("n1"), proxy.Variant)
	m := newMatrix(t, ctx, c)
	alone := expected
	if proxy.Mode == kube.NFTables && proxy.Version >= "v1.36" {
		alone = alone.with(unmarked)
	}
	without := m.becomes(t, ctx, alone.cells(t))
	t.Logf("checked: without unmasq %d cells are as expected", len(without))
	t.Log("\n" + text(without))
	m.explained(t, program, without, alone.cells(t))
	agents(t, ctx, c, program)
	for _, step := range []struct {
		name, policy string
		rows         table
	}{
		{"no policy", "", nil},
		{"of other traffic", otherTraffic, withOtherTraffic},
		{"overriding", overriding, withOverriding},
	} {
		t.Run(step.name, func(t *testing.T) {
			now := alone.with(step.rows).cells(t)
			changed := changes(alone.cells(t), now)
			m.inForce(t, ctx, step.policy, changed)
			saw := m.ask(ctx, slices.Collect(maps.Keys(now)), func(c cell, how string) {
				t.Logf("checked: an error, asked again: %s: %s", c, how)
			})
			compare(t, saw, without, changed)
			m.explained(t, program, saw, now)
		})
	}
	if proxy.Version == parts.NewestKube {
		t.Run("overriding everywhere", func(t *testing.T) {
			cells := withEverywhere.cells(t)
			m.explained(t, program, m.inForce(t, ctx, everywhere, cells), cells)
			t.Logf("checked: %d cells are as the policy says", len(cells))
		})
	}
}

// uses: kube-proxy writes with that variant of iptables, where one was asked for.
func uses(t *testing.T, n *kube.Node, v foreign.Variant) {
	t.Helper()
	if v == "" {
		return
	}
	if rules, err := n.NS.Run("", "iptables-"+string(v)+"-save"); err != nil || !strings.Contains(rules, "-A KUBE-SERVICES") {
		t.Fatalf("kube-proxy has no rules in iptables-%s: %v\n%s", v, err, rules)
	}
}

// inForce is a policy when the cells are as it says, which takes a moment.
func (m *matrix) inForce(t *testing.T, ctx context.Context, policy string, cells map[cell]string) map[cell]string {
	t.Helper()
	if policy != "" {
		apply(t, ctx, m.c, policy)
	}
	return m.becomes(t, ctx, cells)
}

// agents run on both nodes.
func agents(t *testing.T, ctx context.Context, c *kube.Cluster, program string) {
	t.Helper()
	for i, n := range c.Nodes() {
		w := &world{t: t, c: c, node: n, program: program, dir: t.TempDir()}
		if i == 0 {
			w.install(t, ctx)
		}
		w.startAgent(t, ctx)
	}
}

// compare: all is as it was without unmasq, but for what a policy changes; the
// backends that affinity chose are as they were there, too.
func compare(t *testing.T, saw, without, changed map[cell]string) {
	t.Helper()
	for c, s := range saw {
		_, backend, _ := strings.Cut(s, "@")
		_, before, _ := strings.Cut(without[c], "@")
		switch want, is := changed[c]; {
		case !is && s != without[c]:
			t.Errorf("%s: %s, without unmasq %s", c, s, without[c])
		case is && (backend != before || !c.fits(s, want)):
			t.Errorf("%s: %s, want %s; without unmasq %s", c, s, want, without[c])
		}
	}
	if !t.Failed() {
		t.Logf("checked: %d cells are as without unmasq, %d as the policy says", len(saw)-len(changed), len(changed))
	}
}

// changes are the cells that differ.
func changes(from, to map[cell]string) map[cell]string {
	changed := map[cell]string{}
	for c, want := range to {
		if want != from[c] {
			changed[c] = want
		}
	}
	return changed
}

// becomes asks until all is as expected, which takes a moment after changes.
func (m *matrix) becomes(t *testing.T, ctx context.Context, want map[cell]string) map[cell]string {
	t.Helper()
	begin := time.Now()
	unheard := func(cell, string) {}
	saw := m.ask(ctx, slices.Collect(maps.Keys(want)), unheard)
	for {
		differ, how := differing(saw, want)
		if len(differ) == 0 {
			return saw
		}
		if time.Since(begin) > 30*time.Second {
			t.Fatalf("%d of %d cells aren't as expected:\n%s\n\n%s", len(differ), len(want), how, text(saw))
		}
		maps.Copy(saw, m.ask(ctx, differ, unheard))
	}
}
