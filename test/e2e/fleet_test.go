//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	authentication "k8s.io/api/authentication/v1"
	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/parts"
	"github.com/unmasq/unmasq/test/kube/peer"
)

// fleet is a cluster with deploy/without-tools on all its nodes. On those with a
// kubelet the daemon set's pods are real. On the others the fleet does what kubelets
// do for these pods: it runs the program of their image beside them, with their
// arguments and a token that is bound to them, starts it again when it was killed, and
// ends it with its pod.
type fleet struct {
	t *testing.T // of all steps
	c *kube.Cluster
	// programs by the images that they are in.
	programs map[string]string
	// extra arguments of agents, by nodes that have no kubelet.
	extra map[string][]string

	mu      sync.Mutex // of all below
	agents  map[string]*fleetAgent
	sources map[string][]netip.Addr // of visits, by name
	calls   int
	hosts   []*fleetHost
}

// fleetAgent is a program beside a pod.
type fleetAgent struct {
	mu      sync.Mutex // held while the program is started, killed, ended
	pod     types.UID
	process *kube.Process
}

// versions of the agent that a fleet has images of.
func versions() []string { return []string{"v1", "v2"} }

func fleetImage(version string) string { return "unmasq.test/fleet:" + version }

// newFleet brings up a node with a kubelet, and two without. On the last one agents
// don't own their table, as on kernels that know no owners.
func newFleet(t *testing.T, ctx context.Context) *fleet {
	t.Helper()
	f := &fleet{t: t, programs: map[string]string{}, extra: map[string][]string{"n3": {"--table-ownership=off"}}, agents: map[string]*fleetAgent{}, sources: map[string][]netip.Addr{}}
	var images []kube.Image
	for _, v := range versions() {
		program := filepath.Join(t.TempDir(), "unmasq")
		if err := parts.Go(ctx, ".", "build", "-trimpath", "-ldflags", "-s -w -X main.version="+v, "-o", program, "github.com/unmasq/unmasq/cmd/unmasq"); err != nil {
			t.Fatal(err)
		}
		f.programs[fleetImage(v)] = program
		images = append(images, kube.Image{Name: fleetImage(v), Files: map[string]string{"/unmasq": program}, Entrypoint: []string{"/unmasq"}})
	}
	f.c = start(t, ctx, kube.Config{Images: images, Nodes: []kube.NodeConfig{{Kubelet: true, Proxy: kube.Proxy{Mode: kube.NFTables}}, {}, {Addresses: 2}}})
	listenOutside(t, f.c, f.visited)
	return f
}

// listenOutside, and tell who came from where.
func listenOutside(t *testing.T, c *kube.Cluster, visited func(peer.Visit)) {
	t.Helper()
	var l net.Listener
	err := c.Outside.NS.Do(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprint(":", backendPort))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s := peer.Serve(l, "outside", visited)
	t.Cleanup(func() { s.Close() })
}

func (f *fleet) visited(v peer.Visit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sources[v.Name] = append(f.sources[v.Name], v.Source.Addr())
}

// applyAgents as an operator does who has an image of the binary alone.
func applyAgents(t *testing.T, ctx context.Context, c *kube.Cluster, image string) {
	t.Helper()
	name, tag, _ := strings.Cut(image, ":")
	dir := t.TempDir()
	if err := kube.Overlay(dir, "../../deploy/without-tools", fmt.Sprintf("{name: ghcr.io/unmasq/unmasq, newName: %s, newTag: %q}", name, tag)); err != nil {
		t.Fatal(err)
	}
	kubectl(t, ctx, c, "apply", "-k", dir)
}

// install as an operator does who has the first image.
func (f *fleet) install(t *testing.T, ctx context.Context) {
	t.Helper()
	applyAgents(t, ctx, f.c, fleetImage("v1"))
	for _, n := range f.c.Nodes() {
		f.tend(f.t, ctx, n)
	}
	f.rollout(t, ctx)
}

// rollout waits until it is over.
func (f *fleet) rollout(t *testing.T, ctx context.Context) {
	t.Helper()
	if out, err := f.c.Kubectl(ctx, "", "-n", "unmasq", "rollout", "status", "daemonset/unmasq-agent", "--timeout=120s"); err != nil {
		f.tell(t, ctx)
		t.Fatal(out, err)
	}
}

