//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/snapshot"
	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/parts"
	"github.com/unmasq/unmasq/test/kube/peer"
)

const scratchImage = "unmasq.test/unmasq:scratch"

// TestKubectl runs unmasq as kubectl's plugin against agents that are installed as
// an operator does, beside real rules of kube-proxy in each of its modes.
func TestKubectl(t *testing.T) {
	program := agenttest.Program(t)
	for _, mode := range []string{kube.IPTables, kube.NFTables} {
		t.Run(mode, func(t *testing.T) { pluginBeside(t, bounded(t), mode, program) })
	}
}

func pluginBeside(t *testing.T, ctx context.Context, mode, program string) {
	proxy := kube.Proxy{Mode: mode}
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{Kubelet: true, Proxy: proxy}, {Proxy: proxy}},
		Images: []kube.Image{tools(t, program), {Name: scratchImage, Files: map[string]string{"/unmasq": program}, Entrypoint: []string{"/unmasq"}}}})
	p := &plugin{c: c, node: c.Node("n1"), program: program}
	p.web, p.backend = startWeb(t, ctx, c, c.Node("n2"))
	p.install(t, ctx)
	for _, step := range []struct {
		name string
		run  func(*testing.T, context.Context, *plugin)
	}{
		{"explain", pluginExplains},
		{"as on the node", asOnTheNode},
		{"names", pluginNames},
		{"status", pluginStatus},
		{"snapshot", pluginSnapshot},
		{"flows", pluginFlows},
		{"doctor", pluginDoctor},
		{"scratch image", pluginScratch},
		{"rights", pluginRights},
		{"flows with less", pluginFlowsWithLess},
		{"no agent", pluginNoAgent},
		{"by kubectl", byKubectl},
		{"kubelet away", kubeletAway},
	} {
		t.Run(step.name, func(t *testing.T) { step.run(t, ctx, p) })
	}
}

// plugin of an administrator's kubectl, beside the API server.
type plugin struct {
	c       *kube.Cluster
	node    *kube.Node
	program string
	web     []netip.Addr
	backend *peer.Server
	client  netip.Addr // of pod client on the node
}

