package netns_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

func interfaces(t *testing.T) []string {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range all {
		names = append(names, i.Name)
	}
	return names
}

func TestDoRunsInsideAndComesBack(t *testing.T) {
	before := interfaces(t)
	n := netnstest.Test(t, "do")
	if err := n.Bridge("br-inside"); err != nil {
		t.Fatal(err)
	}
	var inside []string
	if err := n.Do(func() error { inside = interfaces(t); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(inside, "br-inside") {
		t.Errorf("inside: %v, want br-inside among them", inside)
	}
	if after := interfaces(t); !slices.Equal(before, after) {
		t.Errorf("outside: %v before, %v after", before, after)
	}
	want := errors.New("mine")
	if err := n.Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("error: %v, want %v", err, want)
	}
}

func TestDoFromManyGoroutines(t *testing.T) {
	a, b := netnstest.Test(t, "a"), netnstest.Test(t, "b")
	for n, link := range map[*netns.NS]string{a: "br-a", b: "br-b"} {
		if err := n.Bridge(link); err != nil {
			t.Fatal(err)
		}
	}
	check := func(n *netns.NS, want string) error {
		return n.Do(func() error {
			runtime.Gosched()
			_, err := net.InterfaceByName(want)
			return err
		})
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if err := errors.Join(check(a, "br-a"), check(b, "br-b")); err != nil {
				t.Error(err)
			}
		})
	}
	nested := a.Do(func() error {
		if err := check(b, "br-b"); err != nil {
			return err
		}
		_, err := net.InterfaceByName("br-a")
		return err
	})
	all.Wait()
	if nested != nil {
		t.Errorf("nested: %v", nested)
	}
}

func TestDoPassesPanicAndGoexit(t *testing.T) {
	n := netnstest.Test(t, "panic")
	func() {
		defer func() {
			if p, _ := recover().(string); !strings.HasPrefix(p, "boom\n") {
				t.Errorf("recovered %q, want boom with a stack", p)
			}
		}()
		_ = n.Do(func() error { panic("boom") })
	}()
	went := make(chan bool)
	go func() {
		defer close(went)
		_ = n.Do(func() error { runtime.Goexit(); return nil })
		went <- true
	}()
	if <-went {
		t.Error("Do returned after Goexit")
	}
}

func TestNamedAsIPNetnsDoes(t *testing.T) {
	n := netnstest.Test(t, "named")
	if err := n.Bridge("br-x"); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ip", "netns", "exec", n.Name(), "ip", "-o", "link").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "br-x") || !strings.Contains(string(out), "lo: <LOOPBACK,UP") {
		t.Errorf("ip netns exec %s ip -o link: %v\n%s\nwant br-x, and lo up", n.Name(), err, out)
	}
	names, err := netns.List(n.Name())
	if err != nil || !slices.Equal(names, []string{n.Name()}) {
		t.Errorf("List: %v, %v", names, err)
	}
	if _, err := netns.New(n.Name()); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second New of the name: %v, want %v", err, os.ErrExist)
	}
	again, err := netns.Open(n.Name())
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Release(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(n.Close(), n.Close()); err != nil {
		t.Errorf("closed twice: %v", err)
	}
	if _, err := os.Stat(n.Path()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Close %s is there: %v", n.Path(), err)
	}
	if _, err := netns.Open(n.Name()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Open after Close: %v, want %v", err, os.ErrNotExist)
	}
}

func TestBadNames(t *testing.T) {
	for _, name := range []string{"", ".", "..", "a/b", "../x"} {
		if _, err := netns.New(name); err == nil {
			t.Errorf("New(%q) made a namespace", name)
		}
		if err := netns.Remove(name); err == nil {
			t.Errorf("Remove(%q) accepted the name", name)
		}
	}
}

