package shield_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/snapshot"
	"github.com/unmasq/unmasq/internal/takeover"
)

// takeoverOwner is what `unmasq takeover --owner` calls a component.
func takeoverOwner(component string) string {
	for _, name := range takeover.Owners() {
		if strings.HasPrefix(component, name) {
			return name
		}
	}
	return component
}

// TestTakeover: each component's rules are taken over and handed back while
// connections are made, each of which leaves as the policy says; what was taken is
// all that hid pods, and afterwards every rule stands where it stood.
func TestTakeover(t *testing.T) {
	binary := build(t)
	for _, c := range foreign.Components() {
		for _, v := range foreign.Variants {
			if c.Native && v == foreign.Legacy {
				continue // the variant makes no difference
			}
			t.Run(c.Name+"/"+string(v), func(t *testing.T) { takeOver(t, binary, c, v) })
		}
	}
}

func takeOver(t *testing.T, binary string, c foreign.Component, v foreign.Variant) {
	w := newWorld(t)
	must(t, w.execute(t.Context(), foreign.KubeProxy().Write, v))
	must(t, w.execute(t.Context(), c.Write, v))
	before := w.rules(t)
	w.startAgent(t, binary)
	name, record := takeoverOwner(c.Name), filepath.Join(t.TempDir(), "takeover.json")
	unmasq := func(args ...string) func() error {
		return func() error {
			cmd := w.Node.Command(context.Background(), binary, append([]string{"takeover", "--record", record, "--owner", name}, args...)...)
			out, err := cmd.CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}
	}
	during := func(when string, fn func() error) {
		t.Helper()
		got, err := w.load(byPolicy, matrixRate, flowsPerPhase, fn)
		must(t, err)
		got.check(t, when)
	}

	must(t, unmasq("--dry-run")())
	equalRules(t, "after --dry-run", before, w.rules(t))
	during("taken over", unmasq())
	if left := takeover.Find(w.host(t), name); len(left) > 0 {
		t.Errorf("left: %+v", left)
	}
	if got := w.rules(t); !strings.Contains(got, "KUBE-POSTROUTING") {
		t.Errorf("kube-proxy's rules were taken too:\n%s", got)
	}
	must(t, unmasq()())
	during("handed back", unmasq("--handback"))
	equalRules(t, "after --handback", before, w.rules(t))
	must(t, unmasq("--handback")())
	equalRules(t, "after another", before, w.rules(t))
}

// TestTakeoverOfAll: rules of several components in both variants at once are taken over
// by commands that run at once, of which some can't delete anything at first, and handed
// back in the order in which they were taken; each rule stands where it stood.
func TestTakeoverOfAll(t *testing.T) {
	binary, w := build(t), newWorld(t)
	components := []foreign.Component{foreign.IPMasqAgent(), foreign.Docker(), foreign.CNIBridge(), foreign.Flannel(), foreign.KubeRouter(), foreign.FlannelNFTables()}
	names := []string{owner.IPMasqAgent, owner.Docker, owner.CNIBridge, owner.Flannel, owner.KubeRouter}
	for _, v := range foreign.Variants {
		must(t, w.execute(t.Context(), foreign.KubeProxy().Write, v))
		for _, c := range components {
			if !c.Native || v == foreign.NFT {
				must(t, w.execute(t.Context(), c.Write, v))
			}
		}
	}
	before := w.rules(t)
	w.startAgent(t, binary)
	dir := t.TempDir()
	record := filepath.Join(dir, "takeover.json")
	unmasq := func(env []string, args ...string) (string, error) {
		cmd := w.Node.Command(context.Background(), binary, append([]string{"takeover", "--record", record}, args...)...)
		cmd.Env = append(os.Environ(), env...)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}

	// Of iptables-nft nothing can be deleted: legacy's rules are taken, the others not.
	broken := "#!/bin/sh\necho 'no space left' >&2\nexit 4\n"
	must(t, os.WriteFile(filepath.Join(dir, "iptables-nft-restore"), []byte(broken), 0o755))
	out, err := unmasq([]string{"PATH=" + dir + ":" + os.Getenv("PATH")}, "--owner", owner.Docker)
	if err == nil || !strings.Contains(out, "docker's rules stay") || !strings.Contains(out, "no space left") {
		t.Errorf("with a broken program: %v\n%s", err, out)
	}
	if out, err := unmasq(nil); err != nil || !regexp.MustCompile(`docker +1 +[1-9]\d* +0\n`).MatchString(out) {
		t.Errorf("what wasn't taken counts as taken: %v\n%s", err, out)
	}

	each := func(args ...string) {
		t.Helper()
		var all sync.WaitGroup
		for _, name := range append(names, names...) {
			all.Go(func() {
				if out, err := unmasq(nil, append([]string{"--owner", name}, args...)...); err != nil {
					t.Errorf("%s %s: %v\n%s", name, args, err, out)
				}
			})
		}
		all.Wait()
	}
	each()
	for _, name := range names {
		if left := takeover.Find(w.host(t), name); len(left) > 0 {
			t.Errorf("left: %+v", left)
		}
	}
	each("--handback")
	equalRules(t, "after --handback", before, w.rules(t))
	for _, name := range names {
		_, err := unmasq(nil, "--owner", name)
		must(t, err)
	}
	for _, name := range names {
		_, err := unmasq(nil, "--owner", name, "--handback")
		must(t, err)
	}
	equalRules(t, "after --handback in the order of taking", before, w.rules(t))
}

