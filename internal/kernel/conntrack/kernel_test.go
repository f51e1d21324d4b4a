package conntrack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	ct "github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
)

func TestMain(m *testing.M) { netnstest.Main(m) }

// tracked makes a namespace that tracks its connections over lo.
func tracked(t testing.TB) *netns.NS {
	t.Helper()
	ns := netnstest.Test(t, "conntrack")
	if _, err := ns.Run("table inet t { chain c { type filter hook output priority 0; ct state new counter; }; }", "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	return ns
}

// insert entries with these numbers, as another program would.
func insert(t testing.TB, ns *netns.NS, from, to int) {
	t.Helper()
	err := ns.Do(func() error {
		s, err := dial()
		if err != nil {
			return err
		}
		defer s.Close()
		for i := from; i < to; {
			var batch []byte
			for ; i < to && len(batch) < 60<<10; i++ {
				e := numbered(i)
				body := attr(attr(encode(&e), attrStatus, u32(statusSeenReply|statusAssured|1<<3)), 7, u32(3600)) // IPS_CONFIRMED, CTA_TIMEOUT
				b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
				b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_CTNETLINK<<8|msgNew)
				b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
				b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
				batch = append(batch, append(b, body...)...)
			}
			var sent error
			err := s.raw.Write(func(fd uintptr) bool {
				sent = unix.Sendto(int(fd), batch, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
				return true
			})
			if err = errors.Join(err, sent, s.request(unix.NLMSG_NOOP, unix.NLM_F_ACK, 0, nil)); err != nil {
				return err
			}
			if err := s.answered(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// answered reads errors, up to that of the last request, which is a wrong one.
func (s *socket) answered() error {
	for {
		datagram, err := s.receive()
		if err != nil {
			return err
		}
		for m := range messages(datagram) {
			if err := m.status(); m.seq != s.seq {
				return err
			}
			return nil
		}
	}
}

func numbered(i int) ct.Entry {
	source := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	t := ct.Tuple{Source: source, Destination: netip.MustParseAddr("192.0.2.1"), SourcePort: 40000, DestinationPort: 443}
	return ct.Entry{
		Protocol: packet.TCP, State: "ESTABLISHED", SeenReply: true, Assured: true, Original: t,
		Reply: ct.Tuple{Source: t.Destination, Destination: t.Source, SourcePort: t.DestinationPort, DestinationPort: t.SourcePort},
	}
}

func dumpAll(t testing.TB, ns *netns.NS, f packet.Family, each func(*ct.Entry) bool) (stats Stats) {
	t.Helper()
	err := ns.Do(func() error {
		r, err := Open()
		if err != nil {
			return err
		}
		defer r.Close()
		stats, err = r.Dump(t.Context(), f, each)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return stats
}

// Each of many entries is told once; a reader may stop, and ask again.
func TestDump(t *testing.T) {
	ns := tracked(t)
	const n = 5000
	insert(t, ns, 0, n)
	seen := map[netip.Addr]int{}
	stats := dumpAll(t, ns, 0, func(e *ct.Entry) bool {
		seen[e.Original.Source]++
		if e.State != "ESTABLISHED" || !e.Assured || e.ID == 0 || e.Protocol != packet.TCP {
			t.Errorf("%+v", *e)
		}
		return true
	})
	if stats.Entries != n || len(seen) != n || stats.Strange != 0 {
		t.Errorf("%+v, %d different ones; want %d", stats, len(seen), n)
	}
	if stats := dumpAll(t, ns, packet.IPv6Family, func(*ct.Entry) bool { return true }); stats.Entries != 0 {
		t.Errorf("IPv6: %+v", stats)
	}
	if stats := dumpAll(t, ns, packet.IPv4Family, func(*ct.Entry) bool { return true }); stats.Entries != n {
		t.Errorf("IPv4: %+v", stats)
	}
	err := ns.Do(func() error {
		r, err := Open()
		if err != nil {
			return err
		}
		defer r.Close()
		for range 3 {
			count := 0
			stats, err := r.Dump(t.Context(), 0, func(*ct.Entry) bool { count++; return count < 10 })
			if err != nil || stats.Entries != 10 {
				return fmt.Errorf("stopped after %d: %+v, %w", count, stats, err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		_, err = r.Dump(ctx, 0, func(*ct.Entry) bool { cancel(); return true })
		if !errors.Is(err, context.Canceled) {
			return fmt.Errorf("cancelled: %w", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// What begins and ends after Listen is told, though the table had it only in between.
func TestEvents(t *testing.T) {
	ns := tracked(t)
	insert(t, ns, 0, 10) // before anybody listens
	var l *Listener
	err := ns.Do(func() (err error) {
		l, err = Listen()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events := make(chan Event, 100)
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx, func(e Event) { events <- e }) }()
	from, to := short(t, ns)
	if out, err := ns.Run("", "conntrack", "-D", "-p", "udp"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	began, ended := <-events, <-events
	if began.Kind != New || ended.Kind != Ended || began.Entry.ID != ended.Entry.ID || began.Entry.ID == 0 {
		t.Errorf("%+v\n%+v", began, ended)
	}
	for _, e := range []Event{began, ended} {
		o := e.Entry.Original
		if o.Source != from.Addr() || o.SourcePort != from.Port() || o.Destination != to.Addr() || o.DestinationPort != to.Port() || e.Entry.Protocol != packet.UDP {
			t.Errorf("%+v; want %s to %s", e.Entry, from, to)
		}
	}
	// An entry from before has no events of its own.
	if out, err := ns.Run("", "conntrack", "-D", "-s", "10.0.0.1"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	from, _ = short(t, ns)
	if next := <-events; next.Kind != New || next.Entry.Original.Source != from.Addr() || next.Entry.Original.SourcePort != from.Port() {
		t.Errorf("the end of an entry from before was told: %+v", next)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// short sends one datagram to nobody in particular.
func short(t *testing.T, ns *netns.NS) (from, to netip.AddrPort) {
	t.Helper()
	err := ns.Do(func() error {
		server, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
		if err != nil {
			return err
		}
		defer server.Close()
		to = server.LocalAddr().(*net.UDPAddr).AddrPort()
		client, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer client.Close()
		from = client.LocalAddr().(*net.UDPAddr).AddrPort()
		_, err = client.Write([]byte("x"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return from, to
}

// Who doesn't read loses events, and is told so.
func TestLostEvents(t *testing.T) {
	ns := tracked(t)
	var l *Listener
	err := ns.Do(func() (err error) {
		l, err = Listen()
		if err != nil {
			return err
		}
		return l.raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	})
	if err != nil {
		t.Fatal(err)
	}
	insert(t, ns, 0, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	lost := 0
	err = l.Run(ctx, func(e Event) {
		if e.Kind == Lost {
			lost++
			cancel()
		}
	})
	if err != nil || lost == 0 {
		t.Errorf("%v, lost %d times", err, lost)
	}
}

func TestRecorded(t *testing.T) {
	ns := tracked(t)
	insert(t, ns, 0, 3)
	for _, on := range []string{"0", "1"} {
		for _, key := range []string{SysctlAccounting, SysctlTimestamps} {
			if err := ns.Sysctl(key, on); err != nil {
				t.Fatal(err)
			}
		}
		var r Recording
		_ = ns.Do(func() error { r = Recorded(); return nil })
		if r.Accounting != (on == "1") || r.Timestamps != (on == "1") || r.Count != 3 || r.Max < 1 || r.Events == "" {
			t.Errorf("%s: %+v", on, r)
		}
	}
	short(t, ns)
	counted := 0
	dumpAll(t, ns, 0, func(e *ct.Entry) bool {
		if e.Protocol == packet.UDP && e.Counted && e.Packets == [2]uint64{1, 0} && e.Bytes == [2]uint64{29, 0} && e.Start > 1e18 && e.Stop == 0 {
			counted++
		}
		return true
	})
	if counted != 1 {
		t.Errorf("counted and timed: %d", counted)
	}
}

// Without CAP_NET_ADMIN it is said in a line.
func TestPermission(t *testing.T) {
	ns := tracked(t)
	var err error
	_ = ns.Do(func() error { // a thread of its own
		defer without(t)()
		r, openErr := Open()
		if openErr != nil {
			err = openErr
			return nil
		}
		defer r.Close()
		_, err = r.Dump(t.Context(), 0, func(*ct.Entry) bool { return true })
		return nil
	})
	if !errors.Is(err, ErrPermission) {
		t.Error(err)
	}
}

// without takes CAP_NET_ADMIN from this thread until the function returned is called.
func without(t *testing.T) func() {
	t.Helper()
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var before, less [2]unix.CapUserData
	if err := unix.Capget(&header, &before[0]); err != nil {
		t.Fatal(err)
	}
	less = before
	less[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&header, &less[0]); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := unix.Capset(&header, &before[0]); err != nil {
			t.Fatal(err)
		}
	}
}

// A dump of 200,000 entries, beside `conntrack -L`.
func BenchmarkDump(b *testing.B) {
	const n = 200000
	ns := tracked(b)
	insert(b, ns, 0, n)
	b.Run("netlink", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if stats := dumpAll(b, ns, 0, func(*ct.Entry) bool { return true }); stats.Entries != n {
				b.Fatalf("%+v", stats)
			}
		}
	})
	b.Run("conntrack", func(b *testing.B) {
		for b.Loop() {
			out, err := ns.Run("", "conntrack", "-L")
			if err != nil || strings.Count(out, "\n") < n {
				b.Fatal(err, strings.Count(out, "\n"))
			}
		}
	})
}
