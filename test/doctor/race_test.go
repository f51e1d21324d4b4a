package doctor_test

import (
	"encoding/binary"
	"net"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/conntrack"
)

// TestPortsRace: what ports-collide says. Two pods' packets with one port, to one
// peer, are both in POSTROUTING before either's connection is in the kernel's table.
// Kept ports are then the same, and one of them is dropped; drawn ones aren't.
func TestPortsRace(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flag   string
		seen   int
		failed uint64
	}{{"", 1, 1}, {"--random-fully", 2, 0}} {
		l := newLab(t, `
iptables -t nat -F; iptables -t nat -A POSTROUTING -s 10.244.1.0/24 -o eth0 -j MASQUERADE `+c.flag+`
nft add table ip hold; nft add chain ip hold out '{ type filter hook postrouting priority 200; }'`)
		l.holdUDP(7)
		var queue int
		must(t, l.node.Do(func() (err error) {
			queue, err = openQueue(7)
			return err
		}))
		peers := l.listenUDP("203.0.113.9:9")
		l.sendUDP(l.pod1, "10.244.1.2:4000", "203.0.113.9:9")
		l.sendUDP(l.pod2, "10.244.1.3:4000", "203.0.113.9:9")
		held := []uint32{heldPacket(t, queue), heldPacket(t, queue)}
		for _, id := range held {
			must(t, tell(queue, 1, 7, attribute(2, binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 1), id)))) // NFQA_VERDICT_HDR: NF_ACCEPT
		}
		must(t, unix.Close(queue))
		var ports []string
		for range c.seen {
			ports = append(ports, <-peers)
		}
		if n := l.counted("insert_failed"); n != c.failed || c.flag == "" && ports[0] != "192.0.2.1:4000" || c.flag != "" && ports[0] == ports[1] {
			t.Errorf("%q: seen as %v, %d failed; expected %d seen, %d failed", c.flag, ports, n, c.seen, c.failed)
		}
	}
}

// holdUDP queues packets that are about to leave, when they have been translated and their
// connections aren't in the table yet: the target NFQUEUE in a chain of nft, since
// no table of iptables comes as late.
func (l *lab) holdUDP(queue uint16) {
	l.t.Helper()
	rule := slices.Concat(
		attribute(unix.NFTA_RULE_TABLE, []byte("hold\x00")), attribute(unix.NFTA_RULE_CHAIN, []byte("out\x00")),
		attribute(unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED,
			expression("meta", number(unix.NFTA_META_DREG, unix.NFT_REG32_00), number(unix.NFTA_META_KEY, unix.NFT_META_L4PROTO)),
			expression("cmp", number(unix.NFTA_CMP_SREG, unix.NFT_REG32_00), number(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ),
				attribute(unix.NFTA_CMP_DATA|unix.NLA_F_NESTED, attribute(unix.NFTA_DATA_VALUE, []byte{unix.IPPROTO_UDP}))),
			expression("target", attribute(unix.NFTA_TARGET_NAME, []byte("NFQUEUE\x00")), number(unix.NFTA_TARGET_REV, 0),
				attribute(unix.NFTA_TARGET_INFO, append(binary.NativeEndian.AppendUint16(nil, queue), 0, 0, 0, 0, 0, 0)))))
	must(l.t, l.node.Do(func() error { return transact(newRule(rule)) }))
}

// openQueue listens to a queue of packets (nfnetlink_queue).
func openQueue(number uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return 0, err
	}
	const bind, meta = 1, 1                                                   // NFQNL_CFG_CMD_BIND, NFQNL_COPY_META
	err = tell(fd, 2, number, attribute(1, []byte{bind, 0, 0, unix.AF_INET})) // NFQA_CFG_CMD
	if err == nil {
		err = tell(fd, 2, number, attribute(2, []byte{0, 0, 0, 0, meta})) // NFQA_CFG_PARAMS
	}
	if err != nil {
		unix.Close(fd)
	}
	return fd, err
}

// tell a queue something: NFQNL_MSG_VERDICT 1, NFQNL_MSG_CONFIG 2.
func tell(fd int, kind, number uint16, body []byte) error {
	m := message(unix.NFNL_SUBSYS_QUEUE<<8|kind, 0, number, body)
	return unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// heldPacket waits for one, and returns its number.
func heldPacket(t *testing.T, fd int) uint32 {
	t.Helper()
	must(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}))
	b := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, b, 0)
	must(t, err)
	// The first attribute is NFQA_PACKET_HDR, which begins with the number.
	const body = unix.NLMSG_HDRLEN + 4
	if n < body+8 || binary.NativeEndian.Uint16(b[4:]) != unix.NFNL_SUBSYS_QUEUE<<8 || binary.NativeEndian.Uint16(b[body+2:]) != 1 {
		t.Fatalf("no packet: % x", b[:n])
	}
	return binary.BigEndian.Uint32(b[body+4:])
}

// listenUDP says who is seen at an address outside.
func (l *lab) listenUDP(address string) <-chan string {
	l.t.Helper()
	var server net.PacketConn
	must(l.t, l.out.Do(func() (err error) {
		server, err = (&net.ListenConfig{}).ListenPacket(l.t.Context(), "udp4", address)
		return err
	}))
	l.t.Cleanup(func() { server.Close() })
	seen := make(chan string, 8)
	go func() {
		defer close(seen)
		_ = server.SetReadDeadline(time.Now().Add(30 * time.Second))
		for b := make([]byte, 8); ; {
			_, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			seen <- from.String()
		}
	}()
	return seen
}

func (l *lab) sendUDP(from interface{ Do(func() error) error }, local, to string) {
	l.t.Helper()
	must(l.t, from.Do(func() error {
		own, err1 := net.ResolveUDPAddr("udp4", local)
		peer, err2 := net.ResolveUDPAddr("udp4", to)
		must(l.t, err1, err2)
		conn, err := net.DialUDP("udp4", own, peer)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte("x"))
		return err
	}))
}

// counted is what the node's kernel has counted of its connections.
func (l *lab) counted(name string) uint64 {
	l.t.Helper()
	out, err := l.node.Run("", "conntrack", "-S")
	must(l.t, err)
	counted, _ := conntrack.ReadCounters(out, 1)
	return counted[name]
}
