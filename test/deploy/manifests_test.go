package deploy

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// everything is on.
const everything = `
podCIDRs: [10.244.0.0/16, "fd00:10:244::/48"]
nodeCIDRs: [192.0.2.0/24]
serviceCIDRs: [10.96.0.0/16]
watchNodes: true
policies:
- name: default
  spec:
    rules:
    - {name: inside, from: {pods: {}}, to: {pods: {}}, action: Keep}
    - {name: outside, from: {pods: {}}, action: Masquerade}
image: {repository: "registry.example:5000/net/unmasq", tag: v1, pullPolicy: Always}
imagePullSecrets: [{name: registry}]
nodeSelector: {canary: "yes"}
affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: Exists}]}]}}}
criticalPods: {quota: true}
maxUnavailable: 10%
podAnnotations: {a: b}
podLabels: {c: d}
seLinuxOptions: {type: spc_t}
apiServer: {host: api.example, port: 6443}
port: 9810
healthPort: 9811
logFormat: json
tableOwnership: "off"
cni: {results: /var/lib/other/results, config: /etc/other/net.d}
extraArgs: [--cluster-cache=]
monitoring: {monitor: ServiceMonitor, interval: 15s, labels: {release: prometheus}, dashboard: true}
`

// renderings are the ways in which the manifests come.
func renderings(t *testing.T) map[string]objects {
	return map[string]objects{
		"deploy/base":          kustomized(t, "deploy/base"),
		"deploy/without-tools": kustomized(t, "deploy/without-tools"),
		"chart":                helmed(t, ""),
		"chart without tools":  helmed(t, "image: {tools: false}"),
		"chart, all on":        helmed(t, everything),
	}
}

// plain leaves out what kustomize and Helm do differently and no cluster tells apart:
// CEL's white space, the label that Helm can't give definitions, and the namespace,
// which Helm is told to make.
func plain(all objects) objects {
	delete(all, "Namespace unmasq")
	for key, o := range all {
		switch o["kind"] {
		case "CustomResourceDefinition":
			delete(o["metadata"].(object), "labels")
		case "ValidatingAdmissionPolicy":
			all[key] = spaced(o).(object)
		}
	}
	return all
}

// spaced has single spaces.
func spaced(v any) any {
	switch v := v.(type) {
	case string:
		return strings.Join(strings.Fields(v), " ")
	case []any:
		for i := range v {
			v[i] = spaced(v[i])
		}
	case object:
		for key := range v {
			v[key] = spaced(v[key])
		}
	}
	return v
}

func TestSameObjects(t *testing.T) {
	for _, c := range []struct{ dir, values string }{
		{"deploy/base", ""},
		{"deploy/without-tools", "image: {tools: false}"},
	} {
		base := plain(kustomized(t, c.dir))
		if len(base) != 10 {
			t.Errorf("%s has %v", c.dir, slices.Sorted(maps.Keys(base)))
		}
		if diff := cmp.Diff(base, plain(helmed(t, c.values))); diff != "" {
			t.Errorf("-%s +chart with %q:\n%s", c.dir, c.values, diff)
		}
	}
}

