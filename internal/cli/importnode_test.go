package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func runImport(stdin string, args ...string) (status int, out, log string) {
	var stdout, stderr bytes.Buffer
	status = Main("v0-test", append([]string{"import"}, args...), strings.NewReader(stdin), &stdout, &stderr)
	return status, stdout.String(), stderr.String()
}

func TestImportSnapshot(t *testing.T) {
	for name, c := range map[string]struct {
		stdin, out, log string
		args            []string
		status          int
	}{
		"the example's node": {args: []string{"--snapshot", exampleNode}, out: "metadata: {name: flannel}"},
		"a bare dump on standard input": {
			args: []string{"--snapshot", "-", "--name", "lab"}, stdin: "*nat\n:POSTROUTING ACCEPT\n-A POSTROUTING -s 10.9.0.0/16 -o eth0 -j SNAT --to-source 192.0.2.7\nCOMMIT\n",
			out: "metadata: {name: lab-by-hand}", log: "left out: which of its addresses",
		},
		"nothing to import, but of kube-proxy": {
			args: []string{"--snapshot", "-"}, stdin: "*nat\n:POSTROUTING ACCEPT\n:KUBE-POSTROUTING - [0:0]\n-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully\nCOMMIT\n",
			log: "but for what kube-proxy or portmap may have marked",
		},
		"nothing to import": {
			args: []string{"--snapshot", "-"}, stdin: "*nat\n:POSTROUTING ACCEPT\nCOMMIT\n", log: "nothing to import",
		},
		"no dump":          {args: []string{"--snapshot", "-"}, stdin: "nonsense\n", status: statusUsage, log: "nothing in it is recognised"},
		"a kind beside it": {args: []string{"--snapshot", exampleNode, "docker"}, status: statusUsage, log: `"docker": expected no KIND`},
		"two nodes":        {args: []string{"--snapshot", exampleNode, "--from-node"}, status: statusUsage, log: "give one of them"},
	} {
		t.Run(name, func(t *testing.T) {
			status, out, log := runImport(c.stdin, c.args...)
			if status != c.status || !strings.Contains(out, c.out) || !strings.Contains(log, c.log) || c.out == "" && out != "" {
				t.Errorf("exit status %d, want %d\n%s\n%s", status, c.status, out, log)
			}
		})
	}
}

// What is printed is a policy.
func TestImportSnapshotIsValid(t *testing.T) {
	status, out, log := runImport("", "--snapshot", exampleNode)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(out), 0o600); err != nil || status != statusOK {
		t.Fatalf("exit status %d: %v\n%s", status, err, log)
	}
	var stdout, stderr bytes.Buffer
	if status := Main("v0-test", []string{"validate", "-f", file}, strings.NewReader(""), &stdout, &stderr); status != statusOK {
		t.Errorf("exit status %d: %s%s", status, stdout.String(), stderr.String())
	}
}
