//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/test/kube"
)

// TestFleet leads a cluster of three nodes through its life.
func TestFleet(t *testing.T) {
	ctx := bounded(t)
	f := newFleet(t, ctx)
	for _, name := range []string{"n1", "n2", "n3"} {
		f.hosts = append(f.hosts, f.host(t, ctx, f.c.Node(name), kube.PodConfig{Name: "web-" + name, Labels: map[string]string{"app": "web"}}))
	}
	for _, step := range []struct {
		name string
		run  func(*testing.T, context.Context, *fleet)
	}{
		{"policy on all nodes", policyEverywhere},
		{"order", policyOrder},
		{"bad policies", badPolicies},
		{"node relabelled", nodeRelabelled},
		{"namespace relabelled", namespaceRelabelled},
		{"API server stopped", apiServerStopped},
		{"nodes come and go", nodesComeAndGo},
		{"agents killed and updated", agentsUpdated},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, ctx, f) }) {
			f.tell(t, ctx)
			return
		}
	}
}

// fleetPolicy decides what web pods send to the outside.
func fleetPolicy(name, action, more string) string {
	return fmt.Sprintf(`
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: %s}
spec:
  %s
  rules: [{name: out, from: {pods: {podSelector: {matchLabels: {app: web}}}}, to: {cidrs: [%s/32, "%s/128"]}, action: %s}]
`, name, more, kube.Outside4, kube.Outside6, action)
}

// policyEverywhere: the outside sees each node's pods as themselves, then, with a
// policy that kubectl makes, as their nodes, and as before without it. What kubectl
// says of it is true. The policy is there before the agents: their reports, which
// they write at most once in half a minute, begin with it.
func policyEverywhere(t *testing.T, ctx context.Context, f *fleet) {
	kubectl(t, ctx, f.c, "apply", "-k", "../../deploy/crd")
	kubectl(t, ctx, f.c, "wait", "--for=condition=Established", "crd/sourcepolicies.unmasq.io", "--timeout=60s")
	apply(t, ctx, f.c, fleetPolicy("hide", "Masquerade", ""))
	f.become(t, ctx, f.hosts, (*fleetHost).own)
	f.install(t, ctx)
	f.become(t, ctx, f.hosts, (*fleetHost).asNode)
	f.reports(t, ctx, "{.status.policies[*].name}/{.status.policies[*].generation}", "hide/1", f.c.Nodes()...)
	for _, h := range f.hosts {
		row(t, ctx, f, h.node.Name, map[string]string{"ENFORCED": "True", "REASON": "InForce", "DEGRADED": "False", "CONFLICT": "False",
			"POLICIES": "1", "REFUSED": "0", "VERSION": "v1"})
	}
	policies := kubectl(t, ctx, f.c, "get", "sourcepolicies")
	if lines := strings.Split(strings.TrimSpace(policies), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[1], "hide ") {
		t.Errorf("kubectl get sourcepolicies:\n%s\nwant hide alone", policies)
	}
	t.Logf("checked:\n%s%s", policies, kubectl(t, ctx, f.c, "get", "nodereports"))
	kubectl(t, ctx, f.c, "delete", "sourcepolicy", "hide")
	f.become(t, ctx, f.hosts, (*fleetHost).own)
	apply(t, ctx, f.c, fleetPolicy("hide", "Masquerade", ""))
	f.become(t, ctx, f.hosts, (*fleetHost).asNode)
	kubectl(t, ctx, f.c, "delete", "sourcepolicies", "--all")
}

// row of kubectl's table of reports.
func row(t *testing.T, ctx context.Context, f *fleet, node string, want map[string]string) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(kubectl(t, ctx, f.c, "get", "nodereports", node, "-o", "wide")), "\n")
	head, row := strings.Fields(lines[0]), strings.Fields(lines[len(lines)-1])
	got := map[string]string{}
	for i := range min(len(head), len(row)) {
		got[head[i]] = row[i]
	}
	for column, value := range want {
		if got[column] != value {
			t.Errorf("kubectl get nodereports, %s of %s: %q, want %q:\n%s", column, node, got[column], value, strings.Join(lines, "\n"))
		}
	}
}

