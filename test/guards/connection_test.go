package guards_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/kernel/netns"
	"github.com/unmasq/unmasq/internal/kernel/netns/netnstest"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/rig"
)

// Real connections with their answers, on a node as docker and CNI's bridge plugin
// make it: pods are ports of a bridge, in hairpin mode.
//
//	web, client ── docker0 [ node ] eth0 ── outside (vpn)
//
// Bridged: br_netfilter shows frames between ports to the IP hooks, as on every
// node of Kubernetes. What is translated there to another port's address never
// passes the node's routing.
type cluster struct {
	*rig.Rig // Node is the node, Pods is web's namespace
	client   *netns.NS
}

func newCluster(t *testing.T, bridged bool) *cluster {
	t.Helper()
	c := &cluster{&rig.Rig{Node: netnstest.Test(t, "node"), Pods: netnstest.Test(t, "web"), Outside: netnstest.Test(t, "outside")}, netnstest.Test(t, "client")}
	bridge := []netip.Prefix{netip.MustParsePrefix("10.244.1.1/24"), netip.MustParsePrefix("fd00:10:244:1::1/64")}
	err := errors.Join(
		c.Node.Bridge(rig.Bridge), setUp(c.Node, rig.Bridge, bridge[0], bridge[1]),
		c.pod(c.Pods, "web0", web, web6), c.pod(c.client, "client0", client, client6),
		netns.Veth(c.Node, rig.Eth0, c.Outside, "out0"),
		setUp(c.Node, rig.Eth0, netip.PrefixFrom(rig.Eth0Addr, 24), netip.PrefixFrom(rig.Eth0Addr6, 64)),
		setUp(c.Outside, "out0", netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")),
		setUp(c.Outside, "lo", netip.PrefixFrom(vpn, 32), netip.PrefixFrom(vpn6, 128)),
		c.Outside.Route(packet.IPv4Family.Everywhere(), rig.Eth0Addr, ""), c.Outside.Route(packet.IPv6Family.Everywhere(), rig.Eth0Addr6, ""),
		c.Node.Route(netip.PrefixFrom(vpn, 32), addr("192.0.2.2"), ""), c.Node.Route(netip.PrefixFrom(vpn6, 128), addr("2001:db8::2"), ""),
		c.Node.Sysctl("net.ipv4.ip_forward", "1"), c.Node.Sysctl("net.ipv6.conf.all.forwarding", "1"),
	)
	if err != nil {
		t.Fatal(err)
	}
	c.bridgeNetfilter(t, bridged)
	if err := serve(t, c.Pods); err != nil {
		t.Fatal(err)
	}
	return c
}

// bridgeNetfilter says whether the IP hooks see bridged frames.
func (c *cluster) bridgeNetfilter(t *testing.T, on bool) {
	t.Helper()
	for _, family := range []string{"iptables", "ip6tables"} {
		err := c.Node.Sysctl("net.bridge.bridge-nf-call-"+family, map[bool]string{true: "1", false: "0"}[on])
		switch {
		case errors.Is(err, os.ErrNotExist) && !on: // as good as off
		case err != nil:
			t.Fatalf("this test needs the kernel's bridge netfilter; load it with `modprobe br_netfilter`: %v", err)
		}
	}
}

// pod joins a pod to the bridge.
func (c *cluster) pod(pod *netns.NS, port string, v4, v6 netip.Addr) error {
	if err := netns.Veth(pod, "eth0", c.Node, port); err != nil {
		return err
	}
	if err := c.Node.Enslave(port, rig.Bridge); err != nil {
		return err
	}
	if _, err := c.Node.Run("", "ip", "link", "set", "dev", port, "type", "bridge_slave", "hairpin", "on"); err != nil {
		return err
	}
	if err := setUp(pod, "eth0", netip.PrefixFrom(v4, 24), netip.PrefixFrom(v6, 64)); err != nil {
		return err
	}
	return errors.Join(
		pod.Route(packet.IPv4Family.Everywhere(), addr("10.244.1.1"), ""),
		pod.Route(packet.IPv6Family.Everywhere(), addr("fd00:10:244:1::1"), ""),
	)
}

func setUp(ns *netns.NS, link string, prefixes ...netip.Prefix) error {
	for _, p := range prefixes {
		if err := ns.Addr(link, p); err != nil {
			return err
		}
	}
	return nil
}

// serve answers each connection to port 80 with the address that it comes from.
func serve(t *testing.T, ns *netns.NS) error {
	t.Helper()
	var listener net.Listener
	err := ns.Do(func() (err error) { listener, err = net.Listen("tcp", ":80"); return err })
	if err != nil {
		return err
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(conn, conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap())
			conn.Close()
		}
	}()
	return nil
}

