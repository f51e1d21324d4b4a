// Package doctor_test provokes each of doctor's findings on a node in network
// namespaces, by real programs; makes what looks alike, of which nothing must be
// said; and applies each mend as it is printed.
package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/cli"
	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/others/otherstest"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// TestMain is unmasq itself where the mends call it by that name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "unmasq" {
		os.Exit(cli.Main("test", os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	netnstest.Main(m)
}

// lab is a node with two pods on a bridge, and the world beyond it.
//
//	pod1, pod2 ── cni0 [ node ] eth0 ── out
//	                            eth1 ──
//
// Before anything is done to it it is a node that nothing is wrong with.
type lab struct {
	t                     *testing.T
	node, pod1, pod2, out *netns.NS
	path                  string
	detach                func()
	// found so far.
	found []doctor.Finding
	// taken changes what was read where the kernel lets no namespace set it. Connections
	// aren't read then.
	taken func(files map[string][]byte)
}

const clean = `
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1
iptables -t nat -A POSTROUTING -s 10.244.1.0/24 ! -o cni0 -j MASQUERADE
ip6tables -t nat -A POSTROUTING -s fd00:10:244:1::/64 ! -o cni0 -j MASQUERADE
`

func newLab(t *testing.T, script string) *lab {
	t.Helper()
	l := &lab{t: t, node: netnstest.Test(t, "node"), pod1: netnstest.Test(t, "pod1"), pod2: netnstest.Test(t, "pod2"), out: netnstest.Test(t, "out")}
	self, err := os.Executable()
	l.path = t.TempDir()
	must(t, err, os.Symlink(self, filepath.Join(l.path, "unmasq")), l.node.Bridge("cni0"))
	for i, pod := range []*netns.NS{l.pod1, l.pod2} {
		port := fmt.Sprintf("veth%d", i+1)
		must(t, netns.Veth(pod, "eth0", l.node, port), l.node.Enslave(port, "cni0"),
			pod.Addr("eth0", netip.MustParsePrefix(fmt.Sprintf("10.244.1.%d/24", i+2))),
			pod.Addr("eth0", netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:1::%d/64", i+2))))
		l.shell(pod, "ip route add default via 10.244.1.1; ip -6 route add default via fd00:10:244:1::1")
	}
	must(t, netns.Veth(l.node, "eth0", l.out, "out0"), netns.Veth(l.node, "eth1", l.out, "out1"))
	l.shell(l.node, `
ip addr add 10.244.1.1/24 dev cni0; ip addr add fd00:10:244:1::1/64 dev cni0 nodad
ip addr add 192.0.2.1/24 dev eth0; ip addr add 2001:db8::1/64 dev eth0 nodad
ip addr add 198.51.100.1/24 dev eth1
ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8::2`+clean)
	l.shell(l.out, `
ip addr add 192.0.2.2/24 dev out0; ip addr add 2001:db8::2/64 dev out0 nodad
ip link set out1 address 02:00:00:00:01:02; ip addr add 198.51.100.2/24 dev out1
ip addr add 203.0.113.9/32 dev lo; ip addr add 2001:db8:113::9/128 dev lo
ip addr add 10.244.2.2/32 dev lo; ip route add 10.244.1.0/24 via 192.0.2.1`)
	l.shell(l.node, script)
	return l
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// shell runs a script that must succeed, with unmasq in its path.
func (l *lab) shell(space *netns.NS, script string) {
	l.t.Helper()
	if out, err := space.Run(script, "env", "PATH="+l.path+":"+os.Getenv("PATH"), "sh", "-e"); err != nil {
		l.t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// examine the node as it is now.
func (l *lab) examine() doctor.Report {
	l.t.Helper()
	files, err := capture.Take(context.Background(), capture.Options{Namespace: l.node, Connections: l.taken == nil})
	must(l.t, err)
	if l.taken != nil {
		l.taken(files)
	}
	host, err := snapshot.FromFiles(files)
	must(l.t, err)
	r := doctor.Examine(doctor.Node{Host: host})
	l.found = append(l.found, r.Findings...)
	return r
}

func codes(r *doctor.Report) []string {
	var all []string
	for _, f := range r.Findings {
		all = append(all, f.Code)
	}
	return all
}

func text(r *doctor.Report) string {
	var b strings.Builder
	_ = r.Text(&b)
	return b.String()
}

// call is a connection that a finding says is lost, and that its mend brings back.
type call struct {
	from, to func(*lab) *netns.NS
	address  string
	// lost calls get no answer while the finding is there; the others are seen from
	// the address before, and after.
	before, after string
}

func pod1(l *lab) *netns.NS { return l.pod1 }
func pod2(l *lab) *netns.NS { return l.pod2 }
func node(l *lab) *netns.NS { return l.node }
func out(l *lab) *netns.NS  { return l.out }

// lost is who a peer sees that gets no call.
const lost = "nobody"

// seen is who the peer sees; lost where no connection comes about.
func (l *lab) seen(c call, expected string) string {
	l.t.Helper()
	_, port, err := net.SplitHostPort(c.address)
	must(l.t, err)
	if own, _, _ := strings.Cut(port, "@"); own != port {
		port = own
	}
	to := c.address
	if at, listen, ok := strings.Cut(c.address, "@"); ok {
		to, port = at, listen
	}
	var server net.Listener
	must(l.t, c.to(l).Do(func() (err error) {
		// On a busy machine the port of a listener is taken a moment longer than the listener is there.
		const most = 1000
		for range most {
			if server, err = (&net.ListenConfig{}).Listen(l.t.Context(), "tcp", ":"+port); !errors.Is(err, syscall.EADDRINUSE) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		return err
	}))
	defer server.Close()
	go func() {
		for {
			peer, err := server.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(peer.RemoteAddr().String())
			_, _ = io.WriteString(peer, host)
			peer.Close()
		}
	}()
	// Silence is waited for shortly, an answer as long as a busy machine takes.
	patience := 10 * time.Second
	if expected == lost {
		patience = 700 * time.Millisecond
	}
	answer := []byte(nil)
	_ = c.from(l).Do(func() error {
		conn, err := (&net.Dialer{Timeout: patience}).Dial("tcp", to)
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		answer, err = io.ReadAll(conn)
		return err
	})
	if len(answer) == 0 {
		return lost
	}
	return string(answer)
}

func (l *lab) check(c *call, want, when string) {
	l.t.Helper()
	if c == nil {
		return
	}
	if got := l.seen(*c, want); got != want {
		l.t.Errorf("%s, %s sees %s; expected %s", when, c.address, got, want)
	}
}

// lesson is a finding with what provokes it and what looks alike.
type lesson struct {
	code string
	// name tells lessons of one code apart.
	name string
	// provoke, alike: scripts for the node. Each of alike must stay silent.
	provoke string
	alike   map[string]string
	// with: codes that are rightly found besides.
	with []string
	call *call
	// before does what a script can't.
	before func(*lab)
	// alikeToo: before is done to what looks alike as well.
	alikeToo bool
	// mended is what a component does when its setting is changed as the mend says,
	// where no command on the node can do that.
	mended func(*lab)
	// root: it can't be provoked in a user namespace.
	root bool
}

func all() []lesson {
	return slices.Concat(lessons, kernelLessons, agentLessons, leftLessons, misreadLessons, offloadLessons, ruleLessons, otherLessons, serviceLessons, tunnelLessons, wayLessons, policyLessons, overlapLessons, pathLessons)
}

func TestFindings(t *testing.T) {
	for _, c := range all() {
		t.Run(c.code+"/"+c.name, func(t *testing.T) { c.provoked(t) })
		for name, script := range c.alike {
			t.Run(c.code+"/"+c.name+"/alike "+name, func(t *testing.T) {
				t.Parallel()
				l := newLab(t, script)
				if c.alikeToo {
					c.before(l)
				}
				r := l.examine()
				if slices.Contains(codes(&r), c.code) {
					t.Errorf("found where it isn't:\n%s", text(&r))
				}
			})
		}
	}
}

func (c *lesson) provoked(t *testing.T) {
	t.Parallel()
	l := newLab(t, c.provoke)
	if c.root && !otherstest.Root(t) {
		// In a user namespace no program can be loaded; without one nothing is found.
		if r := l.examine(); slices.Contains(codes(&r), c.code) {
			t.Errorf("found without a program:\n%s", text(&r))
		}
		return
	}
	if c.before != nil {
		c.before(l)
	}
	r := l.examine()
	i := slices.IndexFunc(r.Findings, func(f doctor.Finding) bool { return f.Code == c.code })
	if i < 0 {
		t.Fatalf("not found:\n%s", text(&r))
	}
	f := r.Findings[i]
	if len(f.Evidence) == 0 || f.Consequence == "" || len(f.Mend) == 0 || f.Summary == "" {
		t.Errorf("not all is said: %+v", f)
	}
	c.alone(t, &r, append(c.with, c.code), "found besides")
	if c.call != nil {
		l.check(c.call, c.call.before, "before the mend")
	}
	// Several findings of one code have a mend each.
	for _, f := range r.Findings {
		if f.Code == c.code {
			l.shell(l.node, strings.Join(f.Mend, "\n"))
		}
	}
	if c.mended != nil {
		c.mended(l)
	}
	r = l.examine()
	c.alone(t, &r, c.with, "after the mend\n"+strings.Join(f.Mend, "\n")+"\nthere is still")
	if c.call != nil {
		l.check(c.call, c.call.after, "after the mend")
	}
}

// alone: nothing is found but these codes.
func (c *lesson) alone(t *testing.T, r *doctor.Report, allowed []string, when string) {
	t.Helper()
	others := slices.DeleteFunc(codes(r), func(code string) bool { return slices.Contains(allowed, code) })
	if len(others) > 0 {
		t.Errorf("%s: %v\n%s", when, others, text(r))
	}
}

// TestCleanNode: of a node that nothing is wrong with nothing is said.
func TestCleanNode(t *testing.T) {
	l := newLab(t, "")
	if r := l.examine(); len(r.Findings) > 0 || len(r.NotLookedAt) > 0 {
		t.Errorf("%s", text(&r))
	}
	l.check(&call{from: pod1, to: out, address: "203.0.113.9:80"}, "192.0.2.1", "on a clean node")
}

// TestEveryCodeHasALesson, and each lesson shows what looks alike.
func TestEveryCodeHasALesson(t *testing.T) {
	for _, code := range doctor.Codes() {
		i := slices.IndexFunc(all(), func(c lesson) bool { return c.code == code && len(c.alike) > 0 })
		j := slices.IndexFunc(tableLessons, func(c tableLesson) bool { return c.code == code && len(c.alike) > 0 })
		if i < 0 && j < 0 && code != "single-entry" { // its lesson has two nodes: TestSingleEntry
			t.Errorf("%s: no lesson provokes it and shows what looks alike", code)
		}
	}
}
