package loss_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// patience is how long anything may take that must happen at all.
const patience = 10 * time.Second

// mode is a way to run the agent, and what it runs.
type mode struct {
	binary string
	owned  bool // where the kernel can
}

func (m mode) arguments(config string) []string {
	args := []string{"agent", "--config", config}
	if !m.owned {
		args = append(args, "--table-ownership=off")
	}
	return args
}

// program builds unmasq.
func program(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "unmasq")
	if out, err := exec.Command("go", "build", "-o", file, "../../cmd/unmasq").CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return file
}

// config writes policyText into a directory of its own.
func config(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write(t, file, policyText)
	return file
}

// write replaces the file, as editors do.
func write(t *testing.T, file, text string) {
	t.Helper()
	next := file + ".next"
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, file); err != nil {
		t.Fatal(err)
	}
}

// agent is a running `unmasq agent`.
type agent struct {
	ns     *netns.NS
	cmd    *netns.Cmd
	log    *log
	exited chan error
	client *http.Client
}

// log is what a process writes, readable while it runs.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start starts an agent in the namespace and waits until its policy is in force.
func (m mode) start(t *testing.T, ns *netns.NS, config string) *agent {
	t.Helper()
	a := m.launch(t, ns, config)
	a.await(t, "ready", func() bool { return a.get("/readyz") == "ok\n" })
	return a
}

// launch starts an agent and waits for nothing.
func (m mode) launch(t *testing.T, ns *netns.NS, config string) *agent {
	t.Helper()
	a := &agent{ns: ns, log: &log{}, exited: make(chan error, 1)}
	a.client = &http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: a.dial}}
	a.cmd = ns.Command(context.Background(), m.binary, m.arguments(config)...)
	a.cmd.Stdout, a.cmd.Stderr = a.log, a.log
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { a.exited <- a.cmd.Wait() }()
	t.Cleanup(func() {
		_ = a.cmd.Process.Kill() // one that has ended already is fine
	})
	return a
}

func (a *agent) dial(_ context.Context, network, address string) (c net.Conn, err error) {
	err = a.ns.Do(func() (err error) { c, err = net.DialTimeout(network, address, time.Second); return err })
	return c, err
}

// get returns a page, or "" where there is none.
func (a *agent) get(path string) string {
	resp, err := a.client.Get("http://127.0.0.1:9809" + path)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

// metric reads one series; 0 where it isn't there.
func (a *agent) metric(series string) float64 {
	lines := bufio.NewScanner(strings.NewReader(a.get("/metrics")))
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), series+" "); ok {
			f, _ := strconv.ParseFloat(value, 64)
			return f
		}
	}
	return 0
}

// await waits for a condition, at most as long as patience lasts.
func (a *agent) await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for start := time.Now(); time.Since(start) < patience; time.Sleep(2 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("the agent is not %s after %s; it says:\n%s", what, patience, a.log)
}

// end sends a signal and waits until the process is gone.
func (a *agent) end(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := a.cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-a.exited:
		var exit *exec.ExitError
		killed := signal == syscall.SIGKILL && errors.As(err, &exit)
		if err != nil && !killed {
			t.Fatalf("agent: %v\n%s", err, a.log)
		}
	case <-time.After(patience):
		t.Fatalf("the agent does not end on %s; it says:\n%s", signal, a.log)
	}
}

// unmasq runs another command of the program in the node.
func (m mode) unmasq(t *testing.T, ns *netns.NS, args ...string) string {
	t.Helper()
	out, err := ns.Run("", m.binary, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (m mode) String() string {
	if m.owned {
		return "ownership auto"
	}
	return "ownership off"
}
