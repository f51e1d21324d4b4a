//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/peer"
)

// TestAgentInCluster runs the agent against a real API server on a node that is a
// namespace, with the rights of deploy/base: policies of the API decide there.
func TestAgentInCluster(t *testing.T) {
	ctx := bounded(t)
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{}, {}}})
	w := &world{t: t, c: c, node: c.Node("n1"), outside: listen(t, c.Outside), program: agenttest.Program(t), dir: t.TempDir()}
	w.install(t, ctx)
	w.startAgent(t, ctx)
	for _, step := range []struct {
		name string
		run  func(*testing.T, context.Context, *world)
	}{
		{"labels decide", labelsDecide},
		{"first packet", firstPacket},
		{"namespace labels", namespaceLabels},
		{"address used again", addressUsedAgain},
		{"node selector", nodeSelector},
		{"report", report},
		{"refused policy", refusedPolicy},
		{"pause", pause},
		{"API server away", apiServerAway},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, ctx, w) }) {
			t.Fatalf("the agent's log:\n%s", w.agent.Log())
		}
	}
	w.agent.Stop(t)
}

// world is the cluster with one agent.
type world struct {
	t       *testing.T // of all steps
	c       *kube.Cluster
	node    *kube.Node
	outside *peer.Server
	program string
	dir     string
	args    []string
	agent   *agenttest.Agent
	count   int // of connections
}

// install does what an operator does.
func (w *world) install(t *testing.T, ctx context.Context) {
	base, err := filepath.Abs("../../deploy/base")
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, ctx, w.c, "apply", "-k", base)
	kubectl(t, ctx, w.c, "wait", "--for=condition=Established", "crd/sourcepolicies.unmasq.io", "crd/nodereports.unmasq.io", "--timeout=60s")
}

// startAgent with a token as kubelet gives a pod of the daemon set.
func (w *world) startAgent(t *testing.T, ctx context.Context) {
	config := w.token(t, ctx)
	kubeconfig := filepath.Join(w.dir, "kubeconfig")
	if err := kube.WriteKubeconfig(kubeconfig, config); err != nil {
		t.Fatal(err)
	}
	w.args = []string{"--kube", "--kubeconfig", kubeconfig, "--node-name", w.node.Name, "--cni-results", w.node.CNIResults(),
		"--cni-dir", filepath.Join(w.node.Dir, "net.d"), "--cluster-cache", filepath.Join(w.dir, "run", "cluster.json"),
		"--pod-cidrs", kube.ClusterPods4 + "," + kube.ClusterPods6}
	w.agent = agenttest.Start(w.t, w.node.NS, w.program, w.args...)
}

