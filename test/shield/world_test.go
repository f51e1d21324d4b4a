// Package shield_test holds unmasq against what other components do: whatever
// they write, whenever they write it, each connection leaves with the source
// that the policy says.
package shield_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/rig"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// policyText has one rule for each action. Masquerade's ports are none that pods
// use, so that another component's masquerade is told from unmasq's.
const policyText = `apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: shield}
spec:
  facts:
    podCIDRs: [10.244.0.0/16, "fd00:10:244::/48"]
  rules:
  - name: keep
    from: {pods: {}}
    to: {cidrs: [203.0.113.0/24, "2001:db8:113::/64"]}
    action: Keep
  - name: masquerade
    from: {pods: {}}
    to: {cidrs: [198.18.7.0/24, "2001:db8:198::/64"]}
    action: Masquerade
    masquerade: {ports: 20000-29999}
  - name: snat
    from: {pods: {}}
    to: {cidrs: [100.64.7.0/24, "2001:db8:100::/64"]}
    action: SNAT
    snat: {addresses: [192.0.2.77, "2001:db8::77"]}
`

// action of the policy's rules.
type action int

const (
	keep action = iota
	masquerade
	snat
	actions
)

func (a action) String() string { return [...]string{"Keep", "Masquerade", "SNAT"}[a] }

// addresses of one family.
type addresses struct {
	cluster, local netip.Prefix
	bridge         netip.Prefix // the bridge's address in local
	pods           []netip.Addr
	// destinations of each action. None is in a range that ip-masq-agent leaves alone.
	destinations [actions]netip.Prefix
	snat         netip.Addr
}

func addressesOf(f packet.Family) addresses {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	if f == packet.IPv4Family {
		return addresses{
			cluster: p("10.244.0.0/16"), local: p("10.244.1.0/24"), bridge: p("10.244.1.1/24"),
			pods:         []netip.Addr{a("10.244.1.2"), a("10.244.1.3"), a("10.244.1.4")},
			destinations: [actions]netip.Prefix{p("203.0.113.0/24"), p("198.18.7.0/24"), p("100.64.7.0/24")},
			snat:         a("192.0.2.77"),
		}
	}
	return addresses{
		cluster: p("fd00:10:244::/48"), local: p("fd00:10:244:1::/64"), bridge: p("fd00:10:244:1::1/64"),
		pods:         []netip.Addr{a("fd00:10:244:1::2"), a("fd00:10:244:1::3"), a("fd00:10:244:1::4")},
		destinations: [actions]netip.Prefix{p("2001:db8:113::/64"), p("2001:db8:198::/64"), p("2001:db8:100::/64")},
		snat:         a("2001:db8::77"),
	}
}

// world is a node between its pods and the outside.
type world struct {
	*rig.Rig
	of   [2]addresses // IPv4, IPv6
	next uint64       // flow
}

func newWorld(t *testing.T) *world {
	return &world{Rig: rig.New(t), of: [2]addresses{addressesOf(packet.IPv4Family), addressesOf(packet.IPv6Family)}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// foreign is the node as other components are told of it.
func (w *world) foreign() foreign.Node {
	of := func(a addresses, nodes ...netip.Addr) foreign.Addresses {
		return foreign.Addresses{ClusterPods: a.cluster, LocalPods: a.local, Pods: a.pods, Nodes: nodes}
	}
	return foreign.Node{
		Bridge: rig.Bridge,
		IPv4:   of(w.of[0], rig.Eth0Addr, rig.Eth1Addr),
		IPv6:   of(w.of[1], rig.Eth0Addr6, rig.Eth1Addr6),
	}
}

// execute runs a component's steps on the node in both families.
func (w *world) execute(ctx context.Context, steps foreign.Steps, v foreign.Variant) error {
	var errs error
	for _, f := range packet.Families {
		errs = errors.Join(errs, foreign.Run(ctx, foreign.In(w.Node), steps(w.foreign(), v, f)))
	}
	return errs
}

// build compiles the agent as it's shipped.
func build(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "unmasq")
	out, err := exec.Command("go", "build", "-o", binary, "../../cmd/unmasq").CombinedOutput()
	if err != nil {
		t.Fatalf("build unmasq: %v\n%s", err, out)
	}
	return binary
}

// startAgent starts unmasq on the node; its policy is in force on return. It
// ends with the test.
func (w *world) startAgent(t *testing.T, binary string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "policy.yaml")
	must(t, os.WriteFile(config, []byte(policyText), 0o600))
	var log bytes.Buffer
	cmd := w.Node.Command(context.Background(), binary, "agent", "--config", config)
	cmd.Stdout, cmd.Stderr = &log, &log
	must(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil || t.Failed() {
			t.Errorf("agent: %v, it said:\n%s", err, log.String())
		}
	})
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: w.dial}}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		answer, err := client.Get("http://127.0.0.1:9809/readyz")
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("agent not ready after 20 s: %v", err)
		}
	}
}

func (w *world) dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = w.Node.Do(func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}
