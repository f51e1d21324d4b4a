package deploy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

// dashboard is what of it is asked of Prometheus.
type dashboard struct {
	Templating struct {
		List []struct {
			Name  string
			Query any // a text, or an object
		}
	}
	Panels []struct {
		ID      int
		Title   string
		Targets []struct{ Expr string }
	}
}

// TestDashboard: a running agent has each metric, with each label, that the
// dashboard asks for.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "deploy/grafana/unmasq.json"))
	var d dashboard
	if err == nil {
		err = json.Unmarshal(text, &d)
	}
	if err != nil {
		t.Fatal(err)
	}
	var asked []string
	ids := map[int]bool{}
	for _, p := range d.Panels {
		if ids[p.ID] || len(p.Targets) == 0 {
			t.Errorf("panel %q: no query, or another's id", p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			asked = append(asked, target.Expr)
		}
	}
	if v := d.Templating.List; len(v) != 2 || v[1].Name != "node" {
		t.Fatalf("variables: %v", v)
	}
	query, _ := d.Templating.List[1].Query.(object)
	asked = append(asked, query["query"].(string))
	there := exported(t)
	used := map[string]bool{}
	for _, expr := range asked {
		for _, name := range metricName.FindAllString(expr, -1) {
			used[name] = true
			if !there[name] {
				t.Errorf("%s: no metric of the agent: %s", name, expr)
			}
		}
		if by := grouped.FindStringSubmatch(expr); by != nil {
			for label := range strings.SplitSeq(by[1], ", ") {
				if metric := metricName.FindString(expr); label != "node" && !there[metric+" "+label] {
					t.Errorf("%s has no label %s: %s", metric, label, expr)
				}
			}
		}
	}
	for name := range there {
		if strings.HasPrefix(name, "unmasq_") && !strings.Contains(name, " ") && !used[name] && name != "unmasq_table_last_repair_timestamp_seconds" {
			t.Errorf("%s is asked for nowhere", name)
		}
	}
}

var (
	metricName = regexp.MustCompile(`\b(unmasq|process|go)_[a-z_]+`)
	grouped    = regexp.MustCompile(`by \(([a-z, ]+)\)`)
	sample     = regexp.MustCompile(`(?m)^([a-z_]+)(\{[^}]*\})? `)
	labelName  = regexp.MustCompile(`([a-z_]+)="`)
)

// exported are the metrics of an agent that wrote, was disturbed, and repaired, and
// "metric label" for each of their labels.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	ns := netnstest.Test(t, "n")
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, file, `
apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: default}
spec: {rules: [{name: all, action: Masquerade}]}
`)
	program := agenttest.Program(t)
	a := agenttest.Start(t, ns, program, "--config", file, "--table-ownership", "off")
	if out, err := ns.Run("", "nft", "delete", "table", "inet", "unmasq"); err != nil {
		t.Fatal(out, err)
	}
	var text string
	a.Await(t, "the table's repair in its metrics", func() bool {
		status, body, err := a.Get("/metrics")
		text = body
		return err == nil && status == 200 && strings.Contains(body, "\nunmasq_table_repairs_total{") && strings.Contains(body, "\nunmasq_rule_connections_total{")
	})
	there := map[string]bool{}
	for _, m := range sample.FindAllStringSubmatch(text+inCluster(t, program), -1) {
		there[m[1]] = true
		for _, l := range labelName.FindAllStringSubmatch(m[2], -1) {
			there[m[1]+" "+l[1]] = true
		}
	}
	return there
}

// inCluster is what an agent adds that follows a cluster, be its API away.
func inCluster(t *testing.T, program string) (text string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "kubeconfig")
	write(t, config, `
apiVersion: v1
kind: Config
current-context: away
contexts: [{name: away, context: {cluster: away, user: nobody}}]
clusters: [{name: away, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: nobody, user: {}}]
`)
	a := agenttest.Launch(t, netnstest.Test(t, "k"), program, "--kube", "--kubeconfig", config, "--node-name", "n", "--cluster-cache", "")
	a.Await(t, "the metrics of an agent in a cluster", func() bool {
		status, body, err := a.Get("/metrics")
		text = body
		return err == nil && status == 200 && strings.Contains(body, "\nunmasq_cluster_followed ")
	})
	return text
}
