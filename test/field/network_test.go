package field_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
)

const (
	port = 7007 // every peer answers here, in TCP and UDP, with the address that it sees
	// patience with one call; a call that is answered takes no time.
	patience = 5 * time.Second
	// Resend what a link that is just coming up has lost.
	resend = 200 * time.Millisecond
)

var protocols = []string{"tcp", "udp", "ping"}

// network is a set of namespaces by the names that the test gives them.
type network struct {
	t      *testing.T
	spaces map[string]*netns.NS
	peers  map[string]*peer
	// calls that were checked.
	calls int
	id    atomic.Uint32
}

func newNetwork(t *testing.T, names ...string) *network {
	w := &network{t: t, spaces: map[string]*netns.NS{}, peers: map[string]*peer{}}
	for _, name := range names {
		w.spaces[name] = netnstest.Test(t, name)
	}
	return w
}

// run types command lines in a namespace. {NAME} is a namespace's name for `ip`.
// What stands between double quotes is one word.
func (w *network) run(space string, lines ...string) {
	w.t.Helper()
	for _, line := range lines {
		words := split(line)
		for i, word := range words {
			if name, ok := strings.CutPrefix(word, "{"); ok {
				words[i] = w.spaces[strings.TrimSuffix(name, "}")].Name()
			}
		}
		if _, err := w.spaces[space].Run("", words[0], words[1:]...); err != nil {
			w.t.Fatal(err)
		}
	}
}

func split(line string) []string {
	var words []string
	for i, part := range strings.Split(line, `"`) {
		if i%2 == 1 {
			words = append(words, part)
		} else {
			words = append(words, strings.Fields(part)...)
		}
	}
	return words
}

// forward makes a host or a router of a namespace.
func (w *network) forward(spaces ...string) {
	w.t.Helper()
	for _, s := range spaces {
		if err := w.spaces[s].Sysctl("net.ipv4.ip_forward", "1"); err != nil {
			w.t.Fatal(err)
		}
	}
}

// listen puts a peer into each of the namespaces, until the test ends.
func (w *network) listen(spaces ...string) {
	w.t.Helper()
	for _, s := range spaces {
		p := &peer{echoes: map[uint16]netip.Addr{}}
		if err := w.spaces[s].Do(p.open); err != nil {
			w.t.Fatal(err)
		}
		w.peers[s] = p
		w.t.Cleanup(p.close)
	}
}

// prohibited is seen instead of an address where the call was answered by ICMP
// "host administratively prohibited".
const prohibited = "prohibited"

// want is a call and what comes of it: an address that the peer sees, or prohibited.
type want struct{ from, to, address, seen string }

// check makes each call in each of the protocols (all, where none is named).
func (w *network) check(when string, wants []want, only ...string) {
	w.t.Helper()
	if len(only) == 0 {
		only = protocols
	}
	for _, x := range wants {
		for _, protocol := range only {
			w.calls++
			if got := w.call(protocol, x); got != x.seen {
				w.t.Errorf("%s: %s calls %s at %s (%s): seen as %s, want %s", when, x.from, x.to, x.address, protocol, got, x.seen)
			}
		}
	}
}

// call says what the peer saw, or the error in words.
func (w *network) call(protocol string, x want) string {
	var seen string
	to := netip.MustParseAddr(x.address)
	err := w.spaces[x.from].Do(func() (err error) {
		switch protocol {
		case "tcp":
			seen, err = callTCP(to)
		case "udp":
			seen, err = callUDP(to)
		default:
			seen, err = ping(to, uint16(w.id.Add(1)), w.peers[x.to])
		}
		return err
	})
	if errors.Is(err, syscall.EHOSTUNREACH) {
		return prohibited
	}
	if err != nil {
		return fmt.Sprintf("nobody (%v)", err)
	}
	return seen
}

func callTCP(to netip.Addr) (string, error) {
	conn, err := (&net.Dialer{Timeout: patience}).Dial("tcp4", netip.AddrPortFrom(to, port).String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(conn)
	return string(answer), err
}

func callUDP(to netip.Addr) (string, error) {
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, port)))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	buffer := make([]byte, 64)
	return again(conn, func() error {
		_, err := conn.Write([]byte("who am I?"))
		return err
	}, func() (string, bool, error) {
		n, err := conn.Read(buffer)
		return string(buffer[:n]), true, err
	})
}