// badPolicies: what is wrong in itself the API server refuses, and says why. What is
// wrong on these nodes their agents refuse: of a policy that was good what was good
// stays in force, one that never was is left out, and all others are in force.
func badPolicies(t *testing.T, ctx context.Context, f *fleet) {
	for _, bad := range []struct{ spec, want string }{
		{`{rules: [{action: Keep, to: {cidrs: [10.0.0.1/8]}}]}`, "spec.rules[0].to.cidrs[0]: Invalid value"},
		{`{rules: [{action: Keep, to: {cidrs: [10.0.0.0/33]}}]}`, "spec.rules[0].to.cidrs[0]: Invalid value"},
		{`{rules: [{action: Hide}]}`, `spec.rules[0].action: Unsupported value: "Hide"`},
		{`{rules: [{action: SNAT}]}`, "spec.rules[0].snat: Required value: missing; action SNAT needs snat.addresses"},
		{`{rules: [{action: Keep, to: {ports: [{protocol: TCP, port: 80, endPort: 79}]}}]}`, "endPort"},
		{`{rules: [{action: Keep, form: {pods: {}}}]}`, `unknown field "spec.rules[0].form"`},
		{`{order: 100}`, "spec.rules: Required value"},
	} {
		text := "apiVersion: unmasq.io/v1alpha1\nkind: SourcePolicy\nmetadata: {name: bad}\nspec: " + bad.spec + "\n"
		_, err := f.c.Kubectl(ctx, text, "apply", "-f", "-")
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("kubectl apply of %s says %v, want %s", bad.spec, err, bad.want)
		}
	}
	apply(t, ctx, f.c, fleetPolicy("hide", "Masquerade", "")+"---"+fleetPolicy("before", "Keep", "order: 99\n  nodeSelector: {matchLabels: {zone: a}}")+"---"+fleetPolicy("after", "Keep", "order: 101"))
	f.become(t, ctx, f.hosts, (*fleetHost).asNode)
	toNodes := func(text string) string { return strings.Replace(text, "to: {", "to: {nodes: {}, ", 1) }
	apply(t, ctx, f.c, toNodes(fleetPolicy("never-good", "Keep", "order: 1"))+"---"+toNodes(fleetPolicy("hide", "Keep", "")))
	const why = "spec.rules[0].to.nodes: needs to know the cluster's nodes: state their networks with --node-cidrs"
	nodes := f.c.Nodes()
	f.reports(t, ctx, "{range .status.refusals[*]}{.name} {.generation} {.inForce};{end}", "hide 2 1;never-good 1 ;", nodes...)
	for _, n := range nodes {
		row(t, ctx, f, n.Name, map[string]string{"ENFORCED": "True", "DEGRADED": "True", "POLICIES": "2", "REFUSED": "2"})
		if said := kubectl(t, ctx, f.c, "get", "nodereport", n.Name, "-o", "jsonpath={.status.policies[*].name}"); said != "hide after" {
			t.Errorf("policies in the report of %s: %q, want hide, then after", n.Name, said)
		}
		if said := kubectl(t, ctx, f.c, "get", "nodereport", n.Name, "-o", "jsonpath={.status.refusals[*].message}"); strings.Count(said, why) != 2 {
			t.Errorf("report of %s says %q, want twice %q", n.Name, said, why)
		}
	}
	f.become(t, ctx, f.hosts, (*fleetHost).asNode)
	kubectl(t, ctx, f.c, "delete", "sourcepolicies", "--all")
}

// policyOrder: of two policies for the same connections the one with the lower order
// decides, and with the same order the first by name.
func policyOrder(t *testing.T, ctx context.Context, f *fleet) {
	apply(t, ctx, f.c, fleetPolicy("a-hide", "Masquerade", "order: 10")+"---"+fleetPolicy("b-show", "Keep", "order: 20"))
	f.become(t, ctx, f.hosts, (*fleetHost).asNode)
	for _, swap := range []struct {
		order int
		want  func(*fleetHost) []netip.Addr
	}{
		{5, (*fleetHost).own},
		{10, (*fleetHost).asNode},
	} {
		kubectl(t, ctx, f.c, "patch", "sourcepolicy", "b-show", "--type=merge", "-p", fmt.Sprintf(`{"spec":{"order":%d}}`, swap.order))
		f.become(t, ctx, f.hosts, swap.want)
	}
	kubectl(t, ctx, f.c, "delete", "sourcepolicies", "--all")
}

// nodeRelabelled: a policy is in force where its nodeSelector says, and nowhere else.
func nodeRelabelled(t *testing.T, ctx context.Context, f *fleet) {
	apply(t, ctx, f.c, fleetPolicy("zone", "Masquerade", "nodeSelector: {matchLabels: {zone: a}}"))
	for i, h := range f.hosts {
		kubectl(t, ctx, f.c, "label", "node", h.node.Name, "zone=a")
		f.become(t, ctx, []*fleetHost{h}, (*fleetHost).asNode)
		other := f.hosts[(i+1)%len(f.hosts)]
		if err := f.is(ctx, other, other.own()); err != nil {
			t.Error(err)
		}
		kubectl(t, ctx, f.c, "label", "node", h.node.Name, "zone-")
		f.become(t, ctx, []*fleetHost{h}, (*fleetHost).own)
	}
	kubectl(t, ctx, f.c, "delete", "sourcepolicies", "--all")
}

