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

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
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
    to: {cidrs: [203.0.113.0/24, "2001:db8:203::/64"]}
    action: Keep
  - name: masquerade
    from: {pods: {}}
    to: {cidrs: [198.51.100.0/24, "2001:db8:198::/64"]}
    action: Masquerade
    masquerade: {ports: 20000-29999}
  - name: snat
    from: {pods: {}}
    to: {cidrs: [100.64.7.0/24, "2001:db8:100::/64"]}
    action: SNAT
    snat: {addresses: [192.0.2.77, "2001:db8::77"]}
`

// addresses of the world in one family.
type addresses struct {
	bridge, uplink, gateway netip.Prefix
	snat                    netip.Addr
	cluster, local          netip.Prefix
	pods                    []netip.Addr
	// destinations of each action.
	destinations [actions]netip.Prefix
}

func addressesOf(f packet.Family) addresses {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	if f == packet.IPv4Family {
		return addresses{
			bridge: p("10.244.1.1/24"), uplink: p("192.0.2.1/24"), gateway: p("192.0.2.2/24"), snat: a("192.0.2.77"),
			cluster: p("10.244.0.0/16"), local: p("10.244.1.0/24"),
			pods:         []netip.Addr{a("10.244.1.2"), a("10.244.1.3"), a("10.244.1.4")},
			destinations: [actions]netip.Prefix{p("203.0.113.0/24"), p("198.51.100.0/24"), p("100.64.7.0/24")},
		}
	}
	return addresses{
		bridge: p("fd00:10:244:1::1/64"), uplink: p("2001:db8::1/64"), gateway: p("2001:db8::2/64"), snat: a("2001:db8::77"),
		cluster: p("fd00:10:244::/48"), local: p("fd00:10:244:1::/64"),
		pods:         []netip.Addr{a("fd00:10:244:1::2"), a("fd00:10:244:1::3"), a("fd00:10:244:1::4")},
		destinations: [actions]netip.Prefix{p("2001:db8:203::/64"), p("2001:db8:198::/64"), p("2001:db8:100::/64")},
	}
}

// world is a node between its pods and the outside: pods → bridge, node → outside.
type world struct {
	pods, node, outside *netns.NS
	bridge              string
	traffic             *traffic
}

const (
	podsLink, podsPort = "eth0", "veth-pods"
	uplink, outLink    = "eth0", "eth0"
)

// newWorld makes a node that forwards. Its bridge is still missing: makeBridge
// or docker makes it, then attach is due.
func newWorld(t *testing.T, bridge string) *world {
	t.Helper()
	w := &world{
		pods: netnstest.Test(t, "pods"), node: netnstest.Test(t, "node"), outside: netnstest.Test(t, "outside"),
		bridge: bridge,
	}
	must(t, netns.Veth(w.pods, podsLink, w.node, podsPort))
	must(t, netns.Veth(w.node, uplink, w.outside, outLink))
	for _, f := range packet.Families {
		a := addressesOf(f)
		must(t, w.node.Addr(uplink, a.uplink))
		must(t, w.node.Route(f.Everywhere(), a.gateway.Addr(), uplink))
		must(t, neighbour(w.node, uplink, a.gateway.Addr(), hardware(t, w.outside, outLink)))
	}
	must(t, w.node.Sysctl("net.ipv4.ip_forward", "1"))
	must(t, w.node.Sysctl("net.ipv6.conf.all.forwarding", "1"))
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *world) makeBridge(t *testing.T) {
	t.Helper()
	must(t, w.node.Bridge(w.bridge))
	for _, f := range packet.Families {
		must(t, w.node.Addr(w.bridge, addressesOf(f).bridge))
	}
}

// attach joins the pods to the bridge and gets traffic ready.
func (w *world) attach(t *testing.T) {
	t.Helper()
	must(t, w.node.Enslave(podsPort, w.bridge))
	w.traffic = newTraffic(t, w)
}

// foreign is the world as other components are told of it.
func (w *world) foreign() foreign.Node {
	of := func(f packet.Family) foreign.Addresses {
		a := addressesOf(f)
		return foreign.Addresses{ClusterPods: a.cluster, LocalPods: a.local, Pods: a.pods, Nodes: []netip.Addr{a.uplink.Addr()}}
	}
	return foreign.Node{Bridge: w.bridge, IPv4: of(packet.IPv4Family), IPv6: of(packet.IPv6Family)}
}

// neighbour spares the node from asking for an address's hardware address.
func neighbour(ns *netns.NS, link string, addr netip.Addr, mac net.HardwareAddr) error {
	return withNetlink(ns, unix.NETLINK_ROUTE, func(h *netlink.Handle) error {
		l, err := h.LinkByName(link)
		if err != nil {
			return err
		}
		return h.NeighSet(&netlink.Neigh{LinkIndex: l.Attrs().Index, State: netlink.NUD_PERMANENT, IP: addr.AsSlice(), HardwareAddr: mac})
	})
}

// forget deletes the node's connection tracking entries.
func (w *world) forget() error {
	return withNetlink(w.node, unix.NETLINK_NETFILTER, func(h *netlink.Handle) error {
		return h.ConntrackTableFlush(netlink.ConntrackTable)
	})
}

func withNetlink(ns *netns.NS, family int, fn func(*netlink.Handle) error) error {
	var h *netlink.Handle
	if err := ns.Do(func() (err error) { h, err = netlink.NewHandle(family); return err }); err != nil {
		return err
	}
	defer h.Close()
	return fn(h)
}

func hardware(t *testing.T, ns *netns.NS, link string) net.HardwareAddr {
	t.Helper()
	var i *net.Interface
	must(t, ns.Do(func() (err error) { i, err = net.InterfaceByName(link); return err }))
	return i.HardwareAddr
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
	cmd := w.node.Command(context.Background(), binary, "agent", "--config", config)
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
	err = w.node.Do(func() error {
		c, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// execute runs a component's steps on the node in both families.
func (w *world) execute(ctx context.Context, steps foreign.Steps, v foreign.Variant) error {
	var errs error
	for _, f := range packet.Families {
		errs = errors.Join(errs, foreign.Run(ctx, foreign.In(w.node), steps(w.foreign(), v, f)))
	}
	return errs
}