// install deploy/base with that image where there is a kubelet, and a pod to ask
// about.
func (p *plugin) install(t *testing.T, ctx context.Context) {
	t.Helper()
	dir := t.TempDir()
	name, tag, _ := strings.Cut(toolsImage, ":")
	err := kube.Overlay(dir, "../../deploy/base", fmt.Sprintf("{name: ghcr.io/unmasq/unmasq, newName: %s, newTag: %s}", name, tag),
		`{op: add, path: /spec/template/spec/nodeSelector/unmasq.test~1kubelet, value: "true"}`)
	if err != nil {
		t.Fatal(err)
	}
	kubectl(t, ctx, p.c, "apply", "-k", dir)
	kubectl(t, ctx, p.c, "wait", "--for=condition=Established", "crd/sourcepolicies.unmasq.io", "--timeout=60s")
	apply(t, ctx, p.c, `
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: n1
  automountServiceAccountToken: false
  containers: [{name: pod, image: "`+kube.PodImage+`", imagePullPolicy: Never}]
---
`+policyText("masked", ""))
	kubectl(t, ctx, p.c, "wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
	kubectl(t, ctx, p.c, "-n", "unmasq", "rollout", "status", "daemonset/unmasq-agent", "--timeout=120s")
	pod, err := p.c.Client.CoreV1().Pods("default").Get(ctx, "client", meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.client = podAddresses(pod)[0]
}

// said is what a command wrote, and its exit status.
type said struct {
	out, err string
	status   int
}

// run the plugin as kubectl runs it, as a user.
func (p *plugin) run(t *testing.T, ctx context.Context, user string, args ...string) said {
	t.Helper()
	var groups []string
	if user == "admin" {
		groups = append(groups, kube.Admins)
	}
	kubeconfig, err := p.c.Kubeconfig(user, groups...)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "kubectl-unmasq")
	if err := os.Symlink(p.program, link); err != nil {
		t.Fatal(err)
	}
	return p.inControl(t, ctx, link, append(args, "--kubeconfig="+kubeconfig), nil)
}

func (p *plugin) inControl(t *testing.T, ctx context.Context, program string, args, env []string) said {
	t.Helper()
	cmd := p.c.Control.NS.Command(ctx, program, args...)
	if env != nil {
		cmd.Env = append(os.Environ(), env...)
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	s := said{}
	err := cmd.Run()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		s.status = ended.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	s.out, s.err = out.String(), errs.String()
	return s
}

// want a status, and texts in the output and in what was said besides.
func (s said) want(t *testing.T, status int, out, err string) {
	t.Helper()
	if err := s.differs(status, out, err); err != nil {
		t.Error(err)
	}
}

func (s said) differs(status int, out, err string) error {
	if s.status == status && strings.Contains(s.out, out) && strings.Contains(s.err, err) {
		return nil
	}
	return fmt.Errorf("status %d, want %d\nwrote:\n%s\nwant in it: %q\nsaid:\n%s\nwant in it: %q", s.status, status, s.out, out, s.err, err)
}

// pluginExplains: names lead to the answer, and stand in it.
func pluginExplains(t *testing.T, ctx context.Context, p *plugin) {
	s := p.run(t, ctx, "admin", "explain", "default/client", "default/web:80")
	backend := podAddress4(t, ctx, p.c, "web-1")
	s.want(t, 0, fmt.Sprintf("%s:%d (default/web-1) sees %s (default/client) itself (kept)", backend, backendPort, p.client), "asked about IPv4; --family ipv6")
	t.Logf("checked:\n%s", s.out)
	s = p.run(t, ctx, "admin", "explain", "client", "web", "--family=ipv6")
	s.want(t, 0, "(default/web-1) sees fd00:", "one port that fits: 80/tcp")
	// The policy of the agent decides what goes out, and is seen.
	s = p.run(t, ctx, "admin", "explain", "client", kube.Outside4.String()+":443")
	s.want(t, 0, fmt.Sprintf("sees %s (n1)", p.node.IPv4), "")
	if !strings.Contains(s.out, "unmasq") {
		t.Errorf("the agent's rule isn't in\n%s", s.out)
	}
}

func podAddress4(t *testing.T, ctx context.Context, c *kube.Cluster, name string) netip.Addr {
	t.Helper()
	pod, err := c.Client.CoreV1().Pods("default").Get(ctx, name, meta.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return podAddresses(pod)[0]
}

// asOnTheNode: the answer from the agent is the one that unmasq gives there.
func asOnTheNode(t *testing.T, ctx context.Context, p *plugin) {
	for _, to := range []struct{ name, address string }{
		{"default/web:80", netip.AddrPortFrom(p.web[0], webPort).String()},
		{kube.Outside4.String() + ":443", kube.Outside4.String() + ":443"},
	} {
		by := p.run(t, ctx, "admin", "explain", "default/client", to.name, "-o", "json")
		there := p.node.NS.Command(ctx, p.program, "explain", p.client.String(), to.address, "-o", "json")
		want, err := there.Output()
		if err != nil {
			t.Fatal(err)
		}
		by.want(t, 0, "", "")
		if by.out != string(want) {
			t.Errorf("by kubectl:\n%s\non the node:\n%s", by.out, want)
		}
	}
}

// pluginNames: what can't be asked is said in a line.
func pluginNames(t *testing.T, ctx context.Context, p *plugin) {
	apply(t, ctx, p.c, `
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {type: ExternalName, externalName: db.example.com}
---
apiVersion: v1
kind: Service
metadata: {name: idle}
spec: {selector: {app: nothing}, ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: direct}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: six}
spec: {ipFamilies: [IPv6], selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
`)
	eventually(t, ctx, func() error {
		out, err := p.c.Kubectl(ctx, "", "get", "endpointslices", "-l", "kubernetes.io/service-name=direct", "-o", "jsonpath={.items[*].endpoints[*].addresses[0]}")
		if err == nil && out == "" {
			err = errors.New("the headless service has no endpoints")
		}
		return err
	})
	for _, x := range []struct {
		to     string
		status int
		out    string
		err    string
	}{
		{"elsewhere:80", 2, "", "another name for db.example.com (ExternalName)"},
		{"idle:http", 0, "rejected", "note: service default/idle has no IPv4 endpoint that is ready"},
		{"idle:81", 2, "", "no port 81; it has 80/tcp (http), 53/udp (dns)"},
		{"direct:8080", 0, "(default/web-1) sees", "is headless: clients connect to its one endpoint, default/web-1"},
		{"six:80", 0, "(default/web-1) sees fd00:", "the only family that both have"},
		{"missing:80", 2, "", "there is no service and no pod default/missing"},
		{"default/web-1:8080", 0, "(default/web-1) sees", ""},
	} {
		t.Run(x.to, func(t *testing.T) {
			eventually(t, ctx, func() error { // kube-proxy has the new services in moments
				return p.run(t, ctx, "admin", "explain", "default/client", x.to).differs(x.status, x.out, x.err)
			})
		})
	}
	// The node says what only it knows, with its own status.
	p.run(t, ctx, "admin", "explain", "default/client", "default/web:80", "--in-interface", "none0").want(t, 2, "", "unmasq: --in-interface none0: the node has none of that name")
}

func pluginStatus(t *testing.T, ctx context.Context, p *plugin) {
	s := p.run(t, ctx, "admin", "status", "client")
	s.want(t, 0, "agent   ready", "")
	if !strings.Contains(s.out, "masked") {
		t.Errorf("the policy isn't in\n%s", s.out)
	}
	s = p.run(t, ctx, "admin", "status", "--all")
	s.want(t, 1, "no agent", "1 of 2 nodes")
	if !regexp.MustCompile(`(?m)^n1 +owned +ready +1 `).MatchString(s.out) {
		t.Errorf("node n1 in\n%s", s.out)
	}
	t.Logf("checked:\n%s", s.out)
}

func pluginSnapshot(t *testing.T, ctx context.Context, p *plugin) {
	path := filepath.Join(t.TempDir(), "n1.tar.gz")
	s := p.run(t, ctx, "admin", "snapshot", "--node", "n1", "-o", path)
	s.want(t, 0, "", "next: unmasq explain --snapshot "+path)
	host, err := snapshot.Read([]string{path}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host.Meta == nil || !host.Network.KnownLinks || host.Network.Link("eth0") == nil {
		t.Errorf("the snapshot: %+v", host.Meta)
	}
	answer := p.inControl(t, ctx, p.program, []string{"explain", "--snapshot", path, p.client.String(), netip.AddrPortFrom(p.web[0], webPort).String()}, nil)
	answer.want(t, 0, "itself (kept)", "")
}

// pluginScratch: an agent without programs says what it can't read.
func pluginScratch(t *testing.T, ctx context.Context, p *plugin) {
	apply(t, ctx, p.c, `
apiVersion: v1
kind: Namespace
metadata: {name: scratch}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: policy, namespace: scratch}
data:
  policy.yaml: |
    apiVersion: unmasq.io/v1alpha1
    kind: SourcePolicy
    metadata: {name: outside}
    spec: {rules: [{name: outside, from: {cidrs: [192.0.2.0/24]}, action: Masquerade}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: scratch, labels: {app.kubernetes.io/name: unmasq, app.kubernetes.io/component: agent}}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  containers:
  - name: agent
    image: `+scratchImage+`
    imagePullPolicy: Never
    args: [agent, --config, /etc/unmasq]
    securityContext: {capabilities: {drop: [ALL], add: [NET_ADMIN]}, readOnlyRootFilesystem: true}
    volumeMounts: [{name: policy, mountPath: /etc/unmasq}]
  volumes: [{name: policy, configMap: {name: policy}}]
---
apiVersion: v1
kind: Namespace
metadata: {name: stranger}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: stranger, labels: {app.kubernetes.io/name: unmasq, app.kubernetes.io/component: agent}}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 1
  automountServiceAccountToken: false
  containers: [{name: pod, image: "`+kube.PodImage+`", imagePullPolicy: Never}]
`)
	for _, namespace := range []string{"scratch", "stranger"} {
		kubectl(t, ctx, p.c, "-n", namespace, "wait", "--for=condition=Ready", "pod/agent", "--timeout=60s")
	}
	s := p.run(t, ctx, "admin", "explain", "client", "web:80", "--agent-namespace=scratch")
	t.Logf("checked: in the scratch image, status %d:\n%s\n%s", s.status, s.out, s.err)
	if s.status != 1 || !strings.Contains(s.out, "as far as can be told") && !strings.Contains(s.out, "it can't be said") || !strings.Contains(s.out, "iptables-nft-save is not installed, and nft lists nothing") {
		t.Errorf("status %d, want 1 and what couldn't be read", s.status)
	}
	const hint = "note: image " + scratchImage + " of the agent on node n1 has no programs to read rules with: install unmasq's -tools image there"
	s.want(t, 1, "", hint)
	s = p.run(t, ctx, "admin", "snapshot", "--node=n1", "--agent-namespace=scratch", "-o", filepath.Join(t.TempDir(), "n1"))
	t.Logf("checked: in the scratch image, status %d:\n%s\n%s", s.status, s.out, s.err)
	s.want(t, 0, "", hint)
	p.run(t, ctx, "admin", "status", "--node=n1", "--agent-namespace=scratch").want(t, 0, "owned", "")
	s = p.run(t, ctx, "admin", "status", "--node=n1", "--agent-namespace=stranger")
	s.want(t, 1, "", "has no /unmasq: expected one of unmasq's images")
	t.Log("checked: " + s.err)
}

// rights that docs/kubernetes.md lists.
const rights = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: unmasq-user, namespace: unmasq}
rules:
- {apiGroups: [""], resources: [pods], verbs: [list]}
- {apiGroups: [""], resources: [pods/exec], verbs: [create, get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: unmasq-user, namespace: unmasq}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: unmasq-user}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: operator}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: unmasq-names, namespace: default}
rules:
- {apiGroups: [""], resources: [pods, services], verbs: [get]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: unmasq-names, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: unmasq-names}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: operator}, {apiGroup: rbac.authorization.k8s.io, kind: User, name: developer}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: unmasq-look, namespace: unmasq}
rules: [{apiGroups: [""], resources: [pods], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: unmasq-look, namespace: unmasq}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: unmasq-look}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: developer}]
`

// pluginRights: whoever has the documented rights can, who lacks one is told which.
func pluginRights(t *testing.T, ctx context.Context, p *plugin) {
	apply(t, ctx, p.c, rights)
	eventually(t, ctx, func() error {
		if s := p.run(t, ctx, "operator", "explain", "default/client", "default/web:80"); s.status != 0 {
			return errors.New(s.err)
		}
		return nil
	})
	p.run(t, ctx, "operator", "status", "--all").want(t, 0, "whether there are nodes without an agent isn't known", "")
	s := p.run(t, ctx, "developer", "explain", "default/client", "default/web:80")
	s.want(t, 1, "", `you may not run unmasq in the agent: pods "unmasq-agent-`)
	s.want(t, 1, "", "it takes create and get on pods/exec in namespace unmasq")
	if lines := strings.Count(s.err, "\n"); lines != 2 { // with the note about families
		t.Errorf("it takes %d lines:\n%s", lines, s.err)
	}
	t.Log("checked: " + s.err)
	p.run(t, ctx, "stranger", "explain", "default/client", "default/web:80").want(t, 1, "", `pods "client" is forbidden`)
	p.run(t, ctx, "stranger", "status", "--node=n1").want(t, 1, "", "it takes list on pods in namespace unmasq")
}

