package probe

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/unmasq/unmasq/internal/packet"
)

// answerUDP answers from the address that was asked, as a TCP peer does: a host with
// several would choose by its routes.
func (p *Peer) answerUDP(ctx context.Context, f packet.Family) error {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		outer := raw.Control(func(fd uintptr) { err = tellDestination(int(fd), f) })
		if outer != nil {
			return outer
		}
		return err
	}}
	conn, err := config.ListenPacket(ctx, network(UDP, f), p.listenAt(f))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	udp := conn.(*net.UDPConn)
	p.serve(udp, func() { p.answerDatagrams(udp, f) })
	return nil
}

func (p *Peer) answerDatagrams(udp *net.UDPConn, f packet.Family) {
	buf, control := make([]byte, 2048), make([]byte, 128)
	for {
		n, c, _, from, err := udp.ReadMsgUDPAddrPort(buf, control)
		if err != nil {
			return
		}
		text := string(buf[:n])
		if !strings.HasPrefix(text, requestPrefix) {
			continue
		}
		p.record(textArrival(UDP, text), from)
		anyInterface(control[:c], f)
		// Without a route back to the caller this fails.
		udp.WriteMsgUDPAddrPort([]byte(formatAnswer(from, p.options.Name)), control[:c], from) //nolint:errcheck // see above
	}
}

// tellDestination makes the kernel say which address each datagram was for (ip(7):
// IP_PKTINFO; RFC 3542, 6.1).
func tellDestination(fd int, f packet.Family) error {
	if f == packet.IPv4Family {
		return syscall.SetsockoptInt(fd, syscall.IPPROTO_IP, syscall.IP_PKTINFO, 1)
	}
	return syscall.SetsockoptInt(fd, syscall.IPPROTO_IPV6, syscall.IPV6_RECVPKTINFO, 1)
}

// anyInterface makes of what was told what is to be sent: the same address, by the
// interface that the routes say. struct in_pktinfo starts with the interface, struct
// in6_pktinfo has it behind the address.
func anyInterface(control []byte, f packet.Family) {
	at := syscall.CmsgLen(0)
	if f == packet.IPv6Family {
		at += 16
	}
	if len(control) >= at+4 {
		clear(control[at : at+4])
	}
}