// ping sends an echo request, waits for the reply, and asks the peer whom it saw.
func ping(to netip.Addr, id uint16, p *peer) (string, error) {
	conn, err := net.ListenIP("ip4:icmp", nil)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	buffer := make([]byte, 1500)
	return again(conn, func() error {
		_, err := conn.WriteToIP(echoRequest(id), &net.IPAddr{IP: to.AsSlice()})
		return err
	}, func() (string, bool, error) {
		n, _, err := conn.ReadFromIP(buffer)
		if err != nil || n < 8 {
			return "", false, err
		}
		switch {
		case buffer[0] == 3 && buffer[1] == 10: // destination unreachable, host prohibited
			return "", true, syscall.EHOSTUNREACH
		case buffer[0] == 0 && binary.BigEndian.Uint16(buffer[4:]) == id:
			seen, err := p.echo(id)
			return seen, true, err
		}
		return "", false, nil
	})
}

// again sends and reads until read has an answer or patience ends.
func again(conn interface{ SetReadDeadline(time.Time) error }, send func() error, read func() (string, bool, error)) (string, error) {
	for end := time.Now().Add(patience); ; {
		if err := send(); err != nil {
			return "", err
		}
		if err := conn.SetReadDeadline(time.Now().Add(resend)); err != nil {
			return "", err
		}
		for {
			answer, done, err := read()
			if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() && time.Now().Before(end) {
				break
			}
			if done || err != nil {
				return answer, err
			}
		}
	}
}

// echoRequest is an ICMP echo request without data.
func echoRequest(id uint16) []byte {
	b := []byte{8, 0, 0, 0, 0, 0, 0, 1}
	binary.BigEndian.PutUint16(b[4:], id)
	sum := uint32(8<<8) + uint32(id) + 1
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum+sum>>16))
	return b
}

// peer answers TCP and UDP with the address that it sees; echo requests are
// answered by the kernel, and recorded here.
type peer struct {
	closers []io.Closer
	done    sync.WaitGroup

	mu     sync.Mutex
	echoes map[uint16]netip.Addr
}

// open must run inside the peer's namespace; the sockets stay there.
func (p *peer) open() error {
	tcp, err := net.ListenTCP("tcp4", &net.TCPAddr{Port: port})
	if err != nil {
		return err
	}
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{Port: port})
	if err != nil {
		return errors.Join(err, tcp.Close())
	}
	icmp, err := net.ListenIP("ip4:icmp", nil)
	if err != nil {
		return errors.Join(err, tcp.Close(), udp.Close())
	}
	p.closers = []io.Closer{tcp, udp, icmp}
	p.done.Go(func() { answerTCP(tcp) })
	p.done.Go(func() { answerUDP(udp) })
	p.done.Go(func() { p.record(icmp) })
	return nil
}

func (p *peer) close() {
	for _, c := range p.closers {
		c.Close()
	}
	p.done.Wait()
}

func answerTCP(l *net.TCPListener) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return
		}
		// A caller that went away notices by itself.
		_, _ = io.WriteString(conn, conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap().String())
		conn.Close()
	}
}

func answerUDP(conn *net.UDPConn) {
	buffer := make([]byte, 64)
	for {
		_, from, err := conn.ReadFromUDPAddrPort(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			// Without a route back the caller waits in vain, and says so.
			_, _ = conn.WriteToUDPAddrPort([]byte(from.Addr().Unmap().String()), from)
		}
	}
}

func (p *peer) record(conn *net.IPConn) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFromIP(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < 8 || buffer[0] != 8 {
			continue
		}
		seen, _ := netip.AddrFromSlice(from.IP)
		p.mu.Lock()
		p.echoes[binary.BigEndian.Uint16(buffer[4:])] = seen.Unmap()
		p.mu.Unlock()
	}
}

// echo says whom the peer saw behind an echo request that the kernel has
// answered; it lies in the peer's socket already, if not in its map.
func (p *peer) echo(id uint16) (string, error) {
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		p.mu.Lock()
		seen, ok := p.echoes[id]
		p.mu.Unlock()
		if ok {
			return seen.String(), nil
		}
	}
	return "", errors.New("the peer saw no echo request")
}
