//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/unmasq/unmasq/test/kube"
)

const shippedImage = "ghcr.io/unmasq/unmasq"

// TestUninstall installs deploy/base on two nodes with real kubelets and takes it
// away in all ways: then, and only then, nodes are cleared.
func TestUninstall(t *testing.T) {
	ctx := bounded(t)
	image := unmasqImage(t, ctx)
	image.Name = shippedImage + ":1"
	node := kube.NodeConfig{Kubelet: true, Proxy: kube.Proxy{Mode: kube.NFTables}}
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{node, node},
		Images: []kube.Image{image}})
	u := &uninstalling{c: c, plugin: &plugin{c: c, program: image.Files["/unmasq"]}, overlay: t.TempDir()}
	if err := kube.Overlay(u.overlay, "../../deploy/base", fmt.Sprintf("{name: %s, newTag: %q}", shippedImage, "1")); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		name string
		run  func(*testing.T, context.Context, *uninstalling)
	}{
		{"install", func(t *testing.T, ctx context.Context, u *uninstalling) { u.install(t, ctx) }},
		{"addresses", addresses},
		{"pod deleted by hand", podDeleted},
		{"rolling update", rollingUpdate},
		{"node not selected any more", nodeNotSelected},
		{"as Helm does", asHelmDoes},
		{"service account gone before", accountGone},
		{"kubectl delete -k", deleteKustomization},
		{"kubectl unmasq uninstall", pluginUninstalls},
		{"agent stopped while the API is away", stoppedInOutage},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, ctx, u) }) {
			u.tell(t, ctx)
			return
		}
	}
}

type uninstalling struct {
	c       *kube.Cluster
	plugin  *plugin
	overlay string
}

// install, and wait until there is a table and a report of each node.
func (u *uninstalling) install(t *testing.T, ctx context.Context) {
	t.Helper()
	kubectl(t, ctx, u.c, "apply", "-k", u.overlay)
	kubectl(t, ctx, u.c, "wait", "--for=condition=Established", "crd/sourcepolicies.unmasq.io", "crd/nodereports.unmasq.io", "--timeout=60s")
	apply(t, ctx, u.c, policyText("masked", ""))
	u.rollout(t, ctx)
	for _, n := range u.c.Nodes() {
		kubectl(t, ctx, u.c, "wait", "nodereport/"+n.Name, "--for=create", "--timeout=60s")
		eventually(t, ctx, func() error { return u.stands(n) })
		eventually(t, ctx, func() error { // written some seconds later
			out, err := n.Run("cat", "/run/unmasq/cluster.json")
			if err == nil && !strings.Contains(out, "masked") {
				err = errors.New("the cache doesn't have the policy")
			}
			return err
		})
	}
}

func (u *uninstalling) rollout(t *testing.T, ctx context.Context) {
	t.Helper()
	kubectl(t, ctx, u.c, "-n", "unmasq", "rollout", "status", "daemonset/unmasq-agent", "--timeout=120s")
}

