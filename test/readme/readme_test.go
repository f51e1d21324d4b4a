// Package readme_test executes the documentation: examples are valid, commands
// exist, links lead somewhere.
package readme_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/cli"
	"github.com/unmasq/unmasq/internal/policy"
)

var documents = []string{"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/policy.md", "docs/kubernetes.md", "docs/explain.md", "docs/doctor.md", "docs/flows.md", "docs/lab.md", "docs/matrix.md", "docs/import.md",
	"docs/peers/kube-router.md", "docs/peers/flannel.md", "docs/peers/docker.md", "docs/peers/kube-proxy.md", "docs/peers/aws-vpc-cni.md", "docs/peers/kindnet.md", "docs/peers/cilium.md", "docs/peers/calico.md", "docs/peers/kube-ovn.md", "docs/peers/gke.md", "docs/peers/cni-plugins.md", "docs/export.md", "docs/ip-masq-agent.md", "docs/takeover.md"}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// blocks are the contents of a document's fenced blocks of a language.
func blocks(text, language string) []string {
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```").FindAllStringSubmatch(text, -1) {
		out = append(out, m[1])
	}
	return out
}

func TestPoliciesAreValid(t *testing.T) {
	checked := 0
	for _, name := range documents {
		text := read(t, name)
		policies := blocks(text, "yaml")
		for _, session := range blocks(text, "console") {
			if _, rest, ok := strings.Cut(session, "# cat policy.yaml\n"); ok {
				doc, _, _ := strings.Cut(rest, "\n#")
				policies = append(policies, doc)
			}
		}
		for _, p := range policies {
			checked++
			if _, err := policy.Load([]policy.Source{{Name: name, Content: []byte(p)}}, policy.Options{}); err != nil {
				t.Errorf("%v\nin\n%s", err, p)
			}
		}
	}
	if checked < 3 {
		t.Errorf("found %d examples", checked)
	}
}

// Every `unmasq COMMAND` and --flag in the documentation is known to the program.
func TestCommandsExist(t *testing.T) {
	flags := regexp.MustCompile("--[a-z][a-z-]+")
	for _, name := range documents {
		for _, m := range regexp.MustCompile("(kubectl )?unmasq ((?:lab )?[a-z]+)([^`\n|]*)").FindAllStringSubmatch(read(t, name), -1) {
			if !isCommand(m[2]) {
				continue
			}
			help := helpOf(t, strings.Fields(m[1]+m[2]))
			for _, flag := range flags.FindAllString(m[3], -1) {
				if !strings.Contains(help, flag) {
					t.Errorf("%s: %sunmasq %s has no flag %s", name, m[1], m[2], flag)
				}
			}
		}
	}
}

// isCommand leaves out prose such as "unmasq decides".
func isCommand(words string) bool {
	first, _, _ := strings.Cut(words, " ")
	switch first {
	case "agent", "apply", "clear", "status", "render", "validate", "lab", "explain", "snapshot", "doctor", "flows", "import", "matrix":
		return true
	}
	return false
}

func helpOf(t *testing.T, command []string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if status := cli.Main("test", append(command, "--help"), strings.NewReader(""), &out, &errs); status != 0 {
		t.Fatalf("unmasq %v --help: status %d, %s", command, status, errs.String())
	}
	return out.String()
}

func TestMakeTargetsExist(t *testing.T) {
	makefile := read(t, "Makefile")
	for _, name := range documents {
		for _, m := range regexp.MustCompile("`make ([a-z0-9-]+)").FindAllStringSubmatch(read(t, name), -1) {
			if !strings.Contains(makefile, "\n"+m[1]+":") {
				t.Errorf("%s: no target %s in the Makefile", name, m[1])
			}
		}
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	for _, name := range documents {
		for _, m := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(read(t, name), -1) {
			if strings.HasPrefix(m[1], "https://") {
				continue
			}
			if _, err := os.Stat(filepath.Join("../..", filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestLayoutIsWhole: each package below internal has a place in CONTRIBUTING.md.
func TestLayoutIsWhole(t *testing.T) {
	_, layout, _ := strings.Cut(read(t, "CONTRIBUTING.md"), "\n## Where things are\n")
	layout, _, _ = strings.Cut(layout, "\n## ")
	packages := map[string]bool{}
	files, err := filepath.Glob("../../internal/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	deeper, err := filepath.Glob("../../internal/*/*/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, deeper...) {
		packages[filepath.Base(filepath.Dir(file))] = true
	}
	for name := range packages {
		if !regexp.MustCompile(`\b` + name + `\b`).MatchString(layout) {
			t.Errorf("CONTRIBUTING.md doesn't say where %s is", name)
		}
	}
	if len(packages) < 25 {
		t.Errorf("%d packages found", len(packages))
	}
}
