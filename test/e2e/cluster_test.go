//go:build e2e

// Package e2e tests on a real Kubernetes cluster in network namespaces (package
// kube), brought up by `make e2e`. It needs root, containerd and runc.
package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/peer"
)

const backendPort, webPort = 8080, 80

// agent is where the daemon set's pod serves on its node.
var agent = netip.MustParseAddrPort("127.0.0.1:9999")

// TestCluster brings up, in each mode of kube-proxy, a node with a kubelet and one
// that is a namespace, and goes the ways that all other tests stand on.
func TestCluster(t *testing.T) {
	for _, mode := range []string{kube.IPTables, kube.NFTables} {
		t.Run(mode, func(t *testing.T) {
			ctx := bounded(t)
			proxy := kube.Proxy{Mode: mode}
			c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{Kubelet: true, Proxy: proxy}, {Proxy: proxy}}})
			real, namespace := c.Node("n1"), c.Node("n2")
			outside := listen(t, c.Outside)
			web, backend := startWeb(t, ctx, c, namespace)
			t.Run("daemon set", func(t *testing.T) { daemonSet(t, ctx, c) })
			t.Run("real pod", func(t *testing.T) { realPod(t, ctx, c, real, web, backend, outside) })
			t.Run("pod as namespace", func(t *testing.T) { namespacePod(t, ctx, namespace, web, backend, outside) })
			t.Log("checked: memory:", c.Memory())
			t.Run("restart", func(t *testing.T) { restart(t, ctx, real) })
		})
	}
}

// startWeb makes a service of both families with one backend, a pod of the node.
func startWeb(t *testing.T, ctx context.Context, c *kube.Cluster, n *kube.Node) (addresses []netip.Addr, backend *peer.Server) {
	t.Helper()
	apply(t, ctx, c, `
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ipFamilyPolicy: RequireDualStack, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`)
	pod, err := n.StartPod(ctx, kube.PodConfig{Name: "web-1", Labels: map[string]string{"app": "web"}})
	if err != nil {
		t.Fatal(err)
	}
	backend = listen(t, &pod.Host)
	service, err := c.Client.CoreV1().Services("default").Get(ctx, "web", meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range service.Spec.ClusterIPs {
		addresses = append(addresses, netip.MustParseAddr(ip))
	}
	// kube-proxy has it once a node can connect.
	for _, n := range c.Nodes() {
		for _, a := range addresses {
			eventually(t, ctx, func() error {
				_, err := n.Connect(ctx, netip.AddrPortFrom(a, webPort), "node "+n.Name)
				return err
			})
		}
	}
	return addresses, backend
}

// daemonSet is as an agent's: in the host's network, with one capability, and what
// it may do is its service account's.
func daemonSet(t *testing.T, ctx context.Context, c *kube.Cluster) {
	begin := time.Now()
	apply(t, ctx, c, `
apiVersion: v1
kind: ServiceAccount
metadata: {name: agent, namespace: kube-system}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent, namespace: kube-system}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      serviceAccountName: agent
      hostNetwork: true
      priorityClassName: system-node-critical
      terminationGracePeriodSeconds: 1
      nodeSelector: {unmasq.test/kubelet: "true"}
      tolerations: [{operator: Exists}]
      containers:
      - name: agent
        image: `+kube.PodImage+`
        imagePullPolicy: Never
        args: ["-name", "agent", "-serve", "`+agent.String()+`"]
        readinessProbe: {tcpSocket: {host: `+agent.Addr().String()+`, port: 9999}, periodSeconds: 1}
        securityContext:
          capabilities: {add: [NET_ADMIN], drop: [ALL]}
          readOnlyRootFilesystem: true
          seccompProfile: {type: RuntimeDefault}
`)
	kubectl(t, ctx, c, "-n", "kube-system", "rollout", "status", "daemonset/agent", "--timeout=60s")
	t.Logf("checked: daemon set ready %.1f s after it was made", time.Since(begin).Seconds())
	if said := kubectl(t, ctx, c, "-n", "kube-system", "get", "pods", "-l", "app=agent", "-o", "jsonpath={.items[*].spec.nodeName}"); said != "n1" {
		t.Errorf("nodes with the daemon set's pod: %q, want n1", said)
	}
	// Who isn't allowed to can't: RBAC decides.
	if _, err := c.Kubectl(ctx, "", "--as=system:serviceaccount:kube-system:agent", "get", "nodes"); err == nil || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("agent without a role asks for nodes: %v, want forbidden", err)
	}
}

