package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// cache keeps programs that were built. An absolute path, since CNI plugins look
// for each other there.
var cache = func() string {
	path, err := filepath.Abs(".cache/dumps")
	if err != nil {
		return ".cache/dumps"
	}
	return path
}()

// peer builds a program of the module hack/dumps/peers.
func peer(ctx context.Context, pkg, name string) (string, error) {
	program := filepath.Join(cache, name)
	return program, goCommand(ctx, "hack/dumps/peers", "build", "-o", program, pkg)
}

func goCommand(ctx context.Context, dir string, args ...string) error {
	c := exec.CommandContext(ctx, "go", args...)
	c.Dir, c.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s in %s: %w: %s", strings.Join(args, " "), dir, err, out)
	}
	return nil
}

// kubeProgram builds a program of a version of Kubernetes, once. A module that
// needs k8s.io/kubernetes must replace its staging modules, whose versions go
// along.
func kubeProgram(ctx context.Context, version, name string) (string, error) {
	dir := filepath.Join(cache, "kube-"+version)
	program := filepath.Join(dir, name)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if err := writeKubeModule(ctx, dir, version); err != nil {
		return "", err
	}
	fmt.Printf("building %s %s, which takes some minutes\n", name, version)
	return program, goCommand(ctx, dir, "build", "-mod=mod", "-trimpath",
		"-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion="+version, "-o", program, "k8s.io/kubernetes/cmd/"+name)
}

func writeKubeModule(ctx context.Context, dir, version string) error {
	c := exec.CommandContext(ctx, "go", "mod", "download", "-json", "k8s.io/kubernetes@"+version)
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("download kubernetes %s: %w: %s", version, err, out)
	}
	var downloaded struct{ GoMod string }
	if err := json.Unmarshal(out, &downloaded); err != nil {
		return err
	}
	upstream, err := os.ReadFile(downloaded.GoMod)
	if err != nil {
		return err
	}
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
	return os.WriteFile(filepath.Join(dir, "go.mod"), b.Bytes(), 0o644)
}

// Versions of modules whose programs are built. Docker's releases have no version
// there that a module can require.
const (
	dockerVersion = "v2.0.0-beta.24"
	etcdVersion   = "v3.6.14"
)

func dockerProgram(ctx context.Context) (string, error) {
	return moduleProgram(ctx, "docker-"+dockerVersion, "github.com/moby/moby/v2 "+dockerVersion, "dockerd", "github.com/moby/moby/v2/cmd/dockerd",
		"-tags", "exclude_graphdriver_btrfs no_systemd")
}

// moduleProgram builds a program of a module, once, in a folder of the cache.
func moduleProgram(ctx context.Context, folder, module, name, pkg string, flags ...string) (string, error) {
	dir := filepath.Join(cache, folder)
	program := filepath.Join(dir, name)
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	text := fmt.Sprintf("module %s\n\ngo 1.25.0\n\nrequire %s\n", name, module)
	if err := os.WriteFile(filepath.Join(dir, "go.mod"), []byte(text), 0o644); err != nil {
		return "", err
	}
	fmt.Printf("building %s, which takes some minutes\n", module)
	args := append([]string{"build", "-mod=mod", "-trimpath", "-ldflags", "-s -w", "-o", program}, flags...)
	return program, goCommand(ctx, dir, append(args, pkg)...)
}
