package probe_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/probe"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// wire is two namespaces with addresses of both families, the server with two of each.
type wire struct{ client, server *netns.NS }

func newWire(t *testing.T) wire {
	w := wire{netnstest.Test(t, "client"), netnstest.Test(t, "server")}
	if err := netns.Veth(w.client, "eth0", w.server, "eth0"); err != nil {
		t.Fatal(err)
	}
	for ns, addresses := range map[*netns.NS][]string{
		w.client: {"192.0.2.1/24", "2001:db8::1/64"},
		w.server: {"192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64", "2001:db8::3/64"},
	} {
		for _, a := range addresses {
			if err := ns.Addr("eth0", netip.MustParsePrefix(a)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w
}

// peer at a free port, which ends with the test.
func (w wire) peer(t *testing.T, o probe.PeerOptions) *probe.Peer {
	t.Helper()
	var p *probe.Peer
	err := w.server.Do(func() (err error) { p, err = probe.Open(t.Context(), o); return err })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func (w wire) call(t *testing.T, protocol string, to netip.AddrPort, patience time.Duration) (o probe.Outcome) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	err := w.client.Do(func() (err error) {
		o, err = probe.NewCaller().Call(ctx, protocol, netip.Addr{}, to)
		return err
	})
	if err != nil {
		t.Fatalf("%s to %s: %v", protocol, to, err)
	}
	return o
}

// The peer tells the address that it sees and its name, at each of its addresses, by
// one port that was free.
func TestAnswers(t *testing.T) {
	w := newWire(t)
	p := w.peer(t, probe.PeerOptions{Answers: true, Records: true, Name: "server"})
	for _, to := range []string{"192.0.2.2", "192.0.2.3", "2001:db8::2", "2001:db8::3"} {
		for _, protocol := range []string{probe.TCP, probe.UDP, probe.ICMP} {
			address := netip.MustParseAddr(to)
			self := map[bool]string{true: "192.0.2.1", false: "2001:db8::1"}[address.Is4()]
			o := w.call(t, protocol, netip.AddrPortFrom(address, p.Port()), 5*time.Second)
			if !o.Replied {
				t.Errorf("%s to %s: no answer: %v", protocol, to, o.Err)
			}
			if protocol != probe.ICMP && (o.Told != o.Source || o.Told.Addr() != netip.MustParseAddr(self) || o.Name != "server") {
				t.Errorf("%s to %s: sent as %v, told %v by %q", protocol, to, o.Source, o.Told, o.Name)
			}
		}
	}
}

// Two peers in one namespace don't get into each other's way, whatever ports are taken.
func TestFreePorts(t *testing.T) {
	w := newWire(t)
	ports := map[uint16]bool{}
	for range 8 {
		ports[w.peer(t, probe.PeerOptions{Answers: true}).Port()] = true
	}
	if len(ports) != 8 || ports[0] {
		t.Errorf("ports %v, want 8", ports)
	}
	p := w.peer(t, probe.PeerOptions{Answers: true})
	err := w.server.Do(func() error {
		_, err := probe.Open(t.Context(), probe.PeerOptions{Answers: true, Port: p.Port()})
		return err
	})
	if !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("a port that is taken: %v", err)
	}
}

// What isn't an answer is told apart.
func TestNoAnswer(t *testing.T) {
	w := newWire(t)
	rules := `table inet t {
		chain in { type filter hook input priority 0
			meta l4proto { tcp, udp } th dport 81 drop
			meta l4proto { tcp, udp } th dport 82 reject with icmpx admin-prohibited
		}
	}`
	denied := `table inet t { chain out { type filter hook output priority 0
		udp dport 83 drop
	}
	}`
	for ns, text := range map[*netns.NS]string{w.server: rules, w.client: denied} {
		if _, err := ns.Run(text, "nft", "-f", "-"); err != nil {
			t.Fatal(err)
		}
	}
	// It says each time that something is refused.
	if err := errors.Join(w.server.Sysctl("net.ipv4.icmp_ratelimit", "0"), w.server.Sysctl("net.ipv6.icmp.ratelimit", "0")); err != nil {
		t.Fatal(err)
	}
	mute := w.mute(t)
	cases := []struct {
		name, protocol string
		port           uint16
		want           probe.Report
	}{
		{"nobody listens", probe.TCP, 80, probe.Report{No: probe.Refused}},
		{"nobody listens", probe.UDP, 80, probe.Report{No: probe.Refused}},
		{"dropped", probe.TCP, 81, probe.Report{}},
		{"dropped", probe.UDP, 81, probe.Report{}},
		{"prohibited", probe.TCP, 82, probe.Report{No: probe.Unreachable}},
		{"prohibited", probe.UDP, 82, probe.Report{No: probe.Unreachable}},
		{"dropped at home", probe.UDP, 83, probe.Report{No: probe.Denied}},
		{"somebody else answers", probe.TCP, mute, probe.Report{Answered: true}},
	}
	for _, to := range []string{"192.0.2.2", "2001:db8::2"} {
		// A reject that comes before connect(2) has let go of its socket is heard at the
		// second attempt, a second later.
		var orders []probe.Order
		for _, c := range cases {
			orders = append(orders, probe.Order{Protocol: c.protocol, Target: netip.AddrPortFrom(netip.MustParseAddr(to), c.port), Patience: 2500})
		}
		reports, err := probe.NewCaller().Run(t.Context(), w.client.Do, orders)
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range reports {
			got.Source, got.Key = netip.AddrPort{}, ""
			if got != cases[i].want {
				t.Errorf("%s, %s to %s: got %+v, want %+v", cases[i].name, cases[i].protocol, to, got, cases[i].want)
			}
		}
	}
}

// mute takes connections and says nothing.
func (w wire) mute(t *testing.T) uint16 {
	t.Helper()
	var l net.Listener
	if err := w.server.Do(func() (err error) { l, err = net.Listen("tcp", ":0"); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// A datagram that isn't a request gets no answer: two peers can't talk for ever.
func TestAnswersNoAnswer(t *testing.T) {
	w := newWire(t)
	p := w.peer(t, probe.PeerOptions{Answers: true})
	err := w.client.Do(func() error {
		conn, err := net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr("192.0.2.2"), p.Port()).String())
		if err != nil {
			return err
		}
		defer conn.Close()
		for _, text := range []string{"you are 192.0.2.1:7\n", "unmasq hello"} {
			if _, err := conn.Write([]byte(text)); err != nil {
				return err
			}
		}
		answer := make([]byte, 100)
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(answer); err != nil { // to the second
			return err
		}
		conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := conn.Read(answer); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a second answer: %q, %v", answer, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What goes between processes: orders in, reports out.
func TestObey(t *testing.T) {
	p, err := probe.Open(t.Context(), probe.PeerOptions{Answers: true, Name: "server"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	target := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), p.Port())
	orders, err := json.Marshal([]probe.Order{
		{Protocol: probe.TCP, Target: target, Patience: 5000},
		{Protocol: probe.UDP, Target: target, Patience: 5000, Source: netip.MustParseAddr("127.0.0.7")},
		{Protocol: "sctp", Target: target, Patience: 5000},
	})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := probe.Obey(t.Context(), strings.NewReader(string(orders)), &out); err != nil {
		t.Fatal(err)
	}
	var reports []probe.Report
	if err := json.Unmarshal([]byte(out.String()), &reports); err != nil || len(reports) != 3 {
		t.Fatalf("%v: %s", err, out.String())
	}
	for i, from := range []string{"127.0.0.1", "127.0.0.7"} {
		r := reports[i]
		if r.Seen != r.Source || r.By != "server" || !r.Answered || r.Seen.Addr().String() != from {
			t.Errorf("report %+v", r)
		}
	}
	if !strings.Contains(reports[2].Error, `protocol "sctp"`) {
		t.Errorf("report %+v", reports[2])
	}
}