// tell what an operator would look at.
func (f *fleet) tell(t *testing.T, ctx context.Context) {
	t.Helper()
	pod, err := f.c.Kubectl(ctx, "", "-n", "unmasq", "get", "pods", "--field-selector=spec.nodeName=n1", "-o", "jsonpath={.items[0].metadata.name}")
	if err != nil {
		t.Log(err)
	}
	for _, args := range [][]string{
		{"get", "nodereports,sourcepolicies"},
		{"-n", "unmasq", "get", "pods", "-o", "wide"},
		{"-n", "unmasq", "get", "events"},
		{"-n", "unmasq", "logs", "--tail=30", pod},
	} {
		out, err := f.c.Kubectl(ctx, "", args...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, a := range f.agents {
		if a.process == nil {
			continue
		}
		log, err := a.process.Log()
		t.Logf("the agent of %s: %v\n%s", name, err, log[max(0, len(log)-4000):])
	}
}

// tend the daemon set's pods of a node without kubelet until it's told to stop, as it
// must be before the node is removed, or the test ends.
func (f *fleet) tend(t *testing.T, ctx context.Context, n *kube.Node) (stop func()) {
	if n.Kubelet != nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var loop sync.WaitGroup
	loop.Go(func() {
		for ctx.Err() == nil {
			if err := f.tendOnce(ctx, n); err != nil && ctx.Err() == nil {
				t.Errorf("agent of %s: %v", n.Name, err)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	stop = func() { cancel(); loop.Wait() }
	t.Cleanup(stop)
	return stop
}

// tendOnce looks which pod there shall be.
func (f *fleet) tendOnce(ctx context.Context, n *kube.Node) error {
	a := f.agent(n)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.process != nil && !a.process.Running() {
		if err := a.process.Start(ctx); err != nil { // it was killed
			return err
		}
	}
	pods, err := f.c.Client.CoreV1().Pods("unmasq").List(ctx, meta.ListOptions{FieldSelector: "spec.nodeName=" + n.Name})
	if err != nil {
		return nil // the next time
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.DeletionTimestamp != nil || pod.UID == a.pod {
			continue
		}
		if a.process != nil {
			if err := a.process.Terminate(ctx); err != nil {
				return err
			}
		}
		if a.process, err = f.startAgent(ctx, n, pod); err != nil {
			return err
		}
		a.pod = pod.UID
		if _, err := n.Adopt(ctx, pod); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) agent(n *kube.Node) *fleetAgent {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.agents[n.Name] == nil {
		f.agents[n.Name] = &fleetAgent{}
	}
	return f.agents[n.Name]
}

// startAgent as the pod says.
func (f *fleet) startAgent(ctx context.Context, n *kube.Node, pod *core.Pod) (*kube.Process, error) {
	token, err := f.c.Client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, &authentication.TokenRequest{
		Spec: authentication.TokenRequestSpec{BoundObjectRef: &authentication.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}},
	}, meta.CreateOptions{})
	if err != nil {
		return nil, err
	}
	kubeconfig := filepath.Join(n.Dir, pod.Name)
	if err := kube.WriteKubeconfig(kubeconfig, f.c.API.Bearer(token.Status.Token)); err != nil {
		return nil, err
	}
	container := pod.Spec.Containers[0]
	var env, args []string
	for _, e := range container.Env {
		value := e.Value
		if e.ValueFrom != nil {
			value = map[string]string{"spec.nodeName": n.Name, "status.hostIP": n.IPv4.String(), "metadata.name": pod.Name, "metadata.namespace": pod.Namespace}[e.ValueFrom.FieldRef.FieldPath]
		}
		env = append(env, e.Name+"="+value)
		for i := range container.Args {
			container.Args[i] = strings.ReplaceAll(container.Args[i], "$("+e.Name+")", value)
		}
	}
	// Its files are the node's, as they are called on the machine.
	args = append(append(container.Args, "--kubeconfig", kubeconfig, "--cni-results", n.CNIResults(), "--cni-dir", filepath.Join(n.Dir, "net.d"),
		"--cluster-cache", filepath.Join(n.Dir, "run", "cluster.json")), f.extra[n.Name]...)
	program := f.programs[container.Image]
	if program == "" {
		return nil, fmt.Errorf("no program for image %s", container.Image)
	}
	return n.StartProgram(ctx, kube.Program{Name: "agent", Path: program, Args: args, Env: env, Ready: func(ctx context.Context) error {
		_, err := n.Get(ctx, probed(n, &container))
		return err
	}})
}

// probed is what the kubelet asks whether the container is ready.
func probed(n *kube.Node, c *core.Container) string {
	get := c.ReadinessProbe.HTTPGet
	host, port := get.Host, get.Port.IntValue()
	if host == "" {
		host = n.IPv4.String()
	}
	for _, p := range c.Ports {
		if p.Name == get.Port.StrVal {
			port = int(p.ContainerPort)
		}
	}
	return fmt.Sprintf("http://%s%s", net.JoinHostPort(host, fmt.Sprint(port)), get.Path)
}

// fleetHost is a pod of the fleet's that makes connections when it's told to.
type fleetHost struct {
	name string
	node *kube.Node
	// own addresses, IPv4 first.
	addresses []netip.Addr
	// connect once, to the outside's address of a family, under a name.
	connect func(ctx context.Context, to netip.AddrPort, name string) error
}

// host starts a pod on a node.
func (f *fleet) host(t *testing.T, ctx context.Context, n *kube.Node, o kube.PodConfig) *fleetHost {
	t.Helper()
	h := &fleetHost{name: o.Name, node: n}
	if o.Namespace == "" {
		o.Namespace = meta.NamespaceDefault
	}
	if n.Kubelet == nil {
		p, err := n.StartPod(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		return hostOf(p)
	}
	pods := f.c.Client.CoreV1().Pods(o.Namespace)
	if _, err := pods.Create(ctx, realPodOf(n, o), meta.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	kubectl(t, ctx, f.c, "-n", o.Namespace, "wait", "--for=condition=Ready", "pod/"+o.Name, "--timeout=60s")
	pod, err := pods.Get(ctx, o.Name, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h.addresses = podAddresses(pod)
	h.connect = func(ctx context.Context, to netip.AddrPort, name string) error {
		_, err := f.c.Kubectl(ctx, "", "-n", o.Namespace, "exec", o.Name, "--", "/pod", "-once", "-name", name, to.String())
		return err
	}
	return h
}

// hostOf a pod that is a namespace.
func hostOf(p *kube.Pod) *fleetHost {
	return &fleetHost{name: p.Name, node: p.Node, addresses: []netip.Addr{p.IPv4, p.IPv6}, connect: func(ctx context.Context, to netip.AddrPort, name string) error {
		_, err := p.Connect(ctx, to, name)
		return err
	}}
}

func realPodOf(n *kube.Node, o kube.PodConfig, args ...string) *core.Pod {
	return &core.Pod{ObjectMeta: meta.ObjectMeta{Name: o.Name, Labels: o.Labels}, Spec: core.PodSpec{NodeName: n.Name, AutomountServiceAccountToken: new(false),
		TerminationGracePeriodSeconds: new(int64(1)), Containers: []core.Container{{Name: "pod", Image: kube.PodImage, ImagePullPolicy: core.PullNever, Args: args}}}}
}

// own addresses, and the node's likewise.
func (h *fleetHost) own() []netip.Addr    { return h.addresses }
func (h *fleetHost) asNode() []netip.Addr { return []netip.Addr{h.node.IPv4, h.node.IPv6} }

// hostOn a node, one of those that stay.
func (f *fleet) hostOn(n *kube.Node) *fleetHost {
	return f.hosts[slices.IndexFunc(f.hosts, func(h *fleetHost) bool { return h.node == n })]
}

// seen is what the outside sees of a new connection of each family.
func (f *fleet) seen(ctx context.Context, h *fleetHost) (out []netip.Addr, err error) {
	for _, to := range []netip.Addr{kube.Outside4, kube.Outside6} {
		f.mu.Lock()
		f.calls++
		name := fmt.Sprint(h.name, "-", f.calls)
		f.mu.Unlock()
		if err := h.connect(ctx, netip.AddrPortFrom(to, backendPort), name); err != nil {
			return nil, err
		}
		f.mu.Lock()
		all := f.sources[name]
		f.mu.Unlock()
		if len(all) != 1 {
			return nil, fmt.Errorf("%s was seen as %v, want one connection", name, all)
		}
		out = append(out, all[0])
	}
	return out, nil
}

// is seen so, at once.
func (f *fleet) is(ctx context.Context, h *fleetHost, want []netip.Addr) error {
	got, err := f.seen(ctx, h)
	if err == nil && (got[0] != want[0] || got[1] != want[1]) {
		err = fmt.Errorf("%s on %s is seen as %v, want %v", h.name, h.node.Name, got, want)
	}
	return err
}

// becomes so on all hosts, in moments.
func (f *fleet) become(t *testing.T, ctx context.Context, hosts []*fleetHost, want func(*fleetHost) []netip.Addr) {
	t.Helper()
	for _, h := range hosts {
		if err := within(ctx, time.Minute, func() error { return f.is(ctx, h, want(h)) }); err != nil {
			f.tell(t, ctx)
			t.Fatal(err)
		}
	}
}

// within is eventually, for who has more to tell.
func within(ctx context.Context, patience time.Duration, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return await(ctx, ask)
}

// reports waits for what a field of nodes' reports says, which are written at most
// once in half a minute.
func (f *fleet) reports(t *testing.T, ctx context.Context, path, want string, nodes ...*kube.Node) {
	t.Helper()
	for _, n := range nodes {
		err := within(ctx, time.Minute, func() error {
			got, err := f.c.Kubectl(ctx, "", "get", "nodereport", n.Name, "-o", "jsonpath="+path)
			if err == nil && got != want {
				err = fmt.Errorf("%s of the report of %s: %q, want %q", path, n.Name, got, want)
			}
			return err
		})
		if err != nil {
			f.tell(t, ctx)
			t.Fatal(err)
		}
	}
}
