package rig

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/kernel/netns"
)

// awaitLocal waits until the node takes the addresses for its own. The route that
// says so comes a little after an IPv6 address itself, from a work queue of the
// kernel's (net/ipv6/addrconf.c, addrconf_dad_work); before it, what is sent to
// the address is forwarded.
func awaitLocal(node *netns.NS, addrs []netip.Addr) error {
	const patience, pause = 5 * time.Second, time.Millisecond
	return node.Do(func() error {
		deadline := time.Now().Add(patience)
		for _, a := range addrs {
			for !isLocal(a) {
				if time.Now().After(deadline) {
					return fmt.Errorf("%s is no address of the node's after %s", a, patience)
				}
				time.Sleep(pause)
			}
		}
		return nil
	})
}

func isLocal(a netip.Addr) bool {
	routes, err := netlink.RouteGet(a.AsSlice())
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}
