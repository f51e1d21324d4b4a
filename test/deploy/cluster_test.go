//go:build e2e

package deploy

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/parts"
	"github.com/unmasq/unmasq/test/kube/peer"
)

const (
	shipped     = "ghcr.io/unmasq/unmasq"
	backendPort = 8080
)

// TestInstalled installs deploy/base on a node with a real kubelet, as an operator
// does, with an overlay that says where the image is and what is true of the cluster.
func TestInstalled(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	t.Cleanup(cancel)
	c, err := kube.Start(ctx, kube.Config{Nodes: []kube.NodeConfig{{Kubelet: true, Proxy: kube.Proxy{Mode: kube.NFTables}}},
		Images: []kube.Image{image(t, ctx, "1"), image(t, ctx, "2")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	i := &installed{c: c, node: c.Node("n1")}
	if i.outside, err = c.Outside.Listen(backendPort); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { i.outside.Close() })
	for _, step := range []struct {
		name string
		run  func(*testing.T, context.Context, *installed)
	}{
		{"install", install},
		{"what the agent may do", kernelPrivileges},
		{"update", update},
		{"another user", anotherUser},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, ctx, i) }) {
			i.tell(t, ctx)
			return
		}
	}
}

// image with the name that deploy/base has.
func image(t *testing.T, ctx context.Context, tag string) kube.Image {
	t.Helper()
	program := filepath.Join(t.TempDir(), "unmasq")
	if err := parts.Go(ctx, "../..", "build", "-trimpath", "-ldflags", "-s -w -X main.version=v"+tag, "-o", program, "./cmd/unmasq"); err != nil {
		t.Fatal(err)
	}
	return kube.Image{Name: shipped + ":" + tag, Files: map[string]string{"/unmasq": program}, Entrypoint: []string{"/unmasq"}}
}

type installed struct {
	c       *kube.Cluster
	node    *kube.Node
	outside *peer.Server
}

