package cli

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/unmasq/unmasq/internal/kubectl"
)

const agentSet = `{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{"name":"unmasq-agent","namespace":"unmasq",
	"labels":{"app.kubernetes.io/name":"unmasq","app.kubernetes.io/component":"agent"}},"spec":{"template":{"spec":{"containers":[{"name":"agent","image":"unmasq:1"}]}}}}`

// uninstalling is the example's cluster: the agent of node-a clears it at its end,
// that of node-b says nothing, node-c has none. Pods that clear end as clear says.
func uninstalling(t *testing.T, set bool, clear map[string]string) *plugin {
	p := &plugin{t: t}
	p.prepare = func(api *fake.FakeDynamicClient) {
		tracker := api.Tracker()
		if set {
			o := &unstructured.Unstructured{}
			if err := o.UnmarshalJSON([]byte(agentSet)); err != nil {
				t.Fatal(err)
			}
			if err := tracker.Create(kubectl.DaemonSets, o, "unmasq"); err != nil {
				t.Fatal(err)
			}
		}
		api.PrependReactor("delete", "daemonsets", func(clienttesting.Action) (bool, runtime.Object, error) {
			for name, said := range map[string]string{"agent-a": "cleared", "agent-b": ""} {
				o, err := tracker.Get(kubectl.Pods, "unmasq", name)
				if err != nil {
					t.Fatal(err)
				}
				u := o.(*unstructured.Unstructured).DeepCopy()
				u.Object["status"] = map[string]any{"containerStatuses": []any{map[string]any{"name": "agent", "state": map[string]any{"terminated": map[string]any{"message": said}}}}}
				if err := tracker.Update(kubectl.Pods, u, "unmasq"); err != nil {
					t.Fatal(err)
				}
				if err := tracker.Delete(kubectl.Pods, "unmasq", name); err != nil {
					t.Fatal(err)
				}
			}
			return false, nil, nil
		})
		api.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			u := a.(clienttesting.CreateAction).GetObject().(*unstructured.Unstructured)
			node, _, _ := unstructured.NestedString(u.Object, "spec", "nodeName")
			u.SetName("clear-" + node)
			phase, said, _ := strings.Cut(clear[node], " ")
			u.Object["status"] = map[string]any{"phase": phase, "containerStatuses": []any{map[string]any{"name": "clear", "state": map[string]any{"terminated": map[string]any{"message": said}}}}}
			return false, nil, nil
		})
	}
	return p
}

func TestKubectlUninstall(t *testing.T) {
	// node-a and node-c are the example's Nodes; the Node of node-b is gone.
	p := uninstalling(t, true, map[string]string{"node-c": "Succeeded nothing to remove"})
	status, out, log := p.unmasq("uninstall", "--yes")
	const want = `node-a  cleared by its agent
node-c  nothing there

Then remove what remains, the second with all policies:
  kubectl delete --ignore-not-found -k deploy/base
  kubectl delete crd sourcepolicies.unmasq.io nodereports.unmasq.io
`
	if diff := cmp.Diff(want, out); status != 0 || diff != "" || log != "stopping agents on 2 nodes\nclearing 1 node by pods\n" {
		t.Errorf("status %d, %s\n-want +got\n%s", status, log, diff)
	}
	p = uninstalling(t, true, map[string]string{"node-c": "Failed unmasq: table inet unmasq is owned by agent"})
	status, out, log = p.unmasq("uninstall", "--yes", "-o", "json")
	var r uninstallReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != statusWrong || !strings.Contains(log, "1 of 2 nodes could not be cleared") {
		t.Fatalf("status %d, %v, %s%s", status, err, out, log)
	}
	wantNodes := []clearedState{{Node: "node-a", Result: "cleared", By: "agent"}, {Node: "node-c", Result: "could not", By: "pod", Problem: "its pod failed: unmasq: table inet unmasq is owned by agent"}}
	if diff := cmp.Diff(wantNodes, r.Nodes); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestKubectlUninstallNode(t *testing.T) {
	p := uninstalling(t, true, map[string]string{"node-c": "Succeeded cleared"})
	status, out, log := p.unmasq("uninstall", "--node", "node-c", "--yes")
	if status != 0 || out != "node-c  cleared\n" || log != "clearing 1 node by pods\n" { // no agent was stopped
		t.Errorf("status %d, %s%s", status, out, log)
	}
}

func TestKubectlUninstallAsks(t *testing.T) {
	for _, x := range []struct {
		args, answer string
		set          bool
		status       int
		want         string // part of what is said
	}{
		{"", "y\n", true, 0, "This deletes daemon set unmasq/unmasq-agent and unmasq's rules on 2 nodes. Go on? [y/N] "},
		{"", "n\n", true, statusWrong, "nothing was done"},
		{"", "\n", true, statusWrong, "nothing was done"},
		{"", "", true, statusUsage, "nobody answered; say --yes"},
		{"--dry-run", "", true, 0, "would delete 1 daemon set, clear 2 nodes, delete 0 reports; nothing was done"},
		{"--dry-run", "", true, 0, "node-a  has an agent\nnode-c  has no agent\n"},
		{"--yes", "", false, statusUsage, "name one with --image"},
		{"--yes --image unmasq:1 --timeout 50ms", "", false, 0, "node-c  cleared"},
		{"--node node-a", "", true, statusUsage, "node node-a has an agent, which keeps its table"},
		{"--node node-z", "", true, statusUsage, "the cluster has no node node-z"},
		{"--node node-c --all", "", true, statusUsage, "expected one of the two"},
		{"-o yaml", "", true, statusUsage, `-o "yaml": expected json or text`},
		{"node-c", "", true, statusUsage, `unexpected argument "node-c"`},
	} {
		t.Run(x.args+" "+strings.TrimSpace(x.answer), func(t *testing.T) {
			p := uninstalling(t, x.set, map[string]string{"node-a": "Succeeded cleared", "node-c": "Succeeded cleared"})
			done := false
			prepare := p.prepare
			p.prepare = func(api *fake.FakeDynamicClient) {
				prepare(api)
				for _, verb := range []string{"delete", "create"} {
					api.PrependReactor(verb, "*", func(clienttesting.Action) (bool, runtime.Object, error) {
						done = true
						return false, nil, nil
					})
				}
			}
			var both bytes.Buffer
			status := runCommand(kubectlBy("v0-test", p.connect), append([]string{"uninstall"}, strings.Fields(x.args)...), strings.NewReader(x.answer), &both, &both)
			if status != x.status || !strings.Contains(both.String(), x.want) {
				t.Errorf("status %d, want %d\n%s\nwant %s", status, x.status, both.String(), x.want)
			}
			if want := x.status == 0 && !strings.Contains(x.args, "dry-run"); done != want {
				t.Errorf("something was done: %v, want %v", done, want)
			}
		})
	}
}
