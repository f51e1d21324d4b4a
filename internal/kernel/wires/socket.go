package wires

import (
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/packet"
)

// Burst is how many packets go in one system call, below every queue's length.
const Burst = 32

// ReceiveBuffer of a capture, in bytes: a second of 50,000 packets.
const ReceiveBuffer = 64 << 20

// Injector sends frames from one end of a link to the other.
type Injector struct {
	fd     int
	to     net.HardwareAddr
	from   net.HardwareAddr
	frames [Burst][]byte
	iov    [Burst]unix.Iovec
	msgs   [Burst]mmsg
}

// mmsg is struct mmsghdr.
type mmsg struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

// NewInjector sends by a packet socket, from its link's address to another's.
func NewInjector(fd int, from, to net.HardwareAddr) *Injector {
	return &Injector{fd: fd, from: from, to: to}
}

// Close closes the socket.
func (i *Injector) Close() { unix.Close(i.fd) }

// PacketSocket of a link of the namespace that the thread is in; protocol 0
// receives nothing.
func PacketSocket(link string, protocol uint16) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("packet socket: %w", err)
	}
	i, err := net.InterfaceByName(link)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: i.Index, Protocol: protocol<<8 | protocol>>8})
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("packet socket on %s: %w", link, err)
	}
	return fd, nil
}

// Send injects up to Burst packets.
func (i *Injector) Send(flows []packet.Flow, firstID uint64) error {
	for n, f := range flows {
		b := append(append(i.frames[n][:0], i.to...), i.from...)
		if f.Source.Is4() {
			b = append(b, 0x08, 0x00)
		} else {
			b = append(b, 0x86, 0xdd)
		}
		b = AppendPacket(b, f, firstID+uint64(n))
		i.frames[n] = b
		i.iov[n] = unix.Iovec{Base: &b[0], Len: uint64(len(b))}
		i.msgs[n].hdr.Iov, i.msgs[n].hdr.Iovlen = &i.iov[n], 1
	}
	for done := 0; done < len(flows); {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(i.fd), uintptr(unsafe.Pointer(&i.msgs[done])), uintptr(len(flows)-done), 0, 0, 0)
		if errno != 0 && !errors.Is(errno, unix.EINTR) && !errors.Is(errno, unix.ENOBUFS) {
			return fmt.Errorf("inject: %w", errno)
		}
		if errno == 0 {
			done += int(n)
		}
	}
	return nil
}

// RawSender sends packets from the node itself.
type RawSender struct{ fd4, fd6 int }

// NewRawSender opens the sockets of both families.
func NewRawSender(ns *netns.NS) (*RawSender, error) {
	s := &RawSender{-1, -1}
	err := ns.Do(func() (err error) {
		if s.fd4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return fmt.Errorf("raw socket: %w", err)
		}
		if err = unix.SetsockoptInt(s.fd4, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
			return fmt.Errorf("raw socket: allow broadcasts: %w", err)
		}
		if s.fd6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return fmt.Errorf("raw IPv6 socket: %w", err)
		}
		return nil
	})
	return s, err
}

// Send sends the first packet of a flow, with a number to know it again by.
func (s *RawSender) Send(f packet.Flow, id uint64) error {
	b := AppendPacket(nil, f, id)
	var err error
	if f.Source.Is4() {
		err = unix.Sendto(s.fd4, b, 0, &unix.SockaddrInet4{Addr: f.Destination.As4()})
	} else {
		err = unix.Sendto(s.fd6, b, 0, &unix.SockaddrInet6{Addr: f.Destination.As16()})
	}
	if err != nil {
		return fmt.Errorf("send from the node to %s: %w", f.Destination, err)
	}
	return nil
}

// Close closes both sockets.
func (s *RawSender) Close() {
	unix.Close(s.fd4)
	unix.Close(s.fd6)
}

// MAC of a link.
func MAC(ns *netns.NS, link string) (net.HardwareAddr, error) {
	var out net.HardwareAddr
	err := ns.Do(func() error {
		i, err := net.InterfaceByName(link)
		if err == nil {
			out = i.HardwareAddr
		}
		return err
	})
	return out, err
}
