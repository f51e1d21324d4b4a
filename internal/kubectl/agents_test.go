package kubectl

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// agentPod on a node, whose container is in a state.
func agentPod(name, node, state, more string) string {
	return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: unmasq, labels: {app.kubernetes.io/name: unmasq, app.kubernetes.io/component: agent}%s}
spec:
  nodeName: %s
  containers:
  - {name: proxy}
  - {name: agent, image: "unmasq:1", args: [agent, --kube, "--metrics-address=[$(HOST_IP)]:9809"], env: [{name: HOST_IP, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}]}
status: {phase: Running, hostIPs: [{ip: 192.0.2.1}, {ip: "2001:db8::1"}], containerStatuses: [{name: proxy, state: {running: {}}}, {name: agent, state: {%s}}]}`, name, more, node, state)
}

func TestAgentOn(t *testing.T) {
	const running, waiting = "running: {}", "waiting: {reason: CrashLoopBackOff}"
	for _, x := range []struct {
		name string
		pods []string
		want string // pod, or what the error says
	}{
		{"runs", []string{agentPod("a", "n1", running, "")}, "unmasq/a"},
		{"of another node", []string{agentPod("a", "n2", running, "")}, "node n1 has no agent: no pod with labels app.kubernetes.io/name=unmasq,app.kubernetes.io/component=agent in namespace unmasq runs there"},
		{"the one that runs", []string{agentPod("a", "n1", waiting, ""), agentPod("b", "n1", running, "")}, "unmasq/b"},
		{"one that goes", []string{agentPod("a", "n1", running, `, deletionTimestamp: "2026-01-01T00:00:00Z"`), agentPod("b", "n1", running, "")}, "unmasq/b"},
		{"fails", []string{agentPod("a", "n1", waiting, "")}, "the agent on node n1 can't be asked: pod unmasq/a waits: CrashLoopBackOff; see `kubectl -n unmasq describe pod a`"},
		{"ended", []string{agentPod("a", "n1", "terminated: {reason: OOMKilled}", "")}, "pod unmasq/a has ended: OOMKilled"},
		{"not yet", []string{agentPod("a", "n1", "", "")}, "pod unmasq/a doesn't run yet (Running)"},
		{"no such container", []string{strings.Replace(agentPod("a", "n1", running, ""), "name: agent, image", "name: other, image", 1)}, "pod unmasq/a has no container named agent, and more than one"},
		{"another label", []string{strings.Replace(agentPod("a", "n1", running, ""), "component: agent", "component: other", 1)}, "node n1 has no agent"},
	} {
		t.Run(x.name, func(t *testing.T) {
			c, _ := cluster(t, strings.Join(x.pods, "\n---\n"))
			a, err := c.AgentOn(t.Context(), "n1")
			got := a.Namespace + "/" + a.Pod
			if err != nil {
				got = err.Error()
			}
			if err == nil && got != x.want || err != nil && !strings.Contains(got, x.want) {
				t.Errorf("%s; want %s", got, x.want)
			}
		})
	}
}

func TestAgents(t *testing.T) {
	c, api := cluster(t, strings.Join([]string{
		strings.Replace(agentPod("c", "n2", "running: {}", ""), "--kube,", "--kube, --health-address, '127.0.0.1:9808',", 1), agentPod("b", "n1", "running: {}", ""), agentPod("a", "n1", "waiting: {}", ""), agentPod("d", `""`, "", ""),
	}, "\n---\n"))
	all, err := c.Agents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, a := range all {
		got = append(got, fmt.Sprint(a.Node, " ", a.Pod, " ", a.Container, " ", a.Image, " ", a.HealthAddress, " ", a.NodeAddresses))
	}
	want := []string{"n1 b agent unmasq:1 192.0.2.1:9809 [192.0.2.1 2001:db8::1]", "n2 c agent unmasq:1 127.0.0.1:9808 [192.0.2.1 2001:db8::1]"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	forbid(api, "list", Pods)
	if _, err := c.Agents(t.Context()); err == nil || !strings.Contains(err.Error(), "you may not look for agents: pods is forbidden") || !strings.HasSuffix(err.Error(), "it takes list on pods in namespace unmasq") {
		t.Error(err)
	}
}

func TestPodNode(t *testing.T) {
	c, _ := cluster(t, objects)
	if node, err := c.PodNode(t.Context(), "web-0"); err != nil || node != "n2" {
		t.Error(node, err)
	}
	if _, err := c.PodNode(t.Context(), "shop/none"); err == nil || !strings.Contains(err.Error(), "there is no pod shop/none") {
		t.Error(err)
	}
	if _, err := c.PodNode(t.Context(), "a/b/c"); err == nil {
		t.Error("a/b/c is taken as a pod")
	}
}
