package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	yaml "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic/fake"
	"k8s.io/client-go/util/exec"

	"github.com/unmasq/unmasq/internal/kubectl"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// exampleCluster is that of docs/example, with an agent on node-a, one that fails on
// node-b, and node-c without.
const exampleCluster = `
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: default}
spec: {nodeName: node-a, containers: [{name: a}]}
status: {phase: Running, podIPs: [{ip: 10.244.1.7}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x, namespace: default, labels: {kubernetes.io/service-name: web}}
ports: [{name: "", port: 8080, protocol: TCP}]
endpoints:
- {addresses: [10.244.1.8], targetRef: {kind: Pod, namespace: default, name: web-0}}
- {addresses: [10.244.2.9], targetRef: {kind: Pod, namespace: default, name: web-1}}
---
apiVersion: v1
kind: Pod
metadata: {name: agent-a, namespace: unmasq, labels: {app.kubernetes.io/name: unmasq, app.kubernetes.io/component: agent}}
spec: {nodeName: node-a, containers: [{name: agent, image: "unmasq:1", args: [agent, --metrics-address, "[192.0.2.11]:9809"]}]}
status: {phase: Running, hostIPs: [{ip: 192.0.2.11}], containerStatuses: [{name: agent, state: {running: {}}}]}
---
apiVersion: v1
kind: Pod
metadata: {name: agent-b, namespace: unmasq, labels: {app.kubernetes.io/name: unmasq, app.kubernetes.io/component: agent}}
spec: {nodeName: node-b, containers: [{name: agent}]}
status: {phase: Running, containerStatuses: [{name: agent, state: {waiting: {reason: CrashLoopBackOff}}}]}
---
apiVersion: v1
kind: Node
metadata: {name: node-a}
---
apiVersion: v1
kind: Node
metadata: {name: node-c}`

// plugin runs command lines of the plugin; run is what the agents' nodes do.
type plugin struct {
	t        *testing.T
	run      func(command []string, s kubectl.Streams) error
	commands [][]string
	access   kubectl.Access
	where    kubectl.Where
	prepare  func(*fake.FakeDynamicClient) // nil: nothing
}

func (p *plugin) connect(a kubectl.Access, w kubectl.Where) (*kubectl.Client, error) {
	p.access, p.where = a, w
	var objects []runtime.Object
	for _, document := range strings.Split(exampleCluster, "\n---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			p.t.Fatal(err)
		}
		text, err := json.Marshal(o)
		if err != nil {
			p.t.Fatal(err)
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(text); err != nil {
			p.t.Fatal(err)
		}
		objects = append(objects, u)
	}
	api := fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		kubectl.Pods: "PodList", kubectl.Services: "ServiceList", kubectl.Nodes: "NodeList", kubectl.EndpointSlices: "EndpointSliceList",
		kubectl.DaemonSets: "DaemonSetList", kubectl.NodeReports: "NodeReportList"}, objects...)
	if p.prepare != nil {
		p.prepare(api)
	}
	return &kubectl.Client{Objects: api, Namespace: "default", Where: w,
		Exec: func(_ context.Context, _ kubectl.Agent, command []string, s kubectl.Streams) error {
			p.commands = append(p.commands, command)
			return p.run(command[1:], s)
		}}, nil
}

func (p *plugin) unmasq(args ...string) (status int, stdout, stderr string) {
	var out, log bytes.Buffer
	status = runCommand(kubectlBy("v0-test", p.connect), args, strings.NewReader(""), &out, &log)
	return status, out.String(), log.String()
}

