package netns

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// Cmd is an exec.Cmd whose process starts inside a namespace. Use it as an
// exec.Cmd; its Cmd field must not be started directly.
type Cmd struct {
	*exec.Cmd
	ns *NS
}

// Command prepares a program to run inside the namespace, without help from the
// `ip` program. It is killed when ctx ends. Unlike under `ip netns exec`, /sys and
// /etc are those of the caller.
//
// Don't set SysProcAttr.Pdeathsig: Linux sends it when the starting thread
// ends, and threads of a namespace are sometimes thrown away.
func (n *NS) Command(ctx context.Context, name string, args ...string) *Cmd {
	return &Cmd{exec.CommandContext(ctx, name, args...), n}
}

// Start forks on a thread inside the namespace: a child has its parent thread's.
func (c *Cmd) Start() error { return c.ns.Do(c.Cmd.Start) }

// Run starts the process and waits for it.
func (c *Cmd) Run() error {
	if err := c.Start(); err != nil {
		return err
	}
	return c.Wait()
}

// Output runs the process and returns its standard output.
func (c *Cmd) Output() ([]byte, error) {
	var out bytes.Buffer
	if c.Stdout != nil {
		return nil, errors.New("netns: Stdout already set")
	}
	c.Stdout = &out
	err := c.Run()
	return out.Bytes(), err
}

// CombinedOutput runs the process and returns what it wrote to both outputs.
func (c *Cmd) CombinedOutput() ([]byte, error) {
	var out bytes.Buffer
	if c.Stdout != nil || c.Stderr != nil {
		return nil, errors.New("netns: Stdout or Stderr already set")
	}
	c.Stdout, c.Stderr = &out, &out
	err := c.Run()
	return out.Bytes(), err
}

// Run runs a program inside and returns its standard output. The error names
// the command line and quotes what the program wrote to either output;
// errors.As finds the *exec.ExitError in it.
func (n *NS) Run(stdin, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	c := n.Command(context.Background(), name, args...)
	c.Stdin, c.Stdout, c.Stderr = strings.NewReader(stdin), &stdout, &stderr
	// A daemon that the program leaves behind must not hold us by its open output.
	c.WaitDelay = 5 * time.Second
	err := c.Run()
	if err != nil {
		said := strings.TrimSpace(stderr.String() + stdout.String())
		err = fmt.Errorf("%s in %s: %w: %s", strings.Join(c.Args, " "), n.name, err, said)
	}
	return stdout.String(), err
}
