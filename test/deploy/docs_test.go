package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDocs: what docs/kubernetes.md tells to type renders what it says.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "docs/kubernetes.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Install\n")
	section, _, _ = strings.Cut(section, "\n## ")
	agent := []any{"spec", "template", "spec", "containers", 0}
	want := []any{"agent", "--kube", "--metrics-address=[$(HOST_IP)]:9809", "--health-address=127.0.0.1:9808",
		"--daemon-set=$(POD_NAMESPACE)/unmasq-agent", "--pod-cidrs=10.244.0.0/16,fd00:10:244::/48", "--node-cidrs=192.0.2.0/24"}

	set := documentedOverlay(t, section)["DaemonSet unmasq-agent"]
	if diff := cmp.Diff(any(want), at(set, append(agent, "args")...)); diff != "" {
		t.Errorf("arguments with the overlay: -want +got:\n%s", diff)
	}
	if image := at(set, append(agent, "image")...); image != "REGISTRY/unmasq:0.1.0-tools" {
		t.Errorf("image with the overlay: %v", image)
	}

	var args []string
	for _, m := range regexp.MustCompile(`--set ([a-zA-Z]+)='([^']+)'`).FindAllStringSubmatch(section, -1) {
		args = append(args, "--set", m[1]+"="+m[2])
	}
	if label := regexp.MustCompile("`--set-string (nodeSelector[^`]+)`").FindStringSubmatch(section); label != nil {
		args = append(args, "--set-string", label[1])
	}
	rendered, err := run(helmProgram, append([]string{"template", "unmasq", chart, "--namespace", "unmasq"}, args...)...)
	set = read(t, rendered, err)["DaemonSet unmasq-agent"]
	if diff := cmp.Diff(any(want), at(set, append(agent, "args")...)); diff != "" {
		t.Errorf("arguments with Helm %v: -want +got:\n%s", args, diff)
	}
	if label := at(set, "spec", "template", "spec", "nodeSelector", "unmasq-canary"); label != "true" {
		t.Errorf("the canary's label with Helm %v: %v", args, label)
	}
}

// documentedOverlay renders the section's kustomization.
func documentedOverlay(t *testing.T, section string) objects {
	t.Helper()
	_, overlay, _ := strings.Cut(section, "\n    apiVersion: ")
	overlay, _, _ = strings.Cut("    apiVersion: "+overlay, "\n\n")
	overlay = regexp.MustCompile(`(?m)^    `).ReplaceAllString(overlay, "")
	base, err := filepath.Abs(filepath.Join(root, "deploy/base"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	relative, err := filepath.Rel(dir, base)
	if err != nil || !strings.Contains(overlay, "../unmasq/deploy/base") {
		t.Fatalf("overlay: %v\n%s", err, overlay)
	}
	write(t, filepath.Join(dir, "kustomization.yaml"), strings.Replace(overlay, "../unmasq/deploy/base", relative, 1))
	rendered, err := run(kustomizeProgram, "build", dir)
	return read(t, rendered, err)
}
