package kubectl

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
)

const installation = `
apiVersion: apps/v1
kind: DaemonSet
metadata:
  {name: unmasq-agent, namespace: unmasq, labels: {app.kubernetes.io/name: unmasq, app.kubernetes.io/component: agent, app.kubernetes.io/managed-by: Helm}, annotations: {meta.helm.sh/release-name: r}}
spec:
  template:
    spec:
      imagePullSecrets: [{name: registry}]
      priorityClassName: system-node-critical
      containers: [{name: sidecar, image: x}, {name: agent, image: "unmasq:1", imagePullPolicy: Always}]
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {kubernetes.io/os: linux}}
---
apiVersion: v1
kind: Node
metadata: {name: n2}
---
apiVersion: v1
kind: Node
metadata: {name: n3}
---
apiVersion: v1
kind: Node
metadata: {name: w, labels: {kubernetes.io/os: windows}}
---
apiVersion: unmasq.io/v1alpha1
kind: NodeReport
metadata: {name: n1}
---
apiVersion: unmasq.io/v1alpha1
kind: NodeReport
metadata: {name: n3}
`

func installed(t *testing.T, more ...string) (*Client, *fake.FakeDynamicClient) {
	t.Helper()
	return cluster(t, strings.Join(append([]string{installation}, more...), "\n---\n"))
}

func TestInstalled(t *testing.T) {
	c, _ := installed(t, agentPod("a", "n1", "running: {}", ""), agentPod("b", "n2", "running: {}", ""))
	got, err := c.Installed(t.Context(), false)
	want := &Installed{DaemonSets: []string{"unmasq-agent"}, Release: "r", Nodes: []string{"n1", "n2", "n3"}, Agents: []string{"n1", "n2"}, Reports: []string{"n1", "n3"},
		Clearing: Clearing{Image: "unmasq:1", PullPolicy: "Always", PullSecrets: []any{map[string]any{"name": "registry"}}, PriorityClass: "system-node-critical"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v -want +got\n%s", err, diff)
	}
	// A node that never had an agent is left alone, unless nothing says which had.
	c, api := installed(t, agentPod("a", "n1", "running: {}", ""))
	for _, x := range []struct {
		all  bool
		want string
	}{{false, "n1 n3"}, {true, "n1 n2 n3"}} {
		if got, err = c.Installed(t.Context(), x.all); err != nil || strings.Join(got.Nodes, " ") != x.want {
			t.Errorf("all %v: %v %v, want %s", x.all, got, err, x.want)
		}
	}
	for _, name := range []string{"n1", "n3"} {
		if err := api.Tracker().Delete(NodeReports, "", name); err != nil {
			t.Fatal(err)
		}
	}
	if got, err = c.Installed(t.Context(), false); err != nil || strings.Join(got.Nodes, " ") != "n1 n2 n3" {
		t.Errorf("without reports: %v %v", got, err)
	}
}

// TestStopAgents: what an agent said at its end decides.
func TestStopAgents(t *testing.T) {
	c, api := installed(t, agentPod("a", "n1", "running: {}", ""), agentPod("b", "n2", "running: {}", ""), agentPod("c", "n3", "running: {}", ""), agentPod("d", "n4", "running: {}", ""), agentPod("e", "n5", "terminated: {message: cleared}", ""))
	for _, name := range []string{"a", "b", "c", "d"} { // e was left by a daemon set that is gone
		u, err := api.Tracker().Get(Pods, "unmasq", name)
		if err != nil {
			t.Fatal(err)
		}
		u.(*unstructured.Unstructured).SetOwnerReferences([]meta.OwnerReference{{Kind: "DaemonSet", Name: "unmasq-agent"}})
		if err := api.Tracker().Update(Pods, u, "unmasq"); err != nil {
			t.Fatal(err)
		}
	}
	api.PrependReactor("delete", "daemonsets", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if p := a.(clienttesting.DeleteActionImpl).DeleteOptions.PropagationPolicy; p == nil || *p != "Background" {
			t.Errorf("propagation %v", p)
		}
		if a.(clienttesting.DeleteAction).GetName() != "unmasq-agent" {
			return false, nil, nil
		}
		for name, end := range map[string]string{"a": "message: cleared", "b": "message: the API is away", "c": "reason: OOMKilled"} {
			o, _ := cluster(t, agentPod(name, map[string]string{"a": "n1", "b": "n2", "c": "n3"}[name], "terminated: {"+end+"}", ""))
			last, err := o.Objects.Resource(Pods).Namespace("unmasq").Get(t.Context(), name, meta.GetOptions{})
			if err == nil {
				err = errors.Join(api.Tracker().Update(Pods, last, "unmasq"), api.Tracker().Delete(Pods, "unmasq", name))
			}
			if err != nil {
				t.Error(err)
			}
		}
		return false, nil, nil
	})
	cleared, err := c.StopAgents(t.Context(), []string{"unmasq-agent", "no-such"}, 100*time.Millisecond) // d stays
	if diff := cmp.Diff([]string{"n1", "n5"}, cleared); err != nil || diff != "" {
		t.Errorf("%v -want +got\n%s", err, diff)
	}
	if sets, err := c.Installed(t.Context(), false); err != nil || len(sets.DaemonSets) != 0 {
		t.Errorf("%v %v", sets, err)
	}
}

