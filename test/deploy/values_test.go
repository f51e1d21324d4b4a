package deploy

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

func TestBadValues(t *testing.T) {
	for _, c := range []struct{ values, want string }{
		{"podcidrs: []", "additional properties 'podcidrs' not allowed"},
		{"podCIDRs: 10.244.0.0/16", "at '/podCIDRs': got string, want array"},
		{"podCIDRs: [10.244.0.0]", "at '/podCIDRs/0': '10.244.0.0' does not match pattern '^[0-9a-fA-F.:]+/[0-9]+$'"},
		{"nodeCIDRs: [nodes]", "at '/nodeCIDRs/0': 'nodes' does not match pattern"},
		{"serviceCIDRs: [10.96.0.0/16, 10.96.0.0/16]", "at '/serviceCIDRs': items at 0 and 1 are equal"},
		{"watchNodes: 'yes'", "at '/watchNodes': got string, want boolean"},
		{"policies: {default: {}}", "at '/policies': got object, want array"},
		{"policies: [{name: Default, spec: {rules: []}}]", "at '/policies/0/name': 'Default' does not match pattern"},
		{"policies: [{name: default, spec: {}}]", "at '/policies/0/spec': missing property 'rules'"},
		{"policies: [{name: default, spec: {rules: [], facts: {}}}]", "at '/policies/0/spec': additional properties 'facts' not allowed"},
		{"policies: [{name: default, spec: {rules: [{from: {}}]}}]", "at '/policies/0/spec/rules/0': missing property 'action'"},
		{"image: {pullPolicy: Sometimes}", "at '/image/pullPolicy': value must be one of '', 'Always', 'IfNotPresent', 'Never'"},
		{"image: {repository: 'unmasq:1'}", "at '/image/repository': 'unmasq:1' does not match pattern"},
		{"image: {digest: abc}", "at '/image/digest': 'abc' does not match pattern"},
		{"nodeSelector: {canary: true}", "at '/nodeSelector/canary': got boolean, want string"},
		{"maxUnavailable: 0", "at '/maxUnavailable': minimum: got 0, want 1"},
		{"maxUnavailable: 0%", "at '/maxUnavailable': '0%' does not match pattern"},
		{"resources: {limits: {memory: lots}}", "at '/resources/limits/memory': 'lots' does not match pattern"},
		{"port: '9809'", "at '/port': got string, want integer"},
		{"port: 70000", "at '/port': maximum: got 70,000, want 65,535"},
		{"healthPort: 0", "at '/healthPort': minimum: got 0, want 1"},
		{"logFormat: xml", "at '/logFormat': value must be one of 'text', 'json'"},
		{"tableOwnership: off", "at '/tableOwnership': value must be one of 'auto', 'off'"}, // YAML's false, to Helm
		{"cni: {results: results}", "at '/cni/results': 'results' does not match pattern '^/'"},
		{"extraArgs: [kube]", "at '/extraArgs/0': 'kube' does not match pattern '^--'"},
		{"monitoring: {monitor: podMonitor}", "at '/monitoring/monitor': value must be one of '', 'PodMonitor', 'ServiceMonitor'"},
		{"monitoring: {interval: often}", "at '/monitoring/interval': 'often' does not match pattern"},
	} {
		if _, err := helm(t, c.values); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.values, err, c.want)
		}
	}
}

