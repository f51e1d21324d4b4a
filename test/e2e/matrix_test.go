//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"net/netip"
	"slices"
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
// measures between pods, nodes, services and a client outside, in every cell, beside the
// newest kube-proxy in each of its modes and settings, with policies of unmasq's and
// without.
func TestMatrix(t *testing.T) {
	program := agenttest.Program(t)
	for _, mode := range []string{kube.IPTables, kube.NFTables} {
		for _, world := range []struct {
			name  string
			proxy kube.Proxy
			steps []matrixStep
		}{
			{"cluster CIDR", kube.Proxy{Mode: mode}, []matrixStep{
				{"without a policy", "", ""}, {"with a policy of other traffic", otherTraffic, ""}, {"overriding", overriding, "n1"}}},
			{"no cluster CIDR", kube.Proxy{Mode: mode, NoClusterCIDR: true}, []matrixStep{{"without a policy", "", ""}, {"remote backends masqueraded", remoteMasqueraded, ""}}},
			{"masqueradeAll", kube.Proxy{Mode: mode, Flags: []string{"--masquerade-all"}}, []matrixStep{{"without a policy", "", ""}, {"local backends kept", localKept, ""}}},
		} {
			t.Run(mode+"/"+world.name, func(t *testing.T) { matrixBeside(t, bounded(t), world.proxy, program, world.steps) })
		}
	}
}

// matrixStep is a policy that is in force.
type matrixStep struct{ name, policy, node string }

// remoteMasqueraded mends what kube-proxy leaves to be lost: clients of backends on other
// nodes.
const remoteMasqueraded = `
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: matrix}
spec:
  rules: [{name: remote, to: {services: {backends: Remote}}, action: Masquerade}]
`

// localKept shows clients to backends on the node itself, although kube-proxy marks them.
const localKept = `
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: matrix}
spec:
  rules: [{name: local, to: {services: {backends: Local, via: ClusterIP}}, action: Keep, overrideServiceMasquerade: true}]
`

func matrixBeside(t *testing.T, ctx context.Context, proxy kube.Proxy, program string, steps []matrixStep) {
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{Kubelet: true, Proxy: proxy}, {Kubelet: true, Proxy: proxy}}, Images: []kube.Image{tools(t, program)}})
	p := &plugin{c: c, node: c.Node("n1"), program: program}
	p.install(t, ctx)
	kubectl(t, ctx, c, "delete", "sourcepolicy", "masked")
	p.clientOutside(t)
	(&matrix{c: c}).unlimited(t)
	for _, step := range steps {
		if step.policy != "" {
			apply(t, ctx, c, step.policy)
			p.inForce(t, ctx, step)
		}
		t.Run(step.name, func(t *testing.T) { p.allMeasured(t, ctx) })
	}
}

// clientOutside is the machine that kubectl runs on: its way to services is n1.
func (p *plugin) clientOutside(t *testing.T) {
	t.Helper()
	for _, text := range []string{kube.Services4, kube.Services6} {
		to, via := netip.MustParsePrefix(text), p.node.IPv4
		if to.Addr().Is6() {
			via = p.node.IPv6
		}
		if err := p.c.Control.NS.Route(to, via, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
}

// inForce is a policy once the nodes say so.
func (p *plugin) inForce(t *testing.T, ctx context.Context, step matrixStep) {
	t.Helper()
	for _, n := range p.c.Nodes() {
		if step.node == "" || step.node == n.Name {
			eventually(t, ctx, func() error { return p.run(t, ctx, "admin", "status", "--node="+n.Name).differs(0, "matrix", "") })
		}
	}
}

// allMeasured measures with each node as the first, by TCP and by UDP.
func (p *plugin) allMeasured(t *testing.T, ctx context.Context) {
	t.Helper()
	tcp, udp := p.measured(t, ctx, "--nodes=n1,n2"), p.measured(t, ctx, "--nodes=n2,n1", "--protocol=udp")
	if !t.Failed() {
		t.Logf("checked: what was predicted is what was measured: in %d cells by TCP, %d by UDP", tcp, udp)
	}
}

// measured says how many cells were.
func (p *plugin) measured(t *testing.T, ctx context.Context, args ...string) int {
	t.Helper()
	s := p.run(t, ctx, "admin", append([]string{"matrix", "--probe", "--from-here", "--enters-at=n1", "-o", "json"}, args...)...)
	var m sights.Matrix
	if err := json.Unmarshal([]byte(s.out), &m); err != nil {
		t.Fatalf("%v: %v\nstatus %d\n%s\n%s", args, err, s.status, s.out, s.err)
	}
	measured, differ := probe.Count(&m)
	if differ > 0 || s.status != 0 {
		t.Errorf("%v: status %d, %d of %d cells differ:\n%s\n%s", args, s.status, differ, measured, strings.Join(probe.Differing(&m), "\n"), s.err)
	}
	everyCell(t, &m)
	p.noStage(t, ctx)
	return measured
}

// everyCell that can be asked was predicted for certain, and measured.
func everyCell(t *testing.T, m *sights.Matrix) {
	t.Helper()
	for _, c := range m.Cells {
		if c.Why == "" && len(c.Measured) == 0 {
			t.Errorf("%s from %s to %s isn't measured: predicted %v; notes: %q", c.Family, c.Row, c.Column, c.Predicted, m.Notes)
		}
		share := 0.0
		for _, s := range c.Predicted {
			if s.Share != nil && s.Verdict != sights.Unknown && len(s.DependsOn) == 0 {
				share += *s.Share
			}
		}
		if c.Why == "" && share < 0.999 {
			t.Errorf("%s from %s to %s isn't predicted for certain: %v", c.Family, c.Row, c.Column, c.Predicted)
		}
	}
	if len(m.Rows) != 5 {
		t.Errorf("rows %v, want 5", m.Rows)
	}
	for _, role := range []sights.Role{sights.PodHere, sights.PodThere, sights.ThisNode, sights.OtherNode, sights.OutsideOne, sights.ClusterIPHere, sights.ClusterIPThere,
		sights.ClusterIPBoth, sights.ClusterIPNone, sights.Hairpin, sights.NodePortCluster + "-here", sights.NodePortCluster + "-there", sights.NodePortLocal + "-here", sights.NodePortLocal + "-there"} {
		if !slices.ContainsFunc(m.Columns, func(c sights.Column) bool { return c.Name == string(role) }) {
			t.Errorf("no column %s", role)
		}
	}
}

// noStage is left.
func (p *plugin) noStage(t *testing.T, ctx context.Context) {
	t.Helper()
	left, err := p.c.Client.CoreV1().Namespaces().List(ctx, meta.ListOptions{LabelSelector: plugins.StageLabels})
	if err != nil || len(left.Items) > 0 {
		t.Errorf("left: %v, %v", left.Items, err)
	}
}
