//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	plugins "github.com/unmasq/unmasq/internal/kubectl"
	sights "github.com/unmasq/unmasq/internal/matrix"
	"github.com/unmasq/unmasq/internal/probe"
	"github.com/unmasq/unmasq/test/kube"
)

// TestMatrix: what `kubectl unmasq matrix` predicts by snapshots of two nodes is what it
// measures between pods, nodes and services that it makes there, in every cell, beside
// the newest kube-proxy in each of its modes.
func TestMatrix(t *testing.T) {
	program := agenttest.Program(t)
	for _, mode := range []string{kube.IPTables, kube.NFTables} {
		t.Run(mode, func(t *testing.T) { matrixBeside(t, bounded(t), kube.Proxy{Mode: mode}, program) })
	}
}

func matrixBeside(t *testing.T, ctx context.Context, proxy kube.Proxy, program string) {
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{Kubelet: true, Proxy: proxy}, {Kubelet: true, Proxy: proxy}}, Images: []kube.Image{tools(t, program)}})
	p := &plugin{c: c, node: c.Node("n1"), program: program}
	p.install(t, ctx)
	p.allMeasured(t, ctx, "as installed")
}

// allMeasured measures with each node as the first, by TCP and UDP.
func (p *plugin) allMeasured(t *testing.T, ctx context.Context, what string) {
	t.Helper()
	cells := 0
	for _, nodes := range []string{"n1,n2", "n2,n1"} {
		for range 1 {
			cells += p.measured(t, ctx, what, "--nodes="+nodes)
		}
	}
	t.Logf("checked: %s: in %d cells what was predicted is what was measured", what, cells)
}

// measured says how many cells were.
func (p *plugin) measured(t *testing.T, ctx context.Context, what string, args ...string) int {
	t.Helper()
	s := p.run(t, ctx, "admin", append([]string{"matrix", "--probe", "-o", "json"}, args...)...)
	var m sights.Matrix
	if err := json.Unmarshal([]byte(s.out), &m); err != nil {
		t.Fatalf("%s %v: %v\nstatus %d\n%s\n%s", what, args, err, s.status, s.out, s.err)
	}
	measured, differ := probe.Count(&m)
	if differ > 0 || measured == 0 || s.status != 0 {
		t.Errorf("%s %v: status %d, %d of %d cells differ:\n%s\n%s", what, args, s.status, differ, measured, strings.Join(probe.Differing(&m), "\n"), s.err)
	}
	t.Logf("%s\nnotes:\n%s", matrixText(&m), strings.Join(m.Notes, "\n"))
	p.noStage(t, ctx)
	return measured
}

// noStage is left.
func (p *plugin) noStage(t *testing.T, ctx context.Context) {
	t.Helper()
	left, err := p.c.Client.CoreV1().Namespaces().List(ctx, meta.ListOptions{LabelSelector: plugins.StageLabels})
	if err != nil || len(left.Items) > 0 {
		t.Errorf("left: %v, %v", left.Items, err)
	}
}

// matrixText of what was measured, a line a cell.
func matrixText(m *sights.Matrix) string {
	var b strings.Builder
	for _, c := range m.Cells {
		fmt.Fprintf(&b, "%s %s -> %s (%s -> %s):", c.Family, c.Row, c.Column, c.Source, c.Destination)
		for _, s := range c.Predicted {
			fmt.Fprintf(&b, " %s %v %s", s.Verdict, s.Source, s.Why)
		}
		fmt.Fprintf(&b, " | measured:")
		for _, s := range c.Measured {
			fmt.Fprintf(&b, " %s %v %s %s", s.Verdict, s.Source, s.AtName, s.Why)
		}
		fmt.Fprintln(&b, " "+c.Why)
	}
	return b.String()
}
