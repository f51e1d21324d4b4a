//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/test/kube"
)

// busy is a host that connects again and again, in both families.
type busy struct {
	name string
	node *kube.Node
	stop func() error // and say what failed
}

// busy on each of the nodes: a real pod where there is a kubelet.
func (f *fleet) busy(t *testing.T, ctx context.Context, nodes ...*kube.Node) (all []*busy) {
	t.Helper()
	const pause = 20 * time.Millisecond
	targets := []netip.AddrPort{netip.AddrPortFrom(kube.Outside4, backendPort), netip.AddrPortFrom(kube.Outside6, backendPort)}
	for _, n := range nodes {
		f.mu.Lock()
		f.calls++
		b := &busy{name: fmt.Sprintf("busy-%s-%d", n.Name, f.calls), node: n}
		f.mu.Unlock()
		all = append(all, b)
		if n.Kubelet != nil {
			f.busyPod(t, ctx, b, "-name", b.name, "-every", pause.String(), targets[0].String(), targets[1].String())
			continue
		}
		h := f.hostOn(n)
		ending, end := context.WithCancel(ctx)
		var failed error
		var loop sync.WaitGroup
		loop.Go(func() {
			for ending.Err() == nil {
				for _, to := range targets {
					failed = errors.Join(failed, h.connect(ctx, to, b.name))
				}
				time.Sleep(pause)
			}
		})
		b.stop = func() error { end(); loop.Wait(); return failed }
	}
	return all
}

// busyPod is a real one. What failed is in its log.
func (f *fleet) busyPod(t *testing.T, ctx context.Context, b *busy, args ...string) {
	t.Helper()
	pod := realPodOf(b.node, kube.PodConfig{Name: b.name, Labels: map[string]string{"app": "web"}}, args...)
	if _, err := f.c.Client.CoreV1().Pods("default").Create(ctx, pod, meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	kubectl(t, ctx, f.c, "wait", "--for=condition=Ready", "pod/"+b.name, "--timeout=60s")
	b.stop = func() error {
		log, err := f.c.Kubectl(ctx, "", "logs", b.name)
		if i := strings.Index(log, `"error"`); i >= 0 {
			err = errors.Join(err, fmt.Errorf("%s says %s", b.name, log[max(0, i-100):min(len(log), i+200)]))
		}
		_, gone := f.c.Kubectl(ctx, "", "delete", "pod", b.name, "--now", "--timeout=60s")
		return errors.Join(err, gone)
	}
}

// judge what busy ones were seen as: as their nodes, always.
func (f *fleet) judge(t *testing.T, during string, all []*busy) {
	t.Helper()
	for _, b := range all {
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		f.mu.Lock()
		seen := f.sources[b.name]
		f.mu.Unlock()
		wrong := map[netip.Addr]int{}
		for _, a := range seen {
			if a != b.node.IPv4 && a != b.node.IPv6 {
				wrong[a]++
			}
		}
		t.Logf("checked: %s a pod of %s made %d connections; seen otherwise than as its node: %v", during, b.node.Name, len(seen), wrong)
		if len(wrong) > 0 || len(seen) < 100 {
			t.Errorf("%s a pod of %s made %d connections, seen otherwise than as its node: %v", during, b.node.Name, len(seen), wrong)
		}
	}
}

// agentsUpdated: agents are killed, and then replaced by others of a new version, as
// kubectl is told to. A connection that is made meanwhile is decided as ever, and the
// reports tell the version.
func agentsUpdated(t *testing.T, ctx context.Context, f *fleet) {
	apply(t, ctx, f.c, fleetPolicy("hide", "Masquerade", ""))
	f.become(t, ctx, f.hosts, (*fleetHost).asNode)
	all := f.busy(t, ctx, f.c.Nodes()...)
	for _, n := range f.c.Nodes() {
		if err := f.kill(n); err != nil {
			t.Fatal(err)
		}
		f.killed(t, ctx, n)
	}
	kubectl(t, ctx, f.c, "-n", "unmasq", "set", "image", "daemonset/unmasq-agent", "agent="+fleetImage("v2"))
	f.rollout(t, ctx)
	f.reports(t, ctx, "{.status.agentVersion}", "v2", f.c.Nodes()...)
	f.judge(t, "while agents were killed and updated", all)
	for _, n := range f.c.Nodes() {
		row(t, ctx, f, n.Name, map[string]string{"ENFORCED": "True", "DEGRADED": "False", "POLICIES": "1", "VERSION": "v2"})
	}
	kubectl(t, ctx, f.c, "delete", "sourcepolicies", "--all")
	f.become(t, ctx, f.hosts, (*fleetHost).own)
}

// kill the agent of a node, by SIGKILL. Its kubelet, or the fleet, starts another.
func (f *fleet) kill(n *kube.Node) error {
	if n.Kubelet != nil {
		_, err := n.Run("sh", "-c", `kill -9 "$(basename "$(dirname "$(grep -lx unmasq /proc/[0-9]*/comm | head -n 1)")")"`)
		return err
	}
	a := f.agent(n)
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.process.Kill()
}

// killed waits until another agent runs.
func (f *fleet) killed(t *testing.T, ctx context.Context, n *kube.Node) {
	t.Helper()
	if n.Kubelet == nil {
		eventually(t, ctx, func() error {
			a := f.agent(n)
			a.mu.Lock()
			defer a.mu.Unlock()
			if !a.process.Running() {
				return fmt.Errorf("the agent of %s doesn't run", n.Name)
			}
			return nil
		})
		return
	}
	name := kubectl(t, ctx, f.c, "-n", "unmasq", "get", "pods", "--field-selector=spec.nodeName="+n.Name, "-o", "name")
	kubectl(t, ctx, f.c, "-n", "unmasq", "wait", strings.TrimSpace(name), "--for=jsonpath={.status.containerStatuses[0].restartCount}=1", "--timeout=60s")
	kubectl(t, ctx, f.c, "-n", "unmasq", "wait", strings.TrimSpace(name), "--for=condition=Ready", "--timeout=60s")
}
