package rig

import (
	"errors"
	"fmt"
	"net"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/packet"
)

// burst is how many packets go in one system call, below every queue's length.
const burst = 32

// receiveBuffer of a capture, in bytes: a second of 50,000 packets.
const receiveBuffer = 64 << 20

// injector sends frames from the pods' side to the node.
type injector struct {
	fd     int
	to     net.HardwareAddr
	from   net.HardwareAddr
	frames [burst][]byte
	iov    [burst]unix.Iovec
	msgs   [burst]mmsg
}

// mmsg is struct mmsghdr.
type mmsg struct {
	hdr unix.Msghdr
	len uint32
	_   [4]byte
}

func (r *Rig) open() error {
	to, err := mac(r.Node, Bridge)
	if err != nil {
		return err
	}
	from, err := mac(r.Pods, "pod0")
	if err != nil {
		return err
	}
	r.inject = &injector{to: to, from: from}
	if err := r.Pods.Do(func() (err error) { r.inject.fd, err = packetSocket("pod0", 0); return err }); err != nil {
		return err
	}
	if r.local, err = newRawSender(r.Node); err != nil {
		return err
	}
	r.capture, err = newCapture(r)
	return err
}

func (r *Rig) close() {
	unix.Close(r.inject.fd)
	r.local.close()
	r.capture.close()
}

func packetSocket(link string, protocol uint16) (int, error) {
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

// send injects up to burst packets.
func (i *injector) send(flows []packet.Flow, firstID uint64) error {
	for n, f := range flows {
		b := append(append(i.frames[n][:0], i.to...), i.from...)
		if f.Source.Is4() {
			b = append(b, 0x08, 0x00)
		} else {
			b = append(b, 0x86, 0xdd)
		}
		b = appendPacket(b, f, firstID+uint64(n))
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

// rawSender sends packets from the node itself.
type rawSender struct{ fd4, fd6 int }

func newRawSender(ns *netns.NS) (*rawSender, error) {
	s := &rawSender{-1, -1}
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

func (s *rawSender) send(f packet.Flow, id uint64) error {
	b := appendPacket(nil, f, id)
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

func (s *rawSender) close() {
	unix.Close(s.fd4)
	unix.Close(s.fd6)
}

// capture reads what leaves the node by any link.
type capture struct {
	fds   []int
	links []string // of the node, beside fds
	buf   []byte
}

func newCapture(r *Rig) (*capture, error) {
	c := &capture{buf: make([]byte, 4096)}
	for _, x := range []struct {
		ns         *netns.NS
		link, node string
	}{{r.Outside, "out0", Eth0}, {r.Outside, "out1", Eth1}, {r.Pods, "pod0", Bridge}} {
		var fd int
		err := x.ns.Do(func() (err error) { fd, err = packetSocket(x.link, unix.ETH_P_ALL); return err })
		if err != nil {
			return nil, err
		}
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
			// In a user namespace: as large as net.core.rmem_max lets it be.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer)
		}
		_ = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
		c.fds, c.links = append(c.fds, fd), append(c.links, x.node)
	}
	return c, nil
}

func (c *capture) close() {
	for _, fd := range c.fds {
		unix.Close(fd)
	}
}

// each calls got for every packet that waits; after the deadline it returns.
// got returns false to stop.
func (c *capture) each(deadline time.Time, got func(Seen) bool) error {
	polls := make([]unix.PollFd, len(c.fds))
	for i, fd := range c.fds {
		polls[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	for {
		left := time.Until(deadline)
		if left < 0 {
			return nil
		}
		n, err := unix.Poll(polls, int(left/time.Millisecond)+1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll: %w", err)
		}
		for i := range polls {
			if n > 0 && polls[i].Revents != 0 && !c.drain(i, got) {
				return nil
			}
		}
	}
}

// drain reads what waits on one link.
func (c *capture) drain(i int, got func(Seen) bool) bool {
	for {
		n, _, err := unix.Recvfrom(c.fds[i], c.buf, unix.MSG_DONTWAIT)
		if err != nil {
			return true
		}
		if s, ok := parsePacket(c.buf[:n]); ok {
			s.Interface = c.links[i]
			if !got(s) {
				return false
			}
		}
	}
}
