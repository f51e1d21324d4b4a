package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const importNetConf = `{"Network": "10.244.0.0/16"}
`

// importing runs `unmasq import` with a standard input.
func importing(stdin string, args ...string) (status int, stdout, stderr string) {
	var out, log bytes.Buffer
	status = Main("test", append([]string{"import"}, args...), strings.NewReader(stdin), &out, &log)
	return status, out.String(), log.String()
}

func TestImportPrintsDocumentsAndWarnings(t *testing.T) {
	for _, args := range [][]string{{"flannel", "-"}, {"-"}} {
		status, out, log := importing(importNetConf, args...)
		if status != statusOK || !strings.Contains(out, "- 10.244.0.0/16 # stdin:1: Network\n") {
			t.Errorf("%q: status %d: %s%s", args, status, out, log)
		}
		if said := strings.Contains(log, "these are settings of flannel\n"); said != (len(args) == 1) {
			t.Errorf("%q: %s", args, log)
		}
	}
	status, out, log := importing("kube-proxy --masquerade-all\n", "kube-proxy", "--masquerade-all", "exact", "-")
	if status != statusOK || strings.Contains(out, "Remote") || !strings.HasPrefix(log, "warning: stdin:1: --masquerade-all: ") {
		t.Errorf("status %d: %s%s", status, out, log)
	}
}

// What is printed is a policy as `unmasq validate` takes it.
func TestImportedIsValid(t *testing.T) {
	status, out, log := importing("kube-proxy --masquerade-all --cluster-cidr=10.244.0.0/16\n", "kube-proxy", "--service-cidrs", "10.96.0.0/16", "-")
	if status != statusOK || log != "" {
		t.Fatalf("status %d: %s", status, log)
	}
	var said, wrong bytes.Buffer
	if status := Main("test", []string{"validate", "-f", "-", "--cni-dir", t.TempDir()}, strings.NewReader(out), &said, &wrong); status != statusOK || said.String() != "valid: 3 rules\n" {
		t.Errorf("status %d: %s%s", status, said.String(), wrong.String())
	}
}

func TestImportJSON(t *testing.T) {
	status, out, _ := importing(importNetConf, "flannel", "-", "-o", "json", "--name", "pods")
	var got struct {
		Version   int
		Kind      string
		Documents []struct{ Metadata struct{ Name string } }
		Notes     []struct{ Document, Path, Text string }
		Warnings  []struct{ File, Setting, Why string }
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || status != statusOK {
		t.Fatalf("status %d: %v: %s", status, err, out)
	}
	if got.Version != 1 || got.Kind != "flannel" || len(got.Documents) != 1 || got.Documents[0].Metadata.Name != "pods" || len(got.Notes) != 2 || got.Notes[0].Path != "spec.facts.podCIDRs[0]" {
		t.Errorf("%+v", got)
	}
}

func TestImportRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "net-conf.json")
	if err := os.WriteFile(file, []byte(`{"Network": 10}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		name string
		args []string
		want string
	}{
		{"no kind, no file", nil, "no file given"},
		{"no file", []string{"flannel"}, "no file given"},
		{"neither kind nor file", []string{"flanel", file}, `"flanel" is neither a kind nor a file; did you mean "flannel"?`},
		{"a file that isn't there", []string{"flannel", "/nowhere"}, "/nowhere: no such file"},
		{"wrong field", []string{"flannel", file}, file + `:1: Network: "10" is not a CIDR; expected one such as`},
		{"wrong kind", []string{"kube-router", file}, file + ":1: nothing here starts kube-router; expected its DaemonSet"},
		{"not known", []string{"-"}, "stdin: nothing here is known as one component's settings"},
		{"format", []string{"flannel", "-", "-o", "xml"}, `-o "xml": expected json or yaml`},
		{"way", []string{"kube-proxy", "-", "--masquerade-all", "both"}, `--masquerade-all "both": expected where-needed or exact`},
		{"name", []string{"flannel", "-", "--name", "My_Policy"}, `--name "My_Policy" is not a DNS name`},
		{"networks", []string{"flannel", "-", "--pod-cidrs", "10.0.0.1/8"}, "--pod-cidrs 10.0.0.1/8 has host bits set"},
	} {
		t.Run(x.name, func(t *testing.T) {
			status, out, log := importing("", x.args...)
			if status != statusUsage || out != "" || !strings.Contains(log, x.want) {
				t.Errorf("status %d, printed %q, said %q; want %q", status, out, log, x.want)
			}
			if strings.Count(strings.TrimSpace(log), "\n") > 0 {
				t.Errorf("more than one line: %s", log)
			}
		})
	}
}

func TestImportReadsNoFileWithoutEnd(t *testing.T) {
	status, out, log := importing(strings.Repeat("#", mostSettings+1), "flannel", "-")
	if status != statusUsage || out != "" || log != "unmasq: stdin: larger than 16 MiB; expected settings of one component\n" {
		t.Errorf("status %d, printed %q, said %q", status, out, log)
	}
}