// connect connects, again with another port where there is no answer, and
// returns the address that the server saw.
func connect(ns *netns.NS, from netip.Addr, to netip.AddrPort, patience time.Duration) (seen netip.Addr, err error) {
	deadline := time.Now().Add(patience)
	for attempt := impatient; ; attempt *= 2 {
		if seen, err = connectOnce(ns, from, to, attempt); err == nil || time.Now().After(deadline) {
			return seen, err
		}
		time.Sleep(time.Millisecond)
	}
}

func connectOnce(ns *netns.NS, from netip.Addr, to netip.AddrPort, patience time.Duration) (netip.Addr, error) {
	dialer := net.Dialer{Timeout: patience, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))}
	var conn net.Conn
	err := ns.Do(func() (err error) { conn, err = dialer.Dial("tcp", to.String()); return err })
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return netip.Addr{}, err
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		return netip.Addr{}, err
	}
	return netip.ParseAddr(string(text))
}

// connection is a proof by a real connection.
type connection struct {
	proof
	bridged bool
}

func (x *connection) prove(t *testing.T, count *checked) {
	t.Helper()
	c := newCluster(t, x.bridged)
	ns := c.Outside
	switch from := x.flow.Source; {
	case x.flow.Local:
		ns = c.Node
	case from == web || from == web6:
		ns = c.Pods
	case from == client || from == client6:
		ns = c.client
	}
	x.send = func(_ *testing.T, _ *rig.Rig, patience time.Duration) (netip.Addr, error) {
		return connect(ns, x.flow.Source, netip.AddrPortFrom(x.flow.Destination, x.flow.DestinationPort), patience)
	}
	x.proof.prove(t, c.Rig, count)
}

// A pod that reaches itself through a service or a published port gets an answer.
func TestHairpinConnections(t *testing.T) {
	var count checked
	t.Cleanup(func() { count.log(t) })
	plugin := buildPortmap(t)
	for _, c := range []struct {
		rulesOf
		rule policy.Rule
	}{
		{rulesOf{"docker", dockerHairpin, false}, keepAll()},
		{rulesOf{"docker nftables", dockerHairpinNFTables, true}, keepAll()},
		{rulesOf{"kube-proxy iptables", kubeService, false}, overriding(keepAll())},
		{rulesOf{"kube-proxy nftables 1.35", kubeNFTables135, true}, overriding(keepAll())},
		{rulesOf{"kube-proxy nftables 1.36", kubeNFTables136, true}, keepAll()},
		{rulesOf{"real portmap iptables", portmap, false}, overriding(keepAll())},
		{rulesOf{"real portmap nftables", portmapNFTables, true}, keepAll()},
	} {
		for i, p := range c.each(func(v foreign.Variant, f packet.Family) proof {
			p := c.hairpin(v, f, c.rule)
			if c.rules == portmap || c.rules == portmapNFTables {
				p.foreign = plugin.add(v, c.native)
			}
			return p
		}) {
			for _, bridged := range []bool{true, false} {
				if !c.native && bridged != (i < 2) {
					continue // each variant once
				}
				x := connection{p, bridged}
				t.Run(x.name+map[bool]string{true: " bridged", false: " routed"}[bridged], func(t *testing.T) {
					t.Parallel()
					x.prove(t, &count)
				})
			}
		}
	}
}

