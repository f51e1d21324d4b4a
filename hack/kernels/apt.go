package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// kernel is an unpacked kernel package.
type kernel struct {
	release string // as uname -r says
	image   string
	modules string // the folder of its modules, none of them compressed
}

// installEmulator needs root or sudo where there is no emulator yet.
func installEmulator(ctx context.Context) error {
	if _, err := exec.LookPath("qemu-system-x86_64"); err == nil {
		return nil
	}
	fmt.Println("installing qemu-system-x86")
	command := []string{"apt-get", "install", "-y", "-qq", "--no-install-recommends", "qemu-system-x86"}
	update := []string{"apt-get", "update", "-qq"}
	for _, args := range [][]string{update, command} {
		if os.Geteuid() != 0 {
			args = append([]string{"sudo"}, args...)
		}
		if _, err := output(ctx, "", args[0], args[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// output runs a program; the error quotes what it wrote.
func output(ctx context.Context, dir, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}

// fetchKernel downloads and unpacks the newest kernel of a series, once.
func fetchKernel(ctx context.Context, series, cache string) (kernel, error) {
	name, err := newest(ctx, series)
	if err != nil {
		return kernel{}, err
	}
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := unpack(ctx, name, dir); err != nil {
			return kernel{}, errors.Join(err, os.RemoveAll(dir+".new"))
		}
	}
	images, err := filepath.Glob(filepath.Join(dir, "boot", "vmlinuz-*"))
	if err != nil || len(images) != 1 {
		return kernel{}, fmt.Errorf("%s holds %d kernels, want one", name, len(images))
	}
	release := strings.TrimPrefix(filepath.Base(images[0]), "vmlinuz-")
	return kernel{release, images[0], filepath.Join(dir, "lib", "modules", release)}, nil
}

// newest is the package of the newest kernel of a series that apt knows of: the
// small ones for virtual machines.
func newest(ctx context.Context, series string) (string, error) {
	out, err := output(ctx, "", "apt-cache", "search", "--names-only", `^linux-image-`+regexp.QuoteMeta(series)+`\.[0-9].*-cloud-amd64$`)
	if err != nil {
		return "", err
	}
	var names []string
	for line := range strings.Lines(out) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, name)
	}
	if len(names) == 0 {
		return "", errors.New("apt offers none; Debian 12 has 6.1 in its main part, 6.12 in bookworm-security and bookworm-backports")
	}
	slices.SortFunc(names, compareVersions)
	return names[len(names)-1], nil
}

var digits = regexp.MustCompile(`[0-9]+`)

// compareVersions compares the numbers in two names.
func compareVersions(a, b string) int {
	return slices.Compare(numbers(a), numbers(b))
}

func numbers(s string) []int {
	var out []int
	for _, d := range digits.FindAllString(s, -1) {
		n, err := strconv.Atoi(d)
		if err != nil {
			n = 0 // no version has so many digits
		}
		out = append(out, n)
	}
	return out
}

func unpack(ctx context.Context, name, dir string) error {
	fmt.Println("downloading", name)
	next := dir + ".new"
	if err := errors.Join(os.RemoveAll(next), os.MkdirAll(next, 0o755)); err != nil {
		return err
	}
	if _, err := output(ctx, next, "apt-get", "download", "-qq", name); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(next, "*.deb"))
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("%d packages came for %s, want one", len(packages), name)
	}
	if _, err := output(ctx, "", "dpkg", "-x", packages[0], next); err != nil {
		return err
	}
	modules := filepath.Join(next, "lib", "modules")
	if _, err := output(ctx, "", "find", modules, "-name", "*.ko.xz", "-exec", "xz", "-d", "{}", "+"); err != nil {
		return err
	}
	return errors.Join(os.Remove(packages[0]), os.Rename(next, dir))
}
