// Package dockerd runs the real docker daemon inside a network namespace, so
// that labs and tests meet the rules that docker itself writes, when it writes
// them. It needs root, and Debian's docker.io (or any dockerd with containerd
// in PATH). Containers are out of its scope; networks are all it's for.
//
// A daemon has mount and process namespaces of its own: nothing of it is left
// after Stop, whatever happened, and a docker or containerd of the host is
// neither used nor disturbed. It ends when the process that started it does.
//
//	d, err := dockerd.Start(ctx, host, dockerd.Options{Variant: foreign.Legacy})
//	defer d.Stop()
//	err = d.CreateNetwork(ctx, "blue", subnet4, subnet6)
//	err = d.Restart(ctx)
package dockerd

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// Options of a daemon.
type Options struct {
	// Variant of the iptables programs that docker finds. Empty: the host's choice.
	Variant foreign.Variant
	// Bridge is docker0's IPv4 address with its prefix length (--bip). The zero
	// Prefix: docker's choice, 172.17.0.1/16 where that is free.
	Bridge netip.Prefix
	// IPv6 is the subnet of docker0 (--fixed-cidr-v6). The zero Prefix: fd00:d0c::/64.
	IPv6 netip.Prefix
	// Program is the daemon's absolute path. Empty: dockerd in PATH.
	Program string
	// Arguments of the daemon's besides.
	Arguments []string
}

// DefaultIPv6 is docker0's subnet unless Options say otherwise.
var DefaultIPv6 = netip.MustParsePrefix("fd00:d0c::/64")

// stopWait bounds how long a daemon may take to stop before it is killed.
const stopWait = 15 * time.Second

// Daemon is a docker daemon. Its methods must not be called concurrently,
// except CreateNetwork and RemoveNetwork with each other.
type Daemon struct {
	ns   *netns.NS
	opts Options
	dir  string
	run  *running // nil while no process runs
}

// running is one life of the daemon.
type running struct {
	cmd *netns.Cmd
	// hold keeps the daemon running until it's closed.
	hold io.Closer
	// ended is closed after the process has ended with all its children; err is
	// valid then.
	ended chan struct{}
	err   error
}

// Start starts a daemon in the namespace and returns when its API answers;
// docker has written its rules by then. ctx bounds the start alone.
func Start(ctx context.Context, ns *netns.NS, opts Options) (*Daemon, error) {
	dir, err := os.MkdirTemp("", "unmasq-docker-")
	if err != nil {
		return nil, err
	}
	d := &Daemon{ns: ns, opts: opts, dir: dir}
	if err := errors.Join(d.choosePrograms(), d.prepare()); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := d.start(ctx); err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	return d, nil
}

// Stop ends the daemon as `systemctl stop docker` does and removes its files.
// docker leaves its rules and bridges in the namespace. More calls do nothing.
func (d *Daemon) Stop() error {
	return errors.Join(d.end(), os.RemoveAll(d.dir))
}

// Kill kills the daemon with all its processes at once, and keeps its files.
// Restart may follow; Stop must.
func (d *Daemon) Kill() error {
	if d.run == nil {
		return nil
	}
	err := d.run.cmd.Process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-d.run.ended
	d.run.hold.Close()
	d.run = nil
	return err
}

// Restart ends the daemon, if it runs, and starts it again with its networks.
func (d *Daemon) Restart(ctx context.Context) error {
	if err := d.end(); err != nil {
		return err
	}
	return d.start(ctx)
}

// end ends the process and waits until it and its children are gone.
func (d *Daemon) end() error {
	if d.run == nil {
		return nil
	}
	d.run.hold.Close()
	select {
	case <-d.run.ended:
		d.run = nil
		return nil
	case <-time.After(stopWait):
		return errors.Join(fmt.Errorf("docker did not stop within %v, killed%s", stopWait, d.said()), d.Kill())
	}
}

// inside.sh is process 1 in the daemon's namespaces.
//
//go:embed inside.sh
var inside string

func (d *Daemon) start(ctx context.Context) error {
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := d.ns.Command(context.Background(), "sh", append([]string{"-c", inside, "dockerd"}, d.arguments()...)...)
	cmd.Env = append(os.Environ(), "DIR="+d.dir, "TMPDIR="+d.dir, "PATH="+filepath.Join(d.dir, "bin")+":"+os.Getenv("PATH")+":/usr/sbin:/sbin")
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	hold, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start docker (requires root): %w", err)
	}
	r := &running{cmd: cmd, hold: hold, ended: make(chan struct{})}
	go func() {
		r.err = cmd.Wait()
		close(r.ended)
	}()
	d.run = r
	if err := d.awaitAPI(ctx); err != nil {
		return errors.Join(err, d.Kill())
	}
	return nil
}

func (d *Daemon) arguments() []string {
	ipv6 := d.opts.IPv6
	if !ipv6.IsValid() {
		ipv6 = DefaultIPv6
	}
	args := []string{
		"--data-root", filepath.Join(d.dir, "data"), "--config-file", filepath.Join(d.dir, "daemon.json"),
		"--exec-root", "/run/docker", "--pidfile", "/run/docker.pid", "--host", "unix://" + socket,
		"--storage-driver", "vfs", "--iptables=true", "--ip6tables=true", "--experimental",
		"--ipv6", "--fixed-cidr-v6", ipv6.String(),
	}
	if d.opts.Bridge.IsValid() {
		args = append(args, "--bip", d.opts.Bridge.String())
	}
	return append(args, d.opts.Arguments...)
}

// prepare writes an empty configuration, so that the host's is not read, and
// the mount points that inside.sh needs.
func (d *Daemon) prepare() error {
	return errors.Join(
		os.WriteFile(filepath.Join(d.dir, "daemon.json"), []byte("{}\n"), 0o600),
		os.Mkdir(filepath.Join(d.dir, "cgroup"), 0o700),
		os.WriteFile(filepath.Join(d.dir, "xtables.lock"), nil, 0o600),
	)
}

// choosePrograms makes a directory that stands first in the daemon's PATH, in
// which dockerd is the one asked for, and iptables the one of the variant. The
// host's alternatives stay.
func (d *Daemon) choosePrograms() error {
	bin := filepath.Join(d.dir, "bin")
	if err := os.Mkdir(bin, 0o700); err != nil {
		return err
	}
	if d.opts.Program != "" {
		if err := os.Symlink(d.opts.Program, filepath.Join(bin, "dockerd")); err != nil {
			return err
		}
	}
	if d.opts.Variant == "" {
		return nil
	}
	for _, name := range []string{"iptables", "ip6tables"} {
		for _, suffix := range []string{"", "-save", "-restore"} {
			program, err := lookSbin(name + "-" + string(d.opts.Variant) + suffix)
			if err != nil {
				return err
			}
			if err := os.Symlink(program, filepath.Join(bin, name+suffix)); err != nil {
				return err
			}
		}
	}
	return nil
}

// lookSbin finds a program that the PATH of some users doesn't lead to.
func lookSbin(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil {
		return path, nil
	}
	if found, err := exec.LookPath("/usr/sbin/" + name); err == nil {
		return found, nil
	}
	return "", err
}
