// Package agenttest runs the real `unmasq agent`, built from this checkout, in a
// network namespace. It is for tests only.
//
//	a := agenttest.Start(t, ns, "--config", file)
//	a.Get("/metrics")
//	a.Stop(t)
package agenttest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// Address that an agent serves metrics and health on, in its namespace.
const Address = "127.0.0.1:9809"

// patience bounds what must happen at all; nothing is timed by it.
const patience = 15 * time.Second

// Program builds cmd/unmasq for one test, or for several that share t.
func Program(t testing.TB) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "unmasq")
	cmd := exec.Command("go", "build", "-o", file, "github.com/unmasq/unmasq/cmd/unmasq")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return file
}

// Write replaces a file as editors do: by another of its name.
func Write(t testing.TB, file, text string) {
	t.Helper()
	next := file + ".next"
	if err := os.WriteFile(next, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, file); err != nil {
		t.Fatal(err)
	}
}

// Agent is a running agent.
type Agent struct {
	ns     *netns.NS
	cmd    *netns.Cmd
	log    log
	exited chan struct{}
	err    error // of Wait, behind exited
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

// Launch starts `program agent args…` in the namespace and waits for nothing. It is
// killed when the test ends, if it still runs.
func Launch(t testing.TB, ns *netns.NS, program string, args ...string) *Agent {
	t.Helper()
	return LaunchCommand(t, ns, program, append([]string{"agent"}, args...)...)
}

// LaunchCommand starts `program args…`, which is an agent by another name.
func LaunchCommand(t testing.TB, ns *netns.NS, program string, args ...string) *Agent {
	t.Helper()
	a := &Agent{ns: ns, exited: make(chan struct{})}
	a.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: a.dial}}
	a.cmd = ns.Command(context.Background(), program, args...)
	a.cmd.Stdout, a.cmd.Stderr = &a.log, &a.log
	if err := a.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		a.err = a.cmd.Wait()
		close(a.exited)
	}()
	t.Cleanup(a.Kill)
	return a
}

// Start launches an agent and waits until its policy is in force.
func Start(t testing.TB, ns *netns.NS, program string, args ...string) *Agent {
	t.Helper()
	a := Launch(t, ns, program, args...)
	a.Await(t, "ready", func() bool { return a.Ready() == "" })
	return a
}

func (a *Agent) dial(_ context.Context, network, address string) (c net.Conn, err error) {
	err = a.ns.Do(func() (err error) { c, err = net.DialTimeout(network, address, time.Second); return err })
	return c, err
}

// Get returns the status and the body of a page.
func (a *Agent) Get(path string) (int, string, error) {
	response, err := a.client.Get("http://" + Address + path)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, string(body), err
}

// Ready is "" where /readyz says so, else why not.
func (a *Agent) Ready() string {
	status, body, err := a.Get("/readyz")
	switch {
	case err != nil:
		return err.Error()
	case status != http.StatusOK:
		return strings.TrimSpace(body)
	}
	return ""
}

// Metric returns a sample's value as text, "" where there is none. The name has
// its labels, as /metrics prints them.
func (a *Agent) Metric(name string) string {
	_, body, err := a.Get("/metrics")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(body) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Log is what the agent wrote so far.
func (a *Agent) Log() string { return a.log.String() }

// PID of the process.
func (a *Agent) PID() int { return a.cmd.Process.Pid }

// Await waits until a condition holds, or fails with the agent's log.
func (a *Agent) Await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		select {
		case <-a.exited:
			t.Fatalf("the agent ended (%v) before it was %s:\n%s", a.err, what, a.Log())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the agent is not %s after %v; /readyz: %s\n%s", what, patience, a.Ready(), a.Log())
		}
	}
}

// Exited waits for the end of an agent that ends by itself, and returns how it did.
func (a *Agent) Exited(t testing.TB) error {
	t.Helper()
	select {
	case <-a.exited:
		return a.err
	case <-time.After(patience):
		t.Fatalf("the agent did not end:\n%s", a.Log())
		return nil
	}
}

// Signal sends a signal.
func (a *Agent) Signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := a.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// Stop ends the agent as a service manager does, and waits for it.
func (a *Agent) Stop(t testing.TB) {
	t.Helper()
	a.Signal(t, syscall.SIGTERM)
	select {
	case <-a.exited:
		if a.err != nil {
			t.Fatalf("the agent ended with %v:\n%s", a.err, a.Log())
		}
	case <-time.After(patience):
		t.Fatalf("the agent did not stop:\n%s", a.Log())
	}
}

// Kill ends the agent without a word, and waits for it.
func (a *Agent) Kill() {
	_ = a.cmd.Process.Kill() // one that has ended already is fine
	<-a.exited
}

// Run runs `program args…` in a namespace and returns what it printed and its exit status.
func Run(t testing.TB, ns *netns.NS, stdin, program string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := ns.Command(context.Background(), program, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("run %s: %v", program, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
