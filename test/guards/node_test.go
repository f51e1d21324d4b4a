package guards_test

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/rig"
)

// sentByNode is a packet that the node sends itself.
func sentByNode(from, to netip.Addr, protocol uint8, sourcePort, destinationPort uint16) packet.Flow {
	return packet.Flow{Source: from, Destination: to, Protocol: protocol, SourcePort: sourcePort, DestinationPort: destinationPort, Local: true}
}

// localhostPorts: a process of the node reaches a published port by 127.0.0.1.
// Kept, that source would reach the pod, which can't answer it. A mark holds most
// rules off, but not those that override marks.
func localhostPorts() []proof {
	localhost := addr("127.0.0.1")
	var out []proof
	for _, c := range []struct {
		rulesOf
		rule policy.Rule
	}{
		{rulesOf{"portmap nftables", portmapNFTables, true}, keepOwn()},
		{rulesOf{"portmap iptables", portmapLocalhost, false}, overriding(keepOwn())},
		{rulesOf{"docker", dockerHairpin, false}, keepOwn()},
		{rulesOf{"docker nftables", dockerHairpinNFTables, true}, keepOwn()},
		{rulesOf{"kube-proxy iptables", kubeService, false}, overriding(keepOwn())},
	} {
		for _, v := range c.variants() {
			setUp := together(load(c.rules, v, packet.IPv4Family), sysctl("net.ipv4.conf."+rig.Bridge+".route_localnet", "1"))
			if c.rules == kubeService {
				setUp = together(kubeMasquerade(v, packet.IPv4Family), setUp, load(kubeNodePort, v, packet.IPv4Family))
			}
			out = append(out, proof{name: c.name + ", localhost " + string(v), guard: policy.GuardLinkLocal, rule: c.rule, foreign: setUp,
				flow: sentByNode(localhost, localhost, packet.TCP, 40000, 8080), hidden: rig.Bridge})
		}
	}
	return out
}

// linkLocals: neighbours on a link know each other by such addresses.
func linkLocals() []proof {
	const neighbour = "fe80::1234"
	return []proof{{
		name: "to a neighbour IPv6", guard: policy.GuardLinkLocal, rule: moveOwn(),
		foreign: func(t *testing.T, r *rig.Rig) {
			t.Helper()
			r.Run(t, "", "ip", "addr", "add", "fe80::99/64", "dev", rig.Eth0, "nodad")
			r.Run(t, "", "ip", "route", "add", neighbour, "dev", rig.Eth0)
		},
		flow: sentByNode(addr("fe80::99"), addr(neighbour), packet.UDP, 546, 547),
	}}
}

// broadcasts: whoever hears them goes by the sender's address.
func broadcasts() []proof {
	var out []proof
	for _, c := range []struct{ name, to string }{
		{"multicast", "224.0.0.251"}, {"multicast of an organisation", "239.1.2.3"},
		{"limited broadcast", "255.255.255.255"}, {"the subnet's broadcast", "192.0.2.255"},
		{"multicast IPv6", "ff02::fb"}, {"multicast of a site IPv6", "ff05::1:3"},
	} {
		to := addr(c.to)
		out = append(out, proof{name: c.name, guard: policy.GuardBroadcast, rule: moveOwn(), foreign: multicastByEth0,
			flow: sentByNode(rig.AddressOf(rig.Eth0, to.Is6()), to, packet.UDP, 5353, 5353)})
	}
	return append(out,
		proof{name: "the subnet's broadcast, forwarded", guard: policy.GuardBroadcast, rule: moveAll(),
			foreign: together(sysctl("net.ipv4.conf.all.bc_forwarding", "1"), sysctl("net.ipv4.conf."+rig.Bridge+".bc_forwarding", "1")),
			flow:    packet.Flow{Source: client, Destination: addr("192.0.2.255"), Protocol: packet.UDP, SourcePort: 40000, DestinationPort: 9}},
		proof{name: "multicast, forwarded", guard: policy.GuardBroadcast, rule: moveAll(), foreign: multicastRouter,
			flow: packet.Flow{Source: client, Destination: group, Protocol: packet.UDP, SourcePort: 40000, DestinationPort: 5004}})
}

// multicastByEth0 routes what has no gateway.
func multicastByEth0(t *testing.T, r *rig.Rig) {
	t.Helper()
	r.Run(t, "", "ip", "route", "add", "255.255.255.255", "dev", rig.Eth0)
	r.Run(t, "", "ip", "-6", "route", "add", "multicast", "ff00::/8", "dev", rig.Eth0, "table", "local", "metric", "1")
}

