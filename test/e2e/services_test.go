//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	rbac "k8s.io/api/rbac/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/peer"
)

// TestServicePolicies: the office's table. A client outside reaches ClusterIPs through
// one node only. By n1, whose kube-proxy knows no cluster CIDR, a service with its pod
// on n2 hangs; by n3, whose kube-proxy knows one, every client is hidden. A policy for
// services mends both: all answer, and only clients of remote backends are hidden.
func TestServicePolicies(t *testing.T) {
	program := agenttest.Program(t)
	for _, mode := range []string{kube.IPTables, kube.NFTables} {
		t.Run(mode, func(t *testing.T) { servicePolicies(t, bounded(t), mode, program) })
	}
}

func servicePolicies(t *testing.T, ctx context.Context, mode, program string) {
	proxy := kube.Proxy{Mode: mode}
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{Proxy: kube.Proxy{Mode: mode, NoClusterCIDR: true}}, {Proxy: proxy}, {Proxy: proxy}}})
	o := &office{c: c, addresses: map[string][]netip.Addr{}, servers: map[string]*peer.Server{}}
	for _, n := range c.Nodes() {
		o.service(t, ctx, n)
	}
	for _, name := range []string{"n1", "n3"} {
		w := &world{t: t, c: c, node: c.Node(name), program: program, dir: t.TempDir()}
		if name == "n1" {
			w.install(t, ctx)
			o.agent = w
		}
		w.startAgent(t, ctx)
	}
	type step struct {
		name string
		run  func(*testing.T, context.Context)
	}
	steps := []step{{"before", o.before}, {"where replies would be lost", o.recommended}, {"by name", o.byName}}
	if mode == kube.IPTables { // kube-proxy has no part in these
		steps = append(steps, step{"services that aren't there", o.gone}, step{"services that nobody may ask for", o.forbidden})
	}
	for _, step := range steps {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, ctx) }) {
			t.Fatalf("the log of n1's agent:\n%s", o.agent.agent.Log())
		}
	}
	t.Logf("checked: %d connections of a client outside", o.connections)
}

// office is the cluster as its client outside sees it.
type office struct {
	c           *kube.Cluster
	agent       *world                  // of n1
	addresses   map[string][]netip.Addr // of services, which are named as their pod's node
	servers     map[string]*peer.Server // their pods
	connections int
}