// onExample answers as node-a of docs/example would.
func onExample(t *testing.T) func([]string, kubectl.Streams) error {
	return func(command []string, s kubectl.Streams) error {
		names := filepath.Join(t.TempDir(), "names")
		text, err := io.ReadAll(s.Stdin)
		if err == nil {
			err = os.WriteFile(names, text, 0o600)
		}
		if err != nil {
			return err
		}
		there := []string{command[0], "--snapshot=../../docs/example/node-a"}
		for _, word := range command[1:] {
			there = append(there, strings.Replace(word, "/dev/stdin", names, 1))
		}
		if status := Main("v0-test", there, strings.NewReader(""), s.Stdout, s.Stderr); status != 0 {
			return exec.CodeExitError{Err: errors.New("exit status"), Code: status}
		}
		return nil
	}
}

func TestKubectlExplain(t *testing.T) {
	p := &plugin{t: t, run: onExample(t)}
	status, out, log := p.unmasq("explain", "client", "default/web:80")
	if status != 0 || log != "" {
		t.Errorf("status %d, %s", status, log)
	}
	const want = `10.244.1.7 (default/client) to 10.96.0.10:80 (default/web): 2 outcomes
1  50 %  10.244.1.8:8080 (default/web-0) sees 10.244.1.7 (default/client) itself (kept)
2  50 %  10.244.2.9:8080 (default/web-1) sees 10.244.1.7 (default/client) itself (kept)
`
	if !strings.HasPrefix(out, want) {
		t.Errorf("%s\nwant\n%s", out, want)
	}
	// The node's own addresses have its name; flags are handed on as they were given.
	status, out, log = p.unmasq("explain", "client", "web", "-o", "json", "--in-interface=cni0", "-v", "--mark", "0x1")
	if status != 0 || !json.Valid([]byte(out)) || log != "note: service default/web has one port that fits: 80/tcp\n" {
		t.Errorf("status %d, %s\n%s", status, log, out)
	}
	wantCommand := []string{"/unmasq", "explain", "--in-interface=cni0", "--mark=0x1", "--output=json", "--verbose=true", "--names=/dev/stdin", "--", "10.244.1.7", "10.96.0.10:80/tcp"}
	if diff := cmp.Diff(wantCommand, p.commands[1]); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	// A question that is wrong there is wrong here, and is said once.
	status, _, log = p.unmasq("explain", "client", "web:80", "--mark=x")
	if status != statusUsage || log != "unmasq: --mark \"x\": expected a number of 32 bits, such as 0x4000 or 16384\n" {
		t.Errorf("status %d, %q", status, log)
	}
}

func TestKubectlNames(t *testing.T) {
	var names string
	p := &plugin{t: t, run: func(_ []string, s kubectl.Streams) error {
		text, err := io.ReadAll(s.Stdin)
		names = string(text)
		return err
	}}
	if status, _, log := p.unmasq("explain", "client", "web:80"); status != 0 {
		t.Fatal(log)
	}
	want := "10.244.1.7 default/client\n10.96.0.10 default/web\n10.244.1.8 default/web-0\n10.244.2.9 default/web-1\n192.0.2.11 node-a\n"
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}