// TestValues: each does what it says.
func TestValues(t *testing.T) {
	spec := []any{"DaemonSet unmasq-agent", "spec", "template", "spec"}
	container := append(slices.Clone(spec), "containers", 0)
	rendered := map[string]object{}
	for _, c := range []struct {
		values string
		path   []any
		want   any
	}{
		{everything, append(slices.Clone(container), "args"), []any{"agent", "--kube", "--metrics-address=[$(HOST_IP)]:9810",
			"--health-address=127.0.0.1:9811", "--daemon-set=$(POD_NAMESPACE)/unmasq-agent", "--pod-cidrs=10.244.0.0/16,fd00:10:244::/48",
			"--node-cidrs=192.0.2.0/24", "--service-cidrs=10.96.0.0/16", "--watch-nodes", "--log-format=json", "--table-ownership=off",
			"--cni-results=/var/lib/other/results", "--cni-dir=/etc/other/net.d", "--cluster-cache="}},
		{everything, append(slices.Clone(container), "image"), "registry.example:5000/net/unmasq:v1"},
		{"image: {digest: 'sha256:" + strings.Repeat("0a", 32) + "'}", append(slices.Clone(container), "image"), "ghcr.io/unmasq/unmasq@sha256:" + strings.Repeat("0a", 32)},
		{everything, append(slices.Clone(container), "imagePullPolicy"), "Always"},
		{everything, append(slices.Clone(container), "ports", 0, "hostPort"), 9810},
		{everything, append(slices.Clone(container), "ports", 1), object{"name": "health", "containerPort": 9811, "hostPort": 9811, "hostIP": "127.0.0.1", "protocol": "TCP"}},
		{everything, append(slices.Clone(container), "env", 5), object{"name": "KUBERNETES_SERVICE_PORT", "value": "6443"}},
		{everything, append(slices.Clone(spec), "nodeSelector"), object{"kubernetes.io/os": "linux", "canary": "yes"}},
		{everything, append(slices.Clone(spec), "imagePullSecrets", 0, "name"), "registry"},
		{everything, []any{"DaemonSet unmasq-agent", "spec", "updateStrategy"}, object{"type": "RollingUpdate", "rollingUpdate": object{"maxSurge": 0, "maxUnavailable": "10%"}}},
		{everything, []any{"DaemonSet unmasq-agent", "spec", "template", "metadata"}, object{
			"labels":      object{"app.kubernetes.io/name": "unmasq", "app.kubernetes.io/component": "agent", "c": "d"},
			"annotations": object{"kubectl.kubernetes.io/default-container": "agent", "a": "b"}}},
		// Labels that select the pods are not to be had otherwise.
		{"podLabels: {app.kubernetes.io/name: other}", []any{"DaemonSet unmasq-agent", "spec", "template", "metadata", "labels", "app.kubernetes.io/name"}, "unmasq"},
		{everything, []any{"SourcePolicy default", "spec", "rules", 1}, object{"name": "outside", "from": object{"pods": object{}}, "action": "Masquerade"}},
		{everything, []any{"ServiceMonitor unmasq-agent", "spec", "endpoints", 0, "interval"}, "15s"},
		{everything, []any{"ServiceMonitor unmasq-agent", "metadata", "labels", "release"}, "prometheus"},
		{"monitoring: {monitor: PodMonitor}", []any{"PodMonitor unmasq-agent", "spec", "podMetricsEndpoints", 0, "port"}, "metrics"},
		{"criticalPods: {quota: true}", []any{"ResourceQuota unmasq-critical-pods", "spec", "scopeSelector", "matchExpressions", 0, "values"}, []any{"system-node-critical"}},
		{"tolerations: []", append(slices.Clone(spec), "tolerations"), nil},
	} {
		if rendered[c.values] == nil {
			rendered[c.values] = object{}
			for key, o := range helmed(t, c.values) {
				rendered[c.values][key] = o
			}
		}
		if diff := cmp.Diff(c.want, at(rendered[c.values], c.path...)); diff != "" {
			t.Errorf("%v: -want +got:\n%s", c.path, diff)
		}
	}
}

// TestValuesAreDocumented: each value has a line in values.yaml, a type in the
// schema, and, but for those that say all by their names, a word about what it does.
func TestValuesAreDocumented(t *testing.T) {
	var values object
	var schema object
	text, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err == nil {
		err = yaml.Unmarshal(text, &values)
	}
	if err != nil {
		t.Fatal(err)
	}
	typed, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err == nil {
		err = json.Unmarshal(typed, &schema)
	}
	if err != nil {
		t.Fatal(err)
	}
	sameNames(t, "", schema, values)
	// What a policy may say is what the API has.
	definition, err := os.ReadFile(filepath.Join(root, "deploy/crd/unmasq.io_sourcepolicies.yaml"))
	var crd object
	if err == nil {
		err = yaml.Unmarshal(definition, &crd)
	}
	if err != nil {
		t.Fatal(err)
	}
	inCRD, _ := at(crd, "spec", "versions", 0, "schema", "openAPIV3Schema", "properties", "spec", "properties").(object)
	inSchema, _ := at(schema, "properties", "policies", "items", "properties", "spec", "properties").(object)
	if diff := cmp.Diff(slices.Sorted(maps.Keys(inCRD)), slices.Sorted(maps.Keys(inSchema))); diff != "" || len(inCRD) == 0 {
		t.Errorf("fields of a policy's spec, -definition +values.schema.json:\n%s", diff)
	}
}

func sameNames(t *testing.T, path string, schema, values object) {
	t.Helper()
	if schema["additionalProperties"] != false {
		t.Errorf("%s: the schema takes names that it doesn't know", path)
	}
	properties := maps.Clone(schema["properties"].(object))
	delete(properties, "global") // Helm's own, for charts of charts
	if diff := cmp.Diff(slices.Sorted(maps.Keys(properties)), slices.Sorted(maps.Keys(values))); diff != "" {
		t.Errorf("%s: -schema +values.yaml:\n%s", path, diff)
	}
	for name, value := range values {
		inner, _ := properties[name].(object)
		if fields, ok := value.(object); ok && inner["properties"] != nil && name != "resources" && name != "seLinuxOptions" {
			sameNames(t, path+"/"+name, inner, fields)
		}
	}
}
