package masqagent_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

// life of the agent, as an operator sees it.
func life(t *testing.T, program string) {
	for _, tt := range []struct {
		name string
		run  func(*testing.T, string)
	}{
		{"bad files", badFiles},
		{"huge file", hugeFile},
		{"exit on bad config", exitOnBadConfig},
		{"start with a bad file", startWithBadFile},
		{"killed, with a bad file", killedWithBadFile},
		{"config map", configMap},
		{"directory comes late", directoryComesLate},
		{"dialect is told by files", dialectIsToldByFiles},
		{"names of the program", namesOfTheProgram},
		{"what is said without pods", whatIsSaidWithoutPods},
		{"policies besides", policiesBesides},
		{"whose networks are pods'", whoseNetworksArePods},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, program) })
	}
}

// launch the agent with a directory of its own.
func launch(t *testing.T, ns *netns.NS, program, dir string, args ...string) *agenttest.Agent {
	t.Helper()
	return agenttest.LaunchCommand(t, ns, program, append([]string{"ip-masq-agent", "--config-dir", dir, "--cni-dir", t.TempDir()}, args...)...)
}

func start(t *testing.T, ns *netns.NS, program, dir string, args ...string) *agenttest.Agent {
	t.Helper()
	a := launch(t, ns, program, dir, args...)
	a.Await(t, "ready", func() bool { return a.Ready() == "" })
	return a
}

func write(t *testing.T, dir, text string) {
	t.Helper()
	agenttest.Write(t, filepath.Join(dir, "ip-masq-agent"), text)
}

