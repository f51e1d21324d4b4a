package rig

import (
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/wires"
)

func (r *Rig) open() error {
	to, err := wires.MAC(r.Node, Bridge)
	if err != nil {
		return err
	}
	from, err := wires.MAC(r.Pods, "pod0")
	if err != nil {
		return err
	}
	fd := -1
	if err := r.Pods.Do(func() (err error) { fd, err = wires.PacketSocket("pod0", 0); return err }); err != nil {
		return err
	}
	r.inject = wires.NewInjector(fd, from, to)
	if r.local, err = wires.NewRawSender(r.Node); err != nil {
		return err
	}
	r.capture, err = newCapture(r)
	return err
}

func (r *Rig) close() {
	r.inject.Close()
	r.local.Close()
	r.capture.close()
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
		err := x.ns.Do(func() (err error) { fd, err = wires.PacketSocket(x.link, unix.ETH_P_ALL); return err })
		if err != nil {
			return nil, err
		}
		if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wires.ReceiveBuffer) != nil {
			// In a user namespace: as large as net.core.rmem_max lets it be.
			_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, wires.ReceiveBuffer)
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
		if s, ok := wires.ParsePacket(c.buf[:n]); ok {
			s.Interface = c.links[i]
			if !got(s) {
				return false
			}
		}
	}
}
