//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/kernel/others/otherstest"
	"github.com/unmasq/unmasq/test/kube"
)

// TestConditions: what a node's report says of eBPF data paths and rivals is true, on
// a real API server, and for as long as it's true; and a policy that is refused leaves
// its last good generation in force when the agent is killed and started again.
func TestConditions(t *testing.T) {
	ctx := bounded(t)
	c := start(t, ctx, kube.Config{Nodes: []kube.NodeConfig{{}}})
	w := &world{t: t, c: c, node: c.Node("n1"), outside: listen(t, c.Outside), program: agenttest.Program(t), dir: t.TempDir()}
	w.install(t, ctx)
	w.startAgent(t, ctx)
	for _, step := range []struct {
		name string
		run  func(*testing.T, context.Context, *world)
	}{
		{"data path and rival", dataPath},
		{"refused across a restart", refusedAcrossRestart},
		{"table changed", tableChanged},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(t, ctx, w) }) {
			t.Fatalf("the agent's log:\n%s", w.agent.Log())
		}
	}
	w.agent.Stop(t)
}

// TestConditionsInContainer: the same of the real DaemonSet, which may not call bpf(2),
// beside a real kube-proxy, which is no rival.
func TestConditionsInContainer(t *testing.T) {
	ctx := bounded(t)
	c := start(t, ctx, kube.Config{Images: []kube.Image{unmasqImage(t, ctx)}, Nodes: []kube.NodeConfig{{Kubelet: true, Proxy: kube.Proxy{Mode: kube.NFTables}}}})
	w := &world{t: t, c: c, node: c.Node("n1")}
	kubectl(t, ctx, c, "apply", "-k", "../../deploy/crd")
	kubectl(t, ctx, c, "wait", "--for=condition=Established", "crd/sourcepolicies.unmasq.io", "--timeout=60s")
	installAgents(t, ctx, c)
	kubectl(t, ctx, c, "wait", "nodereport/n1", "--for=create", "--timeout=60s")
	all := func(enforced, conflict string) {
		t.Helper()
		paths := conditionPath("Enforced", "status") + " " + conditionPath("Enforced", "reason") + ", " + conditionPath("Conflict", "status") + " " + conditionPath("Conflict", "reason")
		w.reports(t, ctx, paths, enforced+", "+conflict)
	}
	all("True InForce", "False NoneFound")
	if out, err := w.node.NS.Run("link add cilium_host type veth peer name cilium_net\n", "ip", "-batch", "-"); err != nil {
		t.Fatal(out, err)
	}
	all("Unknown DataPathUnknown", "Unknown BypassedByEBPF")
	if message, err := w.field(ctx, conditionPath("Enforced", "message")); err != nil || !strings.Contains(message, "can't be asked for (operation not permitted)") {
		t.Errorf("why it isn't known: %q, %v", message, err)
	}
	otherstest.TC(t, w.node.NS, "eth0", otherstest.Egress, "cil_to_netdev-eth0")
	all("False BypassedByEBPF", "True BypassedByEBPF")
	if log := kubectl(t, ctx, c, "-n", "unmasq", "logs", "daemonset/unmasq-agent"); strings.Contains(log, "can't be read") {
		t.Errorf("the agent's log:\n%s", log)
	}
}

// reasons of the report's entries, in their order.
const conflictReasons = "{range .status.conflicts[*]}{.reason} {.owner};{end}"

