package others

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// socket asks one question after the other: hundreds at a look, each answered while
// it is being sent, so that it waits for nobody.
type socket struct {
	fd  int
	seq uint32
	buf []byte
}

func dial(protocol int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, err
	}
	s := &socket{fd: fd, buf: make([]byte, 64<<10)}
	limit := unix.NsecToTimeval(1e9) // an answer that doesn't come
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return s, nil
}

func (s *socket) close() error { return unix.Close(s.fd) }

// ask returns the answers' bodies. The error is the kernel's errno where it refuses.
func (s *socket) ask(typ, flags uint16, body []byte) (answers [][]byte, err error) {
	s.seq++
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.NLMSG_HDRLEN+len(body)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = binary.NativeEndian.AppendUint32(b, s.seq)
	b = append(append(b, 0, 0, 0, 0), body...)
	if err := unix.Sendto(s.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("ask the kernel: %w", err)
	}
	for {
		n, _, err := unix.Recvfrom(s.fd, s.buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the kernel's answer: %w", err)
		}
		more, done, err := s.parse(s.buf[:n])
		if answers = append(answers, more...); done || err != nil {
			return answers, err
		}
	}
}

// parse one datagram; done: the answer's end is in it.
func (s *socket) parse(b []byte) (answers [][]byte, done bool, err error) {
	for len(b) >= unix.NLMSG_HDRLEN {
		size := int(binary.NativeEndian.Uint32(b))
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return answers, true, unix.EBADMSG
		}
		body := b[unix.NLMSG_HDRLEN:size]
		typ, seq := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])
		b = b[min(len(b), (size+3)&^3):]
		switch {
		case seq != s.seq: // left over from an answer that was given up
		case typ == unix.NLMSG_ERROR || typ == unix.NLMSG_DONE:
			// Both begin with an errno; 0 is the end.
			if len(body) >= 4 {
				if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
					return answers, true, unix.Errno(errno)
				}
			}
			return answers, true, nil
		default:
			answers = append(answers, append([]byte(nil), body...))
		}
	}
	return answers, false, nil
}

// attributes calls each with the attributes of b; what is broken ends them.
func attributes(b []byte, each func(*netlink.AttributeDecoder)) {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return
	}
	for d.Next() {
		each(d)
	}
}
