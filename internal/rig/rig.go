// Package rig pushes raw packets through a node in network namespaces and says
// with which source each came out. Tests and benchmarks stand on it.
//
//	pods ── docker0 [ node ] eth0 ── outside
//	                         eth1 ──
//
// It knows nothing of policies; it sends what it is told and reports what it
// sees. Packets never leave the namespaces that it makes.
//
//	r := rig.New(t)
//	seen, err := r.Send(packet.Flow{Source: pod, Destination: peer, Protocol: packet.UDP, …})
package rig

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/kernel/wires"
)

// Names of the node's links.
const (
	Bridge = "docker0"
	Eth0   = "eth0"
	Eth1   = "eth1"
)

// Addresses of the node's uplinks. Pods are anything else that is sent from the
// pods' side but 10.244.255.1 and fd00:10:244:ffff::1, which are docker0's.
var (
	Eth0Addr  = netip.MustParseAddr("192.0.2.1")
	Eth1Addr  = netip.MustParseAddr("198.51.100.1")
	Eth0Addr6 = netip.MustParseAddr("2001:db8::1")
	Eth1Addr6 = netip.MustParseAddr("2001:db8:1::1")
)

// Rig is the three namespaces with open sockets in them.
type Rig struct {
	Pods, Node, Outside *netns.NS

	inject  *wires.Injector // frames from the pods' side
	local   *wires.RawSender
	capture *capture
	nextID  uint64
	routes  []route
}

type route struct {
	to   netip.Prefix
	link string
}

// New builds a rig and takes it down when the test ends. Pods are 10.244.0.0/16,
// 172.30.0.0/16, fd00:10:244::/48 and fd00:172:30::/48 behind docker0; everything
// else is behind eth0, but 203.0.113.0/24 and 2001:db8:113::/48 behind eth1.
func New(t testing.TB) *Rig {
	t.Helper()
	r := &Rig{Pods: netnstest.Test(t, "pods"), Node: netnstest.Test(t, "node"), Outside: netnstest.Test(t, "outside")}
	if err := r.build(); err != nil {
		t.Fatal(err)
	}
	if err := r.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.close)
	return r
}

func (r *Rig) build() error {
	err := errors.Join(
		netns.Veth(r.Pods, "pod0", r.Node, Bridge),
		netns.Veth(r.Node, Eth0, r.Outside, "out0"),
		netns.Veth(r.Node, Eth1, r.Outside, "out1"),
		r.noARP(Bridge, Eth0, Eth1),
	)
	if err != nil {
		return err
	}
	var own []netip.Addr
	for link, texts := range map[string][]string{
		Bridge: {"10.244.255.1/32", "fd00:10:244:ffff::1/128"},
		Eth0:   {"192.0.2.1/24", "2001:db8::1/64"},
		Eth1:   {"198.51.100.1/24", "2001:db8:1::1/64"},
	} {
		for _, a := range texts {
			prefix := netip.MustParsePrefix(a)
			if err := r.Node.Addr(link, prefix); err != nil {
				return err
			}
			own = append(own, prefix.Addr())
		}
	}
	if err := r.Node.Sysctl("net.ipv4.ip_forward", "1"); err != nil {
		return err
	}
	for key, value := range sysctls {
		if err := r.Node.Sysctl(key, value); err != nil {
			return err
		}
	}
	if err := r.addRoutes(); err != nil {
		return err
	}
	return awaitLocal(r.Node, own)
}

// sysctls of the node: entries must not pile up at some ten thousand new flows
// a second.
var sysctls = map[string]string{
	"net.ipv6.conf.all.forwarding":                    "1",
	"net.ipv4.conf.all.rp_filter":                     "0",
	"net.netfilter.nf_conntrack_udp_timeout":          "1",
	"net.netfilter.nf_conntrack_tcp_timeout_syn_sent": "1",
	"net.netfilter.nf_conntrack_icmp_timeout":         "1",
	"net.netfilter.nf_conntrack_icmpv6_timeout":       "1",
	"net.netfilter.nf_conntrack_generic_timeout":      "1",
}

// noARP makes neighbours out of every address.
func (r *Rig) noARP(links ...string) error {
	return r.Node.Do(func() error {
		for _, name := range links {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetARPOff(l); err != nil {
				return fmt.Errorf("arp off on %s: %w", name, err)
			}
		}
		return nil
	})
}

func (r *Rig) addRoutes() error {
	for _, x := range []struct{ to, via, link string }{
		{"10.244.0.0/16", "", Bridge}, {"172.30.0.0/16", "", Bridge},
		{"fd00:10:244::/48", "", Bridge}, {"fd00:172:30::/48", "", Bridge},
		{"203.0.113.0/24", "198.51.100.2", Eth1}, {"2001:db8:113::/48", "2001:db8:1::2", Eth1},
		{"0.0.0.0/0", "192.0.2.2", Eth0}, {"::/0", "2001:db8::2", Eth0},
	} {
		to := netip.MustParsePrefix(x.to)
		var via netip.Addr
		if x.via != "" {
			via = netip.MustParseAddr(x.via)
		}
		if err := r.Node.Route(to, via, x.link); err != nil {
			return err
		}
		r.routes = append(r.routes, route{to, x.link})
	}
	return nil
}

// OutInterface is the link by which the node sends to an address.
func (r *Rig) OutInterface(to netip.Addr) string {
	for _, x := range r.routes {
		if x.to.Contains(to) {
			return x.link
		}
	}
	return ""
}

// AddressOf is the node's address on a link, which masquerading takes.
func AddressOf(link string, v6 bool) netip.Addr {
	switch {
	case link == Eth1 && v6:
		return Eth1Addr6
	case link == Eth1:
		return Eth1Addr
	case v6:
		return Eth0Addr6
	}
	return Eth0Addr
}

// NFT loads nft text into the node with the real program.
func (r *Rig) NFT(t testing.TB, text string) {
	t.Helper()
	r.Run(t, text, "nft", "-f", "-")
}

// Run runs a program in the node.
func (r *Rig) Run(t testing.TB, stdin, program string, args ...string) string {
	t.Helper()
	out, err := r.Node.Run(stdin, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Forget deletes the node's connection tracking entries, so that the next packet
// of any flow is a first one.
func (r *Rig) Forget(t testing.TB) {
	t.Helper()
	err := r.Node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	if err != nil {
		t.Fatalf("flush connection tracking: %v", err)
	}
}
