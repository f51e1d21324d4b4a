// Package nft installs a plan.Table in the kernel and keeps hold of it: over
// one netlink socket that owns the table where the kernel knows ownership.
//
// It writes no table but its own (plan.TableName, and plan.HandoverName for
// moments) and runs no program. What it does not do is decide when to write;
// that is internal/agent's.
//
//	t, err := nft.Open()           // CAP_NET_ADMIN in this network namespace
//	err = t.Start(table)           // create, adopt or replace
//	err = t.Sync(changed)          // by differences where that is safe
//	err = t.Release()              // hand over to a plain table
package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// conn is a netlink socket for nftables. The kernel works a request off while
// it is being sent, so that every answer waits in the socket when send returns.
type conn struct {
	mu   sync.Mutex
	fd   int
	port uint32
	seq  uint32
	buf  []byte
}

// Sizes of the socket's buffers in bytes. The send buffer bounds a batch: 100,000
// elements of a verdict map need 12 MB.
const (
	sendBuffer    = 256 << 20
	receiveBuffer = 8 << 20
)

func dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("netlink socket: %w", err)
	}
	c := &conn{fd: fd, buf: make([]byte, 64<<10)}
	if err := c.setUp(); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return c, nil
}

func (c *conn) setUp() error {
	if err := unix.Bind(c.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("bind netlink socket: %w", err)
	}
	// Without CAP_NET_ADMIN the buffers stay as they are, and reading still works.
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer)
	_ = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer)
	_ = unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1) // errors without the request's body
	sa, err := unix.Getsockname(c.fd)
	if err != nil {
		return fmt.Errorf("netlink socket's address: %w", err)
	}
	if nl, ok := sa.(*unix.SockaddrNetlink); ok {
		c.port = nl.Pid
	}
	return nil
}

func (c *conn) close() error { return unix.Close(c.fd) }

// header appends a message's header with a length of 0, and struct nfgenmsg.
func header(b []byte, typ, flags uint16, seq uint32, family byte, resource uint16) []byte {
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags)
	b = binary.NativeEndian.AppendUint32(b, seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, unix.NFNETLINK_V0)
	return binary.BigEndian.AppendUint16(b, resource)
}

// batch is a transaction: the kernel does all of it or nothing.
type batch struct {
	b     []byte
	last  int // where the last message starts
	count uint32
	what  []string // of each message, for errors
}