// service with one pod, on the node, as which it is named.
func (o *office) service(t *testing.T, ctx context.Context, n *kube.Node) {
	t.Helper()
	apply(t, ctx, o.c, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: on-%[1]s, labels: {team: web}}
spec: {type: NodePort, ipFamilyPolicy: RequireDualStack, selector: {app: on-%[1]s}, ports: [{port: 80, targetPort: 8080, nodePort: %[2]d}]}
`, n.Name, nodePort(n.Name)))
	pod, err := n.StartPod(ctx, kube.PodConfig{Name: "on-" + n.Name, Labels: map[string]string{"app": "on-" + n.Name}})
	if err != nil {
		t.Fatal(err)
	}
	o.servers[n.Name] = listen(t, &pod.Host)
	service, err := o.c.Client.CoreV1().Services("default").Get(ctx, "on-"+n.Name, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, ip := range service.Spec.ClusterIPs {
		o.addresses[n.Name] = append(o.addresses[n.Name], netip.MustParseAddr(ip))
	}
	for _, by := range o.c.Nodes() { // kube-proxy has it once its node can connect
		for _, a := range o.addresses[n.Name] {
			eventually(t, ctx, func() error {
				_, err := by.Connect(ctx, netip.AddrPortFrom(a, webPort), "node "+by.Name)
				return err
			})
		}
	}
}

// nodePort of a service: 30081 of the one with its pod on n1.
func nodePort(service string) uint16 { return 30080 + uint16(service[1]-'0') }

// hung is what becomes of a connection whose reply the client doesn't know.
const hung = "hung"

// seen is who the client outside is for a service's pod, by one node: "client", a
// node's name, or hung.
func (o *office) seen(t *testing.T, ctx context.Context, service, by string, to netip.AddrPort) string {
	t.Helper()
	family := map[bool]string{false: "-4", true: "-6"}[to.Addr().Is6()]
	n := o.c.Node(by)
	if slices.Contains(o.addresses[service], to.Addr()) {
		via := map[bool]netip.Addr{false: n.IPv4, true: n.IPv6}[to.Addr().Is6()]
		if out, err := o.c.Outside.NS.Run("", "ip", family, "route", "replace", to.Addr().String(), "via", via.String(), "dev", "eth0"); err != nil {
			t.Fatal(out, err)
		}
	}
	o.connections++
	name := fmt.Sprint("client-", o.connections)
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := o.c.Outside.Connect(ctx, to, name); err != nil {
		return hung
	}
	visit, err := o.servers[service].Await(ctx, name)
	if err != nil {
		t.Fatal(err)
	}
	if a := visit.Source.Addr(); a == o.c.Outside.IPv4 || a == o.c.Outside.IPv6 {
		return "client"
	}
	for _, n := range o.c.Nodes() {
		if a := visit.Source.Addr(); a == n.IPv4 || a == n.IPv6 {
			return n.Name
		}
		if p := visit.Source.Addr(); n.Pods4.Contains(p) || n.Pods6.Contains(p) {
			return n.Name // the bridge to its pods
		}
	}
	return visit.Source.String()
}

// by ClusterIP through the node, and by its node port, of both families. Expected is
// "SERVICE by NODE: SEEN, SEEN".
func (o *office) becomes(t *testing.T, ctx context.Context, want ...string) {
	t.Helper()
	for _, line := range want {
		m := regexp.MustCompile(`^(n.) by (n.): (\S+), (\S+)$`).FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("not an expectation: %s", line)
		}
		service, by, node := m[1], m[2], o.c.Node(m[2])
		for i, a := range o.addresses[service] {
			host := map[bool]netip.Addr{false: node.IPv4, true: node.IPv6}[a.Is6()]
			eventually(t, ctx, func() error {
				byCluster, byPort := o.seen(t, ctx, service, by, netip.AddrPortFrom(a, webPort)), o.seen(t, ctx, service, by, netip.AddrPortFrom(host, nodePort(service)))
				if got := fmt.Sprintf("%s by %s: %s, %s", service, by, byCluster, byPort); got != line {
					return fmt.Errorf("family %d of 2: %s, want %s", i+1, got, line)
				}
				return nil
			})
		}
	}
}

// before: what kube-proxy makes of it. Node ports it translates anyway.
var before = []string{
	"n1 by n1: client, n1", "n2 by n1: hung, n1",
	"n3 by n3: n3, n3", "n2 by n3: n3, n3",
}

func (o *office) before(t *testing.T, ctx context.Context) { o.becomes(t, ctx, before...) }

func (o *office) recommended(t *testing.T, ctx context.Context) {
	none := o.watches(t, ctx)
	apply(t, ctx, o.c, `
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: where-replies-would-be-lost}
spec:
  rules:
  - {name: pods, from: {pods: {}}, to: {services: {}}, action: Leave}
  - {name: remote, to: {services: {backends: Remote}}, action: Masquerade}
  - {name: local, to: {services: {backends: Local}}, action: Keep, overrideServiceMasquerade: true}
`)
	o.becomes(t, ctx, "n1 by n1: client, n1", "n2 by n1: n1, n1", "n3 by n3: client, n3", "n2 by n3: n3, n3")
	if got := o.watches(t, ctx); got != none {
		t.Errorf("%d watches of services, %d before: service CIDRs alone are asked for", got, none)
	}
	kubectl(t, ctx, o.c, "delete", "sourcepolicy", "where-replies-would-be-lost")
	o.becomes(t, ctx, before...)
}

// watches of Services, whoever has them.
func (o *office) watches(t *testing.T, ctx context.Context) int {
	t.Helper()
	text, err := o.c.Client.CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(ctx)
	if err != nil {
		t.Fatal(err)
	}
	count := 0
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "apiserver_longrunning_requests{") && strings.Contains(line, `resource="services"`) && strings.Contains(line, `verb="WATCH"`) {
			fields := strings.Fields(line)
			var n int
			if _, err := fmt.Sscan(fields[len(fields)-1], &n); err != nil {
				t.Fatal(line, err)
			}
			count += n
		}
	}
	return count
}

const named = `
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: named}
spec:
  nodeSelector: {matchLabels: {kubernetes.io/hostname: n1}}
  rules:
  - {name: kept, to: {services: {%s}}, action: Keep, overrideServiceMasquerade: true}
