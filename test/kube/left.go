package kube

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// prefix of the names of clusters; the process's number follows.
const prefix = "unmasq-kube-"

const cgroups = "/sys/fs/cgroup"

// Sweep removes what clusters of killed processes left: names of namespaces,
// cgroups and directories. Their processes ended with them.
func Sweep() error {
	errs := []error{netns.Sweep(prefix)}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	errs = append(errs, err)
	for _, dir := range dirs {
		if dead(filepath.Base(dir)) {
			errs = append(errs, removeCgroups(filepath.Base(dir)), os.RemoveAll(dir))
		}
	}
	return errors.Join(errs...)
}

// dead: the process that a cluster is named after is no more.
func dead(name string) bool {
	digits, _, _ := strings.Cut(strings.TrimPrefix(name, prefix), "-")
	pid, err := strconv.Atoi(digits)
	return err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// cgroupsOf a cluster, in each hierarchy that there is.
func cgroupsOf(id string) ([]string, error) {
	v1, err := filepath.Glob(filepath.Join(cgroups, "*", id))
	if err != nil {
		return nil, err
	}
	v2, err := filepath.Glob(filepath.Join(cgroups, id))
	return append(v1, v2...), err
}

// removeCgroups removes them from the leaves up. Those of processes that were
// killed a moment ago are busy still.
func removeCgroups(id string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(pause) {
		err := tryRemoveCgroups(id)
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

func tryRemoveCgroups(id string) error {
	tops, err := cgroupsOf(id)
	if err != nil {
		return err
	}
	for _, top := range tops {
		var dirs []string
		err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return err
		})
		for _, dir := range slices.Backward(dirs) {
			if err == nil {
				err = unix.Rmdir(dir)
			}
		}
		// The name may be seen in several mounts of one hierarchy ("cpu", "cpu,cpuacct").
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove cgroup %s: %w", top, err)
		}
	}
	return nil
}

// Left names what is left of a cluster that was closed: namespaces, processes,
// mounts, cgroups, directories. Nothing should be.
func (c *Cluster) Left() ([]string, error) {
	left, err := netns.List(c.id)
	processes, err2 := c.processes()
	groups, err3 := cgroupsOf(c.id)
	mounts, err4 := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, c.id) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	if _, err := os.Lstat(c.dir); err == nil {
		left = append(left, c.dir)
	}
	return append(append(left, processes...), groups...), errors.Join(err, err2, err3, err4)
}

// processes that run in the cluster's namespaces, or with its directory on their
// command lines.
func (c *Cluster) processes() (found []string, err error) {
	all, err := filepath.Glob("/proc/[0-9]*")
	for _, dir := range all {
		command, _ := os.ReadFile(filepath.Join(dir, "cmdline")) // those that have ended meanwhile are gone
		inode, _ := inodeOf(filepath.Join(dir, "ns/net"))
		if strings.Contains(string(command), c.id) || inode != 0 && slices.Contains(c.nets, inode) {
			found = append(found, fmt.Sprintf("process %s %q", filepath.Base(dir), strings.ReplaceAll(string(command), "\x00", " ")))
		}
	}
	return found, err
}

// inodeOf a namespace, which is its number.
func inodeOf(path string) (uint64, error) {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return s.Ino, nil
}
