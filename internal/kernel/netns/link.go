package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// carrierWait bounds the wait for a link that was set up to pass packets.
const carrierWait = 5 * time.Second

// Veth joins two namespaces (or one with itself) by a pair of interfaces,
// which are up and pass packets when it returns. Names have at most 15 bytes.
func Veth(a *NS, aName string, b *NS, bName string) error {
	h, err := a.netlink()
	if err != nil {
		return err
	}
	err = h.LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: aName, TxQLen: -1, NumTxQueues: 1, NumRxQueues: 1},
		PeerName:      bName,
		PeerNamespace: netlink.NsFd(b.Fd()),
	})
	if err != nil {
		return fmt.Errorf("join %s in %s and %s in %s: %w", aName, a.name, bName, b.name, err)
	}
	if err := errors.Join(a.Up(aName), b.Up(bName)); err != nil {
		return err
	}
	return errors.Join(a.awaitCarrier(aName), b.awaitCarrier(bName))
}

// Bridge makes a bridge, and sets it up. It has no carrier before a port has.
func (n *NS) Bridge(name string) error {
	h, err := n.netlink()
	if err != nil {
		return err
	}
	if err := h.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}); err != nil {
		return fmt.Errorf("make bridge %s in %s: %w", name, n.name, err)
	}
	return n.Up(name)
}

// Enslave makes a link a port of a bridge and sets it up; where it has
// carrier, the bridge passes packets when Enslave returns.
func (n *NS) Enslave(link, bridge string) error {
	h, l, err := n.link(link)
	if err != nil {
		return err
	}
	_, br, err := n.link(bridge)
	if err != nil {
		return err
	}
	if err := h.LinkSetMasterByIndex(l, br.Attrs().Index); err != nil {
		return fmt.Errorf("make %s in %s a port of %s: %w", link, n.name, bridge, err)
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("set up %s in %s: %w", link, n.name, err)
	}
	if _, l, err = n.link(link); err != nil {
		return err
	}
	if l.Attrs().OperState != netlink.OperUp {
		return nil
	}
	return n.awaitCarrier(bridge)
}

// Up sets a link up.
func (n *NS) Up(link string) error {
	h, l, err := n.link(link)
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("set up %s in %s: %w", link, n.name, err)
	}
	return nil
}

// Addr gives a link an address: prefix.Addr() with the prefix's length. IPv6
// addresses are usable at once (nodad).
func (n *NS) Addr(link string, prefix netip.Prefix) error {
	if !prefix.IsValid() {
		return fmt.Errorf("address for %s in %s: %v", link, n.name, prefix)
	}
	h, l, err := n.link(link)
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: ipNet(prefix)}
	if prefix.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(l, addr); err != nil {
		return fmt.Errorf("add %s to %s in %s: %w", prefix, link, n.name, err)
	}
	return nil
}

// Route adds a route to dst by a gateway, a link, or both: via may be the zero
// Addr (the destination is on the link), dev empty (the gateway tells the link).
func (n *NS) Route(dst netip.Prefix, via netip.Addr, dev string) error {
	h, err := n.netlink()
	if err != nil {
		return err
	}
	route := &netlink.Route{Dst: ipNet(dst.Masked())}
	if via.IsValid() {
		route.Gw = via.AsSlice()
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if dev != "" {
		_, l, err := n.link(dev)
		if err != nil {
			return err
		}
		route.LinkIndex = l.Attrs().Index
	}
	if err := h.RouteAdd(route); err != nil {
		return fmt.Errorf("route %s via %s dev %q in %s: %w", dst, via, dev, n.name, err)
	}
	return nil
}

// netlink opens the one route socket of the namespace at first use.
func (n *NS) netlink() (*netlink.Handle, error) {
	n.once.Do(func() {
		n.err = n.Do(func() (err error) {
			n.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
			return err
		})
	})
	if n.err != nil {
		return nil, fmt.Errorf("netlink in %s: %w", n.name, n.err)
	}
	return n.handle, nil
}

func (n *NS) link(name string) (*netlink.Handle, netlink.Link, error) {
	h, err := n.netlink()
	if err != nil {
		return nil, nil, err
	}
	l, err := h.LinkByName(name)
	if err != nil {
		return nil, nil, fmt.Errorf("link %s in %s: %w", name, n.name, err)
	}
	return h, l, nil
}

// awaitCarrier returns when the link passes packets. The kernel finishes
// setting a link up in a work queue (net/core/link_watch.c); what is sent
// before is dropped without a word.
func (n *NS) awaitCarrier(name string) error {
	for deadline := time.Now().Add(carrierWait); ; time.Sleep(200 * time.Microsecond) {
		_, l, err := n.link(name)
		if err != nil {
			return err
		}
		if l.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("link %s in %s has no carrier after %v", name, n.name, carrierWait)
		}
	}
}

func ipNet(p netip.Prefix) *net.IPNet {
	a := p.Addr()
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(p.Bits(), a.BitLen())}
}
