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
// it exits, and the kernel kills all that is left inside.
const keeper = `exec 3<&0 </dev/null
"$@" 3<&- &
program=$!
{ cat <&3 >/dev/null; kill -9 "$program"; } &
wait "$program"`

// Process is a program that runs for as long as its cluster does, or until it is
// killed. Its methods must not be called concurrently.
type Process struct {
	name    string
	log     string
	command func() *netns.Cmd
	cmd     *netns.Cmd
	hold    io.Closer
	ended   chan struct{}
	err     error // of the end, once ended is closed
}

// newProcess prepares a program; its log is a file of the folder logs.
func newProcess(ns *netns.NS, logs, name string, env []string, program string, args ...string) *Process {
	return &Process{name: name, log: filepath.Join(logs, name+".log"), command: func() *netns.Cmd {
		c := ns.Command(context.Background(), "sh", append([]string{"-c", keeper, "keeper", program}, args...)...)
		c.Env = append(os.Environ(), env...)
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

// await starts the program and asks until it is ready. The error says why it
// wasn't last, with the end of the program's log.
func (p *Process) await(ctx context.Context, ready func(context.Context) error) error {
	if err := p.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not within %v", patience))
	defer cancel()
	if err := poll(ctx, p.ended, ready); err != nil {
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
