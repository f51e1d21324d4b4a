package peer_test

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/unmasq/unmasq/test/kube/peer"
)

// TestBothSides: the server and the caller know the same of a connection.
func TestBothSides(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var logged []peer.Visit
	s := peer.Serve(l, "server", func(v peer.Visit) { logged = append(logged, v) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var source netip.AddrPort
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 7)}}).DialContext(ctx, network, address)
		if err == nil {
			source = c.LocalAddr().(*net.TCPAddr).AddrPort()
		}
		return c, err
	}
	answer, err := peer.Ask(ctx, dial, s.Address().String(), "caller")
	source = netip.AddrPortFrom(source.Addr().Unmap(), source.Port())
	if want := (peer.Answer{Server: "server", Source: source}); err != nil || answer != want {
		t.Errorf("answer %v %v, want %v", answer, err, want)
	}
	want := peer.Visit{Name: "caller", Source: source}
	if visit, err := s.Await(ctx, "caller"); err != nil || visit != want {
		t.Errorf("visit %v %v, want %v", visit, err, want)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if !slices.Equal(logged, []peer.Visit{want}) || !slices.Equal(s.Visits(), logged) {
		t.Errorf("logged %v, remembered %v, want %v", logged, s.Visits(), want)
	}
	if _, err := peer.Ask(ctx, dial, s.Address().String(), "caller"); err == nil {
		t.Error("a closed server answers")
	}
}

// TestAwaitIsBounded: who never comes is waited for no longer than asked.
func TestAwaitIsBounded(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := peer.Serve(l, "server")
	defer s.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if v, err := s.Await(ctx, "nobody"); err == nil {
		t.Errorf("visit of nobody: %v", v)
	}
}

// TestDatagrams: as by TCP.
func TestDatagrams(t *testing.T) {
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s := peer.ServeDatagrams(c, "server")
	answer, err := peer.AskBy(t.Context(), new(net.Dialer).DialContext, "udp", s.Address().String(), "caller")
	want := []peer.Visit{{Name: "caller", Source: answer.Source}}
	if err != nil || answer.Server != "server" || !answer.Source.IsValid() || !slices.Equal(s.Visits(), want) {
		t.Errorf("answer %v %v, visits %v", answer, err, s.Visits())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := peer.AskBy(t.Context(), new(net.Dialer).DialContext, "udp", s.Address().String(), "caller"); err == nil {
		t.Error("a closed server answers")
	}
}
