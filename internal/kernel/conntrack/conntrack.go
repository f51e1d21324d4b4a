// Package conntrack reads the kernel's connection table and hears of new and ended
// connections, over netlink and without any program. Entries are those of
// internal/conntrack, as `conntrack -L` prints them. It changes nothing.
//
// A [Reader] and a [Listener] belong to the network namespace of the thread that
// opened them.
//
//	r, err := conntrack.Open()                // CAP_NET_ADMIN
//	_, err = r.Dump(ctx, 0, func(e *ct.Entry) bool { fmt.Println(e.SeenAs()); return true })
package conntrack

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	ct "github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/packet"
)

// ErrPermission is a lack of CAP_NET_ADMIN in the user namespace that owns the
// network namespace.
var ErrPermission = errors.New("the connection table is read with CAP_NET_ADMIN (root, or sudo)")

// Stats of what was read.
type Stats struct {
	// Entries read, of both families or the one asked for.
	Entries int
	// Strange is how many messages weren't understood; nothing is known of those.
	Strange int
}

// Reader asks for the table. One goroutine at a time may use it.
type Reader struct{ *socket }

// Open a reader.
func Open() (*Reader, error) {
	s, err := dial()
	if err != nil {
		return nil, fmt.Errorf("read the connection table: %w", err)
	}
	return &Reader{s}, nil
}

// Dump calls each for every entry, family 0 being both, until it returns false.
// The entry is each's only until it returns. The table goes on changing meanwhile:
// an entry that is there all the time is read once, or twice where the table was
// given more room meanwhile.
func (r *Reader) Dump(ctx context.Context, f packet.Family, each func(*ct.Entry) bool) (Stats, error) {
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	stats, err := r.dump(f, each)
	switch {
	case ctx.Err() != nil:
		return stats, ctx.Err()
	case errors.Is(err, unix.EPERM):
		return stats, ErrPermission
	case err != nil:
		return stats, fmt.Errorf("read the connection table: %w", err)
	}
	return stats, nil
}

func (r *Reader) dump(f packet.Family, each func(*ct.Entry) bool) (stats Stats, err error) {
	if err := r.request(msgGet, unix.NLM_F_DUMP, addressFamily(f), nil); err != nil {
		return stats, err
	}
	var e ct.Entry
	for {
		datagram, err := r.receive()
		if err != nil {
			return stats, err
		}
		for m := range messages(datagram) {
			switch {
			case m.seq != r.seq:
			case m.typ == unix.NLMSG_DONE || m.typ == unix.NLMSG_ERROR:
				return stats, m.status()
			case m.typ != unix.NFNL_SUBSYS_CTNETLINK<<8|msgNew:
				stats.Strange++
			case parse(m.body, &e) != nil:
				stats.Strange++
			default:
				stats.Entries++
				if !each(&e) {
					return stats, r.again()
				}
			}
		}
	}
}

func addressFamily(f packet.Family) uint8 {
	switch f {
	case packet.IPv4Family:
		return unix.AF_INET
	case packet.IPv6Family:
		return unix.AF_INET6
	}
	return unix.AF_UNSPEC
}

// Recording is what the kernel keeps of connections in this network namespace.
type Recording struct {
	// Count of entries, and how many there may be; -1 where not known.
	Count, Max int
	// Accounting of packets and bytes; Timestamps of start and end.
	Accounting, Timestamps bool
	// Events: "0" none at all; "1" of all; "2" of those that began while somebody
	// listened; "" not known.
	Events string
}

// Sysctls that turn on what isn't recorded.
const (
	SysctlAccounting = "net.netfilter.nf_conntrack_acct"
	SysctlTimestamps = "net.netfilter.nf_conntrack_timestamp"
	SysctlEvents     = "net.netfilter.nf_conntrack_events"
)

// Recorded reads it in the namespace of the calling thread.
func Recorded() Recording {
	return Recording{
		Count: number("net.netfilter.nf_conntrack_count"), Max: number("net.netfilter.nf_conntrack_max"),
		Accounting: sysctl(SysctlAccounting) == "1", Timestamps: sysctl(SysctlTimestamps) == "1", Events: sysctl(SysctlEvents),
	}
}

func sysctl(key string) string {
	text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(key, ".", "/"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func number(key string) int {
	n, err := strconv.Atoi(sysctl(key))
	if err != nil {
		return -1
	}
	return n
}

// socket speaks to the kernel's connection tracking. Close ends a blocked receive.
type socket struct {
	file *os.File
	raw  syscall.RawConn
	seq  uint32
	buf  []byte
}

// datagramSize holds any: the kernel fills at most 32 KiB of a dump at once.
const datagramSize = 64 << 10

func dial() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		unix.Close(fd)
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "netlink") // waits by the runtime's poller, since it doesn't block
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return nil, err
	}
	return &socket{file: file, raw: raw, buf: make([]byte, datagramSize)}, nil
}

// Close may be called more than once, by any goroutine.
func (s *socket) Close() error {
	if err := s.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

// again makes a socket fit for another request, where the answer to the last one
// wasn't read to its end.
func (s *socket) again() error {
	fresh, err := dial()
	if err != nil {
		return err
	}
	s.Close()
	s.file, s.raw = fresh.file, fresh.raw
	return nil
}

// request sends one message: struct nfgenmsg and attributes.
func (s *socket) request(typ, flags uint16, family uint8, attributes []byte) error {
	s.seq++
	const headers = unix.SizeofNlMsghdr + sizeofNfgenmsg
	b := binary.NativeEndian.AppendUint32(make([]byte, 0, headers+len(attributes)), uint32(headers+len(attributes)))
	b = binary.NativeEndian.AppendUint16(b, unix.NFNL_SUBSYS_CTNETLINK<<8|typ)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|flags)
	b = binary.NativeEndian.AppendUint32(b, s.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, unix.NFNETLINK_V0, 0, 0)
	b = append(b, attributes...)
	var sent error
	err := s.raw.Write(func(fd uintptr) bool {
		sent = unix.Sendto(int(fd), b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

// receive waits for a datagram of the kernel's; it is valid until the next one.
func (s *socket) receive() ([]byte, error) {
	for {
		var n int
		var from unix.Sockaddr
		var got error
		err := s.raw.Read(func(fd uintptr) bool {
			n, from, got = unix.Recvfrom(int(fd), s.buf, unix.MSG_TRUNC)
			return !errors.Is(got, unix.EAGAIN) && !errors.Is(got, unix.EINTR)
		})
		switch {
		case err != nil:
			return nil, err
		case got != nil:
			return nil, got
		case n > len(s.buf):
			return nil, fmt.Errorf("a message of %d bytes, more than expected", n)
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); ok && kernel.Pid == 0 {
			return s.buf[:n], nil
		}
	}
}