func TestLint(t *testing.T) {
	file := filepath.Join(t.TempDir(), "values.yaml")
	write(t, file, everything)
	for _, args := range [][]string{{}, {"--values", file}} {
		out, err := run(helmProgram, append([]string{"lint", "--strict", chart}, args...)...)
		if err != nil || !strings.Contains(out, "1 chart(s) linted, 0 chart(s) failed") {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// kinds that may be there. None but the DaemonSet makes pods, none but the
// ClusterRole and the Role give rights.
var kinds = []string{"ClusterRole", "ClusterRoleBinding", "ConfigMap", "CustomResourceDefinition", "DaemonSet", "Namespace",
	"ResourceQuota", "Role", "RoleBinding", "Service", "ServiceAccount", "ServiceMonitor", "SourcePolicy", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}

// privileges of all manifests, exactly.
const privileges = `
hostNetwork: true
hostPID: null
hostIPC: null
hostUsers: null
shareProcessNamespace: null
initContainers: null
ephemeralContainers: null
automountServiceAccountToken: null
containers: 1
pod: {seccompProfile: {type: RuntimeDefault}}
container:
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsUser: 0
  runAsGroup: 0
  capabilities: {drop: [ALL], add: [NET_ADMIN, NET_RAW]}
  seccompProfile: {type: RuntimeDefault}
volumes:
- {name: cni-results, hostPath: {path: /var/lib/cni/results, type: DirectoryOrCreate}}
- {name: cni-config, hostPath: {path: /etc/cni/net.d, type: DirectoryOrCreate}}
- {name: run, hostPath: {path: /run/unmasq, type: DirectoryOrCreate}}
mounts:
- {name: cni-results, mountPath: /var/lib/cni/results, readOnly: true}
- {name: cni-config, mountPath: /etc/cni/net.d, readOnly: true}
- {name: run, mountPath: /run/unmasq}
rules:
- {apiGroups: [""], resources: [nodes], verbs: [get, watch]}
- {apiGroups: [""], resources: [pods, namespaces], verbs: [list, watch]}
- {apiGroups: [""], resources: [services], verbs: [list, watch]}
- {apiGroups: [networking.k8s.io], resources: [servicecidrs], verbs: [list, watch]}
- {apiGroups: [unmasq.io], resources: [sourcepolicies], verbs: [get, list, watch]}
- {apiGroups: [unmasq.io], resources: [nodereports], verbs: [get, create, update, patch]}
own:
- {apiGroups: [apps], resources: [daemonsets], resourceNames: [unmasq-agent], verbs: [get]}
`

func TestPrivileges(t *testing.T) {
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(privileges) }
	want := map[string]string{
		"deploy/base":          privileges,
		"chart":                privileges,
		"deploy/without-tools": replace(", NET_RAW", ""),
		"chart without tools":  replace(", NET_RAW", ""),
		"chart, all on": replace("lib/cni", "lib/other", "etc/cni", "etc/other", "[nodes], verbs: [get, watch]", "[nodes], verbs: [get, list, watch]",
			"pod: {", "pod: {seLinuxOptions: {type: spc_t}, "),
	}
	for name, all := range renderings(t) {
		t.Run(name, func(t *testing.T) {
			var expected object
			if err := yaml.Unmarshal([]byte(want[name]), &expected); err != nil || expected == nil {
				t.Fatalf("what is expected of %s: %v", name, err)
			}
			if diff := cmp.Diff(expected, privilegesOf(t, all)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func privilegesOf(t *testing.T, all objects) object {
	t.Helper()
	for key, o := range all {
		if kind, _ := o["kind"].(string); !slices.Contains(kinds, kind) || strings.Contains(key, "DaemonSet") && key != "DaemonSet unmasq-agent" ||
			strings.Contains(kind, "Role") && !strings.HasSuffix(key, " unmasq-agent") {
			t.Errorf("not expected: %s", key)
		}
	}
	pod, _ := at(all["DaemonSet unmasq-agent"], "spec", "template", "spec").(object)
	containers, _ := pod["containers"].([]any)
	got := object{"containers": len(containers), "pod": pod["securityContext"], "volumes": pod["volumes"],
		"container": at(pod, "containers", 0, "securityContext"), "mounts": at(pod, "containers", 0, "volumeMounts"),
		"rules": all["ClusterRole unmasq-agent"]["rules"], "own": all["Role unmasq-agent"]["rules"]}
	for _, field := range []string{"hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace", "initContainers", "ephemeralContainers", "automountServiceAccountToken"} {
		got[field] = pod[field]
	}
	return got
}

// TestNames: what refers to something refers to what is there.
func TestNames(t *testing.T) {
	for name, all := range renderings(t) {
		t.Run(name, func(t *testing.T) {
			set := all["DaemonSet unmasq-agent"]
			pod := at(set, "spec", "template", "spec")
			account := all[fmt.Sprint("ServiceAccount ", at(pod, "serviceAccountName"))]
			subject := object{"kind": "ServiceAccount", "name": at(account, "metadata", "name"), "namespace": at(account, "metadata", "namespace")}
			for _, kind := range []string{"ClusterRole", "Role"} {
				binding := all[kind+"Binding unmasq-agent"]
				if diff := cmp.Diff([]any{subject}, binding["subjects"]); diff != "" || subject["namespace"] != "unmasq" {
					t.Errorf("-the DaemonSet's service account +the %sBinding's:\n%s", kind, diff)
				}
				role := object{"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": at(all[kind+" unmasq-agent"], "metadata", "name")}
				if diff := cmp.Diff(any(role), binding["roleRef"]); diff != "" {
					t.Errorf("-role +the %sBinding's:\n%s", kind, diff)
				}
			}
			labels, _ := at(set, "spec", "template", "metadata", "labels").(object)
			selectors := []any{at(set, "spec", "selector", "matchLabels")}
			if service := all["Service unmasq-agent"]; service != nil {
				selectors = append(selectors, at(service, "spec", "selector"))
				selected(t, at(service, "metadata", "labels").(object), at(all["ServiceMonitor unmasq-agent"], "spec", "selector", "matchLabels"))
			}
			for _, selector := range selectors {
				selected(t, labels, selector)
			}
			if at(all["ValidatingAdmissionPolicyBinding unmasq-nodereports"], "spec", "policyName") != at(all["ValidatingAdmissionPolicy unmasq-nodereports"], "metadata", "name") {
				t.Error("the admission policy is not the bound one")
			}
			for key, o := range all {
				if space := at(o, "metadata", "namespace"); space != nil && space != "unmasq" {
					t.Errorf("%s is in namespace %v", key, space)
				}
			}
		})
	}
}

func selected(t *testing.T, labels object, selector any) {
	t.Helper()
	pairs, _ := selector.(object)
	for key, value := range pairs {
		if labels[key] != value {
			t.Errorf("selector %v doesn't select %v", selector, labels)
		}
	}
	if len(pairs) == 0 {
		t.Error("an empty selector")
	}
}

// TestProbes ask where the agent answers, which is on the node alone.
func TestProbes(t *testing.T) {
	for name, all := range renderings(t) {
		container := at(all["DaemonSet unmasq-agent"], "spec", "template", "spec", "containers", 0)
		port := at(container, "ports", 1)
		if at(port, "name") != "health" || at(port, "hostIP") != "127.0.0.1" || at(port, "hostPort") != at(port, "containerPort") {
			t.Errorf("%s: the second port is %v", name, port)
		}
		args, _ := at(container, "args").([]any)
		if want := fmt.Sprint("--health-address=127.0.0.1:", at(port, "containerPort")); !slices.Contains(args, any(want)) {
			t.Errorf("%s: arguments %v, want %s", name, args, want)
		}
		for probe, path := range map[string]string{"readinessProbe": "/readyz", "livenessProbe": "/healthz"} {
			if diff := cmp.Diff(any(object{"host": "127.0.0.1", "path": path, "port": "health"}), at(container, probe, "httpGet")); diff != "" {
				t.Errorf("%s: %s -want +got:\n%s", name, probe, diff)
			}
		}
		// The DaemonSet asked for is this one, by the right that there is.
		want := "--daemon-set=$(POD_NAMESPACE)/" + at(all["DaemonSet unmasq-agent"], "metadata", "name").(string)
		if !slices.Contains(args, any(want)) {
			t.Errorf("%s: arguments %v, want %s", name, args, want)
		}
	}
}

// TestWatchNodes: the component does what the chart's value does.
func TestWatchNodes(t *testing.T) {
	base, err := filepath.Abs(filepath.Join(root, "deploy"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	relative, err := filepath.Rel(dir, base)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "kustomization.yaml"), fmt.Sprintf("resources: [%[1]s/base]\ncomponents: [%[1]s/watch-nodes]\n", relative))
	rendered, err := run(kustomizeProgram, "build", dir)
	if diff := cmp.Diff(plain(read(t, rendered, err)), plain(helmed(t, "watchNodes: true"))); diff != "" {
		t.Errorf("-component +chart:\n%s", diff)
	}
}

// TestArguments are ones that the agent knows; it is asked for its help besides, so
// that it doesn't start.
func TestArguments(t *testing.T) {
	program := agenttest.Program(t)
	for name, all := range renderings(t) {
		list, _ := at(all["DaemonSet unmasq-agent"], "spec", "template", "spec", "containers", 0, "args").([]any)
		var args []string
		for _, a := range list {
			args = append(args, a.(string))
		}
		if out, err := exec.Command(program, append(args, "--help")...).CombinedOutput(); err != nil || len(args) < 3 {
			t.Errorf("%s: unmasq %v: %v: %s", name, args, err, out)
		}
	}
	if exec.Command(program, "agent", "--no-such", "--help").Run() == nil {
		t.Error("the agent takes a flag that there isn't")
	}
}

// TestCapabilities: why the tools image is given NET_RAW, and no more.
func TestCapabilities(t *testing.T) {
	ns := netnstest.Test(t, "n")
	for _, args := range [][]string{{"iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-j", "MASQUERADE"}, {"nft", "add", "table", "inet", "x"}} {
		if out, err := ns.Run("", args[0], args[1:]...); err != nil {
			t.Fatal(out, err)
		}
	}
	for _, c := range []struct {
		program, capabilities string
		reads                 bool
	}{
		{"iptables-legacy-save -t nat", "net_admin", false},
		{"iptables-legacy-save -t nat", "net_admin,+net_raw", true},
		{"nft list tables", "net_admin", true},
		{"nft list tables", "net_raw", false},
		{"iptables-nft-save", "net_admin", true},
		{"ipset save", "net_admin", true},
		{"conntrack -L", "net_admin", true},
	} {
		set := "-all,+" + c.capabilities
		args := append([]string{"--no-new-privs", "--bounding-set=" + set, "--inh-caps=" + set}, strings.Fields(c.program)...)
		if out, err := ns.Run("", "setpriv", args...); (err == nil) != c.reads {
			t.Errorf("%s with %s: %v, want it to read: %v\n%s", c.program, c.capabilities, err, c.reads, out)
		}
	}
}
