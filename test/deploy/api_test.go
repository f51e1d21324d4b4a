//go:build e2e

package deploy

import (
	"context"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/test/kube"
	"github.com/unmasq/unmasq/test/kube/parts"
)

var kubeVersion = flag.String("kube", parts.NewestKube, "version of Kubernetes")

// operator is the module whose definitions of PodMonitor and ServiceMonitor count.
const operator = "github.com/prometheus-operator/prometheus-operator@v0.85.0"

// TestRealAPIServer: a real API server takes each object of each rendering, strictly,
// and a pod of the DaemonSet, without a warning.
func TestRealAPIServer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Minute) // the first build
	defer cancel()
	s := startAPI(t, ctx)
	if !t.Run("helm install", func(t *testing.T) { s.release(t, ctx) }) {
		return
	}
	all := renderings(t)
	all["chart with a PodMonitor"] = helmed(t, "monitoring: {monitor: PodMonitor}")
	for name, rendered := range all {
		t.Run("first: "+name, func(t *testing.T) { s.acceptsAll(t, ctx, rendered, true) })
	}
	s.prepare(t, ctx, all["deploy/base"])
	for name, rendered := range all {
		t.Run(name, func(t *testing.T) { s.acceptsAll(t, ctx, rendered, false) })
	}
	s.kubectl(t, ctx, "", "-n", "unmasq", "create", "serviceaccount", "unmasq-agent")
	for name, rendered := range all {
		t.Run("pod: "+name, func(t *testing.T) {
			template := at(rendered["DaemonSet unmasq-agent"], "spec", "template").(object)
			s.accepts(t, ctx, "pod", object{"apiVersion": "v1", "kind": "Pod", "spec": template["spec"],
				"metadata": object{"name": "agent", "namespace": "unmasq", "labels": at(template, "metadata", "labels")}})
		})
	}
	t.Run("refuses", func(t *testing.T) { s.refuses(t, ctx) })
}

// first are the kinds that others need to be there.
var first = []string{"CustomResourceDefinition", "Namespace"}

// prepare makes what others need.
func (s *server) prepare(t *testing.T, ctx context.Context, base objects) {
	t.Helper()
	for _, kind := range first {
		for _, o := range base {
			if o["kind"] == kind {
				s.kubectl(t, ctx, text(t, o), "create", "-f", "-")
			}
		}
	}
	monitors := definitions(t, ctx)
	s.kubectl(t, ctx, "", "create", "-f", filepath.Join(monitors, "monitoring.coreos.com_podmonitors.yaml"),
		"-f", filepath.Join(monitors, "monitoring.coreos.com_servicemonitors.yaml"))
	s.kubectl(t, ctx, "", "wait", "--for=condition=Established", "--timeout=60s", "crd/sourcepolicies.unmasq.io", "crd/nodereports.unmasq.io",
		"crd/podmonitors.monitoring.coreos.com", "crd/servicemonitors.monitoring.coreos.com")
}

// acceptsAll objects of the first kinds, or of the others.
func (s *server) acceptsAll(t *testing.T, ctx context.Context, rendered objects, early bool) {
	t.Helper()
	for key, o := range rendered {
		if slices.Contains(first, o["kind"].(string)) == early {
			s.accepts(t, ctx, key, o)
		}
	}
}

// server is a real API server.
type server struct {
	*kube.API
	ns               *netns.NS
	program, kubeDir string
}