`

// byName: Services are followed, by the one node that the policy is for.
func (o *office) byName(t *testing.T, ctx context.Context) {
	none := o.watches(t, ctx)
	apply(t, ctx, o.c, fmt.Sprintf(named, "names: [default/on-n1], via: NodePort"))
	o.becomes(t, ctx, "n1 by n1: client, client", "n2 by n1: hung, n1", "n3 by n3: n3, n3")
	if got := o.watches(t, ctx); got != none+1 {
		t.Errorf("%d watches of services, want one more than %d", got, none)
	}
	apply(t, ctx, o.c, fmt.Sprintf(named, "serviceSelector: {matchLabels: {team: web}}, via: NodePort, backends: Local"))
	o.becomes(t, ctx, "n1 by n1: client, client", "n2 by n1: hung, n1")
	kubectl(t, ctx, o.c, "label", "service", "on-n1", "team-")
	o.becomes(t, ctx, "n1 by n1: client, n1")
	kubectl(t, ctx, o.c, "label", "service", "on-n1", "team=web")
	o.becomes(t, ctx, "n1 by n1: client, client")
	kubectl(t, ctx, o.c, "delete", "sourcepolicy", "named")
	o.becomes(t, ctx, before...)
	eventually(t, ctx, func() error {
		if got := o.watches(t, ctx); got != none {
			return fmt.Errorf("%d watches of services, %d before a policy needed them", got, none)
		}
		return nil
	})
}

// gone: it is said, and as soon as the service is there it is meant.
func (o *office) gone(t *testing.T, ctx context.Context) {
	apply(t, ctx, o.c, fmt.Sprintf(named, "names: [default/late]"))
	const note = "{.status.rules[?(@.policy=='named')].note}"
	o.agent.reports(t, ctx, note, "service default/late doesn't exist")
	apply(t, ctx, o.c, `
apiVersion: v1
kind: Service
metadata: {name: late}
spec: {clusterIP: None, selector: {app: on-n1}, ports: [{port: 80}]}
`)
	o.agent.reports(t, ctx, note, "service default/late is headless: it has no address that a connection could be made to")
	kubectl(t, ctx, o.c, "delete", "service", "late")
	kubectl(t, ctx, o.c, "delete", "sourcepolicy", "named")
}

// forbidden: the policy alone is refused, and taken as soon as it can be.
func (o *office) forbidden(t *testing.T, ctx context.Context) {
	roles := o.c.Client.RbacV1().ClusterRoles()
	role, err := roles.Get(ctx, "unmasq-agent", meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	rules := role.Rules
	role.Rules = slices.DeleteFunc(slices.Clone(rules), func(r rbac.PolicyRule) bool { return slices.Contains(r.Resources, "services") })
	if len(role.Rules) != len(rules)-1 {
		t.Fatalf("rules of the role: %v", rules)
	}
	if role, err = roles.Update(ctx, role, meta.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	apply(t, ctx, o.c, fmt.Sprintf(named, "names: [default/on-n1], via: NodePort"))
	o.agent.reports(t, ctx, "{.status.refusals[*].name}", "named")
	message, err := o.agent.field(ctx, "{.status.refusals[0].message}")
	if err != nil || !strings.Contains(message, "spec.rules[0].to.services: needs the cluster's Services, which aren't known: ") || !strings.Contains(message, "forbidden") {
		t.Errorf("why it is refused: %q, %v", message, err)
	}
	o.becomes(t, ctx, before[0])
	role.Rules = rules
	if _, err := roles.Update(ctx, role, meta.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	o.becomes(t, ctx, "n1 by n1: client, client")
	o.agent.reports(t, ctx, "{.status.refusals[*].name}", "")
	kubectl(t, ctx, o.c, "delete", "sourcepolicy", "named")
}
