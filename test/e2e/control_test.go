//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	authentication "k8s.io/api/authentication/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/unmasq/unmasq/test/kube"
)

// TestControlPlane needs no kubelet: what tests of one agent stand on.
func TestControlPlane(t *testing.T) {
	ctx := bounded(t)
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{}}})
	t.Run("tokens are bound", func(t *testing.T) { boundToken(t, ctx, c) })
	t.Run("admission policies", func(t *testing.T) { admissionPolicy(t, ctx, c) })
	t.Run("nodes come and go", func(t *testing.T) { comeAndGo(t, ctx, c) })
	t.Run("pods are deleted", func(t *testing.T) { deleted(t, ctx, c) })
	t.Run("daemon sets", func(t *testing.T) { adopted(t, ctx, c) })
	t.Run("addresses are few", func(t *testing.T) { fewAddresses(t, ctx, c) })
	t.Run("API server stops", func(t *testing.T) { outage(t, ctx, c) })
}

// boundToken: the API server knows by an agent's token which node it is on.
func boundToken(t *testing.T, ctx context.Context, c *kube.Cluster) {
	pod, err := c.Node("n1").StartPod(ctx, kube.PodConfig{Name: "agent", HostNetwork: true})
	if err != nil {
		t.Fatal(err)
	}
	config, err := pod.Config(ctx)
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	review, err := client.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authentication.SelfSubjectReview{}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	user := review.Status.UserInfo
	if node := user.Extra["authentication.kubernetes.io/node-name"]; user.Username != "system:serviceaccount:default:default" || !slices.Equal(node, []string{"n1"}) {
		t.Errorf("the token's user: %+v, want the default service account on n1", user)
	}
	if _, err := client.CoreV1().Pods("default").List(ctx, meta.ListOptions{}); err == nil || !strings.Contains(err.Error(), "forbidden") {
		t.Errorf("it lists pods: %v, want forbidden", err)
	}
	if err := pod.Delete(ctx); err != nil {
		t.Error(err)
	}
}

// admissionPolicy: the API server keeps to ValidatingAdmissionPolicies.
func admissionPolicy(t *testing.T, ctx context.Context, c *kube.Cluster) {
	apply(t, ctx, c, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-color}
spec:
  failurePolicy: Fail
  matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]}
  validations: [{expression: "!has(object.data) || !('color' in object.data)", message: no colors here}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-color}
spec: {policyName: no-color, validationActions: [Deny]}
`)
	eventually(t, ctx, func() error { // until the policy is in force
		_, err := c.Kubectl(ctx, "", "create", "configmap", "red", "--from-literal=color=red", "--dry-run=server")
		if err == nil {
			return errors.New("a config map with a color was admitted")
		}
		if !strings.Contains(err.Error(), "no colors here") {
			t.Fatal(err)
		}
		return nil
	})
}

// comeAndGo adds a node, under the same name twice, and pods on it.
func comeAndGo(t *testing.T, ctx context.Context, c *kube.Cluster) {
	first := c.Node("n1")
	for range 2 {
		n, err := c.AddNode(ctx, kube.NodeConfig{Name: "visitor"})
		if err != nil {
			t.Fatal(err)
		}
		pod, err := n.StartPod(ctx, kube.PodConfig{Name: "guest"})
		if err != nil {
			t.Fatal(err)
		}
		server := listen(t, &pod.Host)
		answer, err := first.Connect(ctx, podAddress(pod), "first")
		if err != nil || answer.Source.Addr() != first.IPv4 || answer.Server != "guest" {
			t.Errorf("from one node to the other's pod: %v %v, want %s", answer, err, first.IPv4)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if err := n.Remove(ctx); err != nil {
			t.Fatal(err)
		}
		eventually(t, ctx, func() error { // its pods go with it
			left := kubectl(t, ctx, c, "get", "pods", "guest", "--ignore-not-found", "-o", "name")
			if left != "" {
				return fmt.Errorf("%s is there", left)
			}
			return nil
		})
	}
	if nodes := kubectl(t, ctx, c, "get", "nodes", "-o", "name"); nodes != "node/n1\n" {
		t.Errorf("nodes: %q, want n1", nodes)
	}
}

// deleted: whose object is deleted ends, and gives its addresses to the next.
func deleted(t *testing.T, ctx context.Context, c *kube.Cluster) {
	pod, err := c.Node("n1").StartPod(ctx, kube.PodConfig{Name: "victim"})
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, ctx, c, "delete", "pod", "victim", "--timeout=60s")
	if files := results(t, pod.Node); len(files) != 0 {
		t.Errorf("network results after the pod is gone: %v", files)
	}
	if err := pod.Delete(ctx); err != nil {
		t.Errorf("deleted again: %v", err)
	}
	if _, err := pod.Connect(ctx, podAddress(pod), "ghost"); err == nil {
		t.Error("a pod that is gone connects")
	}
}

// adopted: a daemon set's pod on a node without kubelet is what the test makes of it,
// also for those who wait for the roll-out; and it ends with the daemon set.
func adopted(t *testing.T, ctx context.Context, c *kube.Cluster) {
	apply(t, ctx, c, `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: everywhere}
