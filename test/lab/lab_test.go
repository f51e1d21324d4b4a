// Package lab_test runs the lab as its users do: the program, with the real
// agent, in every scenario. It holds no code beside its tests.
package lab_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/lab"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// program builds unmasq.
func program(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "unmasq")
	if out, err := exec.Command("go", "build", "-o", file, "../../cmd/unmasq").CombinedOutput(); err != nil {
		t.Fatalf("build the program: %v\n%s", err, out)
	}
	return file
}

// checkNothingLeft fails where a namespace of the lab is left.
func checkNothingLeft(t *testing.T) {
	t.Helper()
	for _, s := range lab.Scenarios() {
		if left, err := netns.List(s.Namespace("")); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
}

// Every scenario, in every form, with both variants of iptables.
func TestEveryScenario(t *testing.T) {
	cmd := exec.Command(program(t), "lab", "run", "--all", "--variant", "both", "-o", "json", "--state-dir", filepath.Join(t.TempDir(), "state"))
	var progress bytes.Buffer
	cmd.Stderr = &progress
	out, err := cmd.Output()
	var runs []lab.JSON
	if jsonErr := json.Unmarshal(out, &runs); jsonErr != nil || len(runs) == 0 {
		t.Fatalf("lab run: %v, %v\n%s%s", err, jsonErr, out, &progress)
	}
	calls := 0
	for _, r := range runs {
		for _, stage := range r.Stages {
			calls += len(stage.Calls)
			for _, c := range stage.Calls {
				if !c.OK {
					t.Errorf("%s/%s (%s), %s: %s %s from %s to %s is seen as %q (%s), want %q; %s", r.Scenario, r.Form, r.Variant,
						stage.Title, c.Family, c.Protocol, c.From, c.To, c.Sight, c.SeenAs, c.Expected, c.Note)
				}
			}
		}
		if r.Error != "" || !r.OK {
			t.Errorf("%s/%s (%s): ok %v, error %q", r.Scenario, r.Form, r.Variant, r.OK, r.Error)
		}
	}
	if err != nil {
		t.Errorf("lab run: %v\n%s", err, &progress)
	}
	t.Logf("%d runs, %d connections checked", len(runs), calls)
	checkNothingLeft(t)
}

// A person plays: up, probe, an agent on each host, probe, down.
func TestUpProbeDown(t *testing.T) {
	unmasq, dir := program(t), filepath.Join(t.TempDir(), "state")
	run := func(args ...string) (string, error) {
		out, err := exec.Command(unmasq, append([]string{"lab", "--state-dir", dir}, args...)...).CombinedOutput()
		return string(out), err
	}
	t.Cleanup(func() {
		if out, err := run("down"); err != nil || out != "nothing is up\n" {
			t.Errorf("down again: %q, %v", out, err)
		}
		checkNothingLeft(t)
	})
	out, err := run("up", "docker")
	if err != nil || !strings.Contains(out, "ip netns exec unmasq-docker-host1 "+unmasq+" agent --config "+dir+"/docker/policy.yaml") {
		t.Fatalf("up: %v\n%s", err, out)
	}
	down := func() {
		if out, err := run("down", "docker"); err != nil || !strings.HasPrefix(out, "docker is down\n") {
			t.Errorf("down: %q, %v", out, err)
		}
	}
	defer down()
	if sight := probe(t, run); sight != "host1" {
		t.Errorf("without unmasq, pod2 sees pod1 as %q", sight)
	}
	for _, host := range []string{"host1", "host2"} {
		startAgent(t, unmasq, "unmasq-docker-"+host, dir+"/docker/policy.yaml")
	}
	if sight := probe(t, run); sight != lab.Itself {
		t.Errorf("with unmasq, pod2 sees pod1 as %q", sight)
	}
	if _, err := run("run", "docker"); err == nil {
		t.Error("lab run took over a lab that is up")
	}
}

// probe returns whom pod2 takes pod1 for in all its calls.
func probe(t *testing.T, run func(...string) (string, error)) lab.Sight {
	t.Helper()
	out, err := run("probe", "docker", "-o", "json")
	var stage lab.JSONStage
	if jsonErr := json.Unmarshal([]byte(out), &stage); err != nil || jsonErr != nil {
		t.Fatalf("probe: %v, %v\n%s", err, jsonErr, out)
	}
	var sight lab.Sight
	for _, c := range stage.Calls {
		if c.From != "pod1" || c.To != "pod2" {
			continue
		}
		if sight != "" && sight != c.Sight {
			t.Errorf("seen both as %q and as %q\n%s", sight, c.Sight, out)
		}
		sight = c.Sight
	}
	return sight
}

// startAgent starts an agent in a namespace, which ends with the test, and waits until it is ready.
func startAgent(t *testing.T, unmasq, namespace, config string) {
	t.Helper()
	ns, err := netns.Open(namespace)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	cmd := ns.Command(ctx, unmasq, "agent", "--config", config)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := cmd.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("agent in %s: %v\n%s", namespace, err, &log)
		}
		ns.Release() //nolint:errcheck // a file that was read
	})
	if err := lab.AwaitReady(ctx, ns); err != nil {
		t.Fatalf("agent in %s: %v", namespace, err)
	}
}

// Ctrl-C leaves nothing.
func TestInterrupt(t *testing.T) {
	cmd := exec.Command(program(t), "lab", "run", "docker", "--state-dir", filepath.Join(t.TempDir(), "state"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		if strings.HasPrefix(lines.Text(), "... starting unmasq agent") {
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Error(err)
			}
		}
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("got %v, want exit status 1\n%s", err, &said)
	}
	checkNothingLeft(t)
}