// TestClear: a pod runs there, and is gone.
func TestClear(t *testing.T) {
	for _, x := range []struct {
		status  string
		nothing bool
		want    string // part of the error
	}{
		{"{phase: Succeeded, containerStatuses: [{name: clear, state: {terminated: {message: cleared}}}]}", false, ""},
		{"{phase: Succeeded, containerStatuses: [{name: clear, state: {terminated: {message: nothing to remove}}}]}", true, ""},
		{"{phase: Succeeded, containerStatuses: [{name: clear, state: {terminated: {}}}]}", false, ""}, // of a version that says nothing
		{"{phase: Failed, containerStatuses: [{name: clear, state: {terminated: {message: 'unmasq: owned by agent'}}}]}", false, "its pod failed: unmasq: owned by agent"},
		{"{phase: Failed, reason: OutOfpods, message: full}", false, "its pod failed: OutOfpods full"},
		{"{phase: Pending, containerStatuses: [{name: clear, state: {waiting: {reason: ErrImagePull, message: no such image}}}]}", false, "didn't end within 50ms: ErrImagePull no such image"},
		{"{phase: Pending}", false, "no kubelet has taken it"},
	} {
		t.Run(x.status, func(t *testing.T) {
			c, api := installed(t)
			var made *unstructured.Unstructured
			api.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
				made = a.(clienttesting.CreateAction).GetObject().(*unstructured.Unstructured)
				made.SetName(made.GetGenerateName() + "x")
				other, _ := cluster(t, "{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: p}, status: "+x.status+"}")
				u, err := other.Objects.Resource(Pods).Namespace("p").Get(t.Context(), "p", meta.GetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				made.Object["status"] = u.Object["status"]
				return false, nil, nil
			})
			nothing, err := c.Clear(t.Context(), &Clearing{Image: "unmasq:1", PriorityClass: "p"}, "n1", 50*time.Millisecond)
			if nothing != x.nothing || (err == nil) != (x.want == "") || err != nil && !strings.Contains(err.Error(), x.want) {
				t.Errorf("%v, %v; want %v, %s", nothing, err, x.nothing, x.want)
			}
			if node, _, _ := unstructured.NestedString(made.Object, "spec", "nodeName"); node != "n1" {
				t.Errorf("node %q", node)
			}
			pods, err := c.Objects.Resource(Pods).List(context.Background(), meta.ListOptions{})
			if err != nil || len(pods.Items) != 0 {
				t.Errorf("left: %v %v", pods, err)
			}
		})
	}
}

func TestDeleteReports(t *testing.T) {
	c, api := installed(t)
	if err := c.DeleteReports(t.Context(), []string{"n1", "gone"}); err != nil {
		t.Error(err)
	}
	forbid(api, "delete", NodeReports)
	if err := c.DeleteReports(t.Context(), []string{"n3"}); err == nil || !strings.Contains(err.Error(), "delete the report of node n3") {
		t.Error(err)
	}
	if got, err := c.Installed(t.Context(), false); err != nil || !slices.Equal(got.Reports, []string{"n3"}) {
		t.Errorf("%v %v", got, err)
	}
}
