// Package agent_test is an agent's life as an operator sees it: the real program
// in a namespace, its files, its pages, its exit statuses.
package agent_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	kernelnft "github.com/unmasq/unmasq/internal/kernel/nft"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func TestAgent(t *testing.T) {
	program := agenttest.Program(t)
	for _, tt := range []struct {
		name string
		run  func(*testing.T, string)
	}{
		{"broken policy", brokenPolicy},
		{"directory", directory},
		{"owner", owner},
		{"clear on exit", clearOnExit},
		{"start with broken policy", startWithBrokenPolicy},
		{"facts are followed", factsAreFollowed},
		{"without privilege", withoutPrivilege},
		{"without inotify", withoutInotify},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, program) })
	}
}

// document is a policy that keeps pods' addresses towards one network.
func document(name, to string) string {
	return fmt.Sprintf(`apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: %s}
spec:
  facts: {podCIDRs: [10.244.0.0/16]}
  rules:
  - {name: keep, from: {pods: {}}, to: {cidrs: [%s]}, action: Keep}
`, name, to)
}

func list(t *testing.T, ns *netns.NS) string {
	t.Helper()
	out, err := ns.Run("", "nft", "list", "ruleset")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func nft(ns *netns.NS, args ...string) string {
	if _, err := ns.Run("", "nft", args...); err != nil {
		return err.Error()
	}
	return ""
}

// A policy that breaks while the agent runs leaves the last good one in force,
// and repaired.
func brokenPolicy(t *testing.T, program string) {
	for _, ownership := range []string{"auto", "off"} {
		t.Run("ownership "+ownership, func(t *testing.T) {
			ns, file := netnstest.Test(t, "host"), filepath.Join(t.TempDir(), "policy.yaml")
			agenttest.Write(t, file, document("good", "198.51.100.0/24"))
			a := agenttest.Start(t, ns, program, "--config", file, "--table-ownership", ownership)

			agenttest.Write(t, file, document("broken", "198.51.100.1/24"))
			a.Await(t, "not ready", func() bool { return a.Ready() != "" })
			const want = `policy.yaml:7: spec.rules[0].to.cidrs[0]: "198.51.100.1/24" has host bits set; the network is 198.51.100.0/24`
			if got := a.Ready(); !strings.Contains(got, want) || !strings.Contains(got, "the last good one stays in force") {
				t.Errorf("/readyz says %q, want it to say %q", got, want)
			}
			if got := a.Metric("unmasq_config_valid"); got != "0" {
				t.Errorf("unmasq_config_valid is %s, want 0", got)
			}
			if !strings.Contains(a.Log(), "has host bits set; the network is 198.51.100.0/24") {
				t.Errorf("the log doesn't say what is wrong:\n%s", a.Log())
			}
			nft(ns, "flush", "ruleset")
			a.Await(t, "repaired", func() bool { return strings.Contains(list(t, ns), "198.51.100.0/24") })
			if ownership == "off" {
				repairs := `unmasq_table_repairs_total{process="nft"}`
				a.Await(t, "telling who it was", func() bool { return a.Metric(repairs) != "" })
				if !strings.Contains(a.Log(), "process=nft") {
					t.Errorf("the log doesn't name nft:\n%s", a.Log())
				}
			}
			agenttest.Write(t, file, document("mended", "203.0.113.0/24"))
			a.Await(t, "ready again", func() bool { return a.Ready() == "" })
			if out := list(t, ns); !strings.Contains(out, "203.0.113.0/24") || strings.Contains(out, "198.51.100.0/24") {
				t.Errorf("the mended policy is not what stands:\n%s", out)
			}
			a.Stop(t)
		})
	}
}

// Documents in a directory come, change and go; a SIGHUP reads them again.
func directory(t *testing.T, program string) {
	ns, dir := netnstest.Test(t, "host"), t.TempDir()
	agenttest.Write(t, filepath.Join(dir, "a.yaml"), document("a", "198.51.100.0/24"))
	a := agenttest.Start(t, ns, program, "--config", dir)
	agenttest.Write(t, filepath.Join(dir, "b.yaml"), strings.Replace(document("b", "203.0.113.0/24"), "  facts: {podCIDRs: [10.244.0.0/16]}\n", "", 1))
	a.Await(t, "aware of the second", func() bool { return strings.Contains(list(t, ns), "203.0.113.0/24") })
	if err := os.Remove(filepath.Join(dir, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	a.Await(t, "rid of the second", func() bool { return !strings.Contains(list(t, ns), "203.0.113.0/24") })
	before := a.Metric(`unmasq_config_reloads_total{result="ok"}`)
	a.Signal(t, syscall.SIGHUP)
	a.Await(t, "reloaded", func() bool { return a.Metric(`unmasq_config_reloads_total{result="ok"}`) != before })
}

// The table belongs to the agent: nft, apply, clear and a second agent are refused.
func owner(t *testing.T, program string) {
	ns, file := netnstest.Test(t, "host"), filepath.Join(t.TempDir(), "policy.yaml")
	agenttest.Write(t, file, document("mine", "198.51.100.0/24"))
	a := agenttest.Start(t, ns, program, "--config", file)
	if a.Metric("unmasq_table_ownership") != "1" {
		unowned(t, ns, a)
		return
	}
	if got := nft(ns, "delete", "table", "inet", "unmasq"); !strings.Contains(got, "Operation not permitted") {
		t.Errorf("nft delete table: %q, want Operation not permitted", got)
	}
	owner := fmt.Sprintf("belongs to process %d (unmasq): stop that agent first", a.PID())
	for _, args := range [][]string{{"apply", "-f", file}, {"clear"}} {
		if _, stderr, status := agenttest.Run(t, ns, "", program, args...); status != 1 || !strings.Contains(stderr, owner) {
			t.Errorf("unmasq %v: status %d, %q; want 1 and %q", args, status, stderr, owner)
		}
	}
	second := agenttest.Launch(t, ns, program, "--config", file, "--metrics-address", "127.0.0.1:9810")
	second.Await(t, "refused", func() bool { return strings.Contains(second.Log(), fmt.Sprintf("belongs to process %d", a.PID())) })
	agenttest.Write(t, file, document("mine", "203.0.113.0/24"))
	a.Await(t, "changed", func() bool { return strings.Contains(list(t, ns), "203.0.113.0") })
	a.Kill()
	second.Await(t, "the owner", func() bool { return strings.Contains(second.Log(), "policy in force") })
	if strings.Contains(second.Log(), "restoring") {
		t.Errorf("the second agent takes the owner's changes for intrusions:\n%s", second.Log())
	}
	second.Stop(t)

	stdout, _, status := agenttest.Run(t, ns, "", program, "status", "-o", "json", "--metrics-address", "")
	var report struct {
		Table string
		Rules []struct {
			Policy, Rule string
			Number       int
		}
		Facts []struct{ Name, Values, Origin string }
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || status != 0 {
		t.Fatalf("status: %d, %v\n%s", status, err, stdout)
	}
	if report.Table != "plain" || len(report.Rules) != 1 || report.Rules[0].Policy != "mine" || report.Rules[0].Rule != "keep" || report.Rules[0].Number != 1 {
		t.Errorf("after the agents: %+v", report)
	}
	for range 2 { // the second time there is nothing
		if _, stderr, status := agenttest.Run(t, ns, "", program, "clear"); status != 0 {
			t.Errorf("clear: %d, %s", status, stderr)
		}
	}
	if out := list(t, ns); out != "" {
		t.Errorf("clear left\n%s", out)
	}
}

// unowned is an agent on a kernel that has no ownership, which must be so: it
// says so, and puts back what others delete.
func unowned(t *testing.T, ns *netns.NS, a *agenttest.Agent) {
	t.Helper()
	var features kernelnft.Features
	if err := ns.Do(func() (err error) { features, err = kernelnft.Probe(); return err }); err != nil {
		t.Fatal(err)
	}
	if features.Ownership || a.Metric("unmasq_table_ownership") != "0" || !strings.Contains(a.Log(), "this kernel has no table ownership") {
		t.Fatalf("ownership: the kernel has it: %t; the agent says %s, and\n%s", features.Ownership, a.Metric("unmasq_table_ownership"), a.Log())
	}
	t.Log("checked: this kernel has no ownership: the agent restores its table")
	before := list(t, ns)
	if got := nft(ns, "delete", "table", "inet", "unmasq"); got != "" {
		t.Errorf("nft delete table: %s", got)
	}
	a.Await(t, "restored", func() bool { return list(t, ns) == before })
	a.Await(t, "telling who it was", func() bool { return a.Metric(`unmasq_table_repairs_total{process="nft"}`) == "1" })
	a.Stop(t)
	if list(t, ns) == "" {
		t.Error("no table stays when the agent ends")
	}
}

func clearOnExit(t *testing.T, program string) {
	ns, file := netnstest.Test(t, "host"), filepath.Join(t.TempDir(), "policy.yaml")
	agenttest.Write(t, file, document("mine", "198.51.100.0/24"))
	nft(ns, "add", "table", "inet", "other")
	a := agenttest.Start(t, ns, program, "--config", file, "--clear-on-exit")
	a.Stop(t)
	if out := list(t, ns); strings.TrimSpace(out) != "table inet other {\n}" {
		t.Errorf("there is\n%s\nwant the other table alone", out)
	}
}

// An agent that starts with a broken policy says so, enforces nothing, and goes
// on when it is mended.
func startWithBrokenPolicy(t *testing.T, program string) {
	ns, file := netnstest.Test(t, "host"), filepath.Join(t.TempDir(), "policy.yaml")
	agenttest.Write(t, file, "nonsense")
	a := agenttest.Launch(t, ns, program, "--config", file)
	a.Await(t, "refusing", func() bool { return strings.Contains(a.Ready(), "nothing is enforced") })
	if out := list(t, ns); out != "" {
		t.Errorf("there is\n%s", out)
	}
	agenttest.Write(t, file, document("mine", "198.51.100.0/24"))
	a.Await(t, "ready", func() bool { return a.Ready() == "" })
}

// Facts follow the host: a bridge that appears later is a pod network.
func factsAreFollowed(t *testing.T, program string) {
	ns, file := netnstest.Test(t, "host"), filepath.Join(t.TempDir(), "policy.yaml")
	agenttest.Write(t, file, strings.Replace(document("mine", "198.51.100.0/24"), "  facts: {podCIDRs: [10.244.0.0/16]}\n", "", 1))
	cni := filepath.Join(t.TempDir(), "net.d")
	a := agenttest.Start(t, ns, program, "--config", file, "--cni-dir", cni)
	for _, args := range [][]string{{"link", "add", "docker0", "type", "bridge"}, {"addr", "add", "172.17.0.1/16", "dev", "docker0"}, {"link", "set", "docker0", "up"}} {
		if _, err := ns.Run("", "ip", args...); err != nil {
			t.Fatal(err)
		}
	}
	a.Await(t, "aware of docker0", func() bool { return strings.Contains(list(t, ns), "172.17.0.0/16 : goto from-") })
	if err := os.MkdirAll(cni, 0o755); err != nil {
		t.Fatal(err)
	}
	agenttest.Write(t, filepath.Join(cni, "10-cbr0.conf"), `{"name": "cbr0", "type": "bridge", "ipam": {"type": "host-local", "subnet": "10.244.7.0/24"}}`)
	a.Await(t, "aware of a CNI network", func() bool { return strings.Contains(list(t, ns), "10.244.7.0/24 : goto from-") })
}

// Without CAP_NET_ADMIN each command says what it needs.
func withoutPrivilege(t *testing.T, program string) {
	ns, file := netnstest.Test(t, "host"), filepath.Join(t.TempDir(), "policy.yaml")
	agenttest.Write(t, file, document("mine", "198.51.100.0/24"))
	for _, args := range [][]string{{"agent", "--config", file}, {"apply", "-f", file}, {"clear"}, {"status"}} {
		_, stderr, status := agenttest.Run(t, ns, "", "setpriv", append([]string{"--bounding-set=-net_admin", "--inh-caps=-net_admin", program}, args...)...)
		if status != 1 || !strings.Contains(stderr, "CAP_NET_ADMIN") {
			t.Errorf("unmasq %s: status %d, %q; want 1 and CAP_NET_ADMIN named", args[0], status, stderr)
		}
	}
	for _, args := range [][]string{{"validate", "-f", file}, {"render", "-f", file}} {
		if _, stderr, status := agenttest.Run(t, ns, "", "setpriv", append([]string{"--bounding-set=-net_admin", "--inh-caps=-net_admin", program}, args...)...); status != 0 {
			t.Errorf("unmasq %s needs no privilege, but: %d, %s", args[0], status, stderr)
		}
	}
}

// withoutInotify: on a node where others hold all of root's inotify instances the
// agent enforces all the same, and changes come a little later.
func withoutInotify(t *testing.T, program string) {
	dir := t.TempDir()
	file, none := filepath.Join(dir, "policy.yaml"), filepath.Join(dir, "none")
	agenttest.Write(t, file, document("a", "192.0.2.0/24"))
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --user --map-root-user --net sh -c 'echo 0 >/proc/sys/user/max_inotify_instances; exec \"$0\" \"$@\"' %s \"$@\"\n", program)
	if err := os.WriteFile(none, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	a := agenttest.Launch(t, netnstest.Test(t, "none"), none, "--config", file)
	inForce := func(rules int) func() bool {
		return func() bool { return strings.Contains(a.Log(), fmt.Sprintf("in force\" rules=%d", rules)) }
	}
	a.Await(t, "enforcing", inForce(1))
	agenttest.Write(t, file, document("a", "192.0.2.0/24")+"---\n"+strings.Replace(document("b", "192.0.3.0/24"), "  facts: {podCIDRs: [10.244.0.0/16]}\n", "", 1))
	a.Await(t, "enforcing the other policy", inForce(2))
	if !strings.Contains(a.Log(), "until they can be watched") {
		t.Errorf("it had inotify:\n%s", a.Log())
	}
}