func TestKubectlRefuses(t *testing.T) {
	for _, x := range []struct {
		args   string
		status int
		want   string
	}{
		{"explain client", statusUsage, `expected a source and a destination, such as default/client default/web:80; found ["client"]`},
		{"explain client web:80 --family=4", statusUsage, `--family "4"; expected ipv4 or ipv6`},
		{"explain 10.0.0.1 10.0.0.2", statusUsage, "name the node that is asked with --node"},
		{"explain --node node-b 10.0.0.1 10.0.0.2", statusWrong, "the agent on node node-b can't be asked: pod unmasq/agent-b waits: CrashLoopBackOff"},
		{"explain --node node-c 10.0.0.1 10.0.0.2", statusWrong, "node node-c has no agent"},
		{"explain client web:80 --agent-namespace elsewhere", statusWrong, "node node-a has no agent: no pod with labels app.kubernetes.io/name=unmasq,app.kubernetes.io/component=agent in namespace elsewhere"},
		{"explain client web:80 --snapshot x", statusUsage, "unknown flag: --snapshot (see `kubectl unmasq explain --help`)"},
		{"status", statusUsage, "which node? Name it with --node, or a pod of it, or ask --all"},
		{"status client --node node-a", statusUsage, "--node node-a and pod client; expected one of the two"},
		{"status --all client", statusUsage, "--all asks all nodes"},
		{"status a b", statusUsage, `expected one pod; found ["a" "b"]`},
		{"status client -o yaml", statusUsage, `-o "yaml": expected json or text`},
		{"snapshot client", statusUsage, "no output given"},
		{"snapshot -o -", statusUsage, "which node?"},
		{"snapshot client -o .", statusUsage, "exists and isn't a snapshot"},
		{"agent", statusUsage, `unknown command "agent"`},
	} {
		t.Run(x.args, func(t *testing.T) {
			p := &plugin{t: t, run: func(command []string, _ kubectl.Streams) error { return fmt.Errorf("it ran %q", command) }}
			status, out, log := p.unmasq(strings.Fields(x.args)...)
			if status != x.status || out != "" || !strings.Contains(log, x.want) || strings.Count(log, "\n") != 1 {
				t.Errorf("status %d, want %d\n%s%s\nwant %s", status, x.status, out, log, x.want)
			}
		})
	}
}

func TestKubectlStatus(t *testing.T) {
	const report = `{"version":1,"table":"owned","agent":"ready","rules":[{"number":1,"hits":3},{"number":2,"hits":4}],"facts":[],"warnings":["w"]}`
	p := &plugin{t: t, run: func(_ []string, s kubectl.Streams) error {
		_, err := io.WriteString(s.Stdout, report)
		return err
	}}
	status, out, log := p.unmasq("status", "client", "-o", "json")
	if status != 0 || out != report || log != "" {
		t.Errorf("status %d, %s%s", status, out, log)
	}
	if want := []string{"/unmasq", "status", "--metrics-address=192.0.2.11:9809", "--output=json"}; !slices.Equal(p.commands[0], want) {
		t.Errorf("it ran %q, want %q", p.commands[0], want)
	}
	status, out, log = p.unmasq("status", "--all")
	const want = `NODE    TABLE  AGENT  RULES  HITS  WARNINGS  PROBLEM
node-a  owned  ready  2      7     1         
node-b  -      -      -      -     -         pod unmasq/agent-b waits: CrashLoopBackOff; see ` + "`kubectl -n unmasq describe pod agent-b`" + `
node-c  -      -      -      -     -         no agent
`
	if diff := cmp.Diff(want, out); diff != "" || status != statusWrong || !strings.Contains(log, "2 of 3 nodes") {
		t.Errorf("status %d, %s\n-want +got\n%s", status, log, diff)
	}
	status, out, _ = p.unmasq("status", "--all", "-o", "json")
	var r clusterReport
	if err := json.Unmarshal([]byte(out), &r); err != nil || status != statusWrong || len(r.Nodes) != 3 || r.Nodes[0].Status.Table != "owned" || r.Nodes[2].Problem != "no agent" {
		t.Errorf("status %d, %v, %s", status, err, out)
	}
	// What the node says instead stands in its line.
	p.run = func(_ []string, s kubectl.Streams) error {
		fmt.Fprintln(s.Stderr, "unmasq: reading nftables rules needs CAP_NET_ADMIN (root, or sudo)")
		return exec.CodeExitError{Err: errors.New("exit status"), Code: 1}
	}
	if _, out, _ = p.unmasq("status", "--all"); !strings.Contains(out, "node-a  -      -      -      -     -         reading nftables rules needs CAP_NET_ADMIN (root, or sudo)\n") {
		t.Error(out)
	}
}

