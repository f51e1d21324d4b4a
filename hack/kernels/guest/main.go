// Command guest is the first process of a machine that hack/kernels boots: it
// loads modules, asks the kernel what unmasq asks it, runs the tests and
// switches the machine off. It writes to the second serial port; see
// hack/kernels/report.go.
//
// Called as `go`, it stands in for `go build -o FILE PACKAGE`, which some tests
// run: the machine has the programs that they build, not the compiler.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/nft"
)

func main() {
	if filepath.Base(os.Args[0]) == "go" {
		if err := standIn(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "go:", err)
			os.Exit(1)
		}
		return
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: this is the first process of a machine that hack/kernels boots")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Println("guest:", err) // to the console
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// standIn copies a program to where it should be built.
func standIn(args []string) error {
	i := slices.Index(args, "-o")
	if len(args) < 4 || args[0] != "build" || i < 0 || i > len(args)-3 {
		return fmt.Errorf("this machine has no compiler, only what `go build -o FILE PACKAGE` made before it was started: %q", args)
	}
	data, err := os.ReadFile("/built/" + filepath.Base(args[len(args)-1]))
	if err != nil {
		return err
	}
	return os.WriteFile(args[i+1], data, 0o755)
}

func run() error {
	if err := mounts(); err != nil {
		return err
	}
	tty, err := os.OpenFile("/dev/ttyS1", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	defer tty.Close()
	if err := loadModules(tty); err != nil {
		return err
	}
	// Devices that tunnel modules put into every new namespace are none of a test's.
	if err := os.WriteFile("/proc/sys/net/core/fb_tunnels_only_for_init_net", []byte("1"), 0); err != nil {
		return err
	}
	features, err := nft.Probe()
	if err != nil {
		return err
	}
	fmt.Fprintf(tty, "### kernel ownership=%t ipsec=%t\n", features.Ownership, features.IPsec)
	jobs, err := readJobs()
	if err != nil {
		return err
	}
	for _, j := range jobs {
		runJob(j, tty)
	}
	_, err = fmt.Fprintln(tty, "### done")
	return errors.Join(err, unix.IoctlSetInt(int(tty.Fd()), unix.TCSBRK, 1)) // wait until all is sent
}

func mounts() error {
	for _, m := range []struct{ kind, to string }{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"},
	} {
		if err := os.MkdirAll(m.to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, m.to, m.kind, 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.to, err)
		}
	}
	return nil
}

// loadModules loads in the order given. One that the kernel refuses is told.
func loadModules(out io.Writer) error {
	list, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for _, file := range strings.Fields(string(list)) {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			fmt.Fprintf(out, "### module %s: %v\n", filepath.Base(file), err)
		}
	}
	return nil
}

// job is hack/kernels' Job.
type job struct {
	Package, Binary, Dir string
	Args                 []string
}

func readJobs() (jobs []job, err error) {
	b, err := os.ReadFile("/jobs.json")
	if err != nil {
		return nil, err
	}
	return jobs, json.Unmarshal(b, &jobs)
}

func runJob(j job, out *os.File) {
	fmt.Fprintf(out, "### start %s\n", j.Package)
	start := time.Now()
	cmd := exec.Command(j.Binary, j.Args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = j.Dir, out, out
	cmd.Env = []string{"PATH=/bin", "HOME=/root", "TMPDIR=/tmp"}
	status := "ok"
	if err := cmd.Run(); err != nil {
		status = err.Error()
	}
	fmt.Fprintf(out, "### end %s %.0f %s\n", j.Package, time.Since(start).Seconds(), status)
}
