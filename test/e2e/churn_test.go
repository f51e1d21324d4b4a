//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	cniresults "github.com/unmasq/unmasq/internal/cni/results"
	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/peer"
)

// churnSlots are pods at a time, and addresses of each family.
const churnSlots = 20

// TestChurn starts and deletes real pods, UNMASQ_PODS of them, whose first act is to
// connect in both families: from one container, from an init container before it,
// from two. What they are seen as is decided by their labels, and by those of a
// namespace that change meanwhile. The node has as many addresses as pods at a time,
// so that an address that is given back is the next pod's, of other labels.
func TestChurn(t *testing.T) {
	ctx := bounded(t)
	w := newChurn(t, ctx)
	begin := time.Now()
	var all sync.WaitGroup
	for slot := range churnSlots {
		all.Go(func() { w.fill(t, ctx, slot) })
	}
	all.Go(func() { w.relabel(t, ctx) })
	all.Wait()
	w.judge(t, time.Since(begin))
}

// churn is the node and what was seen of its pods.
type churn struct {
	c       *kube.Cluster
	node    *kube.Node
	pods    int64
	started atomic.Int64
	// hidden is what the label of the namespace says; who reads it holds space, so
	// that no pod of it connects while it changes.
	space  sync.RWMutex
	hidden bool

	mu     sync.Mutex // of all below
	seen   map[string][]netip.Addr
	owners map[netip.Addr][]owned
	wrong  int
	visits int
}

// owned says what an address was to be seen as while it was a pod's, and from when
// until when it was: from the network plugin's ADD to its DEL.
type owned struct {
	pod        string
	as         netip.Addr
	from, till time.Time
}

// churnKind is a kind of pod by its labels.
type churnKind struct{ namespace, app string }

// churnKinds follow one another in a slot.
func churnKinds() []churnKind {
	return []churnKind{{"default", "web"}, {"default", "db"}, {"default", "fixed"}, {changing, "db"}}
}

// changing is the namespace whose labels do.
const changing = "changing"

func newChurn(t *testing.T, ctx context.Context) *churn {
	t.Helper()
	c := start(t, ctx, kube.Config{Images: []kube.Image{unmasqImage(t, ctx)},
		Nodes: []kube.NodeConfig{{Kubelet: true, Proxy: kube.Proxy{Mode: kube.NFTables}, Addresses: churnSlots + 1}}}) // and the probe's
	w := &churn{c: c, node: c.Node("n1"), pods: podsToChurn(t), seen: map[string][]netip.Addr{}, owners: map[netip.Addr][]owned{}}
	listenOutside(t, c, w.visited)
	for a, by := range map[netip.Addr]netip.Addr{fixed4(): w.node.IPv4, fixed6(): w.node.IPv6} {
		if err := c.Outside.NS.Route(netip.PrefixFrom(a, a.BitLen()), by, "eth0"); err != nil {
			t.Fatal(err)
		}
	}
	kubectl(t, ctx, c, "apply", "-k", "../../deploy/crd") // first, that the agent finds the policy
	kubectl(t, ctx, c, "wait", "--for=condition=Established", "crd/sourcepolicies.unmasq.io", "--timeout=60s")
	kubectl(t, ctx, c, "create", "namespace", changing)
	eventually(t, ctx, func() error {
		_, err := c.Client.CoreV1().ServiceAccounts(changing).Get(ctx, "default", meta.GetOptions{})
		return err
	})
	apply(t, ctx, c, fmt.Sprintf(`
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: churn}
spec:
  rules:
  - {name: web, from: {pods: {podSelector: {matchLabels: {app: web}}}}, to: {cidrs: [%[1]s/32, "%[2]s/128"]}, action: Masquerade}
  - {name: fixed, from: {pods: {podSelector: {matchLabels: {app: fixed}}}}, to: {cidrs: [%[1]s/32, "%[2]s/128"]}, action: SNAT, snat: {addresses: [%[3]s, "%[4]s"]}}
  - {name: hidden, from: {pods: {namespaceSelector: {matchLabels: {team: hidden}}}}, to: {cidrs: [%[1]s/32, "%[2]s/128"]}, action: Masquerade}
---
apiVersion: v1
kind: Pod
metadata: {name: probe, namespace: %[5]s}
spec:
  nodeName: n1
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  containers: [{name: pod, image: %[6]q, imagePullPolicy: Never}]
`, kube.Outside4, kube.Outside6, fixed4(), fixed6(), changing, kube.PodImage))
	kubectl(t, ctx, c, "-n", changing, "wait", "--for=condition=Ready", "pod/probe", "--timeout=60s")
	installAgents(t, ctx, c)
	kubectl(t, ctx, c, "wait", "nodereport/n1", "--for=create", "--timeout=60s")
	kubectl(t, ctx, c, "wait", "nodereport/n1", "--for=jsonpath={.status.policies[0].name}=churn", "--timeout=60s")
	return w
}