func list(t *testing.T, ns *netns.NS) string {
	t.Helper()
	out, err := ns.Run("", "nft", "list", "ruleset")
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func stands(t *testing.T, ns *netns.NS, network string) bool {
	t.Helper()
	return strings.Contains(list(t, ns), network)
}

const good = "nonMasqueradeCIDRs: [10.77.0.0/16]\n"

// Whatever becomes of the file, the last good policy is in force, is repaired, and
// the agent goes on, in the dialect of the agent that would have ended too.
func badFiles(t *testing.T, program string) {
	for _, dialect := range []string{"kubernetes", "azure", "cilium"} {
		for _, ownership := range []string{"auto", "off"} {
			t.Run(dialect+"/"+ownership, func(t *testing.T) {
				ns, dir := netnstest.Test(t, "host"), t.TempDir()
				write(t, dir, good)
				a := start(t, ns, program, dir, "--dialect", dialect, "--table-ownership", ownership, "--pod-cidrs=10.244.0.0/16")
				for _, bad := range []struct{ name, text, want string }{
					{"malformed", "nonMasqueradeCIDRs: [10.0.0.0/8\n", "ip-masq-agent:2: not valid YAML"},
					{"no JSON", "{\n*", "ip-masq-agent:2: not valid JSON"},
					{"wrong type", "\nnonMasqueradeCIDRs: 10.0.0.0/8\n", `ip-masq-agent:2: nonMasqueradeCIDRs: "10.0.0.0/8" is a string; expected a list of CIDRs`},
					{"mixed families", "nonMasqueradeCIDRs:\n- 10.0.0.0/8\n- fd00::/8\n", `ip-masq-agent:3: nonMasqueradeCIDRs[1]: "fd00::/8" is IPv6, which needs --enable-ipv6`},
					{"misaligned", "nonMasqueradeCIDRs:\n- 10.0.0.1/8\n", `ip-masq-agent:2: nonMasqueradeCIDRs[0]: "10.0.0.1/8" has host bits set; the network is 10.0.0.0/8`},
					{"no value", "nonMasqueradeCIDRs:\n-\n", "ip-masq-agent:2: nonMasqueradeCIDRs[0]: null has no value"},
				} {
					if dialect == "cilium" && (bad.name == "mixed families" || bad.name == "misaligned") {
						continue // these it takes
					}
					write(t, dir, bad.text)
					a.Await(t, "aware that the file is "+bad.name, func() bool { return strings.Contains(a.Ready(), bad.want) })
					if ready := a.Ready(); !strings.Contains(ready, "the last good one stays in force") {
						t.Errorf("%s: /readyz: %s", bad.name, ready)
					}
					if !strings.Contains(a.Log(), strings.ReplaceAll(bad.want, `"`, `\"`)) {
						t.Errorf("%s: the log doesn't say %s:\n%s", bad.name, bad.want, a.Log())
					}
					attack(t, ns, a)
				}
				write(t, dir, "nonMasqueradeCIDRs: [10.78.0.0/16]\n")
				a.Await(t, "ready again", func() bool { return a.Ready() == "" })
				if !stands(t, ns, "10.78.0.0/16") || stands(t, ns, "10.77.0.0/16") {
					t.Errorf("the mended file isn't what stands:\n%s", list(t, ns))
				}
				a.Stop(t)
			})
		}
	}
}

// attack flushes all rules of the host: those of the agent can't be, or come back.
func attack(t *testing.T, ns *netns.NS, a *agenttest.Agent) {
	t.Helper()
	_, _ = ns.Run("", "nft", "flush", "ruleset") // where the table is owned it fails
	a.Await(t, "in force again", func() bool { return stands(t, ns, "10.77.0.0/16") })
	if got := a.Metric("unmasq_config_valid"); got != "0" {
		t.Errorf("unmasq_config_valid is %s, want 0", got)
	}
}

// A file of a hundred megabytes is refused for its length, and never read whole.
func hugeFile(t *testing.T, program string) {
	ns, dir := netnstest.Test(t, "host"), t.TempDir()
	write(t, dir, good)
	a := start(t, ns, program, dir)
	before := peak(t, a.PID())
	huge := filepath.Join(dir, "next")
	if err := os.WriteFile(huge, []byte(good+strings.Repeat("# what a file\n", 100<<20/14)), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(huge, filepath.Join(dir, "ip-masq-agent")); err != nil {
		t.Fatal(err)
	}
	a.Await(t, "aware of the huge file", func() bool { return strings.Contains(a.Ready(), "ip-masq-agent: more than 1048576 bytes") })
	if grown := peak(t, a.PID()) - before; grown > 32<<10 {
		t.Errorf("grew by %d kB", grown)
	}
	attack(t, ns, a)
}

// peak is the most memory that a process had so far, in kB.
func peak(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	kB, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kB
}

// What Azure's agent does at any wrong file is to be had.
func exitOnBadConfig(t *testing.T, program string) {
	ns, dir := netnstest.Test(t, "host"), t.TempDir()
	write(t, dir, good)
	a := start(t, ns, program, dir, "--exit-on-bad-config")
	write(t, dir, "nonMasqueradeCIDRs:\n-\n")
	var exit *exec.ExitError
	if err := a.Exited(t); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("ended with %v, want exit status 1", err)
	}
	if want := "--exit-on-bad-config: " + filepath.Join(dir, "ip-masq-agent") + ":2: nonMasqueradeCIDRs[0]: null has no value"; !strings.Contains(a.Log(), want) {
		t.Errorf("the log doesn't say %s:\n%s", want, a.Log())
	}
	if !stands(t, ns, "10.77.0.0/16") {
		t.Error("its rules went with it")
	}
}

// Nothing is in force where nothing was good yet; then the mended file is.
func startWithBadFile(t *testing.T, program string) {
	ns, dir := netnstest.Test(t, "host"), t.TempDir()
	write(t, dir, "*")
	a := launch(t, ns, program, dir)
	a.Await(t, "aware", func() bool { return strings.Contains(a.Ready(), "policy refused, nothing is enforced") })
	if stands(t, ns, "table inet unmasq ") {
		t.Errorf("rules of a bad file:\n%s", list(t, ns))
	}
	write(t, dir, good)
	a.Await(t, "ready", func() bool { return a.Ready() == "" })
	if !stands(t, ns, "10.77.0.0/16") {
		t.Errorf("the mended file isn't in force:\n%s", list(t, ns))
	}
}

// What an agent that was killed left is in force, and nobody else's to change where
// the kernel knows owners, though the next one can't say what it should be.
func killedWithBadFile(t *testing.T, program string) {
	ns, dir := netnstest.Test(t, "host"), t.TempDir()
	write(t, dir, good)
	a := start(t, ns, program, dir)
	owned := a.Metric("unmasq_table_ownership") == "1"
	a.Kill()
	write(t, dir, "*")
	a = launch(t, ns, program, dir)
	a.Await(t, "aware", func() bool { return strings.Contains(a.Ready(), "policy refused") })
	if owned {
		a.Await(t, "the owner", func() bool { return strings.Contains(a.Log(), "adopted the table") })
		_, _ = ns.Run("", "nft", "flush", "ruleset")
	}
	if !stands(t, ns, "10.77.0.0/16") {
		t.Errorf("what was in force is gone:\n%s", list(t, ns))
	}
	a.Stop(t)
	if !stands(t, ns, "10.77.0.0/16") {
		t.Errorf("it went with the agent:\n%s", list(t, ns))
	}
}

// configMap changes as kubelet changes a mounted one: by another link ..data.
func configMap(t *testing.T, program string) {
	ns, dir := netnstest.Test(t, "host"), t.TempDir()
	mount := func(version, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, version), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, version, "ip-masq-agent"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		next := filepath.Join(dir, "..data_tmp")
		if err := errors.Join(os.Symlink(version, next), os.Rename(next, filepath.Join(dir, "..data"))); err != nil {
			t.Fatal(err)
		}
	}
	mount("..1", good)
	if err := os.Symlink("..data/ip-masq-agent", filepath.Join(dir, "ip-masq-agent")); err != nil {
		t.Fatal(err)
	}
	a := start(t, ns, program, dir)
	for i, network := range []string{"10.78.0.0/16", "10.79.0.0/16"} {
		mount(fmt.Sprintf("..%d", i+2), "nonMasqueradeCIDRs: ["+network+"]\n")
		a.Await(t, "aware of "+network, func() bool { return stands(t, ns, network) })
	}
	// The ConfigMap is optional: without it the default list holds.
	if err := os.Remove(filepath.Join(dir, "ip-masq-agent")); err != nil {
		t.Fatal(err)
	}
	a.Await(t, "without the file", func() bool { return stands(t, ns, "172.16.0.0/12") && a.Ready() == "" })
}

