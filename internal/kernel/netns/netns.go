// Package netns makes network namespaces and runs functions and programs in
// them: for the lab, and for every test that needs a kernel of its own.
//
// A namespace is a named one under /run/netns, as `ip netns add` makes it, so
// that a person can look into it with `ip netns exec`. It is not a container:
// files, processes and users stay those of the host.
//
//	host, err := netns.New("lab-host1")
//	defer host.Close()
//	err = netns.Veth(host, "eth0", router, "to-host1")
//	err = host.Addr("eth0", netip.MustParsePrefix("192.168.5.138/24"))
//	out, err := host.Run("", "nft", "list", "ruleset")
package netns

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Dir holds one file for each named namespace; `ip netns` reads it too.
const Dir = "/run/netns"

// NS is a named network namespace. Its methods may be called concurrently.
type NS struct {
	name string
	file *os.File

	once   sync.Once
	handle *netlink.Handle
	err    error // of opening handle
}

// New makes a namespace: lo is up, IPv6 addresses work at once (no duplicate
// address detection), and reverse-path filters are off whatever the host has.
// It needs CAP_SYS_ADMIN and CAP_NET_ADMIN. The name must be free.
func New(name string) (*NS, error) {
	if err := create(name); err != nil {
		return nil, fmt.Errorf("make network namespace %s: %w", name, err)
	}
	n, err := Open(name)
	if err != nil {
		return nil, errors.Join(err, Remove(name))
	}
	if err := n.prepare(); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare network namespace %s: %w", name, err), n.Close())
	}
	return n, nil
}

// Open opens a namespace that exists; os.ErrNotExist where it doesn't.
// Release lets go of it, Close removes it.
func Open(name string) (*NS, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	file, err := os.Open(filepath.Join(Dir, name))
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	return &NS{name: name, file: file}, nil
}

// OpenFile opens a namespace by a file of the kernel's that stands for it, such as
// /proc/PID/ns/net, whoever made it: Close lets go of it, no more.
func OpenFile(path string) (*NS, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	if kind, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return nil, errors.Join(fmt.Errorf("%s is no network namespace", path), file.Close())
	}
	return &NS{file: file}, nil
}

// List names the namespaces that start with prefix, sorted.
func List(prefix string) ([]string, error) {
	entries, err := os.ReadDir(Dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// Sweep removes the namespaces that killed processes left: those that start with
// prefix and the number of a process that is no more.
func Sweep(prefix string) error {
	names, err := List(prefix)
	if err != nil {
		return err
	}
	for _, name := range names {
		digits, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "-")
		pid, err := strconv.Atoi(digits)
		if err != nil || !errors.Is(unix.Kill(pid, 0), unix.ESRCH) {
			continue
		}
		if err := Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// Remove takes the name away; nil where it is gone already. The namespace itself lives until
// the last process, socket and descriptor in it is closed.
func Remove(name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	path := filepath.Join(Dir, name)
	err := unix.Unmount(path, unix.MNT_DETACH)
	// EINVAL: a plain file, left by someone who died between making it and the mount.
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("remove network namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove network namespace %s: %w", name, err)
	}
	return nil
}

// Name under Dir; empty where it was opened by another file.
func (n *NS) Name() string { return n.name }

// Path of the file that names the namespace.
func (n *NS) Path() string { return n.file.Name() }

// Fd of the namespace, valid until Close or Release.
func (n *NS) Fd() int { return int(n.file.Fd()) }

// Close removes the namespace, if it has a name, and lets go of it.
// Processes inside keep running. More calls do nothing.
func (n *NS) Close() error {
	if n.name == "" {
		return n.Release()
	}
	return errors.Join(Remove(n.name), n.Release())
}

// Release closes what this process holds of the namespace and leaves it standing.
func (n *NS) Release() error {
	n.once.Do(func() { n.err = os.ErrClosed })
	if n.handle != nil {
		n.handle.Close()
	}
	if err := n.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// Sysctl sets a kernel parameter inside, its key written as for sysctl(8): "net.ipv4.ip_forward",
// or with slashes where an interface has a dot in its name. Only keys under
// net. belong to a namespace; others are an error.
func (n *NS) Sysctl(key, value string) error {
	path := key
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		path = strings.Map(swapSeparators, key)
	}
	if !strings.HasPrefix(path, "net/") || path != filepath.Clean(path) {
		return fmt.Errorf("sysctl %s: not a parameter of a network namespace", key)
	}
	// The kernel resolves /proc/sys/net in the namespace of the thread that opens it.
	err := n.Do(func() error {
		return os.WriteFile(filepath.Join("/proc/sys", path), []byte(value), 0)
	})
	if err != nil {
		return fmt.Errorf("sysctl %s=%s in %s: %w", key, value, n.name, err)
	}
	return nil
}

func swapSeparators(r rune) rune {
	switch r {
	case '.':
		return '/'
	case '/':
		return '.'
	}
	return r
}

// prepare makes the namespace the same on every host: a new one copies IPv4
// settings from the first namespace (net/core/sysctl_net_core.c, devconf_inherit_init_net).
func (n *NS) prepare() error {
	for _, s := range []struct{ key, value string }{
		{"net.ipv4.conf.all.rp_filter", "0"},
		{"net.ipv4.conf.default.rp_filter", "0"},
		{"net.ipv6.conf.all.disable_ipv6", "0"},
		{"net.ipv6.conf.default.disable_ipv6", "0"},
		{"net.ipv6.conf.all.accept_dad", "0"},
		{"net.ipv6.conf.default.accept_dad", "0"},
		{"net.ipv6.conf.default.accept_ra", "0"},
	} {
		err := n.Sysctl(s.key, s.value)
		if errors.Is(err, os.ErrNotExist) && strings.HasPrefix(s.key, "net.ipv6.") {
			continue // a kernel without IPv6
		}
		if err != nil {
			return err
		}
	}
	return n.Up("lo")
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || strings.ContainsRune(name, '/') || len(name) > 255 {
		return fmt.Errorf("network namespace name %q: expected a file name", name)
	}
	return nil
}
