// Package parts builds, through the Go module proxy, the programs of a Kubernetes
// cluster: Kubernetes' own, etcd, containerd's network plugins. Each is built once
// and kept by its version in the user's cache (~/.cache/unmasq/parts). It is for
// tests and tools; unmasq needs none of them.
//
//	programs, err := parts.Kube(ctx, parts.NewestKube, "kube-apiserver", "kube-proxy")
//	cmd := exec.Command(programs["kube-proxy"], "--version")
//
// The first build of a version of Kubernetes takes about 5 minutes on 2 cores, and
// 5 GB in Go's caches; from then on it takes no time.
package parts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Versions that are built unless a caller says otherwise.
const (
	NewestKube  = "v1.37.1"
	EtcdVersion = "v3.6.14"
	CNIVersion  = "v1.9.1"
)

// Dir is where programs are kept.
func Dir() (string, error) {
	home, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("where to keep programs that were built: %w", err)
	}
	dir := filepath.Join(home, "unmasq", "parts")
	return dir, os.MkdirAll(dir, 0o755)
}

// Module says what to build of a module.
type Module struct {
	// Path and Version of the module.
	Path, Version string
	// Packages of its programs, by the names of the programs.
	Packages map[string]string
	// Flags of go build besides.
	Flags []string
}

// Etcd builds etcd.
func Etcd(ctx context.Context) (string, error) {
	const module = "go.etcd.io/etcd/server/v3"
	programs, err := Build(ctx, "etcd-"+EtcdVersion, Module{Path: module, Version: EtcdVersion, Packages: map[string]string{"etcd": module}})
	return programs["etcd"], err
}

// CNI builds the network plugins that a node needs, and returns their folder.
func CNI(ctx context.Context) (string, error) {
	const module = "github.com/containernetworking/plugins"
	programs, err := Build(ctx, "cni-"+CNIVersion, Module{Path: module, Version: CNIVersion, Packages: map[string]string{
		"bridge": module + "/plugins/main/bridge", "loopback": module + "/plugins/main/loopback",
		"host-local": module + "/plugins/ipam/host-local", "portmap": module + "/plugins/meta/portmap",
	}})
	return filepath.Dir(programs["bridge"]), err
}

// Build builds the programs of a module that are not in the folder of the cache
// yet, and returns the paths of all by their names.
func Build(ctx context.Context, folder string, m Module) (map[string]string, error) {
	about := fmt.Sprintf("module parts\n\ngo 1.25.0\n\nrequire %s %s\n", m.Path, m.Version)
	return build(ctx, folder, m, func() ([]byte, error) { return []byte(about), nil })
}

// build in a module of its own, whose go.mod starts as goMod says: go build adds
// what is needed, and the checksum database vouches for it.
func build(ctx context.Context, folder string, m Module, goMod func() ([]byte, error)) (map[string]string, error) {
	cache, err := Dir()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cache, folder)
	unlock, err := lock(dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	programs, missing := map[string]string{}, []string(nil)
	for name, pkg := range m.Packages {
		programs[name] = filepath.Join(dir, name)
		if _, err := os.Stat(programs[name]); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return programs, nil
	}
	text, err := goMod()
	if err != nil {
		return nil, err
	}
	if err := writeNew(filepath.Join(dir, "go.mod"), text); err != nil {
		return nil, err
	}
	fmt.Fprintf(os.Stderr, "building %s %s, which may take minutes: %s\n", m.Path, m.Version, strings.Join(missing, " "))
	return programs, buildInto(ctx, dir, programs, m, missing)
}

// buildInto builds beside and moves: what is in the cache is whole.
func buildInto(ctx context.Context, dir string, programs map[string]string, m Module, missing []string) error {
	fresh, err := os.MkdirTemp(dir, "new-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	args := append([]string{"build", "-mod=mod", "-trimpath", "-o", fresh + "/"}, m.Flags...)
	if !strings.Contains(strings.Join(m.Flags, " "), "-ldflags") {
		args = append(args, "-ldflags", "-s -w")
	}
	if err := Go(ctx, dir, append(args, missing...)...); err != nil {
		return err
	}
	for name, pkg := range m.Packages {
		built := filepath.Join(fresh, binary(pkg))
		if _, err := os.Stat(built); err != nil {
			continue // it was there
		}
		if err := os.Rename(built, programs[name]); err != nil {
			return err
		}
	}
	for _, program := range programs {
		if _, err := os.Stat(program); err != nil {
			return fmt.Errorf("build %s %s: %w", m.Path, m.Version, err)
		}
	}
	return nil
}

// binary is the name that go build gives a package's program: its last element,
// without the major version.
func binary(pkg string) string {
	base := filepath.Base(pkg)
	if len(base) > 1 && base[0] == 'v' && strings.Trim(base[1:], "0123456789") == "" {
		return filepath.Base(filepath.Dir(pkg))
	}
	return base
}

// writeNew writes a file that isn't there: an older go.mod has its sums already.
func writeNew(path string, text []byte) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	return os.WriteFile(path, text, 0o644)
}

// lock makes a folder one process's until unlock.
func lock(dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for err = syscall.EINTR; errors.Is(err, syscall.EINTR); {
		err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
	}
	if err != nil {
		file.Close()
		return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
	}
	return func() { file.Close() }, nil
}

// Go runs the go command in a folder, at a low priority: builds of minutes are not
// to slow down what else runs.
func Go(ctx context.Context, dir string, args ...string) error {
	c := exec.CommandContext(ctx, "nice", append([]string{"-n", "15", "go"}, args...)...)
	var out bytes.Buffer
	c.Dir, c.Env, c.Stdout, c.Stderr = dir, append(os.Environ(), "CGO_ENABLED=0"), &out, &out
	if err := c.Run(); err != nil {
		return fmt.Errorf("go %s in %s: %w: %s", strings.Join(args, " "), dir, err, out.Bytes())
	}
	return nil
}