// The node reaches a published port by localhost, a pod reaches its neighbour by
// the node's port, and a client network reaches a service.
func TestServiceConnections(t *testing.T) {
	var count checked
	t.Cleanup(func() { count.log(t) })
	plugin := buildPortmap(t)
	var all []proof
	for _, v := range foreign.Variants {
		for _, f := range packet.Families {
			all = append(all,
				proof{name: fmt.Sprint("real portmap iptables, neighbour ", v, " ", f), guard: policy.GuardHostPortMark, rule: keepAll(),
					foreign: plugin.add(v, false), flow: toPublished(choose(f, client, client6)), hidden: rig.Bridge},
				proof{name: fmt.Sprint("kube-proxy iptables, service ", v, " ", f), guard: policy.GuardServiceMark, rule: keepAll(),
					foreign: together(kubeMasquerade(v, f), load(kubeService, v, f)), flow: toService(choose(f, vpn, vpn6)), hidden: rig.Bridge})
		}
		localhost := sentByNode(addr("127.0.0.1"), addr("127.0.0.1"), packet.TCP, 0, 8080)
		all = append(all,
			proof{name: fmt.Sprint("real portmap iptables, localhost ", v), guard: policy.GuardLinkLocal, rule: overriding(keepOwn()),
				foreign: plugin.add(v, false), flow: localhost, hidden: rig.Bridge},
			proof{name: fmt.Sprint("kube-proxy iptables, localhost ", v), guard: policy.GuardLinkLocal, rule: overriding(keepOwn()),
				foreign: together(sysctl("net.ipv4.conf.all.route_localnet", "1"), kubeMasquerade(v, packet.IPv4Family),
					load(kubeService, v, packet.IPv4Family), load(kubeNodePort, v, packet.IPv4Family)), flow: localhost, hidden: rig.Bridge})
		if v == foreign.Variants[0] {
			all = append(all, proof{name: "real portmap nftables, localhost", guard: policy.GuardLinkLocal, rule: keepOwn(),
				foreign: plugin.add(v, true), flow: localhost, hidden: rig.Bridge})
		}
	}
	for _, p := range all {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			x := connection{p, false}
			x.prove(t, &count)
		})
	}
}

// masqueradeAll hides every packet that no other chain has decided about.
const masqueradeAll = `table inet hide-all {
	chain postrouting {
		type nat hook postrouting priority srcnat;
		masquerade
	}
}
`

// At postrouting, bridged packets have no input interface, as those of the node
// have none. Still they are not the node's.
func TestBridgedPacketsAreNotTheNodes(t *testing.T) {
	connections := 0
	for _, tt := range []struct {
		name    string
		rule    policy.Rule
		foreign string
	}{
		{"rules for the node don't see them", moveOwn(), kubeNFTables136},
		{"rules for pods see them", keepAll(), kubeNFTables136 + masqueradeAll},
	} {
		for _, f := range packet.Families {
			for _, to := range []netip.AddrPort{
				netip.AddrPortFrom(choose(f, web, web6), 80),
				netip.AddrPortFrom(toService(choose(f, client, client6)).Destination, 80),
			} {
				connections++
				t.Run(fmt.Sprint(tt.name, " ", to), func(t *testing.T) {
					c := newCluster(t, true)
					load(tt.foreign, "", f)(t, c.Rig)
					p := proof{rule: tt.rule}
					p.install(t, openTable(t, c.Rig), plan.Options{})
					from := choose(f, client, client6)
					if seen, err := connect(c.client, from, to, patient); err != nil || seen != from {
						t.Errorf("the source is %s, %v, want %s", seen, err, from)
					}
				})
			}
		}
	}
	t.Logf("checked: %d bridged connections", connections)
}
