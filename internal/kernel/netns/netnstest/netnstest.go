// Package netnstest gives tests network namespaces, for root and for everyone:
// where the process may not make any, Main starts it again in a user namespace.
// It is for tests only.
//
//	func TestMain(m *testing.M) { netnstest.Main(m) }
//
//	func TestSomething(t *testing.T) {
//		host := netnstest.Test(t, "host")
//		...
//	}
package netnstest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// inside marks, in the environment, a process that Main started.
const inside = "UNMASQ_TEST_USERNS"

// prefix of every test's namespaces; the process id follows.
const prefix = "um-"

var counter atomic.Int64

// Test makes a namespace and removes it when the test ends. Its name is unique;
// the one given is its last part, for a reader of `ip netns`.
func Test(t testing.TB, name string) *netns.NS {
	t.Helper()
	n, err := netns.New(fmt.Sprintf("%s%d-%d-%s", prefix, os.Getpid(), counter.Add(1), name))
	if err != nil {
		t.Fatalf("%v\nThis test needs network namespaces: run it as root, or call netnstest.Main in the package's TestMain.", err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// Main runs the package's tests where they can make network namespaces, and
// exits: here, or for other users than root in a user namespace of their own
// with an own /run (for /run/netns and /run/xtables.lock). Call it from TestMain.
func Main(m *testing.M) {
	if os.Getenv(inside) != "" {
		if err := ownMounts(); err != nil {
			fail(err)
		}
	} else if !privileged() {
		os.Exit(again())
	}
	if err := netns.Sweep(prefix); err != nil {
		fail(err)
	}
	os.Exit(m.Run())
}

func fail(err error) {
	fmt.Fprintf(os.Stderr, "FAIL: these tests need root, or a kernel that lets a user make user namespaces: %v\n", err)
	os.Exit(1)
}

// again starts this very test binary in new user, mount and network
// namespaces, as root there, and returns its exit status.
func again() int {
	exe, err := os.Executable()
	if err != nil {
		fail(err)
	}
	c := exec.Command(exe, os.Args[1:]...)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	// iptables and nft live in sbin, which users often lack in PATH.
	c.Env = append(os.Environ(), inside+"=1", "PATH="+os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	signal.Ignore(os.Interrupt) // the terminal sends it to the child too, which cleans up
	err = c.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		fail(err)
	}
	return c.ProcessState.ExitCode()
}

// ownMounts keeps our mounts to ourselves and puts an empty /run over the host's.
func ownMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("mount an own /run: %w", err)
	}
	return nil
}

// privileged says whether this process may make network namespaces.
func privileged() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return os.Geteuid() == 0
	}
	const need = 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_NET_ADMIN
	for line := range strings.Lines(string(status)) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
			return err == nil && caps&need == need
		}
	}
	return false
}