// A directory that isn't there is no file; Azure's agent wants it.
func directoryComesLate(t *testing.T, program string) {
	for _, dialect := range []string{"kubernetes", "azure", "cilium"} {
		t.Run(dialect, func(t *testing.T) {
			ns, dir := netnstest.Test(t, "host"), filepath.Join(t.TempDir(), "config")
			a := launch(t, ns, program, dir, "--dialect", dialect, "--pod-cidrs", "10.244.0.0/16")
			switch dialect {
			case "kubernetes":
				a.Await(t, "ready", func() bool {
					return a.Ready() == "" && stands(t, ns, "172.16.0.0/12") && !stands(t, ns, "198.18.0.0/15")
				})
			case "azure":
				a.Await(t, "aware", func() bool { return strings.Contains(a.Ready(), "read the configuration: open "+dir) })
			case "cilium":
				a.Await(t, "ready", func() bool { return a.Ready() == "" && stands(t, ns, "198.18.0.0/15") })
			}
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			write(t, dir, good)
			a.Await(t, "aware of the file", func() bool { return a.Ready() == "" && stands(t, ns, "10.77.0.0/16") })
		})
	}
}

// A second file makes it Azure's dialect, in which the first one's defaults go.
func dialectIsToldByFiles(t *testing.T, program string) {
	ns, dir := netnstest.Test(t, "host"), t.TempDir()
	write(t, dir, "masqLinkLocal: true\n")
	a := start(t, ns, program, dir)
	if !stands(t, ns, "172.16.0.0/12") || !strings.Contains(a.Log(), `dialect=kubernetes because="by default"`) {
		t.Errorf("not the default list:\n%s\n%s", list(t, ns), a.Log())
	}
	agenttest.Write(t, filepath.Join(dir, "ip-masq-agent-reconciled"), good)
	a.Await(t, "aware of the second file", func() bool { return stands(t, ns, "10.77.0.0/16") && !stands(t, ns, "172.16.0.0/12") })
	if want := `dialect=azure because="only ip-masq-agent-v2 reads ip-masq-agent-reconciled"`; !strings.Contains(a.Log(), want) {
		t.Errorf("the log doesn't say %s:\n%s", want, a.Log())
	}
	out, _, status := agenttest.Run(t, ns, "", program, "status")
	if want := "chain IP-MASQ-AGENT, dialect azure: only ip-masq-agent-v2 reads ip-masq-agent-reconciled"; status != 0 || !strings.Contains(out, want) {
		t.Errorf("status: exit %d, it doesn't say %s:\n%s", status, want, out)
	}
}

// Images have the program under the agents' names.
func namesOfTheProgram(t *testing.T, program string) {
	for name, dialect := range map[string]string{"ip-masq-agent": "kubernetes", "ip-masq-agent-v2": "azure"} {
		t.Run(name, func(t *testing.T) {
			ns, link := netnstest.Test(t, "host"), filepath.Join(t.TempDir(), name)
			if err := os.Symlink(program, link); err != nil {
				t.Fatal(err)
			}
			a := agenttest.LaunchCommand(t, ns, link, "-v=2", "-logtostderr", "-masq-chain", "MY_CHAIN", "--config-dir", t.TempDir())
			a.Await(t, "ready", func() bool { return a.Ready() == "" })
			for _, want := range []string{"dialect=" + dialect, "flags=--logtostderr"} {
				if !strings.Contains(a.Log(), want) {
					t.Errorf("the log doesn't say %s:\n%s", want, a.Log())
				}
			}
			if !stands(t, ns, `rule/my-chain/listed`) || !stands(t, ns, "chain MY_CHAIN, dialect "+dialect) {
				t.Errorf("the rules don't have the chain's name:\n%s", list(t, ns))
			}
			a.Stop(t)
		})
	}
}