// TestTakeoverOfDocker: of the real daemon exactly its networks' rules are taken, come back
// where they stood, and are told when a restart has written them again.
func TestTakeoverOfDocker(t *testing.T) {
	binary := build(t)
	for _, v := range foreign.Variants {
		t.Run(string(v), func(t *testing.T) {
			w := newWorld(t)
			d := w.startDocker(t, v)
			must(t, d.CreateNetwork(t.Context(), "blue", netip.MustParsePrefix("10.244.77.0/24"), netip.MustParsePrefix("fd00:10:244:77::/64")))
			before := w.rules(t)
			w.startAgent(t, binary)
			record := filepath.Join(t.TempDir(), "takeover.json")
			unmasq := func(args ...string) string {
				t.Helper()
				out, err := w.Node.Run("", binary, append([]string{"takeover", "--record", record}, args...)...)
				must(t, err)
				return out
			}
			unmasq("--owner", owner.Docker)
			gone := func(line string) bool {
				return strings.HasPrefix(line, "-A POSTROUTING -s") && strings.Contains(line, "! -o")
			}
			var kept strings.Builder
			for line := range strings.Lines(before) {
				if !gone(line) {
					kept.WriteString(line)
				}
			}
			if kept.String() == before {
				t.Fatalf("docker has no such rules:\n%s", before)
			}
			equalRules(t, "without those of docker's networks", kept.String(), w.rules(t))
			unmasq("--owner", owner.Docker, "--handback")
			equalRules(t, "after --handback", before, w.rules(t))

			unmasq("--owner", owner.Docker)
			must(t, d.Restart(t.Context()))
			if list := unmasq(); !regexp.MustCompile(`docker( +[1-9]\d*){3}\n`).MatchString(list) {
				t.Errorf("after docker's restart:\n%s", list)
			}
			restarted := w.rules(t)
			unmasq("--owner", owner.Docker, "--handback")
			equalRules(t, "after docker's restart and --handback", restarted, w.rules(t))
		})
	}
}

func (w *world) host(t *testing.T) *snapshot.Host {
	t.Helper()
	host, err := capture.Live(t.Context(), capture.Options{Namespace: w.Node})
	must(t, err)
	return host
}

// changing is what lists have beside rules.
var changing = regexp.MustCompile(`(?m)^#.*\n|\[[0-9]+:[0-9]+\]|counter packets [0-9]+ bytes [0-9]+`)

// rules of others on the node, as their programs list them.
func (w *world) rules(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, program := range []string{"iptables-legacy-save", "ip6tables-legacy-save", "iptables-nft-save", "ip6tables-nft-save"} {
		out, err := w.Node.Run("", program, "-t", "nat")
		must(t, err)
		// A table that nobody has used yet isn't listed, or is, with nothing in it.
		all.WriteString(changing.ReplaceAllString(out, ""))
	}
	for _, table := range w.host(t).Rules.Tables {
		if table.Native == nil || table.Native.IPTables || w.owned(table.Name) {
			continue
		}
		for _, chain := range table.Chains {
			for i := range chain.Rules {
				fmt.Fprintf(&all, "%s %s %s\n", table.Name, chain.Name, changing.ReplaceAllString(chain.Rules[i].Text, ""))
			}
		}
	}
	return all.String()
}

func (w *world) owned(table string) bool { return strings.HasPrefix(table, owner.Unmasq) }

func equalRules(t *testing.T, when, want, got string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s the rules are others; before:\n%s\nnow:\n%s", when, want, got)
	}
}