// namespaceRelabelled: new connections of its pods change sides, those that there are
// stay what they were.
func namespaceRelabelled(t *testing.T, ctx context.Context, f *fleet) {
	const space = "moving"
	kubectl(t, ctx, f.c, "create", "namespace", space)
	eventually(t, ctx, func() error {
		_, err := f.c.Client.CoreV1().ServiceAccounts(space).Get(ctx, "default", meta.GetOptions{})
		return err
	})
	apply(t, ctx, f.c, strings.Replace(fleetPolicy("teams", "Masquerade", ""), "podSelector: {matchLabels: {app: web}}", "namespaceSelector: {matchLabels: {team: hidden}}", 1))
	n := f.c.Node("n2")
	p, err := n.StartPod(ctx, kube.PodConfig{Namespace: space, Name: "mover"})
	if err != nil {
		t.Fatal(err)
	}
	hosts := []*fleetHost{f.host(t, ctx, f.c.Node("n1"), kube.PodConfig{Namespace: space, Name: "real"}), hostOf(p)}
	f.become(t, ctx, hosts, (*fleetHost).own)
	asItself := lasting(t, ctx, f, p, p.IPv4)
	kubectl(t, ctx, f.c, "label", "namespace", space, "team=hidden")
	f.become(t, ctx, hosts, (*fleetHost).asNode)
	asItself()
	asNode := lasting(t, ctx, f, p, n.IPv4)
	kubectl(t, ctx, f.c, "label", "namespace", space, "team-")
	f.become(t, ctx, hosts, (*fleetHost).own)
	asItself()
	asNode()
	kubectl(t, ctx, f.c, "delete", "namespace", space, "--wait=false")
	kubectl(t, ctx, f.c, "delete", "sourcepolicies", "--all")
}

// lasting makes a connection that the outside sees come from an address, and returns
// what tries whether it goes on, both ways.
func lasting(t *testing.T, ctx context.Context, f *fleet, p *kube.Pod, want netip.Addr) (goesOn func()) {
	t.Helper()
	var l net.Listener
	err := f.c.Outside.NS.Do(func() (err error) {
		l, err = net.Listen("tcp4", ":0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port, _ := l.Addr().(*net.TCPAddr)
	inside, err := p.Dial(ctx, "tcp", netip.AddrPortFrom(kube.Outside4, uint16(port.Port)).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { inside.Close() })
	outside, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { outside.Close() })
	if from, _ := outside.RemoteAddr().(*net.TCPAddr); from.AddrPort().Addr() != want {
		t.Fatalf("a connection of %s comes from %s, want %s", p.Name, from, want)
	}
	goesOn = func() {
		t.Helper()
		for _, way := range [][2]net.Conn{{inside, outside}, {outside, inside}} {
			said := make([]byte, 5)
			if _, err := io.WriteString(way[0], "hello"); err != nil {
				t.Fatal(err)
			}
			if deadline, bound := ctx.Deadline(); bound {
				_ = way[1].SetReadDeadline(deadline)
			}
			if _, err := io.ReadFull(way[1], said); err != nil || string(said) != "hello" {
				t.Fatalf("a connection that began as %s doesn't go on: %q %v", want, said, err)
			}
		}
	}
	goesOn()
	return goesOn
}

// nodesComeAndGo while a policy is in force: one with a kubelet, which the daemon set
// comes to by itself, and one without. Reports come and go with them.
func nodesComeAndGo(t *testing.T, ctx context.Context, f *fleet) {
	apply(t, ctx, f.c, fleetPolicy("hide", "Masquerade", ""))
	for _, config := range []kube.NodeConfig{{Kubelet: true, Proxy: kube.Proxy{Mode: kube.NFTables}}, {}} {
		n, err := f.c.AddNode(ctx, config)
		if err != nil {
			t.Fatal(err)
		}
		stop := f.tend(t, ctx, n)
		f.rollout(t, ctx)
		h := f.host(t, ctx, n, kube.PodConfig{Name: "web-" + n.Name, Labels: map[string]string{"app": "web"}})
		f.become(t, ctx, append(f.hosts, h), (*fleetHost).asNode)
		kubectl(t, ctx, f.c, "wait", "nodereport/"+n.Name, "--for=create", "--timeout=60s")
		f.reports(t, ctx, "{.status.policies[*].name}", "hide", n)
		row(t, ctx, f, n.Name, map[string]string{"ENFORCED": "True", "POLICIES": "1"})
		stop()
		if err := n.Remove(ctx); err != nil {
			t.Fatal(err)
		}
		kubectl(t, ctx, f.c, "wait", "nodereport/"+n.Name, "--for=delete", "--timeout=120s")
		if names := kubectl(t, ctx, f.c, "get", "nodereports", "-o", "jsonpath={.items[*].metadata.name}"); names != "n1 n2 n3" {
			t.Errorf("reports: %s, want those of n1, n2 and n3", names)
		}
	}
	kubectl(t, ctx, f.c, "delete", "sourcepolicies", "--all")
}