// tell what an operator would look at.
func (u *uninstalling) tell(t *testing.T, ctx context.Context) {
	for _, args := range [][]string{{"-n", "unmasq", "get", "pods", "-o", "wide"}, {"-n", "unmasq", "get", "events"},
		{"-n", "unmasq", "logs", "-l", "app.kubernetes.io/component=agent", "--tail=20"}} {
		out, err := u.c.Kubectl(ctx, "", args...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// stands: the node has its rules, in its table or in the one that stands in for it
// while it's made anew.
func (u *uninstalling) stands(n *kube.Node) error {
	out, err := n.NS.Run("", "nft", "list", "tables")
	if err == nil && !strings.Contains(out, "unmasq") {
		err = fmt.Errorf("node %s has no table: %s", n.Name, out)
	}
	return err
}

// cleared: no table, no file, no agent.
func (u *uninstalling) cleared(ctx context.Context, nodes ...*kube.Node) error {
	for _, n := range nodes {
		if err := u.stands(n); err == nil {
			return fmt.Errorf("node %s has a table", n.Name)
		}
		if out, err := n.Run("ls", "-A", "/run/unmasq"); err != nil || out != "" {
			return fmt.Errorf("left in /run/unmasq of node %s: %s, %w", n.Name, out, err)
		}
		out, err := u.c.Kubectl(ctx, "", "get", "pods", "-A", "-l", "app.kubernetes.io/name=unmasq", "--field-selector=spec.nodeName="+n.Name, "-o", "name")
		if err != nil || out != "" {
			return fmt.Errorf("pods on node %s: %s, %w", n.Name, out, err)
		}
	}
	return nil
}

// keeps looks at the node's rules again and again until what is done is done.
func (u *uninstalling) keeps(t *testing.T, n *kube.Node, do func()) {
	t.Helper()
	end := make(chan struct{})
	var looking sync.WaitGroup
	looks := 0
	looking.Go(func() {
		for {
			if err := u.stands(n); err != nil {
				t.Error(err)
				return
			}
			looks++
			select {
			case <-end:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	})
	do()
	close(end)
	looking.Wait()
	t.Logf("checked: looked %d times, the rules were there", looks)
}

// addresses: metrics for all, health for the node.
func addresses(t *testing.T, ctx context.Context, u *uninstalling) {
	n := u.c.Node("n1")
	for _, x := range []struct {
		from   *kube.Host
		url    string
		answer bool
	}{
		{u.c.Control, fmt.Sprintf("http://%s:9809/metrics", n.IPv4), true},
		{u.c.Control, fmt.Sprintf("http://%s:9809/readyz", n.IPv4), false},
		{u.c.Control, fmt.Sprintf("http://%s:9808/readyz", n.IPv4), false},
		{&n.Host, "http://127.0.0.1:9808/readyz", true},
		{&n.Host, "http://127.0.0.1:9808/metrics", false},
	} {
		if _, err := x.from.Get(ctx, x.url); (err == nil) != x.answer {
			t.Errorf("%s: %v, want an answer: %v", x.url, err, x.answer)
		}
	}
	u.plugin.run(t, ctx, "admin", "status", "--node", "n1").want(t, 0, "agent   ready", "")
}

func podDeleted(t *testing.T, ctx context.Context, u *uninstalling) {
	n := u.c.Node("n1")
	for _, how := range [][]string{nil, {"--force", "--grace-period=0"}} {
		u.keeps(t, n, func() {
			pod, _, _ := strings.Cut(u.pod(t, ctx, n), " ")
			kubectl(t, ctx, u.c, append([]string{"-n", "unmasq", "delete", "pod", pod}, how...)...)
			eventually(t, ctx, func() error {
				now := u.pod(t, ctx, n)
				if now == "" || strings.Contains(now, pod) || !strings.HasSuffix(now, "True") {
					return fmt.Errorf("after %s agents are %q", pod, now)
				}
				return nil
			})
		})
	}
}

// pod of the node's agent, by its name and whether it's ready.
func (u *uninstalling) pod(t *testing.T, ctx context.Context, n *kube.Node) string {
	t.Helper()
	return kubectl(t, ctx, u.c, "-n", "unmasq", "get", "pods", "--field-selector=spec.nodeName="+n.Name,
		"-o", `jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{end}`)
}

func rollingUpdate(t *testing.T, ctx context.Context, u *uninstalling) {
	u.keeps(t, u.c.Node("n2"), func() {
		kubectl(t, ctx, u.c, "-n", "unmasq", "rollout", "restart", "daemonset/unmasq-agent")
		u.rollout(t, ctx)
	})
}

// nodeNotSelected: the end of a canary.
func nodeNotSelected(t *testing.T, ctx context.Context, u *uninstalling) {
	one, two := u.c.Node("n1"), u.c.Node("n2")
	kubectl(t, ctx, u.c, "label", "node", one.Name, "canary=true")
	u.keeps(t, one, func() {
		kubectl(t, ctx, u.c, "-n", "unmasq", "patch", "daemonset", "unmasq-agent", "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"canary":"true"}}}}}`)
		u.rollout(t, ctx)
		eventually(t, ctx, func() error { return u.cleared(ctx, two) })
	})
	kubectl(t, ctx, u.c, "label", "node", one.Name, "canary-")
	eventually(t, ctx, func() error { return u.cleared(ctx, one) })
	kubectl(t, ctx, u.c, "-n", "unmasq", "patch", "daemonset", "unmasq-agent", "-p", `{"spec":{"template":{"spec":{"nodeSelector":{"canary":null}}}}}`)
	u.install(t, ctx)
}

// asHelmDoes deletes in Helm's order, and waits for nothing.
func asHelmDoes(t *testing.T, ctx context.Context, u *uninstalling) {
	kubectl(t, ctx, u.c, "-n", "unmasq", "delete", "--wait=false", "daemonset/unmasq-agent", "rolebinding/unmasq-agent", "role/unmasq-agent",
		"clusterrolebinding/unmasq-agent", "clusterrole/unmasq-agent", "serviceaccount/unmasq-agent")
	eventually(t, ctx, func() error { return u.cleared(ctx, u.c.Nodes()...) })
	u.install(t, ctx)
}

// accountGone long enough for the API server to have forgotten that it took its
// tokens.
func accountGone(t *testing.T, ctx context.Context, u *uninstalling) {
	n := u.c.Node("n1")
	token, err := n.Run("sh", "-c", "cat /proc/$("+agentProcess+")/root/var/run/secrets/kubernetes.io/serviceaccount/token")
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(u.c.API.Bearer(token))
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, ctx, u.c, "-n", "unmasq", "delete", "serviceaccount", "unmasq-agent")
	eventually(t, ctx, func() error {
		if _, err := client.AppsV1().DaemonSets("unmasq").Get(ctx, "unmasq-agent", meta.GetOptions{}); !apierrors.IsUnauthorized(err) {
			return fmt.Errorf("the agent's token is taken: %w", err)
		}
		return nil
	})
	kubectl(t, ctx, u.c, "-n", "unmasq", "delete", "daemonset", "unmasq-agent")
	eventually(t, ctx, func() error { return u.cleared(ctx, u.c.Nodes()...) })
	u.install(t, ctx)
}

// agentProcess prints the process of a node's agent.
const agentProcess = "grep -lx unmasq /proc/[0-9]*/comm | cut -d/ -f3"

// deleteKustomization deletes definitions, namespace and rights before the daemon set.
func deleteKustomization(t *testing.T, ctx context.Context, u *uninstalling) {
	kubectl(t, ctx, u.c, "delete", "-k", u.overlay, "--ignore-not-found", "--timeout=120s")
	eventually(t, ctx, func() error { return u.cleared(ctx, u.c.Nodes()...) })
	out := kubectl(t, ctx, u.c, "get", "crds,clusterroles,clusterrolebindings,validatingadmissionpolicies,namespaces", "-o", "name")
	if strings.Contains(out, "unmasq") {
		t.Errorf("left:\n%s", out)
	}
	u.install(t, ctx)
}

func pluginUninstalls(t *testing.T, ctx context.Context, u *uninstalling) {
	s := u.plugin.run(t, ctx, "admin", "uninstall", "--dry-run")
	s.want(t, 0, "would delete 1 daemon set, clear 2 nodes, delete 2 reports; nothing was done", "")
	u.plugin.run(t, ctx, "admin", "uninstall", "--node", "n1", "--yes").want(t, 2, "", "node n1 has an agent, which keeps its table")
	s = u.plugin.run(t, ctx, "admin", "uninstall", "--yes")
	s.want(t, 0, "n1  cleared by its agent\nn2  cleared by its agent\n", "stopping agents on 2 nodes\n")
	u.nothingLeft(t, ctx, s)
	u.install(t, ctx)
}

// nothingLeft at the plugin's end, but what it says remains.
func (u *uninstalling) nothingLeft(t *testing.T, ctx context.Context, s said) {
	t.Helper()
	if err := u.cleared(ctx, u.c.Nodes()...); err != nil {
		t.Errorf("%v; it said\n%s%s", err, s.out, s.err)
	}
	if out := kubectl(t, ctx, u.c, "get", "nodereports", "-o", "name"); out != "" {
		t.Errorf("reports are left: %s", out)
	}
	if out := kubectl(t, ctx, u.c, "get", "sourcepolicies", "-o", "name"); out != "sourcepolicy.unmasq.io/masked\n" {
		t.Errorf("policies: %s", out)
	}
}

// stoppedInOutage: an agent that gets no answer leaves its rules; a pod clears them.
func stoppedInOutage(t *testing.T, ctx context.Context, u *uninstalling) {
	n := u.c.Node("n2")
	if err := errors.Join(n.Kubelet.Kill(), u.c.API.Server.Kill()); err != nil { // the kubelet would start it again
		t.Fatal(err)
	}
	if _, err := n.Run("sh", "-c", "kill -TERM $("+agentProcess+")"); err != nil {
		t.Fatal(err)
	}
	eventually(t, ctx, func() error {
		if out, _ := n.Run("sh", "-c", agentProcess); out != "" {
			return errors.New("the agent runs still")
		}
		return nil
	})
	if err := u.stands(n); err != nil {
		t.Error(err)
	}
	if out, err := n.Run("sh", "-c", "cat /var/log/pods/unmasq_*/agent/*.log"); err != nil || !strings.Contains(out, "is being removed isn't known") {
		t.Errorf("the agent's log: %v\n%s", err, out)
	}
	if err := u.c.API.Start(ctx); err != nil {
		t.Fatal(err)
	}
	kubectl(t, ctx, u.c, "-n", "unmasq", "delete", "daemonset", "unmasq-agent")
	eventually(t, ctx, func() error { // else the kubelet starts it again
		out, err := u.c.Kubectl(ctx, "", "-n", "unmasq", "get", "pods", "--field-selector=spec.nodeName="+n.Name, "-o", "jsonpath={.items[*].metadata.deletionTimestamp}")
		if err == nil && out == "" {
			err = errors.New("the pod isn't deleted yet")
		}
		return err
	})
	if err := n.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	eventually(t, ctx, func() error { return u.cleared(ctx, u.c.Node("n1")) })
	eventually(t, ctx, func() error {
		if now := u.pod(t, ctx, n); now != "" {
			return errors.New("there is " + now)
		}
		return nil
	})
	if err := u.stands(n); err != nil {
		t.Error(err)
	}
	u.plugin.run(t, ctx, "admin", "uninstall", "--yes").want(t, 2, "", "name one with --image")
	s := u.plugin.run(t, ctx, "admin", "uninstall", "--yes", "--image", shippedImage+":1")
	s.want(t, 0, "n1  nothing there\nn2  cleared\n", "clearing 2 nodes by pods\n")
	t.Logf("checked:\n%s", s.out)
	u.nothingLeft(t, ctx, s)
}
