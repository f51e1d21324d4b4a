package probe

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// Local is a network namespace of this machine that calls come from and in which a
// peer answers.
type Local struct {
	Name string
	// NS of it; nil: that of this process.
	NS *netns.NS
	// Elsewhere as in [Space].
	Elsewhere func(netip.Addr) bool
}

// OpenNS opens a namespace by a word: a process's number, a path, or a name that `ip
// netns` knows.
func OpenNS(word string) (*netns.NS, error) {
	switch pid, err := strconv.ParseUint(word, 10, 31); {
	case err == nil:
		return netns.OpenFile(fmt.Sprintf("/proc/%d/ns/net", pid))
	case strings.Contains(word, "/"):
		return netns.OpenFile(word)
	}
	ns, err := netns.OpenFile(filepath.Join(netns.Dir, word))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no network namespace %q: want a process's number, a path, or a name that `ip netns` lists", word)
	}
	return ns, err
}

func (l Local) do(f func() error) error {
	if l.NS == nil {
		return f()
	}
	return l.NS.Do(f)
}

// Addresses that others can know it by.
func (l Local) Addresses() (all []netip.Addr, err error) {
	err = l.do(func() error {
		found, err := net.InterfaceAddrs()
		for _, a := range found {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().IsGlobalUnicast() {
				all = append(all, p.Addr().Unmap())
			}
		}
		return err
	})
	return all, err
}

// OpenLocal starts peers in all of them at one port, which is port or, where that is 0, one
// that is free in all. Close ends them.
func OpenLocal(ctx context.Context, locals []Local, port uint16) (all Spaces, closeAll func(), err error) {
	const attempts = 32
	for i := 0; ; i++ {
		try := port
		if try == 0 {
			try = RandomPort()
		}
		peers, err := openPeers(ctx, locals, try)
		closeAll = func() {
			for _, p := range peers {
				p.Close()
			}
		}
		if err == nil {
			all, err := localSpaces(locals, peers, try)
			if err != nil {
				closeAll()
			}
			return all, closeAll, err
		}
		closeAll()
		if port != 0 || i == attempts || !errors.Is(err, syscall.EADDRINUSE) {
			return nil, nil, err
		}
	}
}

// RandomPort is one that no kernel gives to callers by itself, nor Kubernetes to
// services: in 20000–29999.
func RandomPort() uint16 { return uint16(20000 + rand.IntN(10000)) }

func openPeers(ctx context.Context, locals []Local, port uint16) (peers []*Peer, err error) {
	for _, l := range locals {
		err := l.do(func() error {
			o := PeerOptions{Port: port, Name: l.Name, Answers: true, Records: true}
			p, err := Open(ctx, o)
			if errors.Is(err, syscall.EPERM) { // raw sockets are root's
				o.Records = false
				p, err = Open(ctx, o)
			}
			if err == nil {
				peers = append(peers, p)
			}
			return err
		})
		if err != nil {
			return peers, fmt.Errorf("answer in %s: %w", l.Name, err)
		}
	}
	return peers, nil
}

func localSpaces(locals []Local, peers []*Peer, port uint16) (all Spaces, err error) {
	caller := NewCaller()
	for i, l := range locals {
		addresses, err := l.Addresses()
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", l.Name, err)
		}
		all = append(all, Space{Name: l.Name, Addresses: addresses, Peer: port, Elsewhere: l.Elsewhere, Arrived: peers[i].Arrived,
			Call: func(ctx context.Context, orders []Order) ([]Report, error) { return caller.Run(ctx, l.do, orders) }})
	}
	return all, nil
}
