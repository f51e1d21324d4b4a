package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// programs of this system that the tests run.
var programs = []string{
	"nft", "ip", "ipset", "sh", "sleep", "cat", "setpriv", "sysctl", "unshare",
	"iptables-legacy", "iptables-legacy-save", "iptables-legacy-restore", "ip6tables-legacy", "ip6tables-legacy-save", "ip6tables-legacy-restore",
	"iptables-nft", "iptables-nft-save", "iptables-nft-restore", "ip6tables-nft", "ip6tables-nft-save", "ip6tables-nft-restore",
}

// data of this system that they read; patterns.
var data = []string{"/etc/protocols", "/etc/services", "/etc/ethertypes", "/usr/lib/*/xtables/*.so"}

const sources = "/src" // where the module stands in a machine

// contents builds the test binaries and makes the archive that every kernel gets.
func contents(ctx context.Context, o options, work string) (*archive, []Job, error) {
	a := newArchive()
	a.node("/dev/console", modeChar, 5, 1, nil)
	for _, dir := range []string{"/proc", "/sys", "/run", "/tmp", "/root"} {
		a.node(dir, modeDir, 0, 0, nil)
	}
	a.link("/var/run", "/run")
	if err := addHost(ctx, a); err != nil {
		return nil, nil, err
	}
	if err := addSources(ctx, a); err != nil {
		return nil, nil, err
	}
	for _, p := range []struct {
		name string
		args []string
	}{
		{"/init", []string{"build", "./hack/kernels/guest"}},
		// What tests build for themselves; the guest stands in for the compiler.
		{"/built/unmasq", []string{"build", "./cmd/unmasq"}},
		{"/built/portmap", []string{"build", "-C", "test/tools", "github.com/containernetworking/plugins/plugins/meta/portmap"}},
	} {
		if err := addBuilt(ctx, a, p.name, filepath.Join(work, "program"), p.args...); err != nil {
			return nil, nil, err
		}
	}
	a.link("/bin/go", "/init")
	jobs, err := addTests(ctx, a, o, work)
	a.end()
	return a, jobs, err
}

// addHost adds this system's programs with the libraries that they load.
func addHost(ctx context.Context, a *archive) error {
	for _, program := range programs {
		file, err := exec.LookPath(program)
		if err != nil {
			return fmt.Errorf("%w: run make deps", err)
		}
		if err := a.file("/bin/"+program, file); err != nil {
			return err
		}
		libraries, err := output(ctx, "", "ldd", file)
		if err != nil {
			return err
		}
		for _, library := range regexp.MustCompile(`/\S+`).FindAllString(libraries, -1) {
			if err := a.file(library, library); err != nil {
				return err
			}
		}
	}
	for _, pattern := range data {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, file := range files {
			if err := a.file(file, file); err != nil {
				return err
			}
		}
	}
	return nil
}

// addSources adds the module's own files: tests read some.
func addSources(ctx context.Context, a *archive) error {
	list, err := output(ctx, "", "git", "ls-files", "-co", "--exclude-standard")
	if err != nil {
		return err
	}
	for line := range strings.Lines(list) {
		file := strings.TrimSuffix(line, "\n")
		if info, err := os.Stat(file); err != nil || !info.Mode().IsRegular() {
			continue // deleted, and not yet committed
		}
		if err := a.file(path.Join(sources, file), file); err != nil {
			return err
		}
	}
	return nil
}

// addBuilt adds what a go command makes.
func addBuilt(ctx context.Context, a *archive, name, file string, args ...string) error {
	last := len(args) - 1
	args = slices.Concat(args[:last], []string{"-trimpath", "-ldflags", "-s -w", "-o", file}, args[last:])
	if _, err := output(ctx, "", "go", args...); err != nil {
		return err
	}
	defer os.Remove(file)
	return a.file(name, file)
}

func addTests(ctx context.Context, a *archive, o options, work string) ([]Job, error) {
	var jobs []Job
	for _, pkg := range o.packages {
		dir := path.Clean(pkg)
		j := Job{Package: dir, Binary: "/tests/" + strings.ReplaceAll(dir, "/", "-"), Dir: path.Join(sources, dir)}
		j.Args = []string{"-test.v", "-test.timeout", o.limit.String()}
		if o.run != "" {
			j.Args = append(j.Args, "-test.run", o.run)
		}
		if err := addBuilt(ctx, a, j.Binary, filepath.Join(work, "tests"), "test", "-c", "./"+dir); err != nil {
			return nil, err
		}
		jobs = append(jobs, j)
	}
	list, err := json.Marshal(jobs)
	a.node("/jobs.json", modeFile, 0, 0, list)
	return jobs, err
}
