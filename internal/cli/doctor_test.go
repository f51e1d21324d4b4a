package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/kubectl"
)

// TestDoctor: sessions as those of TestExplain, in testdata/doctor.
func TestDoctor(t *testing.T) { sessions(t, "testdata/doctor") }

func TestDoctorOfExample(t *testing.T) {
	for _, node := range []string{"../../docs/example/node-a", "../../docs/example/node-b"} {
		if got := transcript([]string{"doctor", "--snapshot", node}); got != "no findings\n" {
			t.Errorf("%s: %s", node, got)
		}
	}
}

func TestKubectlDoctor(t *testing.T) {
	p := &plugin{t: t, run: func(command []string, s kubectl.Streams) error {
		s.Stdin = strings.NewReader("")
		return onExample(t)(command, s)
	}}
	status, out, log := p.unmasq("doctor", "client")
	if status != 0 || out != "no findings\n" || log != "" {
		t.Errorf("status %d\n%s%s", status, out, log)
	}
	if status, out, _ = p.unmasq("doctor", "--explain", "forwarding-off"); status != 0 || !strings.HasPrefix(out, "# forwarding-off: ") {
		t.Errorf("status %d\n%s", status, out)
	}
	// Of all nodes: what one says has its name, and those that can't be asked are told.
	finding := doctor.Report{Version: 1, Findings: []doctor.Finding{{Code: "forwarding-off", Severity: doctor.Warning}}}
	p.run = func(_ []string, s kubectl.Streams) error { return json.NewEncoder(s.Stdout).Encode(finding) }
	status, out, log = p.unmasq("doctor", "--all", "-o", "json")
	var got doctor.Report
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err, out)
	}
	if status != statusWrong || log != "unmasq: not looked at: nodes node-c, node-b\n" {
		t.Errorf("status %d, %s", status, log)
	}
	if len(got.Findings) != 1 || got.Findings[0].Node != "node-a" {
		t.Errorf("%+v", got.Findings)
	}
	for node, why := range map[string]string{"node-b": "pod unmasq/agent-b waits: CrashLoopBackOff", "node-c": "it has no agent"} {
		if !slices.ContainsFunc(got.NotLookedAt, func(u doctor.Unmade) bool { return u.Node == node && strings.HasPrefix(u.Why, why) }) {
			t.Errorf("%s: %+v", node, got.NotLookedAt)
		}
	}
}

func TestDoctorRefuses(t *testing.T) {
	p := &plugin{t: t, run: onExample(t)}
	for args, want := range map[string]string{
		"doctor":                       "which node? Name it with --node, or a pod of it, or ask --all",
		"doctor --all client":          "--all asks all nodes; expected no pod and no --node",
		"doctor client -o yaml":        "-o yaml: expected json or text",
		"doctor client --snapshot x":   "unknown flag: --snapshot",
		"doctor --explain no-such":     `--explain "no-such": there is no such code; expected one of bridge-nf-call-off, `,
		"doctor --node node-b --all":   "--all asks all nodes",
		"doctor --node node-a client ": "expected one of the two",
	} {
		if status, _, log := p.unmasq(strings.Fields(args)...); status != statusUsage || !strings.Contains(log, want) {
			t.Errorf("%s: status %d, %s\nwant %s", args, status, log, want)
		}
	}
}

// TestDoctorWithoutRights: what may not be read isn't taken for being in order.
func TestDoctorWithoutRights(t *testing.T) {
	dir := t.TempDir()
	must := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must("ip-route.json", `[{"dst":"default","gateway":"192.0.2.254","dev":"eth0"}]`)
	must("meta.json", `{"version":1,"missing":{"nft.json":"permission denied: nft needs CAP_NET_ADMIN (root, or sudo): Operation not permitted"}}`)
	got := transcript([]string{"doctor", "--snapshot", dir})
	if !strings.Contains(got, "two-masqueraders (rules can't be read without CAP_NET_ADMIN: run it as root (sudo))\n") {
		t.Error(got)
	}
}
