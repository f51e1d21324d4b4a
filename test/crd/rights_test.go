//go:build e2e

package crd

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const agents = "/api/v1/namespaces/unmasq/serviceaccounts/unmasq-agent/token"

// object posts one as an administrator.
func (c *client) object(t *testing.T, path, text string) map[string]any {
	t.Helper()
	status, said, err := c.ask(t.Context(), http.MethodPost, path, "application/yaml", []byte(text))
	if err != nil || status != http.StatusCreated {
		t.Fatalf("POST %s: %d %v: %s", path, status, err, said)
	}
	var out map[string]any
	if err := json.Unmarshal(said, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// agentOn makes a node with an agent's pod on it, and returns a client with that
// pod's token.
func agentOn(t *testing.T, c *cluster, admin *client, node string) *client {
	t.Helper()
	admin.object(t, "/api/v1/nodes", "{apiVersion: v1, kind: Node, metadata: {name: "+node+"}}")
	pod := admin.object(t, "/api/v1/namespaces/unmasq/pods", fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: agent-%[1]s},
		spec: {nodeName: %[1]s, serviceAccountName: unmasq-agent, containers: [{name: agent, image: unmasq}]}}`, node))
	uid := pod["metadata"].(map[string]any)["uid"]
	return withToken(t, c, admin, fmt.Sprintf("boundObjectRef: {apiVersion: v1, kind: Pod, name: agent-%s, uid: %s}", node, uid))
}

// withToken makes a token for the agent's service account.
func withToken(t *testing.T, c *cluster, admin *client, spec string) *client {
	t.Helper()
	return tokenOf(t, c, admin, agents, spec)
}

// withNoRights is a service account that nobody gave any.
func withNoRights(t *testing.T, c *cluster, admin *client) *client {
	t.Helper()
	const accounts = "/api/v1/namespaces/unmasq/serviceaccounts"
	admin.object(t, accounts, "{apiVersion: v1, kind: ServiceAccount, metadata: {name: nobody}}")
	return tokenOf(t, c, admin, accounts+"/nobody/token", "expirationSeconds: 600")
}

func tokenOf(t *testing.T, c *cluster, admin *client, path, spec string) *client {
	t.Helper()
	made := admin.object(t, path, "{apiVersion: authentication.k8s.io/v1, kind: TokenRequest, spec: {audiences: [], "+spec+"}}")
	return newClient(t, c.Bearer(made["status"].(map[string]any)["token"].(string)))
}

// as is an administrator who acts as another.
func as(t *testing.T, c *cluster, user string) *client {
	t.Helper()
	config := c.Admin()
	config.Impersonate.UserName = user
	return newClient(t, config)
}

func report(node string) string {
	return fmt.Sprintf(`{apiVersion: unmasq.io/v1alpha1, kind: NodeReport, metadata: {name: %s}, status: {agentVersion: v1,
		totals: {policies: 2, rules: 5, refusals: 1, conflicts: 0},
		conditions: [{type: Enforced, status: "True", reason: InKernel, message: "", lastTransitionTime: "2026-11-21T00:00:00Z"},
			{type: Degraded, status: "False", reason: AllKnown, message: "", lastTransitionTime: "2026-11-21T00:00:00Z"}]}}`, node)
}

// checkRights: an agent can do what it needs, and nothing else: each is tried.
func checkRights(t *testing.T, c *cluster) {
	admin := newClient(t, c.Admin())
	a, b := agentOn(t, c, admin, "node-a"), agentOn(t, c, admin, "node-b")
	unbound := withToken(t, c, admin, "expirationSeconds: 600")
	collector := as(t, c, "system:serviceaccount:kube-system:generic-garbage-collector")
	imitator := as(t, c, "system:serviceaccount:unmasq:unmasq-agent")
	const (
		reports = "/apis/unmasq.io/v1alpha1/nodereports"
		core    = "/api/v1/namespaces/unmasq"
		sets    = "/apis/apps/v1/namespaces/unmasq/daemonsets"
		patch   = `{"metadata":{"labels":{"a":"b"}}}`
		onlyA   = "this token is of a pod on node node-a and writes the report of that node only, not of node-b"
		nobody  = "this token is bound to no node"
		rbac    = "cannot "
	)
	awaitPolicy(t, a, reports+"?dryRun=All", report("node-b"))
	for _, x := range []struct {
		who          *client
		method, path string
		body         string
		status       int
		said         string // of a refusal
	}{
		{a, "POST", reports, report("node-b"), 403, onlyA},
		{a, "POST", reports, strings.Replace(report("node-b"), "{name: node-b}", "{generateName: node-a}", 1), 403, "writes the report of that node only"},
		{unbound, "POST", reports, report("node-a"), 403, nobody},
		{a, "POST", reports, report("node-a"), 201, ""},
		{b, "POST", reports, report("node-b"), 201, ""},
		{a, "PATCH", reports + "/node-a", patch, 200, ""},
		{a, "PATCH", reports + "/node-b", patch, 403, onlyA},
		{unbound, "PATCH", reports + "/node-a", patch, 403, nobody},
		{a, "PATCH", reports + "/node-c?fieldManager=x&force=true", report("node-c"), 403, "writes the report of that node only"}, // server-side apply creates
		{a, "DELETE", reports + "/node-a", "", 403, rbac},
		{a, "DELETE", reports + "/node-b", "", 403, rbac},
		{a, "GET", reports, "", 403, rbac},
		{a, "GET", reports + "/node-a", "", 200, ""},

		{a, "GET", "/api/v1/nodes/node-a", "", 200, ""},
		{a, "GET", "/api/v1/nodes?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dnode-a", "", 200, ""},
		{a, "GET", "/api/v1/nodes", "", 403, rbac},
		{a, "PATCH", "/api/v1/nodes/node-a", patch, 403, rbac},
		{a, "PATCH", "/api/v1/nodes/node-a/status", patch, 403, rbac},
		{a, "DELETE", "/api/v1/nodes/node-b", "", 403, rbac},
		{a, "GET", "/api/v1/nodes/node-a/proxy/metrics", "", 403, rbac},
		{a, "GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dnode-a", "", 200, ""},
		{a, "GET", "/api/v1/pods?watch=1&timeoutSeconds=1&fieldSelector=spec.nodeName%3Dnode-a", "", 200, ""},
		{a, "POST", core + "/pods", "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [{name: x, image: x}]}}", 403, rbac},
		{a, "POST", core + "/pods/agent-node-b/exec?command=id", "", 403, rbac},
		{a, "GET", core + "/pods/agent-node-b/exec?command=id", "", 403, rbac},
		{a, "GET", core + "/pods/agent-node-b/log", "", 403, rbac},
		{a, "POST", core + "/pods/agent-node-b/portforward", "", 403, rbac},
		{a, "PATCH", core + "/pods/agent-node-a", patch, 403, rbac},
		{a, "DELETE", core + "/pods/agent-node-a", "", 403, rbac},
		{a, "GET", "/api/v1/namespaces", "", 200, ""},
		{a, "PATCH", "/api/v1/namespaces/unmasq", patch, 403, rbac},
		{a, "GET", "/api/v1/services", "", 200, ""},
		{a, "POST", core + "/services", "{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: 1}]}}", 403, rbac},
		{a, "GET", "/apis/networking.k8s.io/v1/servicecidrs", "", 200, ""},
		{a, "GET", "/apis/unmasq.io/v1alpha1/sourcepolicies", "", 200, ""},
		{a, "POST", "/apis/unmasq.io/v1alpha1/sourcepolicies", string(policyOf(map[string]any{"action": "Keep"})), 403, rbac},
		{a, "DELETE", "/apis/unmasq.io/v1alpha1/sourcepolicies/large", "", 403, rbac},
		{a, "GET", sets + "/unmasq-agent", "", 200, ""},
		{a, "GET", sets + "?watch=1&timeoutSeconds=1&fieldSelector=metadata.name%3Dunmasq-agent", "", 403, rbac},
		{a, "GET", sets + "/other", "", 403, rbac},
		{a, "GET", sets, "", 403, rbac},
		{a, "PATCH", sets + "/unmasq-agent", patch, 403, rbac},
		{a, "DELETE", sets + "/unmasq-agent", "", 403, rbac},
		{a, "GET", "/apis/apps/v1/namespaces/kube-system/daemonsets/unmasq-agent", "", 403, rbac},
		{a, "GET", "/api/v1/secrets", "", 403, rbac},
		{a, "GET", core + "/secrets", "", 403, rbac},
		{a, "GET", core + "/secrets/x", "", 403, rbac},
		{a, "GET", "/api/v1/configmaps", "", 403, rbac},
		{a, "GET", "/api/v1/endpoints", "", 403, rbac},
		{a, "GET", "/apis/discovery.k8s.io/v1/endpointslices", "", 403, rbac},
		{a, "POST", core + "/events", "{apiVersion: v1, kind: Event, metadata: {name: x}}", 403, rbac},
		{a, "POST", agents, "{apiVersion: authentication.k8s.io/v1, kind: TokenRequest, spec: {audiences: []}}", 403, rbac},
		{a, "PATCH", "/apis/rbac.authorization.k8s.io/v1/clusterroles/unmasq-agent", patch, 403, rbac},
		{a, "PATCH", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/sourcepolicies.unmasq.io", patch, 403, rbac},
		{a, "PATCH", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/unmasq-nodereports", patch, 403, rbac},

		// A person may, where RBAC lets them, and so may the collector of what a node left.
		{admin, "PATCH", reports + "/node-a", patch, 200, ""},
		{collector, "PATCH", reports + "/node-a", patch, 200, ""},
		{imitator, "PATCH", reports + "/node-a", patch, 403, nobody},
	} {
		contentType := "application/yaml"
		switch {
		case x.method == "PATCH" && strings.Contains(x.path, "fieldManager"):
			contentType = "application/apply-patch+yaml"
		case x.method == "PATCH":
			contentType = "application/merge-patch+json"
		}
		if status, said, err := x.who.ask(t.Context(), x.method, x.path, contentType, []byte(x.body)); err != nil || status != x.status || status >= 400 && !strings.Contains(string(said), x.said) {
			t.Errorf("%s %s: %d %v %s\nwant %d %s", x.method, x.path, status, err, said, x.status, x.said)
		}
	}
	checkUpdate(t, a, b, reports)
	checkRules(t, a, withNoRights(t, c, admin))
	if out := c.mustKubectl(t, "", "get", "nodereports"); !strings.Contains(out, "InKernel") || !strings.Contains(out, "node-b") {
		t.Errorf("kubectl get nodereports:\n%s", out)
	}
}

// awaitPolicy waits until the API server asks the policy, which it learns of by a watch.
func awaitPolicy(t *testing.T, c *client, path, text string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		status, said, err := c.ask(t.Context(), http.MethodPost, path, "application/yaml", []byte(text))
		if err == nil && status == http.StatusForbidden && strings.Contains(string(said), "ValidatingAdmissionPolicy") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the admission policy isn't asked: %d %v %s", status, err, said)
		}
	}
}

// checkUpdate replaces whole reports.
func checkUpdate(t *testing.T, own, other *client, reports string) {
	t.Helper()
	for _, x := range []struct {
		who    *client
		status int
	}{{own, 200}, {other, 403}} {
		_, current, err := x.who.ask(t.Context(), http.MethodGet, reports+"/node-a", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		if status, said, err := x.who.ask(t.Context(), http.MethodPut, reports+"/node-a", "application/json", current); err != nil || status != x.status {
			t.Errorf("PUT: %d %v %s, want %d", status, err, said, x.status)
		}
	}
}

// checkRules: the API server's own list of what the agent may do has nothing else,
// beside what every service account may.
func checkRules(t *testing.T, agent, nobody *client) {
	t.Helper()
	everybody := rulesOf(t, nobody)
	got := slices.DeleteFunc(rulesOf(t, agent), func(rule string) bool { return slices.Contains(everybody, rule) })
	want := []string{
		"[]/[nodes]: [get watch]",
		"[]/[pods namespaces]: [list watch]",
		"[]/[services]: [list watch]",
		"[apps]/[daemonsets] [unmasq-agent]: [get]",
		"[networking.k8s.io]/[servicecidrs]: [list watch]",
		"[unmasq.io]/[nodereports]: [get create update patch]",
		"[unmasq.io]/[sourcepolicies]: [get list watch]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func rulesOf(t *testing.T, c *client) []string {
	t.Helper()
	_, said, err := c.ask(t.Context(), http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", "application/yaml",
		[]byte("{apiVersion: authorization.k8s.io/v1, kind: SelfSubjectRulesReview, spec: {namespace: unmasq}}"))
	var review struct {
		Status struct {
			ResourceRules []struct{ Verbs, APIGroups, Resources, ResourceNames []string }
		}
	}
	if err == nil {
		err = json.Unmarshal(said, &review)
	}
	if err != nil || len(review.Status.ResourceRules) == 0 {
		t.Fatalf("%v: %s", err, said)
	}
	var out []string
	for _, r := range review.Status.ResourceRules {
		what := fmt.Sprintf("%s/%s", r.APIGroups, r.Resources)
		if len(r.ResourceNames) > 0 {
			what += fmt.Sprintf(" %s", r.ResourceNames)
		}
		out = append(out, fmt.Sprintf("%s: %s", what, r.Verbs))
	}
	slices.Sort(out)
	return out
}