// What doesn't hold without pods' networks is said, and all else holds.
func whatIsSaidWithoutPods(t *testing.T, program string) {
	ns, dir := netnstest.Test(t, "host"), t.TempDir()
	write(t, dir, good)
	a := start(t, ns, program, dir)
	const want = "no pods' IPv4 networks are known on this node: the list is left alone as ip-masq-agent does"
	if !strings.Contains(a.Log(), want) || strings.Contains(a.Log(), "IPv6 networks") {
		t.Errorf("the log doesn't say %s alone:\n%s", want, a.Log())
	}
	a.Stop(t)
	a = start(t, ns, program, dir, "--pod-cidrs", "10.244.0.0/16")
	if strings.Contains(a.Log(), "level=WARN") {
		t.Errorf("warnings though all is known:\n%s", a.Log())
	}
}

// Pods are Kubernetes': docker's containers and guests keep what others do for them.
func whoseNetworksArePods(t *testing.T, program string) {
	ns, cni := netnstest.Test(t, "host"), t.TempDir()
	bridge := func(name, network string) {
		t.Helper()
		if err := errors.Join(ns.Bridge(name), ns.Addr(name, netip.MustParsePrefix(network))); err != nil {
			t.Fatal(err)
		}
	}
	bridge("docker0", "172.17.0.1/16")
	bridge("br0", "192.168.122.1/24")
	a := agenttest.LaunchCommand(t, ns, program, "ip-masq-agent", "--config-dir", t.TempDir(), "--cni-dir", cni)
	a.Await(t, "ready", func() bool { return a.Ready() == "" })
	if want := "no pods' IPv4 networks are known on this node (not taken for pods': 172.17.0.0/16 of bridge docker0 (docker), 192.168.122.0/24 of bridge br0)"; !strings.Contains(a.Log(), want) {
		t.Errorf("the log doesn't say %s:\n%s", want, a.Log())
	}
	bridge("cni0", "10.244.1.1/24")
	a.Await(t, "aware of cni0", func() bool { return stands(t, ns, "fact podCIDRs = 10.244.1.0/24;") })
	config := `{"cniVersion": "1.0.0", "name": "NAME", "plugins": [{"type": "ptp", "ipam": {"type": "host-local", "subnet": "NETWORK"}}]}`
	for name, network := range map[string]string{"gke-ptp": "10.64.1.0/24", "podman": "10.88.0.0/16"} {
		agenttest.Write(t, filepath.Join(cni, name+".conflist"), strings.NewReplacer("NAME", name, "NETWORK", network).Replace(config))
	}
	a.Await(t, "aware of the network's configuration", func() bool { return stands(t, ns, "fact podCIDRs = 10.64.1.0/24, 10.244.1.0/24;") })
}

// Documents besides come first where their order says so, are followed, and a wrong
// one changes nothing.
func policiesBesides(t *testing.T, program string) {
	ns, dir, file := netnstest.Test(t, "host"), t.TempDir(), filepath.Join(t.TempDir(), "policy.yaml")
	document := func(to string) string {
		return "apiVersion: unmasq.io/v1alpha1\nkind: SourcePolicy\nmetadata: {name: first}\nspec:\n  order: 10\n  rules:\n" +
			"  - {name: fixed, from: {pods: {}}, to: {cidrs: [" + to + "]}, action: SNAT, snat: {addresses: [192.0.2.7]}}\n"
	}
	agenttest.Write(t, file, document("203.0.113.0/24"))
	write(t, dir, good)
	a := start(t, ns, program, dir, "--pod-cidrs", "10.244.0.0/16", "--policy", file)
	out, _, _ := agenttest.Run(t, ns, "", program, "status")
	if !strings.Contains(out, "1  first          fixed") || !strings.Contains(out, "7  ip-masq-agent  masquerade") {
		t.Errorf("status:\n%s", out)
	}
	agenttest.Write(t, file, document("203.0.113.1/24"))
	a.Await(t, "aware of the wrong document", func() bool {
		return strings.Contains(a.Ready(), `policy.yaml:7: spec.rules[0].to.cidrs[0]: "203.0.113.1/24" has host bits set`)
	})
	if !stands(t, ns, "203.0.113.0/24") {
		t.Errorf("the last good one isn't in force:\n%s", list(t, ns))
	}
	agenttest.Write(t, file, document("198.51.100.0/24"))
	a.Await(t, "aware of the mended document", func() bool { return a.Ready() == "" && stands(t, ns, "198.51.100.0/24") })
}
