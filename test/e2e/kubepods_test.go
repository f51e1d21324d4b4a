//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/test/kube"
)

// TestRealPodsFirstPackets starts real pods whose first act is to connect, in both
// families, with two labels of which one is translated: the first packet of each is
// decided rightly. Rounds use the addresses of those before.
func TestRealPodsFirstPackets(t *testing.T) {
	const rounds, pods = 4, 12
	ctx := bounded(t)
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{Kubelet: true}}})
	w := &world{t: t, c: c, node: c.Node("n1"), outside: listen(t, c.Outside), program: agenttest.Program(t), dir: t.TempDir()}
	w.install(t, ctx)
	apply(t, ctx, c, fmt.Sprintf(`
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: web}
spec:
  rules: [{name: out, from: {pods: {podSelector: {matchLabels: {app: web}}}}, to: {cidrs: [%s/32, "%s/128"]}, action: Masquerade}]
`, kube.Outside4, kube.Outside6))
	w.startAgent(t, ctx)
	wrong := 0
	for round := range rounds {
		for i := range pods {
			realPodThatConnects(t, ctx, c, podName(round, i), appOf(round, i))
		}
		for i := range pods {
			wrong += wrongSources(t, ctx, w, podName(round, i), appOf(round, i))
		}
		kubectl(t, ctx, c, "delete", "pods", "-l", "first=packet", "--timeout=120s")
	}
	t.Logf("checked: %d real pods, whose first act was to connect in both families: %d connections decided wrongly", rounds*pods, wrong)
	if wrong > 0 {
		t.Errorf("the agent's log:\n%s", w.agent.Log())
	}
	w.agent.Stop(t)
}

func podName(round, i int) string { return fmt.Sprintf("first-%d-%d", round, i) }

// appOf changes from round to round, so that an address is of one and then the other.
func appOf(round, i int) string { return []string{"web", "db"}[(round+i)%2] }

func realPodThatConnects(t *testing.T, ctx context.Context, c *kube.Cluster, name, app string) {
	t.Helper()
	_, err := c.Client.CoreV1().Pods("default").Create(ctx, &core.Pod{
		ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{"app": app, "first": "packet"}},
		Spec: core.PodSpec{NodeSelector: map[string]string{kube.KubeletLabel: "true"}, TerminationGracePeriodSeconds: new(int64(1)),
			AutomountServiceAccountToken: new(false),
			Containers: []core.Container{{Name: "pod", Image: kube.PodImage, ImagePullPolicy: core.PullNever, Args: []string{"-name", name,
				netip.AddrPortFrom(kube.Outside4, backendPort).String(), netip.AddrPortFrom(kube.Outside6, backendPort).String()}}}},
	}, meta.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// wrongSources counts the connections of a pod that came from elsewhere than they
// should, once it was seen in both families.
func wrongSources(t *testing.T, ctx context.Context, w *world, name, app string) (wrong int) {
	t.Helper()
	var seen []netip.Addr
	eventually(t, ctx, func() error {
		seen = nil
		for _, v := range w.outside.Visits() {
			if v.Name == name {
				seen = append(seen, v.Source.Addr())
			}
		}
		if len(seen) < 2 {
			return fmt.Errorf("%s was seen as %v, want both families", name, seen)
		}
		return nil
	})
	for _, a := range seen {
		asNode := a == w.node.IPv4 || a == w.node.IPv6
		asPod := w.node.Pods4.Contains(a) || w.node.Pods6.Contains(a)
		if app == "web" && !asNode || app == "db" && !asPod {
			t.Errorf("%s, %s, was seen as %s", name, app, a)
			wrong++
		}
	}
	return wrong
}