func startAPI(t *testing.T, ctx context.Context) *server {
	t.Helper()
	programs, err := parts.Kube(ctx, parts.NewestKube, "kubectl")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{ns: netnstest.Test(t, "api"), program: programs["kubectl"], kubeDir: t.TempDir()}
	address := netip.MustParseAddr("192.0.2.10")
	if err := s.ns.Addr("lo", netip.PrefixFrom(address, 32)); err != nil {
		t.Fatal(err)
	}
	s.API, err = kube.StartAPI(ctx, s.ns, kube.APIOptions{Dir: t.TempDir(), Version: *kubeVersion, Address: address})
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err == nil {
		err = kube.WriteKubeconfig(filepath.Join(s.kubeDir, "config"), s.Admin())
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// definitions is the folder of the Prometheus operator's, of the module cache.
func definitions(t *testing.T, ctx context.Context) string {
	t.Helper()
	c := exec.CommandContext(ctx, "go", "mod", "download", "-json", operator)
	c.Dir = t.TempDir() // of no module
	out, err := c.Output()
	var module struct{ Dir, Error string }
	if err == nil {
		err = json.Unmarshal(out, &module)
	}
	if err != nil || module.Dir == "" {
		t.Fatalf("download %s: %v %s", operator, err, module.Error)
	}
	return filepath.Join(module.Dir, "example", "prometheus-operator-crd")
}

// try returns what kubectl wrote to both outputs.
func (s *server) try(ctx context.Context, stdin string, args ...string) (string, error) {
	c := s.ns.Command(ctx, s.program, append([]string{"--kubeconfig=" + filepath.Join(s.kubeDir, "config"), "--cache-dir=" + s.kubeDir}, args...)...)
	c.Stdin, c.Env = strings.NewReader(stdin), os.Environ()
	out, err := c.CombinedOutput()
	return string(out), err
}

func (s *server) kubectl(t *testing.T, ctx context.Context, stdin string, args ...string) string {
	t.Helper()
	out, err := s.try(ctx, stdin, args...)
	if err != nil {
		t.Fatalf("kubectl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return out
}

func text(t *testing.T, o object) string {
	t.Helper()
	out, err := yaml.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// dryRun creates an object without keeping it; fields that aren't known are errors.
func (s *server) dryRun(t *testing.T, ctx context.Context, o object) (string, error) {
	t.Helper()
	return s.try(ctx, text(t, o), "create", "--dry-run=server", "--validate=strict", "-f", "-")
}

func (s *server) accepts(t *testing.T, ctx context.Context, name string, o object) {
	t.Helper()
	out, err := s.dryRun(t, ctx, o)
	if err != nil || !strings.Contains(out, "created (server dry run)") || strings.Contains(out, "Warning") {
		t.Errorf("%s: %v: %s", name, err, out)
	}
}

// release installs the chart with a policy on a server that knows nothing of it,
// upgrades it, and takes it away: the definitions, and policies of others, stay.
func (s *server) release(t *testing.T, ctx context.Context) {
	file := filepath.Join(t.TempDir(), "values.yaml")
	write(t, file, "policies: [{name: released, spec: {rules: [{from: {pods: {}}, action: Keep}]}}]")
	s.helm(t, ctx, "install", "unmasq", chart, "--namespace", "released", "--create-namespace", "--values", file)
	s.kubectl(t, ctx, "{apiVersion: unmasq.io/v1alpha1, kind: SourcePolicy, metadata: {name: own}, spec: {rules: [{action: Keep}]}}", "create", "-f", "-")
	s.helm(t, ctx, "upgrade", "unmasq", chart, "--namespace", "released", "--values", file, "--set", "podCIDRs={10.244.0.0/16}")
	arguments := s.kubectl(t, ctx, "", "-n", "released", "get", "daemonset", "unmasq-agent", "-o", "jsonpath={.spec.template.spec.containers[0].args}")
	if !strings.Contains(arguments, "--pod-cidrs=10.244.0.0/16") {
		t.Errorf("arguments after the upgrade: %s", arguments)
	}
	if got := s.kubectl(t, ctx, "", "get", "sourcepolicies", "-o", "name"); got != "sourcepolicy.unmasq.io/own\nsourcepolicy.unmasq.io/released\n" {
		t.Errorf("policies: %s", got)
	}
	s.kubeadm(t, ctx, file)
	s.helm(t, ctx, "uninstall", "unmasq", "--namespace", "released")
	if got := s.kubectl(t, ctx, "", "get", "sourcepolicies", "-o", "name"); got != "sourcepolicy.unmasq.io/own\n" {
		t.Errorf("policies after uninstalling: %s", got)
	}
	if got := s.kubectl(t, ctx, "", "get", "clusterroles,clusterrolebindings,validatingadmissionpolicies,daemonsets", "-A", "-o", "name"); strings.Contains(got, "unmasq") {
		t.Errorf("left after uninstalling:\n%s", got)
	}
	// As before, for what follows.
	s.kubectl(t, ctx, "", "delete", "crd", "sourcepolicies.unmasq.io", "nodereports.unmasq.io", "--timeout=60s")
}

// kubeadm: networks that aren't stated are what kubeadm was told.
func (s *server) kubeadm(t *testing.T, ctx context.Context, file string) {
	t.Helper()
	s.kubectl(t, ctx, `
apiVersion: v1
kind: ConfigMap
metadata: {name: kubeadm-config, namespace: kube-system}
data:
  ClusterConfiguration: |
    apiVersion: kubeadm.k8s.io/v1beta4
    kind: ClusterConfiguration
    networking: {dnsDomain: cluster.local, podSubnet: "10.244.0.0/16,fd00:10:244::/56", serviceSubnet: 10.96.0.0/16}
`, "create", "-f", "-")
	for _, c := range []struct{ set, want string }{
		{"podCIDRs=null", "--pod-cidrs=10.244.0.0/16,fd00:10:244::/56 --service-cidrs=10.96.0.0/16"},
		{"podCIDRs={10.0.0.0/8}", "--pod-cidrs=10.0.0.0/8"},
		{"watchNodes=true", "--watch-nodes"},
	} {
		s.helm(t, ctx, "upgrade", "unmasq", chart, "--namespace", "released", "--values", file, "--set", c.set)
		got := s.kubectl(t, ctx, "", "-n", "released", "get", "daemonset", "unmasq-agent", "-o", `jsonpath={.spec.template.spec.containers[0].args[*]}`)
		about := slices.DeleteFunc(strings.Fields(got), func(arg string) bool {
			return !strings.Contains(arg, "-cidrs=") && arg != "--watch-nodes"
		})
		if said := strings.Join(about, " "); said != c.want {
			t.Errorf("%s: arguments %s, want %s", c.set, said, c.want)
		}
	}
}

func (s *server) helm(t *testing.T, ctx context.Context, args ...string) {
	t.Helper()
	program, err := helmProgram()
	if err != nil {
		t.Fatal(err)
	}
	c := s.ns.Command(ctx, program, append(args, "--kubeconfig", filepath.Join(s.kubeDir, "config"))...)
	c.Env = []string{"HOME=" + s.kubeDir, "PATH=/usr/bin:/bin"}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("helm %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// refuses what is wrong: the dry run looks.
func (s *server) refuses(t *testing.T, ctx context.Context) {
	for _, c := range []struct{ from, to, want string }{
		{"dnsPolicy: Default", "dnsPolicy: Mine", "Unsupported value: \"Mine\""},
		{"readOnlyRootFilesystem: true", "readOnlyRoot: true", "readOnlyRoot"},
		{"maxSurge: 0", "maxSurge: 1", "may not be set when maxUnavailable is non-zero"},
	} {
		rendered, err := run(kustomizeProgram, "build", filepath.Join(root, "deploy/base"))
		all := read(t, strings.Replace(rendered, c.from, c.to, 1), err)
		if out, err := s.dryRun(t, ctx, all["DaemonSet unmasq-agent"]); err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s: %v: %s, want %q", c.to, err, out, c.want)
		}
	}
	policy := helmed(t, "policies: [{name: p, spec: {rules: [{action: SNAT}]}}]")["SourcePolicy p"]
	if out, err := s.dryRun(t, ctx, policy); err == nil || !strings.Contains(out, "spec.rules[0].snat") {
		t.Errorf("a wrong policy among the chart's values: %v: %s", err, out)
	}
}
