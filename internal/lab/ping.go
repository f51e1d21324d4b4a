package lab

import (
	"context"
	"net"
	"net/netip"
	"time"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/probe"
)

// pingWait is how long something is waited for that somebody says of an echo request.
const pingWait = 1500 * time.Millisecond

// ping sends an echo request to a service's address. No peer can see it; what routers
// say of it is noted, as ping(8) prints it.
func (w *World) ping(ctx context.Context, c *Caller, s *Sighting) error {
	var o probe.Outcome
	var note string
	err := w.dial(s, func(from netip.Addr, to netip.AddrPort) error {
		ctx, cancel := context.WithTimeout(ctx, pingWait)
		defer cancel()
		conn, err := new(net.ListenConfig).ListenPacket(ctx, rawICMP(s.Family), from.String())
		if err != nil {
			return err
		}
		said := make(chan complaint, 1)
		go func() {
			said <- awaitComplaint(conn, s.Family, to.Addr())
			cancel() // nothing else is to come
		}()
		o, err = c.Call(ctx, s.Protocol, from, to)
		conn.SetReadDeadline(time.Now()) //nolint:errcheck // fails on a closed connection only
		if heard := <-said; heard.what != "" {
			note = heard.what + ", says " + w.owner[heard.by]
		}
		conn.Close() //nolint:errcheck // nothing is buffered
		return err
	})
	s.Source, s.Replied, s.Sight, s.Note = o.Source, o.Replied, NoReply, note
	if o.Replied {
		s.Sight = Itself // who answers an echo request tells nothing but that
	}
	return err
}

func rawICMP(f packet.Family) string {
	if f == packet.IPv6Family {
		return "ip6:ipv6-icmp"
	}
	return "ip4:icmp"
}

// complaint is what somebody says of a packet that he doesn't pass on.
type complaint struct {
	what string
	by   netip.Addr
}

// awaitComplaint returns the first one about a packet to an address; none when the
// connection's deadline is over.
func awaitComplaint(conn net.PacketConn, f packet.Family, about netip.Addr) complaint {
	buf := make([]byte, 2048)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return complaint{}
		}
		what, to, ok := parseComplaint(f, buf[:n])
		if ip, isIP := from.(*net.IPAddr); ok && to == about && isIP {
			by, _ := netip.AddrFromSlice(ip.IP)
			return complaint{what, by.Unmap()}
		}
	}
}

// parseComplaint decodes an ICMP error: what it says, and where the packet was to
// go whose beginning it quotes (RFC 792, RFC 4443).
func parseComplaint(f packet.Family, b []byte) (what string, to netip.Addr, ok bool) {
	const header = 8
	words := map[byte]string{3: "destination unreachable", 11: "time to live exceeded"}
	portUnreachable, quoted, at, long := byte(3), 20, 16, 4
	if f == packet.IPv6Family {
		words = map[byte]string{1: "destination unreachable", 3: "time to live exceeded"}
		portUnreachable, quoted, at, long = 4, 40, 24, 16
	}
	if len(b) < header+quoted || words[b[0]] == "" {
		return "", netip.Addr{}, false
	}
	what = words[b[0]]
	if what == "destination unreachable" && b[1] == portUnreachable {
		what = "port unreachable"
	}
	to, ok = netip.AddrFromSlice(b[header+at : header+at+long])
	return what, to, ok
}