// overlay of deploy/base, as docs/kubernetes.md has it.
func overlay(t *testing.T, tag string) string {
	t.Helper()
	dir := t.TempDir()
	if err := kube.Overlay(dir, "../../deploy/base", fmt.Sprintf("{name: %s, newTag: %q}", shipped, tag)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func (i *installed) kubectl(t *testing.T, ctx context.Context, stdin string, args ...string) string {
	t.Helper()
	out, err := i.c.Kubectl(ctx, stdin, args...)
	if err != nil {
		i.tell(t, ctx)
		t.Fatal(err)
	}
	return out
}

// tell what an operator would look at.
func (i *installed) tell(t *testing.T, ctx context.Context) {
	for _, args := range [][]string{
		{"-n", "unmasq", "get", "pods", "-o", "wide"},
		{"-n", "unmasq", "get", "events"},
		{"-n", "unmasq", "logs", "daemonset/unmasq-agent", "--tail=20"},
	} {
		out, err := i.c.Kubectl(ctx, "", args...)
		t.Logf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// visit is a connection of a new pod, which is seen outside as this address.
func (i *installed) visit(t *testing.T, ctx context.Context, name string) netip.Addr {
	t.Helper()
	i.kubectl(t, ctx, kube.CallerPod(name, netip.AddrPortFrom(kube.Outside4, backendPort)), "apply", "-f", "-")
	visit, err := i.outside.Await(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	return visit.Source.Addr()
}

func install(t *testing.T, ctx context.Context, i *installed) {
	i.kubectl(t, ctx, "", "apply", "-k", overlay(t, "1"))
	i.rollout(t, ctx)
	i.kubectl(t, ctx, fmt.Sprintf(`
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: outside}
spec:
  rules: [{name: out, from: {pods: {}}, to: {cidrs: [%s/32]}, action: Masquerade}]
`, kube.Outside4), "apply", "-f", "-")
	i.kubectl(t, ctx, "", "wait", "nodereport/n1", "--for=create", "--timeout=60s") // written a little after the agent is ready
	i.kubectl(t, ctx, "", "wait", "nodereport/n1", "--for=jsonpath={.status.policies[0].name}=outside", "--timeout=60s")
	if got := i.visit(t, ctx, "first"); got != i.node.IPv4 {
		t.Errorf("the pod is seen as %s, want its node's %s", got, i.node.IPv4)
	}
}

// kernelPrivileges are those of the process on the node, as the kernel tells.
func kernelPrivileges(t *testing.T, ctx context.Context, i *installed) {
	got := i.status(t)
	want := map[string]string{"Uid": "0 0 0 0", "CapPrm": capabilities, "CapEff": capabilities, "CapBnd": capabilities,
		"CapInh": none, "CapAmb": none, "NoNewPrivs": "1", "Seccomp": "2"}
	for field, value := range want {
		if got[field] != value {
			t.Errorf("%s of the agent's process: %q, want %q", field, got[field], value)
		}
	}
}

// capabilities are NET_ADMIN (12) and NET_RAW (13).
const none, capabilities = "0000000000000000", "0000000000003000"

// status of the agent's process.
func (i *installed) status(t *testing.T) map[string]string {
	t.Helper()
	out, err := i.node.Run("sh", "-c", `cat "$(dirname "$(grep -lx unmasq /proc/[0-9]*/comm | head -n 1)")"/status`)
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(line, ":")
		fields[key] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

// update to another version, while a pod opens connection after connection: each is
// seen as its node.
func update(t *testing.T, ctx context.Context, i *installed) {
	const connections = 50000 // more than there is time for; their list must fit into a Pod
	target := netip.AddrPortFrom(kube.Outside4, backendPort).String()
	i.kubectl(t, ctx, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: busy}
spec:
  automountServiceAccountToken: false
  terminationGracePeriodSeconds: 0
  containers:
  - {name: pod, image: %q, imagePullPolicy: Never, args: [-name, busy, %s]}
`, kube.PodImage, strings.Repeat(target+", ", connections)), "create", "-f", "-")
	if _, err := i.outside.Await(ctx, "busy"); err != nil {
		t.Fatal(err)
	}
	i.kubectl(t, ctx, "", "apply", "-k", overlay(t, "2"))
	i.rollout(t, ctx)
	seen := i.seen("busy")
	i.kubectl(t, ctx, "", "delete", "pod", "busy", "--now")
	all, wrong := 0, 0
	for address, n := range seen {
		if all += n; address != i.node.IPv4 {
			wrong += n
			t.Errorf("%d connections were seen as %s, want the node's %s", n, address, i.node.IPv4)
		}
	}
	if all < 100 || all >= connections {
		t.Errorf("%d connections of %d were made until the end of the update", all, connections)
	}
	t.Logf("checked: while the agent was updated a pod made %d connections, %d wrong", all, wrong)
	if got := i.visit(t, ctx, "second"); got != i.node.IPv4 {
		t.Errorf("the pod is seen as %s, want its node's %s", got, i.node.IPv4)
	}
}

// seen counts the connections of a name by their sources.
func (i *installed) seen(name string) map[netip.Addr]int {
	all := map[netip.Addr]int{}
	for _, v := range i.outside.Visits() {
		if v.Name == name {
			all[v.Source.Addr()]++
		}
	}
	return all
}

func (i *installed) rollout(t *testing.T, ctx context.Context) {
	t.Helper()
	i.kubectl(t, ctx, "", "-n", "unmasq", "rollout", "status", "daemonset/unmasq-agent", "--timeout=60s")
}

// anotherUser has no use of a capability that the container has: why the agent's is 0.
func anotherUser(t *testing.T, ctx context.Context, i *installed) {
	i.kubectl(t, ctx, "", "-n", "unmasq", "patch", "daemonset", "unmasq-agent", "--type=json", "-p",
		`[{"op":"replace","path":"/spec/template/spec/containers/0/securityContext/runAsUser","value":65534}]`)
	const want = "operation not permitted: writing nftables rules needs CAP_NET_ADMIN"
	var log string
	for end := time.Now().Add(time.Minute); !strings.Contains(log, want); {
		if time.Now().After(end) {
			t.Fatalf("the agent as another user says %q, want %q", log, want)
		}
		time.Sleep(time.Second)
		log, _ = i.c.Kubectl(ctx, "", "-n", "unmasq", "logs", "daemonset/unmasq-agent")
	}
}
