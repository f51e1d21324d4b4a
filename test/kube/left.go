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

// memory is where directories of clusters are if there is room: on a busy disk the
// removal of etcd's files takes half a minute, and its writing holds up all else.
const memory = "/dev/shm"

// home of a cluster's directory.
func home() string {
	const room = 1 << 30
	var s unix.Statfs_t
	if err := unix.Statfs(memory, &s); err != nil || s.Flags&unix.ST_NOEXEC != 0 || s.Bavail*uint64(s.Bsize) < room {
		return os.TempDir()
	}
	return memory
}

// directories of clusters whose names match.
func directories(pattern string) (dirs []string, err error) {
	for _, home := range []string{memory, os.TempDir()} {
		found, err := filepath.Glob(filepath.Join(home, pattern))
		if err != nil {
			return nil, err
		}
		dirs = append(dirs, found...)
	}
	return dirs, nil
}

// Sweep removes what clusters of killed processes left: names of namespaces,
// cgroups and directories. Their processes ended with them.
func Sweep() error {
	errs := []error{netns.Sweep(prefix)}
	dirs, err := directories(prefix + "*")
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

// Left names what is left of this process's clusters: namespaces, processes,
// mounts, cgroups, directories. Nothing should be once they are closed.
func Left() ([]string, error) { return LeftBy(os.Getpid()) }

// LeftBy names what is left of another process's.
func LeftBy(pid int) ([]string, error) {
	id := fmt.Sprintf("%s%d-", prefix, pid)
	left, err := netns.List(id)
	groups, err2 := cgroupsOf(id + "*")
	dirs, err3 := directories(id + "*")
	mounts, err4 := os.ReadFile("/proc/self/mountinfo")
	left = append(append(left, groups...), dirs...)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, id) {
			left = append(left, "mount "+strings.TrimSpace(line))
		}
	}
	for _, m := range members(id) {
		left = append(left, fmt.Sprintf("process %d %s", m.pid, m.command))
	}
	return left, errors.Join(err, err2, err3, err4)
}

// member is a process of a cluster.
type member struct {
	pid           int
	name, command string
}

// members have the id on their command lines, in their environments, or in the
// names of their cgroups, as containers do.
func members(id string) (found []member) {
	entries, _ := os.ReadDir("/proc") // it can be read
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		read := func(name string) string {
			text, _ := os.ReadFile(filepath.Join("/proc", e.Name(), name)) // those that ended meanwhile have none
			return string(text)
		}
		command := read("cmdline")
		if strings.Contains(command, id) || strings.Contains(read("environ"), id) || strings.Contains(read("cgroup"), id) {
			found = append(found, member{pid, strings.TrimSpace(read("comm")), strings.TrimSpace(strings.ReplaceAll(command, "\x00", " "))})
		}
	}
	return found
}
