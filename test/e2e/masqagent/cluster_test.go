//go:build e2e

// Package masqagent_test puts unmasq in ip-masq-agent's place on a node with a real
// kubelet: its DaemonSet, its ConfigMap as kubelet mounts and changes it.
package masqagent_test

import (
	"context"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/parts"
	"github.com/unmasq/unmasq/test/kube/peer"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

const (
	root        = "../../../"
	image       = "ghcr.io/unmasq/ip-masq-agent:0.1.0" // the DaemonSet's
	agent       = "daemonset/ip-masq-agent"
	backendPort = 8080
)

type installed struct {
	c       *kube.Cluster
	node    *kube.Node
	outside *peer.Server
}

func TestInItsPlace(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	t.Cleanup(cancel)
	program := filepath.Join(t.TempDir(), "unmasq")
	if err := parts.Go(ctx, root, "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "./cmd/unmasq"); err != nil {
		t.Fatal(err)
	}
	c, err := kube.Start(ctx, kube.Config{Nodes: []kube.NodeConfig{{Kubelet: true, Proxy: kube.Proxy{Mode: kube.NFTables}}},
		Images: []kube.Image{{Name: image, Files: map[string]string{"/ip-masq-agent": program, "/unmasq": program}, Entrypoint: []string{"/ip-masq-agent"}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	i := &installed{c: c, node: c.Node("n1")}
	if i.outside, err = c.Outside.Listen(backendPort); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.outside.Close() })
	for _, step := range []struct {
		name string
		run  func(*testing.T, context.Context, *installed)
	}{
		{"install", install},
		{"changed ConfigMap", changed},
		{"bad ConfigMap", bad},
		{"removed", removed},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, ctx, i) }) {
			i.tell(t, ctx)
			return
		}
	}
}

// kubectl in the agent's namespace.
func (i *installed) kubectl(t *testing.T, ctx context.Context, stdin string, args ...string) string {
	t.Helper()
	out, err := i.c.Kubectl(ctx, stdin, append([]string{"-n", "kube-system"}, args...)...)
	if err != nil {
		i.tell(t, ctx)
		t.Fatal(err)
	}
	return out
}

// tell what an operator would look at.
func (i *installed) tell(t *testing.T, ctx context.Context) {
	for _, args := range [][]string{{"get", "pods", "-o", "wide"}, {"get", "events"}, {"logs", agent, "--tail=20"}} {
		out, err := i.c.Kubectl(ctx, "", append([]string{"-n", "kube-system"}, args...)...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// visit is a connection of a new pod, which is seen outside as this address.
func (i *installed) visit(t *testing.T, ctx context.Context, name string) netip.Addr {
	t.Helper()
	if _, err := i.c.Kubectl(ctx, kube.CallerPod(name, netip.AddrPortFrom(kube.Outside4, backendPort)), "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	visit, err := i.outside.Await(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	return visit.Source.Addr()
}

// await a word in what stands on the node.
func (i *installed) await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(4 * time.Minute); !holds(); time.Sleep(500 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not %s; on the node stands:\n%s", what, i.table(t))
		}
	}
}

func (i *installed) table(t *testing.T) string {
	t.Helper()
	out, err := i.node.Run("nft", "list", "table", "inet", "unmasq")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func install(t *testing.T, ctx context.Context, i *installed) {
	i.kubectl(t, ctx, "", "apply", "-f", root+"deploy/ip-masq-agent/configmap.yaml", "-f", root+"deploy/ip-masq-agent/daemonset.yaml")
	i.kubectl(t, ctx, "", "rollout", "status", agent, "--timeout=90s")
	if got := i.visit(t, ctx, "first"); got != i.node.IPv4 {
		t.Errorf("the pod is seen as %s, want its node's %s", got, i.node.IPv4)
	}
	status := i.kubectl(t, ctx, "", "exec", agent, "--", "/unmasq", "status")
	for _, want := range []string{"agent   ready", "from pods to 10.0.0.0/8 and 2 more: Keep", "chain IP-MASQ-AGENT, dialect kubernetes", i.node.Pods4.String()} {
		if !strings.Contains(status, want) {
			t.Errorf("status doesn't say %s:\n%s", want, status)
		}
	}
}

// configure as `kubectl edit` does; the annotation makes kubelet look at once.
func (i *installed) configure(t *testing.T, ctx context.Context, text string) {
	t.Helper()
	i.kubectl(t, ctx, "", "patch", "configmap", "ip-masq-agent", "--type=merge", "-p", `{"data":{"config":"`+text+`"}}`)
	i.kubectl(t, ctx, "", "annotate", "--overwrite", "pods", "-l", "k8s-app=ip-masq-agent", "looked-at="+time.Now().Format("150405"))
}

func changed(t *testing.T, ctx context.Context, i *installed) {
	i.configure(t, ctx, "nonMasqueradeCIDRs: [10.77.0.0/16]")
	i.await(t, "as the ConfigMap is", func() bool {
		table := i.table(t)
		return strings.Contains(table, "10.77.0.0/16") && !strings.Contains(table, "172.16.0.0/12")
	})
	if got := i.visit(t, ctx, "second"); got != i.node.IPv4 {
		t.Errorf("the pod is seen as %s, want its node's %s", got, i.node.IPv4)
	}
}

// bad settings are seen by whoever looks at pods; what was good is in force.
func bad(t *testing.T, ctx context.Context, i *installed) {
	ready := func() string {
		return i.kubectl(t, ctx, "", "get", agent, "-o", "jsonpath={.status.numberReady}")
	}
	i.configure(t, ctx, "nonMasqueradeCIDRs: [10.77.0.1/16]")
	i.await(t, "unready", func() bool { return ready() == "0" })
	if log := i.kubectl(t, ctx, "", "logs", agent); !strings.Contains(log, `/etc/config/ip-masq-agent:1: nonMasqueradeCIDRs[0]: \"10.77.0.1/16\" has host bits set`) {
		t.Errorf("the log doesn't say why:\n%s", log)
	}
	if table := i.table(t); !strings.Contains(table, "10.77.0.0/16") {
		t.Errorf("what was good isn't in force:\n%s", table)
	}
	i.configure(t, ctx, "nonMasqueradeCIDRs: [10.78.0.0/16]")
	i.await(t, "ready again", func() bool { return ready() == "1" && strings.Contains(i.table(t), "10.78.0.0/16") })
	if restarts := i.kubectl(t, ctx, "", "get", "pods", "-l", "k8s-app=ip-masq-agent", "-o", "jsonpath={.items[*].status.containerStatuses[*].restartCount}"); restarts != "0" {
		t.Errorf("the agent ended %s times", restarts)
	}
}

// removed without a word, the policy stays in force, as ip-masq-agent's does.
func removed(t *testing.T, ctx context.Context, i *installed) {
	i.kubectl(t, ctx, "", "delete", agent, "--wait", "--cascade=foreground", "--timeout=60s")
	if table := i.table(t); !strings.Contains(table, "10.78.0.0/16") {
		t.Errorf("the policy went with the agent:\n%s", table)
	}
	if got := i.visit(t, ctx, "third"); got != i.node.IPv4 {
		t.Errorf("the pod is seen as %s, want its node's %s", got, i.node.IPv4)
	}
}