// fixed4 and fixed6 are what pods of one label are translated to.
func fixed4() netip.Addr { return netip.MustParseAddr("198.51.100.7") }
func fixed6() netip.Addr { return netip.MustParseAddr("2001:db8:7::7") }

// installAgents of the image that agent_test.go makes.
func installAgents(t *testing.T, ctx context.Context, c *kube.Cluster) {
	t.Helper()
	applyAgents(t, ctx, c, agentImage)
	kubectl(t, ctx, c, "-n", "unmasq", "rollout", "status", "daemonset/unmasq-agent", "--timeout=120s")
}

// podsToChurn is UNMASQ_PODS.
func podsToChurn(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv("UNMASQ_PODS")
	if text == "" {
		return 100
	}
	pods, err := strconv.ParseInt(text, 10, 32)
	if err != nil || pods < 4*churnSlots {
		t.Fatalf("UNMASQ_PODS=%q: expected a number of pods, %d at least", text, 4*churnSlots)
	}
	return pods
}

func (w *churn) visited(v peer.Visit) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[v.Name] = append(w.seen[v.Name], v.Source.Addr())
}

// seenAs what.
func (w *churn) seenAs(caller string) []netip.Addr {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen[caller])
}

// fill a slot with one pod after the other.
func (w *churn) fill(t *testing.T, ctx context.Context, slot int) {
	kinds := churnKinds()
	for round := 0; !t.Failed(); round++ {
		i := w.started.Add(1)
		if i > w.pods {
			return
		}
		if err := w.pod(ctx, int(i), kinds[(slot+round)%len(kinds)]); err != nil {
			t.Error(err)
		}
	}
}

// pod lives until it was seen, and its addresses are free.
func (w *churn) pod(ctx context.Context, i int, kind churnKind) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if kind.namespace == changing {
		w.space.RLock()
	}
	pod, callers := churnPod(i, kind)
	pod, err := w.c.Client.CoreV1().Pods(kind.namespace).Create(ctx, pod, meta.CreateOptions{})
	var result cniresults.Result
	if err == nil {
		result, err = w.connects(ctx, pod, callers, kind)
	}
	if kind.namespace == changing {
		w.space.RUnlock()
	}
	if err != nil {
		return fmt.Errorf("pod %s: %w", pod.Name, err)
	}
	if err := w.c.Client.CoreV1().Pods(kind.namespace).Delete(ctx, pod.Name, meta.DeleteOptions{GracePeriodSeconds: new(int64(i % 2))}); err != nil {
		return err
	}
	return w.gone(ctx, pod, result)
}