// add begins a message, which body completes.
func (t *batch) add(what string, typ, flags uint16, body func([]byte) []byte) {
	if t.b == nil {
		t.b = header(nil, unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
		binary.NativeEndian.PutUint32(t.b, uint32(len(t.b)))
	}
	t.last = len(t.b)
	t.count++
	t.what = append(t.what, what)
	t.b = header(t.b, unix.NFNL_SUBSYS_NFTABLES<<8|typ, unix.NLM_F_REQUEST|flags, t.count, unix.NFPROTO_INET, 0)
	t.b = body(t.b)
	binary.NativeEndian.PutUint32(t.b[t.last:], uint32(len(t.b)-t.last))
}

// send commits the batch. The error is the kernel's first complaint, with what
// it was about; errors.Is finds the errno. Nothing has changed then.
func (c *conn) send(t *batch) error {
	if t.count == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drain()
	first := c.number(t)
	if err := unix.Sendto(c.fd, t.b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		if errors.Is(err, unix.EMSGSIZE) {
			err = fmt.Errorf("%w: outside the first user namespace net.core.wmem_max must be as large", err)
		}
		return fmt.Errorf("send %d bytes to the kernel: %w", len(t.b), err)
	}
	return c.answer(t, first)
}

// number gives the messages the socket's next sequence numbers, asks for an
// answer to the last one and ends the batch. It returns the number of the
// batch's begin; message i has first+i.
func (c *conn) number(t *batch) uint32 {
	first := c.seq + 1
	c.seq += t.count + 2
	flags := binary.NativeEndian.Uint16(t.b[t.last+6:])
	binary.NativeEndian.PutUint16(t.b[t.last+6:], flags|unix.NLM_F_ACK)
	at := len(t.b)
	t.b = header(t.b, unix.NFNL_MSG_BATCH_END, unix.NLM_F_REQUEST, t.count+1, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	binary.NativeEndian.PutUint32(t.b[at:], uint32(len(t.b)-at))
	for i := 0; i < len(t.b); {
		seq := binary.NativeEndian.Uint32(t.b[i+8:])
		binary.NativeEndian.PutUint32(t.b[i+8:], first+seq)
		i += int(binary.NativeEndian.Uint32(t.b[i:]))
	}
	return first
}

// answer reads until the socket is empty: the acknowledgement of the last
// message, or the errors of some.
func (c *conn) answer(t *batch, first uint32) error {
	var failed error
	acknowledged := false
	for {
		messages, err := c.receive()
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return fmt.Errorf("read the kernel's answer: %w", err)
		}
		for _, m := range messages {
			if m.seq < first || m.seq > first+t.count+1 || m.subsy != 0 || m.typ != unix.NLMSG_ERROR {
				continue // an event, or left over
			}
			errno := errorOf(m)
			switch {
			case errno == 0:
				acknowledged = acknowledged || m.seq == first+t.count
			case failed == nil:
				failed = fmt.Errorf("%s: %w", t.describe(m.seq-first), errno)
			}
		}
	}
	if failed == nil && !acknowledged {
		return errors.New("the kernel did not answer a batch")
	}
	return failed
}

func (t *batch) describe(i uint32) string {
	if i == 0 || int(i) > len(t.what) {
		return "commit"
	}
	return t.what[i-1]
}

func errorOf(m message) unix.Errno {
	if len(m.body) < 4 {
		return unix.EBADMSG
	}
	return unix.Errno(-int32(binary.NativeEndian.Uint32(m.body)))
}

// dump asks for objects and returns the answers. Attributes narrow what the
// kernel returns; flags are NLM_F_DUMP, or 0 for a single object.
func (c *conn) dump(typ uint16, flags uint16, attributes []byte) ([]message, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []message
	var err error
	for range dumpTries {
		if out, err = c.dumpOnce(typ, flags, attributes); !errors.Is(err, unix.EINTR) {
			return out, err
		}
	}
	return nil, fmt.Errorf("the rules changed while they were read, %d times in a row: %w", dumpTries, err)
}

// dumpTries bounds how often a list is read again because somebody changed rules
// meanwhile. Without a bound, whoever writes without end could hold the reader.
const dumpTries = 50

func (c *conn) dumpOnce(typ uint16, flags uint16, attributes []byte) ([]message, error) {
	c.drain()
	c.seq++
	b := header(nil, unix.NFNL_SUBSYS_NFTABLES<<8|typ, unix.NLM_F_REQUEST|flags, c.seq, unix.NFPROTO_INET, 0)
	b = append(b, attributes...)
	binary.NativeEndian.PutUint32(b, uint32(len(b)))
	if err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask the kernel: %w", err)
	}
	var out []message
	for {
		messages, err := c.receive()
		if errors.Is(err, unix.EAGAIN) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the kernel's answer: %w", err)
		}
		for _, m := range messages {
			switch {
			case m.seq != c.seq:
			case m.flags&unix.NLM_F_DUMP_INTR != 0:
				c.drain()
				return nil, unix.EINTR // the rules changed meanwhile
			case m.subsy == 0 && m.typ == unix.NLMSG_ERROR:
				if errno := errorOf(m); errno != 0 {
					return nil, errno
				}
			case m.subsy == 0 && m.typ == unix.NLMSG_DONE:
				return out, nil
			default:
				m.body = append([]byte(nil), m.body...)
				out = append(out, m)
			}
		}
	}
}

// receive reads one datagram; EAGAIN where there is none.
func (c *conn) receive() ([]message, error) {
	n, _, err := unix.Recvfrom(c.fd, c.buf, 0)
	if err != nil {
		return nil, err
	}
	return parse(c.buf[:n])
}

// drain throws away what an earlier, failed exchange left.
func (c *conn) drain() {
	for {
		if _, err := c.receive(); err != nil && !errors.Is(err, errShort) && !errors.Is(err, unix.ENOBUFS) {
			return
		}
	}
}
