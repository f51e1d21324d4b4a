package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// ip runs the ip program once for each line.
func ip(t *testing.T, n *netns.NS, batch string) {
	t.Helper()
	if _, err := n.Run(batch, "ip", "-batch", "-"); err != nil {
		t.Fatal(err)
	}
}

var sortedStrings = cmpopts.SortSlices(strings.Compare)

func read(t *testing.T, n *netns.NS) Host {
	t.Helper()
	var h Host
	if err := n.Do(func() (err error) { h, err = Read(); return err }); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestReadHost(t *testing.T) {
	node, pod, peer := netnstest.Test(t, "node"), netnstest.Test(t, "pod"), netnstest.Test(t, "peer")
	err := errors.Join(
		node.Bridge("docker0"), node.Addr("docker0", netip.MustParsePrefix("172.17.0.1/16")),
		netns.Veth(node, "veth0", pod, "eth0"), node.Enslave("veth0", "docker0"),
		node.Bridge("br-uplink"), node.Addr("br-uplink", netip.MustParsePrefix("192.0.2.1/24")),
		netns.Veth(node, "up0", peer, "eth0"), node.Enslave("up0", "br-uplink"),
		node.Route(netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("192.0.2.254"), ""),
	)
	if err != nil {
		t.Fatal(err)
	}
	ip(t, node, `
link add flannel.1 type vxlan id 1 dev br-uplink dstport 8473 nolearning
addr add 10.1.0.0/32 dev flannel.1
link set flannel.1 up
link add down0 type veth peer name down1
addr add 198.51.100.1/24 dev down0
addr add 10.9.0.1 peer 10.9.0.2/32 dev up0
addr add fd00:9::1/64 dev docker0 nodad
`)
	h := read(t, node)
	if diff := cmp.Diff([]string{
		"172.17.0.1 interface docker0", "fd00:9::1 interface docker0", "192.0.2.1 interface br-uplink",
		"10.9.0.1 interface up0", "10.1.0.0 interface flannel.1",
	}, lines(h.NodeAddresses()), sortedStrings); diff != "" {
		t.Errorf("node addresses -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"172.17.0.0/16 bridge docker0 (docker)", "fd00:9::/64 bridge docker0 (docker)"}, lines(h.PodSubnets())); diff != "" {
		t.Errorf("pod subnets -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{
		"172.17.255.255 interface docker0", "192.0.2.255 interface br-uplink",
	}, lines(h.Broadcasts()), sortedStrings); diff != "" {
		t.Errorf("broadcasts -want +got:\n%s", diff)
	}
	if ports := h.TunnelPorts(); len(ports) != 1 || ports[0].Value != 8473 || ports[0].Origin != "vxlan link flannel.1" {
		t.Errorf("tunnel ports %v, want 8473 of flannel.1", ports)
	}
	if diff := cmp.Diff(h, read(t, node), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("read twice -first +second:\n%s", diff)
	}
}

// TestVirtualMachinePort needs to open /dev/net/tun, which is for everyone where udev set it up.
func TestVirtualMachinePort(t *testing.T) {
	n := netnstest.Test(t, "vm")
	if err := errors.Join(n.Bridge("br-vm"), n.Addr("br-vm", netip.MustParsePrefix("192.168.122.1/24"))); err != nil {
		t.Fatal(err)
	}
	want := []string{"192.168.122.0/24 bridge br-vm"}
	if diff := cmp.Diff(want, lines(read(t, n).PodSubnets())); diff != "" {
		t.Errorf("without ports -want +got:\n%s", diff)
	}
	if _, err := n.Run("", "ip", "tuntap", "add", "tap0", "mode", "tap"); err != nil {
		t.Fatalf("this test needs a /dev/net/tun that it may open: %v", err)
	}
	ip(t, n, "link set tap0 master br-vm up")
	if got := lines(read(t, n).PodSubnets()); got != nil {
		t.Errorf("with a virtual machine's port: %v, want none", got)
	}
}

// TestBroadcastsAreTheKernels compares with the kernel's own local table.
func TestBroadcastsAreTheKernels(t *testing.T) {
	n := netnstest.Test(t, "brd")
	if err := n.Bridge("br0"); err != nil {
		t.Fatal(err)
	}
	ip(t, n, `
addr add 192.0.2.1/24 dev br0
addr add 192.0.2.2/24 dev br0
addr add 198.51.100.1/30 dev br0
addr add 198.51.100.5/31 dev br0
addr add 198.51.100.9/32 dev br0
addr add 203.0.113.1/25 broadcast 203.0.113.77 dev br0
addr add 10.0.0.1 peer 10.0.1.1/24 dev br0
`)
	for _, f := range read(t, n).Broadcasts() {
		out, err := n.Run("", "ip", "route", "show", "table", "local", "type", "broadcast", "exact", f.Value.String())
		if err != nil || out == "" {
			t.Errorf("%s is no broadcast address to the kernel: %q, %v", f.Value, out, err)
		}
	}
	want := []string{"192.0.2.255", "198.51.100.3", "203.0.113.77", "203.0.113.127", "10.0.1.255"}
	var got []string
	for _, f := range read(t, n).Broadcasts() {
		got = append(got, f.Value.String())
	}
	if diff := cmp.Diff(want, got, sortedStrings); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestWatch(t *testing.T) {
	n := netnstest.Test(t, "watch")
	if err := n.Bridge("br0"); err != nil {
		t.Fatal(err)
	}
	var sub *Subscription
	if err := n.Do(func() (err error) { sub, err = Subscribe(); return err }); err != nil {
		t.Fatal(err)
	}
	changed, ended := make(chan struct{}, 1000), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(ended)
		sub.Run(ctx, func() { changed <- struct{}{} })
	}()
	defer func() { cancel(); <-ended }()
	for _, step := range []string{
		"addr add 192.0.2.1/24 dev br0", "addr add fd00::1/64 dev br0 nodad", "route add default via 192.0.2.2",
		"route del default", "link add br1 type bridge", "link set br0 down",
	} {
		t.Run(step, func(t *testing.T) {
			ip(t, n, step)
			<-changed // the test's time limit is the bound
		})
	}
}

// fakeEvents is the kernel's end of a subscription.
type fakeEvents struct {
	results chan error
	closed  chan struct{}
	once    sync.Once
}

func newFake() *fakeEvents {
	return &fakeEvents{results: make(chan error), closed: make(chan struct{})}
}

func (f *fakeEvents) next() error {
	select {
	case err := <-f.results:
		return err
	case <-f.closed:
		return net.ErrClosed
	}
}

func (f *fakeEvents) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

func TestWatchSurvivesLoss(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	first, second := newFake(), newFake()
	attempts := 0
	again := func() (events, error) {
		if attempts++; attempts < 3 {
			return nil, unix.ENFILE
		}
		return second, nil
	}
	changed, ended := make(chan struct{}), make(chan struct{})
	go func() {
		(&Subscription{first, again}).Run(ctx, func() { changed <- struct{}{} })
		close(ended)
	}()
	first.results <- unix.ENOBUFS // lost messages are a change, on the same socket
	<-changed
	first.results <- nil
	<-changed
	first.results <- unix.EBADF // a lost socket is opened again, and that is a change
	<-changed
	second.results <- nil
	<-changed
	if attempts != 3 {
		t.Errorf("subscribed anew %d times, want 3: two refused", attempts)
	}
	cancel()
	<-ended
}

func TestManyChangesAreFewCalls(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	e := newFake()
	changed := make(chan struct{}, 10_000)
	go (&Subscription{first: e}).Run(ctx, func() { changed <- struct{}{} })
	const events = 1000
	for range events {
		e.results <- nil
	}
	<-changed
	if len(changed) > events/10 {
		t.Errorf("%d calls for %d events in a row", len(changed), events)
	}
}