func pluginNoAgent(t *testing.T, ctx context.Context, p *plugin) {
	p.run(t, ctx, "admin", "explain", "default/web-1", "default/web:80").want(t, 1, "", "node n2 has no agent")
	p.run(t, ctx, "admin", "status", "--node=n1", "--agent-namespace=default").want(t, 1, "", "--agent-namespace")
}

// byKubectl: kubectl finds it by its name.
func byKubectl(t *testing.T, ctx context.Context, p *plugin) {
	programs, err := parts.Kube(ctx, parts.NewestKube, "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Symlink(p.program, filepath.Join(dir, "kubectl-unmasq")); err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := p.c.Kubeconfig("admin", kube.Admins)
	if err != nil {
		t.Fatal(err)
	}
	s := p.inControl(t, ctx, programs["kubectl"], []string{"unmasq", "explain", "default/client", "default/web:80"}, []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "KUBECONFIG=" + kubeconfig})
	s.want(t, 0, "(default/web-1) sees", "")
}

// kubeletAway comes last: nothing can be run in pods of the node.
func kubeletAway(t *testing.T, ctx context.Context, p *plugin) {
	if err := p.node.Kubelet.Kill(); err != nil {
		t.Fatal(err)
	}
	s := p.run(t, ctx, "admin", "status", "--node=n1")
	s.want(t, 1, "", "on node n1: error dialing backend")
	if strings.Count(s.err, "\n") != 1 {
		t.Errorf("it takes several lines:\n%s", s.err)
	}
	p.run(t, ctx, "admin", "status", "--all").want(t, 1, "error dialing backend", "2 of 2 nodes")
}
