package shield_test

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/packet"
)

const (
	// rate of new flows a second, well below what two CPUs forward.
	rate = 30000
	// chunk is how many are sent between two looks at the clock.
	chunk = 60
	// settle is how long nothing may arrive before the rest counts as lost.
	settle = 300 * time.Millisecond
	// examples of wrong sources that a failure shows.
	examples = 5
)

// expectation says whether a source is the right one.
type expectation func(s sighting) bool

// byPolicy is what policyText means. No tuple is ever taken, so that ports stay
// but for Masquerade's, which has a range of its own.
func byPolicy(s sighting) bool {
	a := addressesOf(s.family)
	switch s.action {
	case keep:
		return s.seen == s.from
	case masquerade:
		return s.seen.Addr() == a.uplink.Addr() && s.seen.Port() >= 20000 && s.seen.Port() <= 29999
	default:
		return s.seen.Addr() == a.snat && s.seen.Port() == s.from.Port()
	}
}

// byOthers is what the others do without unmasq: every pod is hidden behind the
// node. Ports tell this from policyText's Masquerade, all but by chance.
func byOthers(s sighting) bool { return s.seen.Addr() == addressesOf(s.family).uplink.Addr() }

// untouched is a node on which nobody translates.
func untouched(s sighting) bool { return s.seen == s.from }

// tally is what the outside saw in one phase.
type tally struct {
	sent, seen int
	// checked connections in each family and action, IPv4 first.
	checked [2][actions]int
	wrong   int
	worst   []string
}

// traffic sends new flows from the pods and looks at them outside.
type traffic struct {
	of       [2]addresses
	sender   int
	to, from net.HardwareAddr
	next     int

	mu     sync.Mutex
	phase  uint16
	expect expectation
	tally  tally
}

func newTraffic(t *testing.T, w *world) *traffic {
	t.Helper()
	tr := &traffic{
		of: [2]addresses{addressesOf(packet.IPv4Family), addressesOf(packet.IPv6Family)},
		to: hardware(t, w.node, w.bridge), from: hardware(t, w.pods, podsLink),
	}
	tr.sender = packetSocket(t, w.pods, podsLink, 0)
	receiver := packetSocket(t, w.outside, outLink, unix.ETH_P_ALL)
	_ = unix.SetsockoptInt(receiver, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) // else what the host allows
	must(t, unix.SetsockoptTimeval(receiver, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50000}))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tr.receive(receiver, stop)
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		unix.Close(receiver)
		unix.Close(tr.sender)
	})
	return tr
}

func packetSocket(t *testing.T, ns *netns.NS, link string, protocol uint16) int {
	t.Helper()
	network := protocol<<8 | protocol>>8
	var fd int
	must(t, ns.Do(func() error {
		i, err := net.InterfaceByName(link)
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(network)); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: network, Ifindex: i.Index})
	}))
	return fd
}

func (tr *traffic) receive(fd int, stop <-chan struct{}) {
	b := make([]byte, 2048)
	for {
		n, err := unix.Read(fd, b)
		select {
		case <-stop:
			return
		default:
		}
		if err != nil {
			continue // nothing for a while
		}
		if s, ok := parse(b[:n], tr.of); ok {
			tr.see(s)
		}
	}
}

func (tr *traffic) see(s sighting) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if s.phase != tr.phase {
		return
	}
	tr.tally.seen++
	family := 0
	if s.family == packet.IPv6Family {
		family = 1
	}
	tr.tally.checked[family][s.action]++
	if tr.expect(s) {
		return
	}
	tr.tally.wrong++
	if len(tr.tally.worst) < examples {
		tr.tally.worst = append(tr.tally.worst, fmt.Sprintf("%s %s, protocol %d: %s → %s was seen as %s",
			s.action, s.family, s.protocol, s.from, s.to, s.seen))
	}
}

// while sends new flows at rate as long as fn runs, and at least the number
// given, and returns what was seen of them.
func (tr *traffic) while(expect expectation, least int, fn func() error) (tally, error) {
	tr.mu.Lock()
	tr.phase++
	tr.expect, tr.tally = expect, tally{}
	tr.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- fn() }()
	start, sent, running := time.Now(), 0, true
	var err error
	for running || sent < least {
		if e := tr.send(chunk); e != nil {
			if running {
				e = errors.Join(e, <-done)
			}
			return tally{}, e
		}
		sent += chunk
		time.Sleep(time.Until(start.Add(time.Duration(sent) * time.Second / rate)))
		select {
		case err = <-done:
			running = false
		default:
		}
	}
	return tr.collect(sent), err
}

// flows sends that many and returns what was seen of them.
func (tr *traffic) flows(expect expectation, n int) (tally, error) {
	return tr.while(expect, n, func() error { return nil })
}

func (tr *traffic) send(n int) error {
	b := make([]byte, 0, 256)
	for range n {
		f := flowNumber(tr.next, tr.phase, tr.of)
		tr.next++
		b = f.append(b[:0], tr.to, tr.from)
		if _, err := unix.Write(tr.sender, b); err != nil && !errors.Is(err, unix.ENOBUFS) {
			return fmt.Errorf("send a frame: %w", err)
		}
	}
	return nil
}

// collect waits until all have arrived, or no more do.
func (tr *traffic) collect(sent int) tally {
	last, since := -1, time.Now()
	for {
		tr.mu.Lock()
		got := tr.tally
		tr.mu.Unlock()
		if got.seen != last {
			last, since = got.seen, time.Now()
		}
		if got.seen == sent || time.Since(since) > settle {
			got.sent = sent
			return got
		}
		time.Sleep(time.Millisecond)
	}
}

// check fails on wrong sources, on a cell that saw nothing, and where more than
// one flow of a hundred was lost.
func (ta tally) check(t *testing.T, when string) {
	t.Helper()
	if ta.wrong > 0 {
		t.Errorf("%s: %d of %d connections with a wrong source, such as:", when, ta.wrong, ta.seen)
		for _, w := range ta.worst {
			t.Error("  " + w)
		}
	}
	for i, f := range packet.Families {
		for a, n := range ta.checked[i] {
			if n == 0 {
				t.Errorf("%s: no %s connection of %s was seen", when, f, action(a))
			}
		}
	}
	if lost := ta.sent - ta.seen; lost > ta.sent/100 {
		t.Errorf("%s: %d of %d connections never came out", when, lost, ta.sent)
	}
}
