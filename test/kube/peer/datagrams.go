package peer

import "net"

// ServeDatagrams does by UDP what Serve does by TCP: a datagram is a visit. Whether
// the answer comes back is the network's affair.
func ServeDatagrams(c *net.UDPConn, name string) *Server {
	s := &Server{name: name, socket: datagrams{c}, news: make(chan struct{}), log: func(Visit) {}}
	s.calls.Go(func() { s.receive(c) })
	return s
}

type datagrams struct{ *net.UDPConn }

func (d datagrams) Addr() net.Addr { return d.LocalAddr() }

func (s *Server) receive(c *net.UDPConn) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return // closed: errors of what was sent don't come back to a socket without a peer
		}
		c.WriteToUDPAddrPort([]byte(s.visit(string(buffer[:n]), from)), from)
	}
}
