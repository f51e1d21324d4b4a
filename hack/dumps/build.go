package main

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/unmasq/unmasq/test/kube/parts"
)

// cache keeps programs of the module hack/dumps/peers. An absolute path, since CNI
// plugins look for each other there.
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
	return program, parts.Go(ctx, "hack/dumps/peers", "build", "-o", program, pkg)
}

// kubeProgram builds a program of a version of Kubernetes, once.
func kubeProgram(ctx context.Context, version, name string) (string, error) {
	programs, err := parts.Kube(ctx, version, name)
	return programs[name], err
}

// dockerVersion of the module: docker's releases have no version there that a
// module can require.
const dockerVersion = "v2.0.0-beta.24"

func dockerProgram(ctx context.Context) (string, error) {
	return moduleProgram(ctx, "docker-"+dockerVersion, "github.com/moby/moby/v2 "+dockerVersion, "dockerd", "github.com/moby/moby/v2/cmd/dockerd",
		"-tags", "exclude_graphdriver_btrfs no_systemd")
}

// moduleProgram builds a program of a module, once, in a folder of the cache.
func moduleProgram(ctx context.Context, folder, module, name, pkg string, flags ...string) (string, error) {
	path, version, _ := strings.Cut(module, " ")
	programs, err := parts.Build(ctx, folder, parts.Module{Path: path, Version: version, Packages: map[string]string{name: pkg}, Flags: flags})
	return programs[name], err
}