// gone waits for the network plugin's DEL.
func (w *churn) gone(ctx context.Context, pod *core.Pod, result cniresults.Result) error {
	file := filepath.Join(w.node.CNIResults(), result.Network+"-"+result.Sandbox+"-"+result.Interface)
	err := await(ctx, func() error {
		if _, err := os.Stat(file); err == nil {
			return fmt.Errorf("pod %s was deleted, and %s is there", pod.Name, file)
		}
		return nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range result.Addresses {
		for i := range w.owners[a] {
			if w.owners[a][i].pod == pod.Name {
				w.owners[a][i].till = time.Now()
			}
		}
	}
	return err
}

// churnPod of each third another sort; callers are the names that it gives itself.
func churnPod(i int, kind churnKind) (pod *core.Pod, callers []string) {
	name := fmt.Sprint("churn-", i)
	container := func(which string, args ...string) core.Container {
		callers = append(callers, name+"-"+which)
		args = append(args, "-name", name+"-"+which, netip.AddrPortFrom(kube.Outside4, backendPort).String(), netip.AddrPortFrom(kube.Outside6, backendPort).String())
		return core.Container{Name: which, Image: kube.PodImage, ImagePullPolicy: core.PullNever, Args: args}
	}
	spec := core.PodSpec{NodeName: "n1", AutomountServiceAccountToken: new(false), Containers: []core.Container{container("first")}}
	switch i % 6 {
	case 2:
		spec.InitContainers = append(spec.InitContainers, container("init", "-once"))
	case 5:
		spec.Containers = append(spec.Containers, container("second"))
	}
	return &core.Pod{ObjectMeta: meta.ObjectMeta{Name: name, Labels: map[string]string{"app": kind.app}}, Spec: spec}, callers
}

// connects waits until the pod was seen in both families by each of its callers, and
// compares with what its labels say.
func (w *churn) connects(ctx context.Context, pod *core.Pod, callers []string, kind churnKind) (cniresults.Result, error) {
	for _, caller := range callers {
		if err := await(ctx, func() error { return w.both(caller) }); err != nil {
			return cniresults.Result{}, err
		}
	}
	result, err := resultOf(w.node, pod)
	if err != nil {
		return result, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, own := range result.Addresses {
		want := w.want(kind, own)
		w.owners[own] = append(w.owners[own], owned{pod: pod.Name, as: want, from: time.Unix(0, result.Added)})
		for _, caller := range callers {
			w.visits++
			if !slices.Contains(w.seen[caller], want) {
				w.wrong++
				err = errors.Join(err, fmt.Errorf("%s, %v with %s, was seen as %v, want %s", caller, kind, own, w.seen[caller], want))
			}
		}
	}
	return result, err
}

// both families of a caller were seen.
func (w *churn) both(caller string) error {
	if seen := w.seenAs(caller); len(seen) != 2 {
		return fmt.Errorf("%s was seen as %v, want both families", caller, seen)
	}
	return nil
}

// want is what an address of a pod of a kind is to be seen as.
func (w *churn) want(kind churnKind, own netip.Addr) netip.Addr {
	node, fixed := w.node.IPv4, fixed4()
	if own.Is6() {
		node, fixed = w.node.IPv6, fixed6()
	}
	switch {
	case kind.app == "web" || kind.namespace == changing && w.hidden:
		return node
	case kind.app == "fixed":
		return fixed
	}
	return own
}

// resultOf a pod's network plugin.
func resultOf(n *kube.Node, pod *core.Pod) (cniresults.Result, error) {
	found, err := resultsOf(n, pod.Name)
	if err != nil || len(found) != 1 || found[0].UID != string(pod.UID) || len(found[0].Addresses) != 2 {
		return cniresults.Result{}, errors.Join(err, fmt.Errorf("network plugin's results %v, want one with two addresses", found))
	}
	return found[0], nil
}

// resultsOf network plugins for pods of a name.
func resultsOf(n *kube.Node, name string) (out []cniresults.Result, err error) {
	found, err := cniresults.Open(n.CNIResults()).Read()
	for _, r := range found.Results {
		if r.Name == name && r.Interface == cniresults.PodInterface {
			out = append(out, r)
		}
	}
	return out, err
}

// relabel the namespace at each quarter of the pods, and go on when a pod that was
// there before is seen the other way.
func (w *churn) relabel(t *testing.T, ctx context.Context) {
	for quarter := int64(1); quarter < 4; quarter++ {
		for w.started.Load() < w.pods*quarter/4 {
			if t.Failed() {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		w.space.Lock()
		err := w.turn(ctx, int(quarter))
		w.space.Unlock()
		if err != nil {
			t.Error(err)
			return
		}
	}
}

// turn the namespace's label.
func (w *churn) turn(ctx context.Context, turn int) error {
	w.hidden = !w.hidden
	label := "team-"
	if w.hidden {
		label = "team=hidden"
	}
	if _, err := w.c.Kubectl(ctx, "", "label", "namespace", changing, label); err != nil {
		return err
	}
	try := 0
	return await(ctx, func() error {
		try++
		name := fmt.Sprint("turn-", turn, "-", try)
		_, err := w.c.Kubectl(ctx, "", "-n", changing, "exec", "probe", "--", "/pod", "-once", "-name", name, netip.AddrPortFrom(kube.Outside4, backendPort).String())
		if seen := w.seenAs(name); len(seen) != 1 || (seen[0] == w.node.IPv4) != w.hidden {
			err = errors.Join(err, fmt.Errorf("a pod that was there before its namespace had %s is seen as %v", label, seen))
		}
		return err
	})
}

// judge what was seen, and whether it was what the test is about.
func (w *churn) judge(t *testing.T, took time.Duration) {
	var successions, others int
	var gaps []time.Duration
	for _, owners := range w.owners {
		for i, o := range owners[1:] {
			successions++
			if owners[i].as != o.as {
				others++
			}
			gaps = append(gaps, o.from.Sub(owners[i].till))
		}
	}
	if successions == 0 {
		t.Fatalf("no address was used again; after %.0f s the agents said:\n%s", took.Seconds(),
			kubectl(t, t.Context(), w.c, "-n", "unmasq", "logs", "daemonset/unmasq-agent", "--tail=50"))
	}
	slices.Sort(gaps)
	t.Logf("checked: %d real pods in %.0f s, whose first acts were %d connections in both families: %d decided wrongly", w.pods, took.Seconds(), w.visits, w.wrong)
	t.Logf("checked: %d addresses had %d successors, %d of them with labels that another decision is made for; from a network plugin's DEL to its next ADD of the address: least %v, median %v",
		len(w.owners), successions, others, max(0, gaps[0]).Round(time.Millisecond), gaps[len(gaps)/2].Round(time.Millisecond))
	if others < successions/2 {
		t.Errorf("of %d successors only %d were to be seen otherwise", successions, others)
	}
}

// await is eventually, for what runs beside the test.
func await(ctx context.Context, ask func() error) error {
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
