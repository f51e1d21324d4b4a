package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// keeper is process 1 of a process namespace. It runs a program until that ends
// or standard input does, as it does when the harness dies in whatever way; then
// it exits, and the kernel kills all that is left inside. It passes SIGTERM on.
const keeper = `exec 3<&0 </dev/null
program= asked=
trap 'asked=yes; [ -z "$program" ] || kill -TERM "$program"' TERM
"$@" 3<&- &
program=$!
[ -z "$asked" ] || kill -TERM "$program"
{ cat <&3 >/dev/null; kill -9 "$program"; } &
wait "$program"
status=$?
while kill -0 "$program" 2>/dev/null; do # the signal ended the wait, not the program
	wait "$program"
	status=$?
done
exit $status`

// Process is a program that runs for as long as its cluster does, or until it is
// killed. Its methods must not be called concurrently.
type Process struct {
	name    string
	ready   func(context.Context) error
	log     string
	command func() *netns.Cmd
	cmd     *netns.Cmd
	hold    io.Closer
	ended   chan struct{}
	err     error // of the end, once ended is closed
}

// Program says what to run.
type Program struct {
	// Name of its log, in errors too.
	Name string
	// Path, or a name that PATH leads to.
	Path string
	Args []string
	// Env besides the harness's own: "KEY=value".
	Env []string
	// Ready, where not nil, is asked until it answers nil.
	Ready func(context.Context) error
}

// newProcess prepares a program; its log is a file of the folder logs.
func newProcess(ns *netns.NS, logs string, o Program) *Process {
	if o.Ready == nil {
		o.Ready = func(context.Context) error { return nil }
	}
	return &Process{name: o.Name, ready: o.Ready, log: filepath.Join(logs, o.Name+".log"), command: func() *netns.Cmd {
		c := ns.Command(context.Background(), "sh", append([]string{"-c", keeper, "keeper", o.Path}, o.Args...)...)
		c.Env = append(os.Environ(), o.Env...)
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
		return c
	}}
}

// start the program, if it doesn't run.
func (p *Process) start() error {
	if p.Running() {
		return nil
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	c := p.command()
	c.Stdout, c.Stderr = log, log
	hold, err := c.StdinPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return fmt.Errorf("start %s (requires root): %w", p.name, err)
	}
	ended := make(chan struct{})
	p.cmd, p.hold, p.ended = c, hold, ended
	go func() {
		p.err = c.Wait()
		close(ended)
	}()
	return nil
}

// Running says whether the program was started and hasn't ended.
func (p *Process) Running() bool {
	if p.ended == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// PID of the program, as the machine counts; 0: it doesn't run.
func (p *Process) PID() (pid int) {
	if !p.Running() {
		return 0
	}
	keeper := p.cmd.Process.Pid
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", keeper, keeper)) // of a process that ended: none
	_, _ = fmt.Sscan(string(text), &pid)                                             // its first child
	return pid
}

// Kill ends the program with all that it started, at once, and returns when they
// are gone. More calls do nothing.
func (p *Process) Kill() error {
	if p.ended == nil {
		return nil
	}
	p.hold.Close() // the keeper kills it
	select {
	case <-p.ended:
		return nil
	case <-time.After(patience):
		return errors.Join(fmt.Errorf("%s was killed and is there after %v%s", p.name, patience, p.said()), p.cmd.Process.Kill())
	}
}

// Log is the whole of what the program wrote so far, in all its runs.
func (p *Process) Log() (string, error) {
	text, err := os.ReadFile(p.log)
	return string(text), err
}

// Terminate asks the program to end, by SIGTERM, and returns when it has. It's not
// for a node's kubelet.
func (p *Process) Terminate(ctx context.Context) error {
	if !p.Running() {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %v", patience))
	defer cancel()
	select {
	case <-p.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s runs on though it was asked to end: %w%s", p.name, context.Cause(ctx), p.said())
	}
}

// Start starts the program, if it doesn't run, and asks until it is ready. The
// error says why it wasn't last, with the end of the program's log.
func (p *Process) Start(ctx context.Context) error {
	if err := p.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %v", patience))
	defer cancel()
	if err := poll(ctx, p.ended, p.ready); err != nil {
		return fmt.Errorf("%s isn't ready: %w%s", p.name, err, p.said())
	}
	return nil
}

// poll asks until the answer is nil. It gives up when ctx ends or ended is
// closed, with the last answer.
func poll(ctx context.Context, ended <-chan struct{}, ask func(context.Context) error) error {
	for {
		try, cancel := context.WithTimeout(ctx, tryAgain)
		err := ask(try)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return errors.New("it has ended")
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-time.After(pause):
		}
	}
}

// said is the end of the log, for errors.
func (p *Process) said() string {
	const most = 4000
	text, err := p.Log()
	if err != nil || text == "" {
		return ", and said nothing"
	}
	return "; it said last:\n" + strings.TrimSpace(text[max(0, len(text)-most):])
}
