package parts

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// Kube builds programs of a version of Kubernetes ("v1.37.1"), and returns their
// paths by their names.
func Kube(ctx context.Context, version string, names ...string) (map[string]string, error) {
	m := Module{Path: "k8s.io/kubernetes", Version: version, Packages: map[string]string{},
		Flags: []string{"-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion=" + version}}
	for _, name := range names {
		m.Packages[name] = m.Path + "/cmd/" + name
	}
	return build(ctx, "kube-"+version, m, func() ([]byte, error) { return kubeModule(ctx, version) })
}

// kubeModule is the go.mod of a module that needs k8s.io/kubernetes: it must
// replace its staging modules, whose versions go along.
func kubeModule(ctx context.Context, version string) ([]byte, error) {
	out, err := exec.CommandContext(ctx, "go", "mod", "download", "-json", "k8s.io/kubernetes@"+version).Output()
	if err != nil {
		return nil, fmt.Errorf("download kubernetes %s: %w: %s", version, err, out)
	}
	var downloaded struct{ GoMod string }
	if err := json.Unmarshal(out, &downloaded); err != nil {
		return nil, fmt.Errorf("download kubernetes %s: %w", version, err)
	}
	upstream, err := os.ReadFile(downloaded.GoMod)
	if err != nil {
		return nil, err
	}
	return replaceStaging(upstream, version), nil
}

func replaceStaging(upstream []byte, version string) []byte {
	var b bytes.Buffer
	b.WriteString("module kubernetes-programs\n\n")
	staging := "v0." + strings.TrimPrefix(version, "v1.")
	lines := bufio.NewScanner(bytes.NewReader(upstream))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) >= 2 && (words[0] == "go" || words[0] == "godebug"):
			fmt.Fprintln(&b, lines.Text())
		case len(words) >= 2 && strings.HasPrefix(words[0], "k8s.io/") && words[1] == "v0.0.0":
			fmt.Fprintf(&b, "replace %s => %[1]s %s\n", words[0], staging)
		}
	}
	fmt.Fprintf(&b, "require k8s.io/kubernetes %s\n", version)
	return b.Bytes()
}
