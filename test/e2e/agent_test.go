//go:build e2e

package e2e

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/parts"
	"github.com/unmasq/unmasq/test/kube/peer"
)

const agentImage = "unmasq.test/unmasq:1"

// TestAgentWithFiles runs the agent as a daemon set that reads its policy from a
// ConfigMap, with no right in the cluster and one capability on the node: real pods
// are seen outside as the node while it's there.
func TestAgentWithFiles(t *testing.T) {
	ctx := bounded(t)
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{Kubelet: true, Proxy: kube.Proxy{Mode: kube.NFTables}}},
		Images: []kube.Image{unmasqImage(t, ctx)}})
	n, outside := c.Node("n1"), listen(t, c.Outside)
	apply(t, ctx, c, agentManifest())
	rollout := []string{"-n", "kube-system", "rollout", "status", "daemonset/unmasq", "--timeout=60s"}
	kubectl(t, ctx, c, rollout...)
	if got := firstConnection(t, ctx, c, outside, "enforced"); got != n.IPv4 {
		t.Errorf("with the agent the pod was seen as %s, want its node's %s", got, n.IPv4)
	}
	kubectl(t, ctx, c, "-n", "kube-system", "delete", "daemonset", "unmasq", "--cascade=foreground", "--timeout=60s")
	if got := firstConnection(t, ctx, c, outside, "cleared"); !n.Pods4.Contains(got) {
		t.Errorf("without the agent the pod was seen as %s, want one of %s", got, n.Pods4)
	}
}

// TestAgentAsProgram runs it on a node without kubelet, as a test of many nodes does.
func TestAgentAsProgram(t *testing.T) {
	ctx := bounded(t)
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{}}})
	n, outside := c.Node("n1"), listen(t, c.Outside)
	config := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(config, []byte(agentPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	agent, err := n.StartProgram(ctx, kube.Program{Name: "agent", Path: unmasqImage(t, ctx).Files["/unmasq"],
		Args: []string{"agent", "--config", config, "--clear-on-exit"},
		Ready: func(ctx context.Context) error {
			_, err := n.Get(ctx, "http://127.0.0.1:9809/readyz")
			return err
		}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []netip.Addr{n.IPv4, n.IPv6} {
		pod, err := n.StartPod(ctx, kube.PodConfig{Name: "enforced"})
		if err != nil {
			t.Fatal(err)
		}
		to := kube.Outside4
		if want.Is6() {
			to = kube.Outside6
		}
		if answer, err := pod.Connect(ctx, netip.AddrPortFrom(to, backendPort), "enforced"); err != nil || answer.Source.Addr() != want {
			t.Errorf("with the agent the pod was seen as %v %v, want its node's %s", answer, err, want)
		}
		if err := pod.Delete(ctx); err != nil {
			t.Error(err)
		}
	}
	if err := agent.Terminate(ctx); err != nil {
		t.Fatal(err)
	}
	pod, err := n.StartPod(ctx, kube.PodConfig{Name: "cleared"})
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := pod.Connect(ctx, netip.AddrPortFrom(kube.Outside4, backendPort), "cleared"); err != nil || answer.Source.Addr() != pod.IPv4 {
		t.Errorf("without the agent the pod was seen as %v %v, want %s", answer, err, pod.IPv4)
	}
	if visits := outside.Visits(); len(visits) != 3 {
		t.Errorf("visits: %v, want 3", visits)
	}
}

// agentPolicy shows outside the nodes alone.
const agentPolicy = `apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: outside}
spec:
  facts: {podCIDRs: [10.244.0.0/16, "fd00:10:244::/48"]}
  rules:
  - {name: cluster, from: {pods: {}}, to: {cidrs: [10.244.0.0/16, 10.96.0.0/16, "fd00:10:244::/48", "fd00:96::/112"]}, action: Keep}
  - {name: outside, from: {pods: {}}, action: Masquerade}
`

// agentManifest has the rights of deploy's, and its policy in a ConfigMap.
func agentManifest() string {
	return `
apiVersion: v1
kind: ConfigMap
metadata: {name: unmasq, namespace: kube-system}
data:
  policy.yaml: ` + strconv.Quote(agentPolicy) + `
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: unmasq, namespace: kube-system}
spec:
  selector: {matchLabels: {app: unmasq}}
  template:
    metadata: {labels: {app: unmasq}}
    spec:
      hostNetwork: true
      automountServiceAccountToken: false
      priorityClassName: system-node-critical
      tolerations: [{operator: Exists}]
      containers:
      - name: agent
        image: ` + agentImage + `
        imagePullPolicy: Never
        args: [agent, --config, /etc/unmasq, --clear-on-exit]
        readinessProbe: {httpGet: {host: 127.0.0.1, port: 9809, path: /readyz}, periodSeconds: 1}
        securityContext:
          capabilities: {drop: [ALL], add: [NET_ADMIN]}
          readOnlyRootFilesystem: true
          allowPrivilegeEscalation: false
          seccompProfile: {type: RuntimeDefault}
        volumeMounts: [{name: policy, mountPath: /etc/unmasq}]
      volumes: [{name: policy, configMap: {name: unmasq}}]
`
}

// unmasqImage is the binary alone.
func unmasqImage(t *testing.T, ctx context.Context) kube.Image {
	t.Helper()
	program := filepath.Join(t.TempDir(), "unmasq")
	if err := parts.Go(ctx, ".", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "github.com/unmasq/unmasq/cmd/unmasq"); err != nil {
		t.Fatal(err)
	}
	return kube.Image{Name: agentImage, Files: map[string]string{"/unmasq": program}, Entrypoint: []string{"/unmasq"}}
}

// firstConnection of a new real pod, as the outside sees it.
func firstConnection(t *testing.T, ctx context.Context, c *kube.Cluster, outside *peer.Server, name string) netip.Addr {
	t.Helper()
	apply(t, ctx, c, kube.CallerPod(name, netip.AddrPortFrom(kube.Outside4, backendPort)))
	visit, err := outside.Await(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	return visit.Source.Addr()
}
