// Package others reads what other components have on a node that can defeat a
// policy: eBPF programs at interfaces, which may handle packets past netfilter, and
// rules that run before unmasq's. It reads alone, over netlink, with CAP_NET_ADMIN
// and no program; what that means is internal/conflict's.
//
//	r, err := others.Open()           // in a network namespace
//	programs, err := r.Programs()     // a few milliseconds with 110 pods
//	rules, err := r.Rules()           // nothing is read where nothing changed
package others

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/conflict"
)

// Reader has sockets in the network namespace of the thread that opened it. It is
// for one goroutine.
type Reader struct {
	route, filter *socket

	// generation of the rules that were read last.
	generation uint32
	native     *conflict.Rules // of nftables, iptables-nft's with them
	rules      *conflict.Rules
	// cilium: it has interfaces here.
	cilium bool
}

// Open needs no privilege; what is asked then does.
func Open() (*Reader, error) {
	route, err := dial(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open a socket for interfaces: %w", err)
	}
	filter, err := dial(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a socket for rules: %w", err), route.close())
	}
	return &Reader{route: route, filter: filter}, nil
}

// Close gives the sockets up.
func (r *Reader) Close() error { return errors.Join(r.route.close(), r.filter.close()) }
