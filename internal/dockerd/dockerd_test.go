package dockerd_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/dockerd"
	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// TestDaemon leads a daemon through its life in both variants and looks for
// its rules, then for whatever could be left.
func TestDaemon(t *testing.T) {
	for _, v := range foreign.Variants {
		t.Run(string(v), func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			ns := netnstest.Test(t, "docker")
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			d, err := dockerd.Start(ctx, ns, dockerd.Options{Variant: v, Bridge: netip.MustParsePrefix("172.5.138.1/24")})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { d.Stop() })
			live(ctx, t, d, ns, v)
			if err := d.Stop(); err != nil {
				t.Error(err)
			}
			if err := d.Stop(); err != nil {
				t.Errorf("stopped again: %v", err)
			}
			nothingLeft(t, ns)
		})
	}
}

func live(ctx context.Context, t *testing.T, d *dockerd.Daemon, ns *netns.NS, v foreign.Variant) {
	own := []string{
		"iptables -s 172.5.138.0/24 ! -o docker0 -j MASQUERADE",
		"ip6tables -s fd00:d0c::/64 ! -o docker0 -j MASQUERADE",
	}
	blue := []string{"iptables -s 172.30.7.0/24", "ip6tables -s fd00:b1::/64"}
	expect := func(after string, err error, want bool, rules ...string) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", after, err)
		}
		listed := masquerades(t, ns, v)
		for _, rule := range rules {
			if strings.Contains(listed, rule) != want {
				t.Errorf("after %s: %q there: %v, want %v, in\n%s", after, rule, !want, want, listed)
			}
		}
	}
	expect("start", nil, true, own...)
	expect("network create", d.CreateNetwork(ctx, "blue", netip.MustParsePrefix("172.30.7.0/24"), netip.MustParsePrefix("fd00:b1::/64")), true, append(own, blue...)...)
	foreignRule := foreign.Step{Program: "iptables-" + string(v), Args: strings.Fields("-t nat -I POSTROUTING -m comment --comment earlier -j RETURN")}
	expect("another's rule", foreign.Run(ctx, foreign.In(ns), []foreign.Step{foreignRule}), true, own...)
	expect("restart", d.Restart(ctx), true, append(own, blue...)...)
	if listed := masquerades(t, ns, v); strings.Index(listed, own[0]) > strings.Index(listed, "earlier") {
		t.Errorf("after restart docker's rule isn't above another's:\n%s", listed)
	}
	expect("kill", d.Kill(), true, own...)
	expect("restart after kill", d.Restart(ctx), true, append(own, blue...)...)
	expect("network remove", d.RemoveNetwork(ctx, "blue"), false, blue...)
	if err := d.RemoveNetwork(ctx, "blue"); err == nil || !strings.Contains(err.Error(), "blue") {
		t.Errorf("a network that isn't there was removed: %v", err)
	}
}

// masquerades lists POSTROUTING's rules in both families, the program's name first.
func masquerades(t *testing.T, ns *netns.NS, v foreign.Variant) string {
	t.Helper()
	var out strings.Builder
	for _, program := range []string{"iptables", "ip6tables"} {
		text, err := ns.Run("", program+"-"+string(v)+"-save", "-t", "nat")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(text) {
			if rule, ok := strings.CutPrefix(line, "-A POSTROUTING"); ok {
				fmt.Fprintf(&out, "%s%s", program, rule)
			}
		}
	}
	return out.String()
}

// nothingLeft looks for processes in the namespace and files in TMPDIR.
func nothingLeft(t *testing.T, ns *netns.NS) {
	t.Helper()
	inside, err := ns.Run("", "readlink", "/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == strings.TrimSpace(inside) {
			command, _ := os.ReadFile(filepath.Join(filepath.Dir(link), "../cmdline"))
			t.Errorf("left in the namespace: %q", command)
		}
	}
	files, err := os.ReadDir(os.TempDir())
	if err != nil || len(files) != 0 {
		t.Errorf("left in %s: %v, %v", os.TempDir(), files, err)
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil || strings.Contains(string(mounts), "unmasq-docker") {
		t.Errorf("left among the mounts: %v\n%s", err, mounts)
	}
}

// TestStartFails says why a daemon did not start, and leaves nothing.
func TestStartFails(t *testing.T) {
	for _, c := range []struct {
		name string
		opts dockerd.Options
		want string
	}{
		{"docker refuses", dockerd.Options{Bridge: netip.MustParsePrefix("10.0.0.255/24")}, "10.0.0.255"},
		{"no such variant", dockerd.Options{Variant: "ebpf"}, "iptables-ebpf"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("TMPDIR", t.TempDir())
			ns := netnstest.Test(t, "docker")
			d, err := dockerd.Start(t.Context(), ns, c.opts)
			if err == nil {
				d.Stop()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error: %v, want one with %s", err, c.want)
			}
			nothingLeft(t, ns)
		})
	}
}

// TestStartGivenUp: a start that takes too long leaves nothing either.
func TestStartGivenUp(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ns := netnstest.Test(t, "docker")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dockerd.Start(ctx, ns, dockerd.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error: %v, want %v", err, context.Canceled)
	}
	nothingLeft(t, ns)
}
