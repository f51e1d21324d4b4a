package masqagent_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/agent/agenttest"
	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
)

// handover is a node with a pod, whose connections go to a listed network and to
// others, where ip-masq-agent has been.
//
//	pod ── cni0 [ node ] eth0 ── out (peers)
type handover struct {
	node, pod, out *netns.NS
	port           string
}

// listed and masqueraded are peers, with whom each sees.
var handoverPeers = []struct{ peer, sees string }{
	{"10.9.0.9", "10.244.1.2"}, {"203.0.113.9", "192.0.2.1"},
	{"fd00:9::9", "fd00:10:244:1::2"}, {"2001:db8:113::9", "2001:db8::1"},
}

func newHandover(t *testing.T) *handover {
	t.Helper()
	h := &handover{node: netnstest.Test(t, "node"), pod: netnstest.Test(t, "pod"), out: netnstest.Test(t, "out")}
	for _, err := range []error{
		h.node.Bridge("cni0"), netns.Veth(h.pod, "eth0", h.node, "veth1"), h.node.Enslave("veth1", "cni0"),
		netns.Veth(h.node, "eth0", h.out, "eth0"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for ns, script := range map[*netns.NS]string{
		h.node: `sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip addr add 10.244.1.1/24 dev cni0; ip addr add fd00:10:244:1::1/64 dev cni0 nodad
ip addr add 192.0.2.1/24 dev eth0; ip addr add 2001:db8::1/64 dev eth0 nodad
ip route add default via 192.0.2.2; ip -6 route add default via 2001:db8::2`,
		h.pod: `ip addr add 10.244.1.2/24 dev eth0; ip addr add fd00:10:244:1::2/64 dev eth0 nodad
ip route add default via 10.244.1.1; ip -6 route add default via fd00:10:244:1::1`,
		h.out: `ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad
ip addr add 10.9.0.9/32 dev lo; ip addr add 203.0.113.9/32 dev lo; ip addr add fd00:9::9/128 dev lo; ip addr add 2001:db8:113::9/128 dev lo
ip route add 10.244.1.0/24 via 192.0.2.1; ip -6 route add fd00:10:244:1::/64 via 2001:db8::1`,
	} {
		if out, err := ns.Run(script, "sh", "-e"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	h.listen(t)
	return h
}

// listen to TCP: each line is answered with the address that it came from.
func (h *handover) listen(t *testing.T) {
	t.Helper()
	var server net.Listener
	err := h.out.Do(func() (err error) {
		server, err = new(net.ListenConfig).Listen(t.Context(), "tcp", ":0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	_, h.port, _ = net.SplitHostPort(server.Addr().String())
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				seen := netip.MustParseAddrPort(conn.RemoteAddr().String())
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					if _, err := fmt.Fprintln(conn, seen.Addr().Unmap()); err != nil {
						return
					}
				}
			}()
		}
	}()
}

// talk on one connection, a line after another, until it is told to end; each answer
// must have the address that the peer shall see.
func (h *handover) talk(ctx context.Context, peer, sees string, lines int) error {
	var conn net.Conn
	err := h.pod.Do(func() (err error) {
		conn, err = (&net.Dialer{Timeout: 20 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort(peer, h.port))
		return err
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	for n := 0; ctx.Err() == nil && (lines == 0 || n < lines); n++ {
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := fmt.Fprintln(conn, "who am I"); err != nil {
			return fmt.Errorf("%s: %w", peer, err)
		}
		answer, err := answers.ReadString('\n')
		if err != nil {
			return fmt.Errorf("%s: %w", peer, err)
		}
		if got := strings.TrimSpace(answer); got != sees {
			return fmt.Errorf("%s sees %s, expected %s", peer, got, sees)
		}
		if lines == 0 {
			time.Sleep(5 * time.Millisecond)
		}
	}
	return nil
}

// traffic runs until stop: connections that stay, and new ones all the time.
func (h *handover) traffic() (stop func() (opened int64, failed error)) {
	const staying = 10
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	var opened atomic.Int64
	var mu sync.Mutex
	var failed error
	note := func(err error) {
		if err != nil {
			mu.Lock()
			failed = errors.Join(failed, err)
			mu.Unlock()
			cancel()
		}
	}
	for _, p := range handoverPeers {
		for range staying {
			all.Go(func() { note(h.talk(ctx, p.peer, p.sees, 0)) })
		}
		all.Go(func() {
			for ctx.Err() == nil {
				note(h.talk(ctx, p.peer, p.sees, 1))
				opened.Add(1)
				time.Sleep(time.Millisecond)
			}
		})
	}
	return func() (int64, error) {
		cancel()
		all.Wait()
		return opened.Load(), failed
	}
}

// TestHandOver: where ip-masq-agent's rules are in force and connections run, unmasq
// takes over, and hands back; no connection breaks, and none has a wrong source.
func TestHandOver(t *testing.T) {
	program := agenttest.Program(t)
	for _, v := range foreign.Variants {
		t.Run(string(v), func(t *testing.T) { handOver(t, program, v) })
	}
}

func handOver(t *testing.T, program string, v foreign.Variant) {
	h, dir := newHandover(t), t.TempDir()
	record := "--takeover-record=" + filepath.Join(dir, "record", "takeover.json")
	write(t, dir, "nonMasqueradeCIDRs: [10.0.0.0/8, \"fd00::/8\"]\n")
	node := foreign.Node{IPv4: foreign.Addresses{LocalPods: netip.MustParsePrefix("10.244.1.0/24")}, IPv6: foreign.Addresses{LocalPods: netip.MustParsePrefix("fd00:10:244:1::/64")}}
	node.IPv4.NonMasquerade, node.IPv6.NonMasquerade = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, []netip.Prefix{netip.MustParsePrefix("fd00::/8")}
	for _, f := range packet.Families {
		if err := foreign.Run(t.Context(), foreign.In(h.node), foreign.IPMasqAgent().Write(node, v, f)); err != nil {
			t.Fatal(err)
		}
	}
	theirs := func() string {
		var all string
		for _, program := range []string{"iptables-", "ip6tables-"} {
			out, err := h.node.Run("", program+string(v)+"-save", "-t", "nat")
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(out) {
				if strings.HasPrefix(line, "-A") {
					all += line
				}
			}
		}
		return all
	}
	before := theirs()
	stop := h.traffic()
	defer func() { _, _ = stop() }()

	a := start(t, h.node, program, dir, "--enable-ipv6", "--pod-cidrs=10.244.0.0/16,fd00:10:244::/48", "--takeover=remove", record)
	a.Await(t, "done with the rules that were there", func() bool {
		return strings.Contains(a.Log(), "rules of ip-masq-agent taken over")
	})
	if left := theirs(); left != "" {
		t.Errorf("left:\n%s", left)
	}
	pause(stop, t, h, "taken over")
	stop = h.traffic()

	// The way back: the agent ends, its table stays; then the rules stand again, and the table goes.
	a.Signal(t, syscall.SIGTERM)
	if err := a.Exited(t); err != nil {
		t.Error(err)
	}
	if out, said, status := agenttest.Run(t, h.node, "", program, "ip-masq-agent", "--handback", record); status != 0 {
		t.Fatalf("handback: %d %s%s", status, out, said)
	}
	if now := theirs(); now != before {
		t.Errorf("before:\n%s\nhanded back:\n%s", before, now)
	}
	if stands(t, h.node, "table inet unmasq") {
		t.Error("unmasq's table is still there")
	}
	pause(stop, t, h, "handed back")
	stop = func() (int64, error) { return 0, nil }
}

// pause lets traffic run a little longer, and looks at what became of it.
func pause(stop func() (int64, error), t *testing.T, h *handover, when string) {
	t.Helper()
	time.Sleep(300 * time.Millisecond)
	opened, err := stop()
	if err != nil || opened == 0 {
		t.Errorf("%s, after %d new connections: %v", when, opened, err)
		return
	}
	t.Logf("checked: %s: %d new connections and those that stayed, each as it should be", when, opened)
}
