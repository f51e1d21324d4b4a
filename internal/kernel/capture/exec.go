package capture

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

var errNotFound = exec.ErrNotFound

// folders where programs live that users often lack in PATH.
var folders = []string{"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin"}

// most is what a program may print: far more than the largest node's rules.
const most = 256 << 20

var errTooMuch = errors.New("it printed more than 256 MB")

// Find looks a program up, in the folders too that users often lack in PATH.
func Find(program string) (string, error) {
	if path, err := exec.LookPath(program); err == nil {
		return filepath.Abs(path)
	}
	for _, f := range folders {
		if path, err := exec.LookPath(filepath.Join(f, program)); err == nil {
			return path, nil
		}
	}
	return "", errNotFound
}

// exec runs a program in the namespace.
func (c *capture) exec(ctx context.Context, program string, args ...string) ([]byte, []byte, error) {
	path, err := Find(program)
	if err != nil {
		return nil, nil, err
	}
	stdout, stderr := &bounded{}, &bounded{}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.WaitDelay = time.Second
	// A wrapper's own children end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	// A child starts in the namespace of the thread that forks it.
	if err = c.inside(cmd.Start); err == nil {
		err = cmd.Wait()
	}
	if stdout.over || stderr.over {
		err = errTooMuch
	}
	return stdout.buffer.Bytes(), stderr.buffer.Bytes(), err
}

// inside runs fn in the namespace.
func (c *capture) inside(fn func() error) error {
	if c.Namespace == nil {
		return fn()
	}
	return c.Namespace.Do(fn)
}

// bounded keeps the first bytes of what is written. The buffer isn't embedded:
// its ReadFrom would read without a bound.
type bounded struct {
	buffer bytes.Buffer
	over   bool
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.buffer.Len()+len(p) > most {
		b.over = true
		return 0, errTooMuch
	}
	return b.buffer.Write(p)
}