spec:
  selector: {matchLabels: {app: everywhere}}
  template:
    metadata: {labels: {app: everywhere}}
    spec:
      hostNetwork: true
      tolerations: [{operator: Exists}]
      containers: [{name: agent, image: none}]
`)
	n := c.Node("n1")
	eventually(t, ctx, func() error {
		pods, err := c.Client.CoreV1().Pods("default").List(ctx, meta.ListOptions{LabelSelector: "app=everywhere", FieldSelector: "spec.nodeName=n1"})
		if err != nil || len(pods.Items) != 1 {
			return fmt.Errorf("pods of the daemon set: %v %w", pods, err)
		}
		pod, err := n.Adopt(ctx, &pods.Items[0])
		if err == nil && pod.IPv4 != n.IPv4 {
			t.Errorf("it has %s, want the node's %s", pod.IPv4, n.IPv4)
		}
		return err
	})
	kubectl(t, ctx, c, "rollout", "status", "daemonset/everywhere", "--timeout=60s")
	kubectl(t, ctx, c, "delete", "daemonset", "everywhere", "--cascade=foreground", "--timeout=60s")
	if left := kubectl(t, ctx, c, "get", "pods", "-l", "app=everywhere", "-o", "name"); left != "" {
		t.Errorf("left of the daemon set: %s", left)
	}
}

// fewAddresses: a pod has the address at once of one that is gone.
func fewAddresses(t *testing.T, ctx context.Context, c *kube.Cluster) {
	n, err := c.AddNode(ctx, kube.NodeConfig{Addresses: 1})
	if err != nil {
		t.Fatal(err)
	}
	first, err := n.StartPod(ctx, kube.PodConfig{Name: "first"})
	if err != nil {
		t.Fatal(err)
	}
	if none, err := n.StartPod(ctx, kube.PodConfig{Name: "none"}); err == nil {
		t.Errorf("beside %s another pod has %s", first.IPv4, none.IPv4)
	}
	if err := first.Delete(ctx); err != nil {
		t.Fatal(err)
	}
	second, err := n.StartPod(ctx, kube.PodConfig{Name: "second"})
	if err != nil || second.IPv4 != first.IPv4 || second.IPv6 != first.IPv6 {
		t.Fatalf("the next pod: %v %v, want the addresses %s and %s", second, err, first.IPv4, first.IPv6)
	}
	if err := n.Remove(ctx); err != nil {
		t.Error(err)
	}
}

// outage: what there was is there when the API server is back, and its controllers
// work.
func outage(t *testing.T, ctx context.Context, c *kube.Cluster) {
	if err := c.API.Server.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Client.CoreV1().Nodes().List(ctx, meta.ListOptions{}); err == nil {
		t.Error("the API server answers though it was killed")
	}
	if err := c.API.Start(ctx); err != nil {
		t.Fatal(err)
	}
	kubectl(t, ctx, c, "create", "namespace", "afterwards")
	eventually(t, ctx, func() error {
		_, err := c.Client.CoreV1().ServiceAccounts("afterwards").Get(ctx, "default", meta.GetOptions{})
		return err
	})
	if c.Node("n1") == nil || kubectl(t, ctx, c, "get", "nodes", "-o", "name") != "node/n1\n" {
		t.Error("node n1 is gone after the outage")
	}
}
