package kube

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/test/kube/peer"
)

// Networks of every cluster. Nodes and the outside share one segment; the outside
// is the nodes' gateway and has routes back to the pods, so that it sees them as
// themselves unless somebody translates.
const (
	ClusterPods4 = "10.244.0.0/16"
	ClusterPods6 = "fd00:10:244::/48"
	Services4    = "10.96.0.0/16"
	Services6    = "fd00:96::/112"
	Nodes4       = "172.18.0.0/16"
	Nodes6       = "fd00:18::/64"

	clusterCIDRs = ClusterPods4 + "," + ClusterPods6
	serviceCIDRs = Services4 + "," + Services6
)

var (
	firstService4, firstService6 = netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd00:96::1")
	gateway4, gateway6           = netip.MustParseAddr("172.18.0.1"), netip.MustParseAddr("fd00:18::1")
	control4, control6           = netip.MustParseAddr("172.18.0.10"), netip.MustParseAddr("fd00:18::10")
	everywhere4, everywhere6     = netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
	// Outside4 and Outside6 are addresses of the outside beyond the nodes' networks.
	Outside4, Outside6 = netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8::10")
)

// Host is a network namespace with an address of each family: a node, a pod, the
// outside.
type Host struct {
	Name       string
	NS         *netns.NS
	IPv4, IPv6 netip.Addr
}

// Listen starts a peer at a port of all its addresses, in this process; the test
// closes it.
func (h *Host) Listen(port uint16) (*peer.Server, error) {
	var l net.Listener
	err := h.NS.Do(func() (err error) {
		l, err = net.ListenTCP("tcp", &net.TCPAddr{Port: int(port)})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen at port %d of %s: %w", port, h.Name, err)
	}
	return peer.Serve(l, h.Name), nil
}

// ListenDatagrams is Listen by UDP.
func (h *Host) ListenDatagrams(port uint16) (*peer.Server, error) {
	var c *net.UDPConn
	err := h.NS.Do(func() (err error) {
		c, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen at UDP port %d of %s: %w", port, h.Name, err)
	}
	return peer.ServeDatagrams(c, h.Name), nil
}

// Connect to a peer by name, and say what it saw.
func (h *Host) Connect(ctx context.Context, to netip.AddrPort, name string) (peer.Answer, error) {
	return h.ConnectBy(ctx, "tcp", to, name)
}

// ConnectBy connects by "tcp" or "udp".
func (h *Host) ConnectBy(ctx context.Context, network string, to netip.AddrPort, name string) (peer.Answer, error) {
	answer, err := peer.AskBy(ctx, dialer(h.NS), network, to.String(), name)
	if err != nil {
		return answer, fmt.Errorf("from %s: %w", h.Name, err)
	}
	return answer, nil
}

// Dial makes a connection of the host's to a literal address.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return dialer(h.NS)(ctx, network, address)
}

// Get asks a web server, by a literal address, from the host; metrics for example.
func (h *Host) Get(ctx context.Context, url string) (string, error) {
	return get(ctx, client(h.NS), url)
}

// bridgeLink is the segment's bridge in its own namespace; every host's link to it
// is called uplink.
const bridgeLink, uplink = "br0", "eth0"

// setUpNetwork makes the segment, the outside, and the control plane's namespace.
func (c *Cluster) setUpNetwork() (err error) {
	if c.lan, err = c.namespace("lan"); err != nil {
		return err
	}
	if err := errors.Join(optional(c.lan, "net.bridge.bridge-nf-call-iptables", "0"), optional(c.lan, "net.bridge.bridge-nf-call-ip6tables", "0"),
		c.lan.Bridge(bridgeLink)); err != nil {
		return err
	}
	if c.Outside, err = c.join("outside", gateway4, gateway6); err != nil {
		return err
	}
	for _, a := range []netip.Addr{Outside4, Outside6} {
		if err := c.Outside.NS.Addr("lo", netip.PrefixFrom(a, a.BitLen())); err != nil {
			return err
		}
	}
	if c.Control, err = c.join("control", control4, control6); err != nil {
		return err
	}
	return c.Control.gateway()
}

// namespace of the cluster, which is closed with it.
func (c *Cluster) namespace(name string) (*netns.NS, error) {
	ns, err := netns.New(c.id + "-" + name)
	if err != nil {
		return nil, err
	}
	c.atEnd(ns.Close)
	return ns, nil
}

// join makes a host on the segment.
func (c *Cluster) join(name string, a4, a6 netip.Addr) (*Host, error) {
	ns, err := c.namespace(name)
	if err != nil {
		return nil, err
	}
	port := "to-" + a4.String() // 15 bytes at most
	if err := netns.Veth(ns, uplink, c.lan, port); err != nil {
		return nil, err
	}
	h := &Host{Name: name, NS: ns, IPv4: a4, IPv6: a6}
	return h, errors.Join(c.lan.Enslave(port, bridgeLink),
		ns.Addr(uplink, netip.PrefixFrom(a4, 16)), ns.Addr(uplink, netip.PrefixFrom(a6, 64)),
		ns.Sysctl("net.ipv4.ip_forward", "1"), ns.Sysctl("net.ipv6.conf.all.forwarding", "1"))
}

// AddHost adds a host to the segment that is no node of the cluster, or whose Node
// is the caller's to make; its directory goes with the cluster.
func (c *Cluster) AddHost(name string) (h *Host, dir string, err error) {
	c.mu.Lock()
	c.hosts++
	i := c.hosts
	c.mu.Unlock()
	if i > mostNodes {
		return nil, "", fmt.Errorf("host %s: there were %d hosts already", name, mostNodes)
	}
	dir = filepath.Join(c.dir, "host-"+name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, "", err
	}
	h, err = c.join(name, netip.AddrFrom4([4]byte{172, 18, 2, byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd00:18::2:%x", i)))
	if err != nil {
		return nil, "", err
	}
	return h, dir, h.gateway()
}

// StartProgram runs a program on a host until it's killed or the cluster ends; it
// returns when the program is ready. Its log is a file of the folder logs.
func (c *Cluster) StartProgram(ctx context.Context, h *Host, logs string, o Program) (*Process, error) {
	p := newProcess(h.NS, logs, o)
	c.atEnd(p.Kill)
	return p, p.Start(ctx)
}

// gateway makes the outside the way to all else.
func (h *Host) gateway() error {
	return errors.Join(h.NS.Route(everywhere4, gateway4, uplink), h.NS.Route(everywhere6, gateway6, uplink))
}

// routePods leads to a node's pods by the node.
func (h *Host) routePods(n *Node) error {
	return errors.Join(h.NS.Route(n.Pods4, n.IPv4, uplink), h.NS.Route(n.Pods6, n.IPv6, uplink))
}

// optional sets what not every kernel has.
func optional(ns *netns.NS, key, value string) error {
	if err := ns.Sysctl(key, value); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
