//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unmasq/unmasq/test/kube"
)

// inChild tells this test binary to be the process that is killed.
const inChild = "UNMASQ_E2E_CHILD"

// TestFailedStart: the error names what didn't come up and what it said, and
// nothing is left.
func TestFailedStart(t *testing.T) {
	ctx := bounded(t)
	for _, f := range []struct {
		name   string
		config kube.Config
		want   []string
	}{
		{"API server", kube.Config{APIServerFlags: []string{"--no-such-flag"}}, []string{"kube-apiserver isn't ready", "unknown flag: --no-such-flag"}},
		{"kube-proxy", kube.Config{Nodes: []kube.NodeConfig{{Proxy: kube.Proxy{Mode: "ebpf"}}}}, []string{"kube-proxy isn't ready", "ebpf"}},
		{"image", kube.Config{Nodes: []kube.NodeConfig{{Kubelet: true}}, Images: []kube.Image{{Name: "none", Files: map[string]string{"/x": "/no/such/file"}}}}, []string{"/no/such/file"}},
	} {
		t.Run(f.name, func(t *testing.T) {
			c, err := kube.Start(ctx, f.config)
			if err == nil {
				t.Error("it started", c.Close())
			}
			for _, want := range f.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error: %v\nwant one with %q", err, want)
				}
			}
			nothingLeft(t, os.Getpid())
		})
	}
}

// TestGivenUp: a start whose time is over leaves nothing, however far it has come. A
// machine that is quick may be ready by the later times; nothing is so by the first.
func TestGivenUp(t *testing.T) {
	first := 500 * time.Millisecond
	for after := first; after <= 5*first; after += first {
		t.Run(after.String(), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(bounded(t), after)
			defer cancel()
			c, err := kube.Start(ctx, kube.Config{Nodes: []kube.NodeConfig{{Kubelet: true}}})
			switch {
			case err == nil && after == first:
				t.Errorf("it started within %s", after)
				fallthrough
			case err == nil:
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			case !errors.Is(err, context.DeadlineExceeded):
				t.Errorf("error: %v, want one that says that the time is over", err)
			}
			nothingLeft(t, os.Getpid())
		})
	}
}

// TestSignals: a process that is interrupted cleans up; one that is killed can't,
// but its programs end, and the next start sweeps the rest away.
func TestSignals(t *testing.T) {
	if os.Getenv(inChild) != "" {
		child(t)
		return
	}
	for _, s := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(s.String(), func(t *testing.T) {
			pid := endChild(t, s)
			if s == syscall.SIGKILL {
				eventually(t, bounded(t), func() error {
					if err := kube.Sweep(); err != nil {
						return err
					}
					left, err := kube.LeftBy(pid)
					if err == nil && len(left) > 0 {
						err = errors.New(strings.Join(left, "\n"))
					}
					return err
				})
			}
			nothingLeft(t, pid)
		})
	}
}

// child starts a cluster, says so, and waits for its end.
func child(t *testing.T) {
	if _, err := kube.Start(t.Context(), kube.Config{Nodes: []kube.NodeConfig{{Kubelet: true, Proxy: kube.Proxy{Mode: kube.NFTables}}}}); err != nil {
		t.Fatal(err)
	}
	fmt.Println("\nup")
	<-t.Context().Done()
}

// endChild starts a process with a cluster and ends it by a signal.
func endChild(t *testing.T, s syscall.Signal) (pid int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestSignals$", "-test.v")
	cmd.Env = append(os.Environ(), inChild+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "up"; {
		fmt.Fprintln(&said, lines.Text())
	}
	if err := cmd.Process.Signal(s); err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	err = cmd.Wait()
	status, ended := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ended || status.Signal() != s {
		t.Fatalf("the process ended by %v, want %v: %s", err, s, said.String())
	}
	return cmd.Process.Pid
}