// realPod connects in its first act, through the service and to the outside, and
// is seen as itself everywhere.
func realPod(t *testing.T, ctx context.Context, c *kube.Cluster, n *kube.Node, web []netip.Addr, backend, outside *peer.Server) {
	targets := []string{netip.AddrPortFrom(kube.Outside4, backendPort).String(), netip.AddrPortFrom(kube.Outside6, backendPort).String()}
	for _, a := range web {
		targets = append(targets, netip.AddrPortFrom(a, webPort).String())
	}
	pods := c.Client.CoreV1().Pods("default")
	_, err := pods.Create(ctx, &core.Pod{
		ObjectMeta: meta.ObjectMeta{Name: "client", Labels: map[string]string{"app": "client"}},
		Spec: core.PodSpec{NodeSelector: map[string]string{kube.KubeletLabel: "true"}, TerminationGracePeriodSeconds: new(int64(1)),
			Containers: []core.Container{{Name: "client", Image: kube.PodImage, ImagePullPolicy: core.PullNever, Args: append([]string{"-name", "client"}, targets...)}}},
	}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*peer.Server{outside, backend} {
		if _, err := s.Await(ctx, "client"); err != nil {
			t.Fatal(err)
		}
	}
	kubectl(t, ctx, c, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	pod, err := pods.Get(ctx, "client", meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	seenAsItself(t, "client", podAddresses(pod), outside, backend)
	// What the pod says is in its log, which goes from kubelet through the API server.
	reports := strings.Split(strings.TrimSpace(kubectl(t, ctx, c, "logs", "client")), "\n")
	if len(reports) != len(targets) || strings.Contains(strings.Join(reports, ""), "error") {
		t.Errorf("log of the pod: %q, want %d connections that went well", reports, len(targets))
	}
	if said := kubectl(t, ctx, c, "exec", "client", "--", "/pod", "-once", "-name", "executed", targets[0]); !strings.Contains(said, `"server":"outside"`) {
		t.Errorf("executed in the pod: %q", said)
	}
	cached(t, n, pod)
	kubectl(t, ctx, c, "delete", "pod", "client", "--timeout=60s")
	if files := results(t, n); len(files) != 0 {
		t.Errorf("the runtime's network results after the pod is gone: %v", files)
	}
}

// cached looks into the container runtime's result of the network plugin.
func cached(t *testing.T, n *kube.Node, pod *core.Pod) {
	t.Helper()
	for _, name := range results(t, n) {
		text, err := os.ReadFile(filepath.Join(n.CNIResults(), name))
		if err != nil {
			t.Fatal(err)
		}
		var cache struct{ CNIArgs [][2]string }
		if err := json.Unmarshal(text, &cache); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if slices.Contains(cache.CNIArgs, [2]string{"K8S_POD_UID", string(pod.UID)}) {
			for _, a := range podAddresses(pod) {
				if !strings.Contains(string(text), a.String()) {
					t.Errorf("%s has no %s: %s", name, a, text)
				}
			}
			return
		}
	}
	t.Errorf("no network result of pod %s in %s: %v", pod.Name, n.CNIResults(), results(t, n))
}

func results(t *testing.T, n *kube.Node) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(n.CNIResults())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		// containerd has one of the loopback beside each pod's.
		if !strings.HasPrefix(e.Name(), "cni-loopback-") {
			names = append(names, e.Name())
		}
	}
	return names
}

// namespacePod does the same on the other node, where the backend is, too.
func namespacePod(t *testing.T, ctx context.Context, n *kube.Node, web []netip.Addr, backend, outside *peer.Server) {
	pod, err := n.StartPod(ctx, kube.PodConfig{Name: "early", FirstAct: func(ctx context.Context, p *kube.Pod) error {
		for _, a := range append([]netip.Addr{kube.Outside4, kube.Outside6}, web...) {
			port := uint16(backendPort)
			if slices.Contains(web, a) {
				port = webPort
			}
			if _, err := p.Connect(ctx, netip.AddrPortFrom(a, port), "early"); err != nil {
				return err
			}
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	seenAsItself(t, "early", []netip.Addr{pod.IPv4, pod.IPv6}, outside, backend)
	if got := podAddresses(pod.Object); !slices.Equal(got, []netip.Addr{pod.IPv4, pod.IPv6}) {
		t.Errorf("addresses in the status: %v, want %v %v", got, pod.IPv4, pod.IPv6)
	}
	cached(t, n, pod.Object)
	if err := pod.Delete(ctx); err != nil {
		t.Error(err)
	}
}

// restart kills the node's kubelet, then all of it, as a power failure does, then
// its kube-proxy. The daemon set's pod is there afterwards.
func restart(t *testing.T, ctx context.Context, n *kube.Node) {
	for _, p := range []*kube.Process{n.Kubelet, n.Runtime, n.Proxy} {
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := n.Restart(ctx); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, ctx, func() error {
		_, err := n.Connect(ctx, agent, "test")
		return err
	})
}

// seenAsItself: all visits of the name, of both families at each server, came from
// the pod's addresses.
func seenAsItself(t *testing.T, name string, addresses []netip.Addr, servers ...*peer.Server) {
	t.Helper()
	for _, s := range servers {
		var seen []netip.Addr
		for _, v := range s.Visits() {
			if v.Name == name {
				seen = append(seen, v.Source.Addr())
			}
		}
		slices.SortFunc(seen, netip.Addr.Compare)
		if !slices.Equal(seen, addresses) {
			t.Errorf("%s was seen as %v, want %v", name, seen, addresses)
		}
	}
}

// podAddresses, IPv4 first.
func podAddresses(pod *core.Pod) (all []netip.Addr) {
	for _, ip := range pod.Status.PodIPs {
		all = append(all, netip.MustParseAddr(ip.IP))
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return all
}

// podAddress that its peer listens at.
func podAddress(p *kube.Pod) netip.AddrPort { return netip.AddrPortFrom(p.IPv4, backendPort) }

// bounded is the test's time.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// start brings a cluster up that is gone, with nothing left, when the test ends.
func start(t *testing.T, ctx context.Context, config kube.Config) *kube.Cluster {
	t.Helper()
	var steps []string
	config.Logf = func(format string, args ...any) { steps = append(steps, fmt.Sprintf(format, args...)) }
	c, err := kube.Start(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		begin := time.Now()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		t.Logf("checked: cluster gone after %.1f s", time.Since(begin).Seconds())
		nothingLeft(t, os.Getpid())
	})
	t.Logf("checked: %s", strings.Join(steps, ", "))
	return c
}

func nothingLeft(t *testing.T, pid int) {
	t.Helper()
	left, err := kube.LeftBy(pid)
	if err != nil || len(left) != 0 {
		t.Errorf("left of the cluster: %v\n%s", err, strings.Join(left, "\n"))
	}
}

func listen(t *testing.T, h *kube.Host) *peer.Server {
	t.Helper()
	s, err := h.Listen(backendPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func apply(t *testing.T, ctx context.Context, c *kube.Cluster, manifest string) {
	t.Helper()
	if _, err := c.Kubectl(ctx, manifest, "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

func kubectl(t *testing.T, ctx context.Context, c *kube.Cluster, args ...string) string {
	t.Helper()
	out, err := c.Kubectl(ctx, "", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// eventually waits for what comes in moments.
func eventually(t *testing.T, ctx context.Context, ask func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		err := ask()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal(err)
		case <-time.After(100 * time.Millisecond):
		}
	}
}
