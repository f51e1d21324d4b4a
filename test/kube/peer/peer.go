// Package peer is who connections are made with, and who tells what address they
// seem to come from: a line with the caller's name goes there, a line with what
// the server saw comes back. Tests run it in their own process, inside namespaces;
// real pods run it as their program (peer/pod).
//
//	s := peer.Serve(listener, "outside")
//	answer, err := peer.Ask(ctx, dial, "203.0.113.10:8080", "pod-1") // {outside 172.18.1.1:40312}
//	visit, err := s.Await(ctx, "pod-1")                              // the same, from its side
package peer

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// patience with the other side of a connection.
const patience = 5 * time.Second

// Visit is a connection as the server saw it.
type Visit struct {
	// Name that the caller gave.
	Name string `json:"name"`
	// Source address and port.
	Source netip.AddrPort `json:"source"`
}

// Answer is a connection as the server told the caller.
type Answer struct {
	// Server's name.
	Server string `json:"server"`
	// Source that the server saw.
	Source netip.AddrPort `json:"source"`
}

// Server remembers its visits.
type Server struct {
	name   string
	socket interface { // that it listens at
		Addr() net.Addr
		Close() error
	}
	log func(Visit)

	mu     sync.Mutex
	visits []Visit
	news   chan struct{} // closed, and replaced, at each visit
	calls  sync.WaitGroup
}

// Serve answers whoever connects, until Close. Each visit is given to the
// functions, too, before the caller is answered.
func Serve(l net.Listener, name string, log ...func(Visit)) *Server {
	s := &Server{name: name, socket: l, news: make(chan struct{}), log: func(v Visit) {
		for _, f := range log {
			f(v)
		}
	}}
	s.calls.Go(func() { s.accept(l) })
	return s
}

func (s *Server) accept(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		s.calls.Go(func() { s.answer(c) })
	}
}

// answer one caller. One who hangs up or says nothing (a probe) is no visit.
func (s *Server) answer(c net.Conn) {
	defer c.Close()
	if c.SetDeadline(time.Now().Add(patience)) != nil {
		return
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	source, known := c.RemoteAddr().(*net.TCPAddr)
	if err != nil || !known {
		return
	}
	io.WriteString(c, s.visit(line, source.AddrPort()))
}

// visit is remembered before the caller has the answer.
func (s *Server) visit(line string, from netip.AddrPort) (answer string) {
	v := Visit{Name: strings.TrimSpace(line), Source: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())}
	s.log(v)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.visits = append(s.visits, v)
	close(s.news)
	s.news = make(chan struct{})
	return fmt.Sprintf("%s %s\n", s.name, v.Source)
}

// Address that it listens at.
func (s *Server) Address() netip.AddrPort {
	switch a := s.socket.Addr().(type) {
	case *net.TCPAddr:
		return a.AddrPort()
	case *net.UDPAddr:
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// Visits so far, in the order of their coming.
func (s *Server) Visits() []Visit {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.visits)
}

// Await the first visit of a caller.
func (s *Server) Await(ctx context.Context, name string) (Visit, error) {
	for {
		s.mu.Lock()
		news := s.news
		i := slices.IndexFunc(s.visits, func(v Visit) bool { return v.Name == name })
		if i >= 0 {
			defer s.mu.Unlock()
			return s.visits[i], nil
		}
		s.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return Visit{}, fmt.Errorf("wait for a connection of %s to %s: %w; there were %v", name, s.name, ctx.Err(), s.Visits())
		}
	}
}

// Close ends it and returns when the last caller was answered.
func (s *Server) Close() error {
	err := s.socket.Close()
	s.calls.Wait()
	return err
}

// Dial makes a connection, as net.Dialer.DialContext does.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Ask a server, whose literal address it is, by a connection of one's own.
func Ask(ctx context.Context, dial Dial, address, name string) (Answer, error) {
	return AskBy(ctx, dial, "tcp", address, name)
}

// AskBy asks by "tcp" or "udp".
func AskBy(ctx context.Context, dial Dial, network, address, name string) (Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := dial(ctx, network, address)
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()
	if deadline, bound := ctx.Deadline(); bound {
		err = c.SetDeadline(deadline)
	}
	if err == nil {
		_, err = fmt.Fprintln(c, name)
	}
	if err != nil {
		return Answer{}, err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return Answer{}, fmt.Errorf("answer of %s: %w", address, err)
	}
	server, source, _ := strings.Cut(strings.TrimSpace(line), " ")
	seen, err := netip.ParseAddrPort(source)
	if err != nil {
		return Answer{}, fmt.Errorf("answer of %s: %q: expected a name and an address: %w", address, line, err)
	}
	return Answer{Server: server, Source: seen}, nil
}