// token of a pod on the node: its agent's, which runs beside it as a process.
func (w *world) token(t *testing.T, ctx context.Context) *rest.Config {
	t.Helper()
	const account = "unmasq-agent"
	client := w.c.Client.CoreV1()
	pod, err := client.Pods("unmasq").Create(ctx, &core.Pod{ObjectMeta: meta.ObjectMeta{Name: "agent-" + w.node.Name},
		Spec: core.PodSpec{NodeName: w.node.Name, HostNetwork: true, ServiceAccountName: account,
			Containers: []core.Container{{Name: "pod", Image: kube.PodImage, ImagePullPolicy: core.PullNever}}}}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	token, err := client.ServiceAccounts("unmasq").CreateToken(ctx, account, &authentication.TokenRequest{Spec: authentication.TokenRequestSpec{
		BoundObjectRef: &authentication.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}}}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return w.c.API.Bearer(token.Status.Token)
}

// seen is the address that a host is seen as outside.
func (w *world) seen(t *testing.T, ctx context.Context, h *kube.Host) netip.Addr {
	t.Helper()
	answer, err := w.connect(ctx, h)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func (w *world) connect(ctx context.Context, h *kube.Host) (netip.Addr, error) {
	w.count++
	name := fmt.Sprint("visit-", w.count)
	if _, err := h.Connect(ctx, netip.AddrPortFrom(kube.Outside4, backendPort), name); err != nil {
		return netip.Addr{}, err
	}
	visit, err := w.outside.Await(ctx, name)
	return visit.Source.Addr(), err
}

// becomes waits until a host is seen as an address.
func (w *world) becomes(t *testing.T, ctx context.Context, h *kube.Host, want netip.Addr) {
	t.Helper()
	eventually(t, ctx, func() error {
		if got := w.seen(t, ctx, h); got != want {
			return fmt.Errorf("%s is seen as %s, want %s\n%s", h.Name, got, want, w.agent.Log())
		}
		return nil
	})
}

func (w *world) pod(t *testing.T, ctx context.Context, name string, labels map[string]string) *kube.Pod {
	t.Helper()
	p, err := w.node.StartPod(ctx, kube.PodConfig{Name: name, Labels: labels})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// policyText is a policy that translates what pods send out.
func policyText(name, from string) string {
	return fmt.Sprintf(`
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: %s}
spec:
  rules: [{name: out, from: {pods: {%s}}, to: {cidrs: [%s/32]}, action: Masquerade}]
`, name, from, kube.Outside4)
}

func labelsDecide(t *testing.T, ctx context.Context, w *world) {
	web, db := w.pod(t, ctx, "web", map[string]string{"app": "web"}), w.pod(t, ctx, "db", map[string]string{"app": "db"})
	if got := w.seen(t, ctx, &web.Host); got != web.IPv4 {
		t.Errorf("without a policy the pod is seen as %s, want %s", got, web.IPv4)
	}
	apply(t, ctx, w.c, policyText("labels", "podSelector: {matchLabels: {app: web}}"))
	w.becomes(t, ctx, &web.Host, w.node.IPv4)
	if got := w.seen(t, ctx, &db.Host); got != db.IPv4 {
		t.Errorf("a pod with another label is seen as %s, want %s", got, db.IPv4)
	}
	kubectl(t, ctx, w.c, "label", "pod", "db", "app=web", "--overwrite")
	w.becomes(t, ctx, &db.Host, w.node.IPv4)
	kubectl(t, ctx, w.c, "label", "pod", "web", "app-")
	w.becomes(t, ctx, &web.Host, web.IPv4)
	for _, p := range []*kube.Pod{web, db} {
		if err := p.Delete(ctx); err != nil {
			t.Fatal(err)
		}
	}
}

// firstPacket: a pod is decided by its labels before the API tells its addresses,
// which it does when the first act is over.
func firstPacket(t *testing.T, ctx context.Context, w *world) {
	var longest time.Duration
	for i := range 20 {
		app := []string{"web", "db"}[i%2]
		p, err := w.node.StartPod(ctx, kube.PodConfig{Name: fmt.Sprint("early-", i), Labels: map[string]string{"app": app},
			FirstAct: func(ctx context.Context, p *kube.Pod) error {
				begin, want := time.Now(), w.node.IPv4
				if app == "db" {
					want = p.IPv4
				}
				err := w.awaitSeen(ctx, &p.Host, want)
				longest = max(longest, time.Since(begin))
				return err
			}})
		if err != nil {
			t.Fatalf("pod %d, %s: %v\n%s", i, app, err, w.agent.Log())
		}
		if err := p.Delete(ctx); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("checked: decided by labels, and seen so, at most %v after the network plugin's end", longest.Round(time.Millisecond))
}

// awaitSeen asks until a host is seen as an address.
func (w *world) awaitSeen(ctx context.Context, h *kube.Host, want netip.Addr) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		got, err := w.connect(ctx, h)
		if err == nil && got == want {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%s is seen as %s, want %s: %w", h.Name, got, want, errors.Join(err, ctx.Err()))
		}
	}
}

func namespaceLabels(t *testing.T, ctx context.Context, w *world) {
	p := w.pod(t, ctx, "spaced", nil)
	apply(t, ctx, w.c, policyText("spaces", "namespaceSelector: {matchLabels: {team: web}}"))
	kubectl(t, ctx, w.c, "label", "namespace", "default", "team=web")
	w.becomes(t, ctx, &p.Host, w.node.IPv4)
	kubectl(t, ctx, w.c, "label", "namespace", "default", "team-")
	w.becomes(t, ctx, &p.Host, p.IPv4)
	kubectl(t, ctx, w.c, "delete", "sourcepolicy", "spaces")
	if err := p.Delete(ctx); err != nil {
		t.Fatal(err)
	}
}

// addressUsedAgain: an ended pod's address is nobody's, be its object still there.
func addressUsedAgain(t *testing.T, ctx context.Context, w *world) {
	p := w.pod(t, ctx, "job", map[string]string{"app": "web"})
	w.becomes(t, ctx, &p.Host, w.node.IPv4)
	patch := []byte(`{"status":{"phase":"Succeeded"}}`)
	if _, err := w.c.Client.CoreV1().Pods("default").Patch(ctx, "job", types.StrategicMergePatchType, patch, meta.PatchOptions{}, "status"); err != nil {
		t.Fatal(err)
	}
	w.becomes(t, ctx, &p.Host, p.IPv4)
	if err := p.Delete(ctx); err != nil {
		t.Fatal(err)
	}
}

func nodeSelector(t *testing.T, ctx context.Context, w *world) {
	p := w.pod(t, ctx, "anywhere", nil)
	text := policyText("zone", "")
	apply(t, ctx, w.c, strings.Replace(text, "spec:\n", "spec:\n  nodeSelector: {matchLabels: {zone: a}}\n", 1))
	kubectl(t, ctx, w.c, "label", "node", w.node.Name, "zone=a")
	w.becomes(t, ctx, &p.Host, w.node.IPv4)
	kubectl(t, ctx, w.c, "label", "node", w.node.Name, "zone-")
	w.becomes(t, ctx, &p.Host, p.IPv4)
	kubectl(t, ctx, w.c, "delete", "sourcepolicy", "zone")
	if err := p.Delete(ctx); err != nil {
		t.Fatal(err)
	}
}

// field of the node's report.
func (w *world) field(ctx context.Context, path string) (string, error) {
	return w.c.Kubectl(ctx, "", "get", "nodereport", w.node.Name, "-o", "jsonpath="+path)
}

// reports waits for what a field of the report says; it is written at most once in
// half a minute.
func (w *world) reports(t *testing.T, ctx context.Context, path, want string) {
	t.Helper()
	eventually(t, ctx, func() error {
		got, err := w.field(ctx, path)
		if err == nil && got != want {
			err = fmt.Errorf("%s of the report: %q, want %q", path, got, want)
		}
		return err
	})
}

func conditionPath(kind, field string) string {
	return fmt.Sprintf("{.status.conditions[?(@.type=='%s')].%s}", kind, field)
}

func report(t *testing.T, ctx context.Context, w *world) {
	w.reports(t, ctx, "{.status.policies[*].name}", "labels")
	w.reports(t, ctx, conditionPath("Enforced", "status"), "True")
	w.reports(t, ctx, conditionPath("EarlyPodFacts", "status"), "True")
	w.reports(t, ctx, "{.metadata.ownerReferences[0].name}", w.node.Name)
	t.Logf("checked: %s", kubectl(t, ctx, w.c, "get", "nodereports"))
	// As the admission policy of deploy/base has it, of no other node.
	if _, err := w.c.Kubectl(ctx, "", "get", "nodereport", "n2"); err == nil {
		t.Error("there is a report of a node without an agent")
	}
}

// refusedPolicy: the API server takes what only agents can refuse; all else goes on.
func refusedPolicy(t *testing.T, ctx context.Context, w *world) {
	p := w.pod(t, ctx, "refused", map[string]string{"app": "other"})
	apply(t, ctx, w.c, policyText("mended", "podSelector: {matchLabels: {app: other}}"))
	w.becomes(t, ctx, &p.Host, w.node.IPv4)
	// It needs what nobody stated to this agent: which nodes there are.
	nodes := strings.Replace(policyText("mended", "podSelector: {matchLabels: {app: other}}"), "to: {", "to: {nodes: {}, ", 1)
	apply(t, ctx, w.c, nodes)
	w.reports(t, ctx, "{.status.refusals[*].name}", "mended")
	message, err := w.field(ctx, "{.status.refusals[0].message}")
	if err != nil || !strings.Contains(message, "spec.rules[0].to.nodes: needs to know the cluster's nodes: state their networks with --node-cidrs") {
		t.Errorf("why it is refused: %q, %v", message, err)
	}
	w.reports(t, ctx, "{.status.refusals[0].generation}/{.status.refusals[0].inForce}", "2/1")
	w.reports(t, ctx, conditionPath("Degraded", "reason"), "PoliciesRefused")
	if got := w.seen(t, ctx, &p.Host); got != w.node.IPv4 {
		t.Errorf("the last good one isn't in force: the pod is seen as %s", got)
	}
	if status, body, err := w.agent.Get("/readyz"); err != nil || status != 200 || !strings.Contains(body, "policy refused") {
		t.Errorf("/readyz: %d %q %v", status, body, err)
	}
	kubectl(t, ctx, w.c, "delete", "sourcepolicy", "mended")
	w.becomes(t, ctx, &p.Host, p.IPv4)
	if err := p.Delete(ctx); err != nil {
		t.Fatal(err)
	}
}

func pause(t *testing.T, ctx context.Context, w *world) {
	p := w.pod(t, ctx, "paused", map[string]string{"app": "web"})
	w.becomes(t, ctx, &p.Host, w.node.IPv4)
	kubectl(t, ctx, w.c, "annotate", "node", w.node.Name, "unmasq.io/pause=true")
	w.becomes(t, ctx, &p.Host, p.IPv4)
	w.reports(t, ctx, conditionPath("Enforced", "reason"), "Paused")
	kubectl(t, ctx, w.c, "annotate", "node", w.node.Name, "unmasq.io/pause-")
	w.becomes(t, ctx, &p.Host, w.node.IPv4)
	if err := p.Delete(ctx); err != nil {
		t.Fatal(err)
	}
}

// apiServerAway for 20 s: the table is repaired, an agent that is killed and
// started again enforces what was known, a new pod's addresses are known.
func apiServerAway(t *testing.T, ctx context.Context, w *world) {
	before := w.pod(t, ctx, "before", map[string]string{"app": "web"})
	w.becomes(t, ctx, &before.Host, w.node.IPv4)
	cache := filepath.Join(w.dir, "run", "cluster.json")
	eventually(t, ctx, func() error { // within some seconds
		text, err := os.ReadFile(cache)
		if err == nil && !strings.Contains(string(text), `"name":"before"`) {
			err = errors.New("the cache doesn't have the pod")
		}
		return err
	})
	away := time.Now()
	if err := w.c.API.Server.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, ctx, func() error {
		status, body, err := w.agent.Get("/readyz")
		if err == nil && (status != 200 || !strings.Contains(body, "not followed since")) {
			err = fmt.Errorf("/readyz while the API server is away: %d %s", status, body)
		}
		return err
	})
	w.agent.Kill()
	// The table stays, an orphan that anybody can change.
	if got := w.seen(t, ctx, &before.Host); got != w.node.IPv4 {
		t.Errorf("with the agent dead the pod is seen as %s", got)
	}
	if out, err := w.node.NS.Run("", "nft", "flush", "ruleset"); err != nil {
		t.Fatal(out, err)
	}
	w.agent = agenttest.Start(w.t, w.node.NS, w.program, append(w.args, "--table-ownership", "off")...)
	w.becomes(t, ctx, &before.Host, w.node.IPv4)
	if out, err := w.node.NS.Run("", "nft", "delete", "table", "inet", "unmasq"); err != nil {
		t.Fatal(out, err)
	}
	w.becomes(t, ctx, &before.Host, w.node.IPv4)
	time.Sleep(time.Until(away.Add(20 * time.Second)))
	if got := w.seen(t, ctx, &before.Host); got != w.node.IPv4 {
		t.Errorf("after 20 s without the API server the pod is seen as %s", got)
	}
	if err := w.c.API.Start(ctx); err != nil {
		t.Fatal(err)
	}
	back := time.Now()
	apply(t, ctx, w.c, policyText("labels", "podSelector: {matchLabels: {app: none}}"))
	w.becomes(t, ctx, &before.Host, before.IPv4)
	t.Logf("checked: followed again %.1f s after the API server was back", time.Since(back).Seconds())
	if pods, err := w.c.Client.CoreV1().Pods("default").List(ctx, meta.ListOptions{}); err != nil || len(pods.Items) != 1 || pods.Items[0].Status.Phase != core.PodRunning {
		t.Errorf("pods: %v, %v", pods, err)
	}
}
