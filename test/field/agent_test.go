package field_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// build makes the real program.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "unmasq")
	c := exec.Command("go", "build", "-o", binary, "../../cmd/unmasq")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("build unmasq: %v\n%s", err, out)
	}
	return binary
}

// running is `unmasq agent --config FILE` in a host's namespace.
type running struct {
	t       *testing.T
	space   *netns.NS
	process *netns.Cmd
	binary  string
	log     bytes.Buffer
	stopped bool
}

// start returns when the policy is in force. The agent ends with the test.
func (w *network) start(binary, space, policy string) *running {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(policy), 0o644); err != nil {
		w.t.Fatal(err)
	}
	r := &running{t: w.t, space: w.spaces[space], binary: binary}
	r.process = r.space.Command(w.t.Context(), binary, "agent", "--config", file)
	r.process.Stderr = &r.log
	if err := r.process.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { r.stop(syscall.SIGKILL) })
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		out, err := r.space.Run("", binary, "status")
		if err == nil && strings.Contains(out, "agent   ready") {
			return r
		}
		if time.Now().After(end) {
			r.stop(syscall.SIGKILL)
			w.t.Fatalf("unmasq status: %v\n%s\nthe agent's log:\n%s", err, out, &r.log)
		}
	}
}

func (r *running) stop(signal syscall.Signal) {
	if r.stopped {
		return
	}
	r.stopped = true
	if err := r.process.Process.Signal(signal); err != nil {
		r.t.Error(err)
	}
	if err := r.process.Wait(); err != nil && signal != syscall.SIGKILL {
		r.t.Errorf("agent: %v\n%s", err, &r.log)
	}
}

// clear takes everything of unmasq's away.
func (w *network) clear(binary, space string) {
	w.t.Helper()
	w.run(space, binary+" clear")
	out, err := w.spaces[space].Run("", "nft", "list", "tables")
	if err != nil || strings.Contains(out, "unmasq") {
		w.t.Errorf("after clear: %v\n%s", err, out)
	}
}