func TestKubectlSnapshot(t *testing.T) {
	var archive bytes.Buffer
	files := map[string][]byte{snapshot.FileMeta: []byte(`{"version":1}`), snapshot.FileSysctl: []byte("net.ipv4.ip_forward = 1\n")}
	if err := snapshot.Archive(&archive, "snapshot", files); err != nil {
		t.Fatal(err)
	}
	sent := archive.Bytes()
	p := &plugin{t: t, run: func(_ []string, s kubectl.Streams) error {
		_, err := s.Stdout.Write(sent)
		fmt.Fprintln(s.Stderr, "said there: nft is not installed")
		return err
	}}
	dir := t.TempDir()
	for _, name := range []string{"a", "a.tar.gz"} {
		path := filepath.Join(dir, name)
		status, out, log := p.unmasq("snapshot", "--node=node-a", "-o", path, "--redact")
		want := "said there: nft is not installed\n" +
			"note: image unmasq:1 of the agent on node node-a has no programs to read rules with: install unmasq's -tools image there\n" +
			"\nnext: unmasq explain --snapshot " + path + " SRC DST\n"
		if status != 0 || out != "" || log != want {
			t.Errorf("status %d, %s%s\nwant %s", status, out, log, want)
		}
		if host, err := snapshot.Read([]string{path}, nil); err != nil || host.Meta == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if want := []string{"/unmasq", "snapshot", "--output=-", "--redact=true"}; !slices.Equal(p.commands[0], want) {
		t.Errorf("it ran %q, want %q", p.commands[0], want)
	}
	if status, out, _ := p.unmasq("snapshot", "client", "-o", "-"); status != 0 || out != string(sent) {
		t.Errorf("status %d, %d bytes", status, len(out))
	}
	// A part of it is none, and doesn't replace one that is there.
	path := filepath.Join(dir, "a.tar.gz")
	for _, length := range []int{0, 20, len(sent) / 2, len(sent) - 1} {
		sent = archive.Bytes()[:length]
		if status, _, log := p.unmasq("snapshot", "client", "-o", path); status != statusWrong || !strings.Contains(log, "the archive of node node-a didn't arrive whole: ") {
			t.Errorf("%d bytes: status %d, %s", length, status, log)
		}
	}
	if _, err := snapshot.Read([]string{path}, nil); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// Flags of kubectl's arrive where the cluster is asked.
func TestKubectlFlags(t *testing.T) {
	p := &plugin{t: t, run: func([]string, kubectl.Streams) error { return nil }}
	status, _, log := p.unmasq("status", "client", "--context=c", "-n", "shop", "--as=jane", "--as-group=a", "--as-group=b", "--agent-selector=app=x", "--request-timeout=5s", "-s", "https://192.0.2.1")
	if status != statusWrong || !strings.Contains(log, "no pod with labels app=x") {
		t.Errorf("status %d, %s", status, log)
	}
	want := kubectl.Access{Context: "c", Namespace: "shop", As: "jane", AsGroups: []string{"a", "b"}, RequestTimeout: "5s", Server: "https://192.0.2.1"}
	if diff := cmp.Diff(want, p.access); diff != "" || p.where.Selector != "app=x" || p.where.Namespace != "unmasq" {
		t.Errorf("%+v -want +got\n%s", p.where, diff)
	}
}

func TestArgs(t *testing.T) {
	for line, want := range map[string]string{
		"unmasq explain a b":                         "explain a b",
		"/usr/local/bin/kubectl-unmasq explain a":    "kubectl explain a",
		"/usr/local/bin/kubectl-unmasq.exe status":   "kubectl status",
		"unmasq kubectl status":                      "kubectl status",
		"/home/kubectl-unmasq/unmasq explain a b -v": "explain a b -v",
	} {
		if got := strings.Join(Args(strings.Fields(line)), " "); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	if status, _, log := unmasq("kubectl", "explain", "a", "b"); status != statusUsage || !strings.Contains(log, "There is no kubeconfig") {
		t.Errorf("status %d, %s", status, log)
	}
	if status, out, _ := unmasq("kubectl", "--help"); status != 0 || !strings.Contains(out, "kubectl unmasq [command]") {
		t.Errorf("status %d, %s", status, out)
	}
}
