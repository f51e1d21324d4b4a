package kubectl

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

const agentObject = `
---
apiVersion: v1
kind: Pod
metadata: {name: agent-1, namespace: unmasq, labels: {app.kubernetes.io/name: unmasq, app.kubernetes.io/component: agent}}
spec: {nodeName: n1, hostNetwork: true, containers: [{name: agent}]}
status: {phase: Running, hostIPs: [{ip: 192.0.2.1}], podIPs: [{ip: 192.0.2.1}], containerStatuses: [{name: agent, state: {running: {}}}]}`

// Pods that have their addresses, services, and nodes by their agents; the node's own
// pods first.
func TestNamesFor(t *testing.T) {
	c, api := cluster(t, objects+agentObject)
	names, notes, err := c.NamesFor(t.Context(), "n2")
	if err != nil || len(notes) > 0 {
		t.Fatal(err, notes)
	}
	var got []string
	for _, n := range names {
		got = append(got, fmt.Sprint(n.Address, " ", n.Name))
	}
	if got[0] != "10.244.2.3 default/web-0" {
		t.Errorf("first: %s", got[0])
	}
	slices.Sort(got)
	want := []string{
		"10.244.1.7 default/client", "10.244.1.8 default/four", "10.244.2.3 default/web-0", "10.96.0.5 default/web", "10.96.0.6 shop/both",
		"10.96.0.7 default/client", "192.0.2.1 n1", "fd00:96::5 shop/both", "fd00:96::6 shop/six", "fd00::7 default/client",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	// Of a large cluster the node's pods alone are asked for.
	asked := ""
	api.PrependReactor("list", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if a.GetNamespace() != "" {
			return false, nil, nil
		}
		asked = a.(clienttesting.ListActionImpl).GetListRestrictions().Fields.String()
		many, list := int64(150000), &unstructured.UnstructuredList{}
		list.SetRemainingItemCount(&many)
		return true, list, nil
	})
	if _, notes, err = c.NamesFor(t.Context(), "n1"); err != nil || asked != "spec.nodeName=n1" || len(notes) != 1 || !strings.Contains(notes[0], "150001 pods: only those of node n1") {
		t.Errorf("asked %q, %v, %v", asked, notes, err)
	}
	c, api = cluster(t, objects+agentObject)
	forbid(api, "list", Services)
	if names, notes, err = c.NamesFor(t.Context(), "n1"); err != nil || len(notes) != 1 || len(names) == 0 {
		t.Errorf("%v, %v, %d names", notes, err, len(names))
	}
}

func TestPod(t *testing.T) {
	c, _ := cluster(t, objects)
	p, err := c.Pod(t.Context(), "client")
	if err != nil || p.Name != "default/client" || p.Node != "n1" || len(p.Addresses) != 2 || p.HostNetwork {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := c.Pod(t.Context(), "kube-system/host"); err != nil || !p.HostNetwork {
		t.Errorf("%+v, %v", p, err)
	}
	for text, want := range map[string]string{
		"nobody": `pod "nobody": there is no pod default/nobody`, "done": "the pod has ended", "pending": "has no address yet", "a/b/c": "expected a pod",
	} {
		if _, err := c.Pod(t.Context(), text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
