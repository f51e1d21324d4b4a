//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/kernel/nft"
	"github.com/unmasq/unmasq/test/kube"
)

// TestManyPolicies has a node with 110 pods and 1,000 policies: each change that the
// API is told comes to the kernel; `make bench-kube` measures how soon. The API
// server streams no lists, as those before Kubernetes 1.34: the agent asks for them,
// of its Node by name.
func TestManyPolicies(t *testing.T) {
	const pods, policies, changes = 110, 1000, 20
	ctx := bounded(t)
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{}}, APIServerFlags: []string{"--feature-gates=WatchList=false"}})
	w := &world{t: t, c: c, node: c.Node("n1"), program: agenttest.Program(t), dir: t.TempDir()}
	w.install(t, ctx)
	manyPods(t, ctx, w, pods)
	manyPolicies(t, ctx, w, policies)
	begin := time.Now()
	w.startAgent(t, ctx)
	t.Logf("checked: %d policies and %d pods in force %v after the agent was started", policies, pods, time.Since(begin).Round(time.Millisecond))
	events := tableEvents(t, ctx, w)
	for i := range changes {
		settled(ctx, events)
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{"app":"app-%d"}}}`, (i*7+1)%pods)
		if _, err := c.Client.CoreV1().Pods("default").Patch(ctx, fmt.Sprint("pod-", i%pods), types.MergePatchType, patch, meta.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		select {
		case <-events:
		case <-ctx.Done():
			t.Fatalf("change %d never came to the kernel:\n%s", i, w.agent.Log())
		}
	}
	t.Logf("checked: %d changes came to the kernel", changes)
	w.agent.Stop(t)
}

// manyPods are objects only: nothing runs.
func manyPods(t *testing.T, ctx context.Context, w *world, n int) {
	t.Helper()
	client := w.c.Client.CoreV1().Pods("default")
	for i := range n {
		name := fmt.Sprint("pod-", i)
		if _, err := client.Create(ctx, &core.Pod{ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{"app": fmt.Sprint("app-", i)}},
			Spec: core.PodSpec{NodeName: w.node.Name, Containers: []core.Container{{Name: "pod", Image: "none"}}}}, meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		status := fmt.Appendf(nil, `{"status":{"phase":"Running","podIP":"10.244.1.%d","podIPs":[{"ip":"10.244.1.%d"},{"ip":"fd00:10:244:1::%x"}]}}`, i+2, i+2, i+2)
		if _, err := client.Patch(ctx, name, types.MergePatchType, status, meta.PatchOptions{}, "status"); err != nil {
			t.Fatal(err)
		}
	}
}

func manyPolicies(t *testing.T, ctx context.Context, w *world, n int) {
	t.Helper()
	all, err := dynamic.NewForConfig(w.c.API.Admin())
	if err != nil {
		t.Fatal(err)
	}
	client := all.Resource(v1alpha1.GroupVersion().WithResource(v1alpha1.SourcePolicies))
	for i := range n {
		u := &unstructured.Unstructured{}
		text := fmt.Sprintf(`{"apiVersion":"unmasq.io/v1alpha1","kind":"SourcePolicy","metadata":{"name":"policy-%d"},"spec":{"rules":[{"name":"out","action":"Masquerade",`+
			`"from":{"pods":{"podSelector":{"matchLabels":{"app":"app-%d"}}}},"to":{"cidrs":["172.%d.%d.0/24","2001:db8:%x::/48"]}}]}}`, i, i%200, 16+i>>8, i&255, i)
		if err := u.UnmarshalJSON([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Create(ctx, u, meta.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// tableEvents has a token when somebody changed the table.
func tableEvents(t *testing.T, ctx context.Context, w *world) <-chan struct{} {
	t.Helper()
	events := make(chan struct{}, 1000)
	var listener *nft.Watcher
	err := w.node.NS.Do(func() (err error) {
		listener, err = nft.Listen(func(uint32) bool { return false })
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = listener.Run(ctx, func(nft.Intrusion) { events <- struct{}{} })
	}()
	t.Cleanup(func() { cancel(); <-done })
	return events
}

// settled waits until nothing came for a while.
func settled(ctx context.Context, events <-chan struct{}) {
	for {
		select {
		case <-events:
		case <-ctx.Done():
			return
		case <-time.After(150 * time.Millisecond):
			return
		}
	}
}
