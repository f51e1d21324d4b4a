//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/unmasq/unmasq/test/kube"
)

// flow is what this test reads of `flows -o json`.
type flow struct {
	Event, SourceName, DestinationName, BackendName, SeenAsName string
	Source, SeenAs, Destination                                 netip.Addr
	SourcePort, SeenAsPort                                      uint16
	SourceKind                                                  string
	ID                                                          uint32
	DecidedBy, DestinationBy                                    *struct{ Owner, PolicyRule, Service string }
}

// pluginFlows: what the pod does is listed as its peers saw it, with names and with
// the policy's rule.
func pluginFlows(t *testing.T, ctx context.Context, p *plugin) {
	outside := listen(t, p.c.Outside)
	to := netip.AddrPortFrom(kube.Outside4, backendPort).String()
	p.connects(t, ctx, "flows", to, netip.AddrPortFrom(p.web[0], webPort).String())
	visit, err := outside.Await(ctx, "flows")
	if err != nil {
		t.Fatal(err)
	}
	s := p.run(t, ctx, "admin", "flows", "default/client", "-4", "-o", "json")
	s.want(t, 0, "", "")
	var l struct{ Flows []flow }
	if err := json.Unmarshal([]byte(s.out), &l); err != nil {
		t.Fatalf("%v\n%s", err, s.out)
	}
	out, service := false, false
	for _, f := range l.Flows {
		if f.SourceName != "default/client" || f.Source != p.client {
			t.Errorf("not of the pod: %+v", f)
		}
		switch {
		case f.Destination == kube.Outside4 && netip.AddrPortFrom(f.SeenAs, f.SeenAsPort) == visit.Source:
			out = f.SeenAsName == "n1" && f.SourceKind == "masqueraded" && f.DecidedBy != nil && f.DecidedBy.PolicyRule == "masked/out" && f.DecidedBy.Owner == "unmasq"
		case f.Destination == p.web[0]:
			service = f.DestinationName == "default/web" && f.BackendName == "default/web-1" && f.SeenAs == p.client &&
				f.SourceKind == "kept" && f.DestinationBy != nil && f.DestinationBy.Owner == "kube-proxy" && f.DestinationBy.Service == "default/web"
		}
	}
	if !out || !service {
		t.Errorf("outside as %s: %t; through the service: %t\n%s", visit.Source, out, service, s.out)
	}
	s = p.run(t, ctx, "admin", "flows", "--node=n1", "--rule=masked/out", "--source=default/client")
	s.want(t, 0, fmt.Sprintf("(default/client)  %s (n1)", visit.Source), "not recorded by this kernel")
	if !regexp.MustCompile(`masqueraded by masked/out\n`).MatchString(s.out) {
		t.Error(s.out)
	}
	t.Logf("checked:\n%s", s.out)
	p.watchFlows(t, ctx, func() { p.connects(t, ctx, "watched", to) })
}

// watchFlows: a connection that begins is told; when nobody watches any more, the
// command in the pod is gone too.
func (p *plugin) watchFlows(t *testing.T, ctx context.Context, connect func()) {
	t.Helper()
	kubeconfig, err := p.c.Kubeconfig("admin", kube.Admins)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "kubectl-unmasq")
	if err := os.Symlink(p.program, link); err != nil {
		t.Fatal(err)
	}
	cmd := p.c.Control.NS.Command(ctx, link, "flows", "default/client", "--watch", "-o", "json", "--kubeconfig="+kubeconfig)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	next := func() (f flow) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("no more lines: %v", lines.Err())
		}
		if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
			t.Fatalf("%v\n%s", err, lines.Text())
		}
		return f
	}
	known := map[uint32]bool{}
	if f := next(); f.Event != "open" {
		t.Errorf("first: %+v", f)
	}
	if len(watchers(t)) == 0 {
		t.Error("nothing watches in the pod")
	}
	connect()
	for {
		f := next()
		if f.Event == "open" {
			known[f.ID] = true
			continue
		}
		if f.Event == "new" && f.Destination == kube.Outside4 {
			if known[f.ID] || f.SourceName != "default/client" || f.SourceKind != "masqueraded" {
				t.Errorf("%+v", f)
			}
			break
		}
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() { // to its end
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	eventually(t, ctx, func() error {
		if left := watchers(t); len(left) > 0 {
			return errors.New("still there: " + strings.Join(left, ", "))
		}
		return nil
	})
}

// watchers are the commands that watch inside of agents' pods.
func watchers(t *testing.T) (all []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if words := strings.ReplaceAll(string(text), "\x00", " "); err == nil && strings.HasPrefix(words, "/unmasq flows ") && strings.Contains(words, "--attached") {
			all = append(all, words)
		}
	}
	return all
}

// connects from the pod.
func (p *plugin) connects(t *testing.T, ctx context.Context, name string, targets ...string) {
	t.Helper()
	said := kubectl(t, ctx, p.c, append([]string{"exec", "client", "--", "/pod", "-once", "-name", name}, targets...)...)
	if strings.Contains(said, "error") {
		t.Fatal(said)
	}
}

// pluginFlowsWithLess rights, or programs, says what is missing.
func pluginFlowsWithLess(t *testing.T, ctx context.Context, p *plugin) {
	listen(t, p.c.Outside)
	p.connects(t, ctx, "less", netip.AddrPortFrom(kube.Outside4, backendPort).String())
	s := p.run(t, ctx, "operator", "flows", "default/client", "-4")
	s.want(t, 0, "(default/client)", "note: pods aren't named: ")
	// That agent is in a network of its own, which has none of the pod's connections.
	s = p.run(t, ctx, "admin", "flows", "default/client", "-4", "--agent-namespace=scratch")
	s.want(t, 0, "", "nft is not installed")
	s.want(t, 0, "", "note: image "+scratchImage+" of the agent on node n1 has no programs to read rules with")
	if strings.Contains(s.out, "default/client") {
		t.Errorf("of another network: %s", s.out)
	}
	p.run(t, ctx, "stranger", "flows", "--node=n1").want(t, 1, "", "it takes list on pods in namespace unmasq")
}