// dataPath: a program as Cilium attaches it, and a rule that switches tracking off.
func dataPath(t *testing.T, ctx context.Context, w *world) {
	w.reports(t, ctx, conditionPath("Enforced", "status"), "True")
	w.reports(t, ctx, conditionPath("Conflict", "reason"), "NoneFound")
	detach := otherstest.TC(t, w.node.NS, "eth0", otherstest.Egress, "cil_to_netdev-eth0")
	if out, err := w.node.NS.Run("table inet rival { chain c { type filter hook prerouting priority raw; ip saddr 10.0.0.0/8 ip daddr 198.51.100.0/24 notrack; }; }", "nft", "-f", "-"); err != nil {
		t.Fatal(out, err)
	}
	w.reports(t, ctx, conflictReasons, "Untracked unknown;BypassedByEBPF cilium;")
	w.reports(t, ctx, conditionPath("Enforced", "status")+"/"+conditionPath("Enforced", "reason"), "False/BypassedByEBPF")
	message, err := w.field(ctx, conditionPath("Enforced", "message"))
	if err != nil || !strings.Contains(message, "program cil_to_netdev at eth0 (tc egress)") {
		t.Errorf("what was seen: %q, %v", message, err)
	}
	t.Logf("checked: %s", kubectl(t, ctx, w.c, "get", "nodereports"))
	if _, body, err := w.agent.Get("/readyz"); err != nil || !strings.Contains(body, "don't come to the policies") {
		t.Errorf("/readyz: %q, %v", body, err)
	}
	detach()
	if out, err := w.node.NS.Run("", "nft", "delete", "table", "inet", "rival"); err != nil {
		t.Fatal(out, err)
	}
	w.reports(t, ctx, conditionPath("Enforced", "status"), "True")
	w.reports(t, ctx, conflictReasons, "")
}

// refusedAcrossRestart: the API server has a generation that the agent refuses.
func refusedAcrossRestart(t *testing.T, ctx context.Context, w *world) {
	p := w.pod(t, ctx, "refused", map[string]string{"app": "web"})
	const from = "podSelector: {matchLabels: {app: web}}"
	apply(t, ctx, w.c, policyText("mended", from))
	w.becomes(t, ctx, &p.Host, w.node.IPv4)
	apply(t, ctx, w.c, strings.Replace(policyText("mended", from), "to: {", "to: {nodes: {}, ", 1))
	cache := filepath.Join(w.dir, "run", "cluster.json")
	eventually(t, ctx, func() error {
		text, err := os.ReadFile(cache)
		if err == nil && !strings.Contains(string(text), `"instead":{"mended":{`) {
			err = errors.New("the cache doesn't say what is in force instead")
		}
		return err
	})
	for _, away := range []bool{false, true} {
		w.agent.Kill()
		if away {
			if err := w.c.API.Server.Kill(); err != nil {
				t.Fatal(err)
			}
		} else {
			kubectl(t, ctx, w.c, "delete", "nodereport", w.node.Name)
		}
		if out, err := w.node.NS.Run("", "nft", "flush", "ruleset"); err != nil {
			t.Fatal(out, err)
		}
		w.agent = agenttest.Start(w.t, w.node.NS, w.program, w.args...)
		if got := w.seen(t, ctx, &p.Host); got != w.node.IPv4 {
			t.Errorf("API away %t: the last good generation isn't in force, the pod is seen as %s\n%s", away, got, w.agent.Log())
		}
		if !away {
			w.reports(t, ctx, "{.status.refusals[0].name} {.status.refusals[0].generation}/{.status.refusals[0].inForce}", "mended 2/1")
		}
	}
	if err := w.c.API.Start(ctx); err != nil {
		t.Fatal(err)
	}
	apply(t, ctx, w.c, policyText("mended", "podSelector: {matchLabels: {app: none}}"))
	w.becomes(t, ctx, &p.Host, p.IPv4)
	kubectl(t, ctx, w.c, "delete", "sourcepolicy", "mended")
	if err := p.Delete(ctx); err != nil {
		t.Fatal(err)
	}
}

// tableChanged: where no ownership keeps others away, they are named.
func tableChanged(t *testing.T, ctx context.Context, w *world) {
	w.agent.Kill()
	w.agent = agenttest.Start(w.t, w.node.NS, w.program, append(w.args, "--table-ownership", "off")...)
	if out, err := w.node.NS.Run("", "nft", "delete", "table", "inet", "unmasq"); err != nil {
		t.Fatal(out, err)
	}
	w.agent.Await(t, "restoring", func() bool {
		_, err := w.node.NS.Run("", "nft", "list", "table", "inet", "unmasq")
		return err == nil
	})
	w.reports(t, ctx, conflictReasons, "TableChanged nft;")
	w.reports(t, ctx, conditionPath("Conflict", "status"), "True")
	t.Log(fmt.Sprint("checked: ", kubectl(t, ctx, w.c, "get", "nodereport", w.node.Name, "-o", "jsonpath="+conditionPath("Conflict", "message"))))
}