// loopbacks: processes of the node among themselves.
func loopbacks() []proof {
	var out []proof
	for _, f := range packet.Families {
		own := rig.AddressOf(rig.Eth0, f == packet.IPv6Family)
		out = append(out, proof{name: "to itself " + f.String(), guard: policy.GuardLoopback, rule: moveOwn(), source: own,
			send: func(_ *testing.T, r *rig.Rig, patience time.Duration) (netip.Addr, error) {
				return sentToItself(r, own, patience)
			}})
	}
	return out
}

// sentToItself sends from one socket of the node to another, both on one
// address, and returns the source that the receiver sees. It sends again until
// that is so: the route to a new IPv6 address comes some time after the address.
func sentToItself(r *rig.Rig, own netip.Addr, patience time.Duration) (seen netip.Addr, err error) {
	const again = 100 * time.Millisecond
	err = r.Node.Do(func() error {
		listener, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(own, 0)))
		if err != nil {
			return err
		}
		defer listener.Close()
		sender, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(own, 0)), listener.LocalAddr().(*net.UDPAddr))
		if err != nil {
			return err
		}
		defer sender.Close()
		for deadline := time.Now().Add(patience); ; {
			if _, err = sender.Write([]byte("hello")); err != nil {
				return err
			}
			if err = listener.SetReadDeadline(time.Now().Add(again)); err != nil {
				return err
			}
			var from netip.AddrPort
			if _, from, err = listener.ReadFromUDPAddrPort(make([]byte, 16)); err == nil {
				seen = from.Addr().Unmap()
				return nil
			}
			if time.Now().After(deadline) {
				return err
			}
		}
	})
	return seen, err
}

// tunnels: a tunnel's peer goes by the outer packet's address.
func tunnels() []proof {
	var out []proof
	for _, port := range []uint16{8472, 4789, 4790} {
		for _, f := range packet.Families {
			out = append(out, vxlan(port, f))
		}
	}
	for _, f := range packet.Families {
		own, peer := rig.AddressOf(rig.Eth0, f == packet.IPv6Family), choose(f, addr("192.0.2.2"), addr("2001:db8::2"))
		for _, protocol := range policy.TunnelProtocols {
			out = append(out, proof{name: fmt.Sprintf("protocol %d %s", protocol, f), guard: policy.GuardTunnel, rule: moveOwn(),
				flow: sentByNode(own, peer, protocol, 0, 0)})
		}
		for _, port := range policy.WellKnownTunnelPorts {
			out = append(out,
				proof{name: fmt.Sprintf("to port %d %s", port, f), guard: policy.GuardTunnel, rule: moveOwn(),
					flow: sentByNode(own, peer, packet.UDP, 40000, port)},
				proof{name: fmt.Sprintf("from port %d %s", port, f), guard: policy.GuardTunnel, rule: moveOwn(),
					flow: sentByNode(own, peer, packet.UDP, port, 40000)})
		}
	}
	return out
}

// What a component does to the node's own packets stays, unless a rule speaks of
// the node: no guard is needed for it.
func TestOwnPacketsAreLeft(t *testing.T) {
	const probe = "169.254.7.127"
	for _, v := range foreign.Variants {
		t.Run("istio "+string(v), func(t *testing.T) {
			r := rig.New(t)
			r.Run(t, "", "ipset", "create", "istio-inpod-probes-v4", "hash:ip")
			r.Run(t, "", "ipset", "add", "istio-inpod-probes-v4", web.String())
			load(istioProbes, v, packet.IPv4Family)(t, r)
			p := proof{rule: keepAll(), flow: sentByNode(rig.Eth0Addr, web, packet.TCP, 40000, 80), source: addr(probe)}
			if wrong := p.wrong(t, r, patient); wrong != "" {
				t.Fatalf("without unmasq: %s", wrong)
			}
			table := openTable(t, r)
			p.install(t, table, plan.Options{})
			if wrong := p.wrong(t, r, patient); wrong != "" {
				t.Errorf("with a policy for others: %s", wrong)
			}
			p.rule = keepOwn()
			p.install(t, table, plan.Options{})
			if wrong := p.wrong(t, r, patient); wrong == "" {
				t.Error("with a policy for the node the probe is still translated: this proves nothing")
			}
		})
	}
}