// A namespace can be opened by any file that stands for it; to close it leaves it.
func TestOpenFile(t *testing.T) {
	n := netnstest.Test(t, "named")
	if err := n.Bridge("br-here"); err != nil {
		t.Fatal(err)
	}
	other, err := netns.OpenFile(n.Path())
	if err != nil {
		t.Fatal(err)
	}
	if got := interfaces(t); slices.Contains(got, "br-here") {
		t.Fatalf("interfaces outside: %v", got)
	}
	err = other.Do(func() error {
		if got := interfaces(t); !slices.Contains(got, "br-here") {
			t.Errorf("interfaces inside: %v", got)
		}
		return nil
	})
	if err := errors.Join(err, other.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(n.Path()); err != nil {
		t.Errorf("closed, and gone: %v", err)
	}
	for _, wrong := range []string{"/proc/self/ns/mnt", "/etc/hostname", "/no/such/file"} {
		if _, err := netns.OpenFile(wrong); err == nil || !strings.Contains(err.Error(), wrong) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

func TestSysctlInside(t *testing.T) {
	const file = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
	outside, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	n := netnstest.Test(t, "sysctl")
	for _, key := range []string{"net.ipv4.ip_unprivileged_port_start", "net/ipv4/ip_unprivileged_port_start"} {
		if err := n.Sysctl(key, "777"); err != nil {
			t.Fatal(err)
		}
	}
	out, err := n.Run("", "cat", file)
	if err != nil || out != "777\n" {
		t.Errorf("inside: %q, %v", out, err)
	}
	if now, _ := os.ReadFile(file); string(now) != string(outside) {
		t.Errorf("outside: %q, was %q", now, outside)
	}
	if err := errors.Join(n.Bridge("br.1"), n.Sysctl("net/ipv4/conf/br.1/forwarding", "1"), n.Sysctl("net.ipv4.conf.br/1.forwarding", "1")); err != nil {
		t.Errorf("an interface with a dot: %v", err)
	}
	for _, key := range []string{"kernel.no_such_key", "net/../kernel/no_such_key", "/net/x", "net.ipv4.no_such_key", ""} {
		err := n.Sysctl(key, "1")
		reachedProc := errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission)
		if err == nil || reachedProc != (key == "net.ipv4.no_such_key") {
			t.Errorf("%q: %v; want it refused before /proc/sys is touched, unless it is under net", key, err)
		}
	}
}

func TestCommand(t *testing.T) {
	n := netnstest.Test(t, "command")
	if err := n.Bridge("br-cmd"); err != nil {
		t.Fatal(err)
	}
	c := n.Command(t.Context(), "cat", "/proc/net/dev")
	if out, err := c.Output(); err != nil || !strings.Contains(string(out), "br-cmd") {
		t.Errorf("Output: %q, %v, want br-cmd", out, err)
	}
	if out, err := n.Run("typed", "cat"); err != nil || out != "typed" {
		t.Errorf("Run: %q, %v", out, err)
	}
	_, err := n.Run("", "sh", "-c", "echo seen; echo wrong >&2; exit 3")
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 3 || !strings.Contains(err.Error(), "wrong\nseen") {
		t.Errorf("failed command: %v", err)
	}
	if _, err := n.Run("", "no-such-program"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("missing program: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	long := n.Command(ctx, "sleep", "1000")
	if err := long.Start(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := long.Wait(); err == nil {
		t.Error("a cancelled command ended well")
	}
}

// TestConnect sends one byte over a router in both families: addresses, routes
// and carrier are ready when the building blocks return.
func TestConnect(t *testing.T) {
	pod, node, peer := netnstest.Test(t, "pod"), netnstest.Test(t, "node"), netnstest.Test(t, "peer")
	p := netip.MustParsePrefix
	err := errors.Join(
		node.Bridge("docker0"), node.Addr("docker0", p("172.5.138.1/24")), node.Addr("docker0", p("fd00:138::1/64")),
		netns.Veth(node, "veth0", pod, "eth0"), node.Enslave("veth0", "docker0"),
		pod.Addr("eth0", p("172.5.138.2/24")), pod.Addr("eth0", p("fd00:138::2/64")),
		pod.Route(p("0.0.0.0/0"), netip.MustParseAddr("172.5.138.1"), ""), pod.Route(p("::/0"), netip.MustParseAddr("fd00:138::1"), "eth0"),
		netns.Veth(node, "eth0", peer, "eth0"),
		node.Addr("eth0", p("192.0.2.1/24")), node.Addr("eth0", p("2001:db8::1/64")),
		peer.Addr("eth0", p("192.0.2.2/24")), peer.Addr("eth0", p("2001:db8::2/64")),
		peer.Route(p("172.5.138.0/24"), netip.MustParseAddr("192.0.2.1"), ""), peer.Route(p("fd00:138::/64"), netip.MustParseAddr("2001:db8::1"), ""),
		peer.Route(p("198.51.100.0/24"), netip.Addr{}, "eth0"),
		node.Sysctl("net.ipv4.ip_forward", "1"), node.Sysctl("net.ipv6.conf.all.forwarding", "1"),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ listen, from string }{
		{"192.0.2.2:0", "172.5.138.2"}, {"[2001:db8::2]:0", "fd00:138::2"},
	} {
		if got := seenAs(t, pod, peer, c.listen); got != c.from {
			t.Errorf("%s saw %s, want %s", c.listen, got, c.from)
		}
	}
}

// seenAs connects from one namespace to an address in the other and returns the source that it saw.
func seenAs(t *testing.T, from, to *netns.NS, listen string) string {
	t.Helper()
	var l net.Listener
	err := to.Do(func() (err error) { l, err = net.Listen("tcp", listen); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			io.WriteString(c, c.RemoteAddr().String())
			c.Close()
		}
	}()
	var c net.Conn
	if err := from.Do(func() (err error) { c, err = net.Dial("tcp", l.Addr().String()); return err }); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	seen, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return netip.MustParseAddrPort(string(seen)).Addr().String()
}

func TestMainThreadIsNeverMoved(t *testing.T) {
	n := netnstest.Test(t, "main")
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		err := n.Do(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("ran on the main thread")
			}
			if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != home {
				return errors.Join(err, errors.New("the process moved to "+now))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
