package policytest

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// ServiceCIDRs of random facts.
var ServiceCIDRs = Prefixes("10.96.0.0/16", "fd00:96::/112")

// Some of the addresses are shared by services, and by the node.
var (
	externalAddresses = Addrs("203.0.113.100", "203.0.113.101", "192.0.2.1", "2001:db8:113::100", "2001:db8::1")
	serviceNames      = []string{"web", "dns", "db", "headless"}
)

func (g *Generator) services() *policy.Services {
	s := &policy.Services{Backends: pick(g, []policy.Backends{policy.AnyBackends, policy.AnyBackends, policy.LocalBackends, policy.RemoteBackends})}
	switch g.IntN(5) {
	case 0:
	case 1:
		s.CIDRs = g.prefixes(ServiceCIDRs, 2)
	case 2:
		s.Selector = &policy.ServiceSelector{Service: g.selector(), Namespace: labels.Everything()}
		fallthrough
	default:
		for range 1 + g.IntN(2) {
			s.Names = append(s.Names, "shop/"+pick(g, serviceNames))
		}
	}
	if len(s.CIDRs) == 0 {
		s.Via = pick(g, []policy.Via{policy.AnyWay, policy.AnyWay, policy.AnyWay, policy.ViaClusterIP, policy.ViaNodePort, policy.ViaLoadBalancer, policy.ViaExternalIP})
	} else if g.chance(2) {
		s.Names = append(s.Names, "shop/web")
	}
	if g.chance(4) {
		first := pick(g, Ports)
		s.Ports = []policy.PortMatch{{Protocol: pick(g, []uint8{packet.TCP, packet.UDP}), PortRange: policy.PortRange{First: first, Last: first + uint16(min(g.IntN(400), 65535-int(first)))}}}
	}
	return s
}

// addServices makes some services; others have the same names in a namespace that no
// rule speaks of.
func (g *Generator) addServices(f *policy.Facts) {
	if f.ServiceCIDRs = ServiceCIDRs; g.chance(6) {
		f.ServiceCIDRs = ServiceCIDRs[:1]
	}
	for i, name := range append(serviceNames, serviceNames...) {
		s := policy.Service{Namespace: []string{"shop", "other"}[i/len(serviceNames)], Name: name, Labels: labels.Set{"app": pick(g, []string{"a", "b"})}}
		if name == "headless" {
			s.NoAddress = policy.Headless
			f.Services = append(f.Services, s)
			continue
		}
		s.ClusterIPs = []netip.Addr{g.Addr(ServiceCIDRs[0]), g.Addr(ServiceCIDRs[1])}
		if g.chance(4) {
			s.ClusterIPs = s.ClusterIPs[:1]
		}
		for j := range 1 + g.IntN(3) {
			p := policy.ServicePort{Protocol: []uint8{packet.TCP, packet.UDP}[j%2], Port: pick(g, Ports)}
			if g.chance(2) {
				p.NodePort = uint16(30000 + g.IntN(4))
			}
			s.Ports = append(s.Ports, p)
		}
		if g.chance(2) {
			s.ExternalIPs = []netip.Addr{pick(g, externalAddresses), pick(g, externalAddresses)}
		}
		if g.chance(2) {
			s.LoadBalancerIPs = []netip.Addr{pick(g, externalAddresses)}
		}
		f.Services = append(f.Services, s)
	}
}

// ToService is the flow as it is when it was made to a service, of which mostly one
// is there, and sent on to a pod.
func (g *Generator) ToService(facts *policy.Facts, f packet.Flow) packet.Flow {
	var all []policy.Frontend
	via := pick(g, []policy.Via{policy.ViaClusterIP, policy.ViaClusterIP, policy.ViaNodePort, policy.ViaLoadBalancer, policy.ViaExternalIP})
	for i := range facts.Services {
		if facts.Services[i].Namespace == "shop" || g.chance(4) {
			all = append(all, facts.Services[i].Frontends(facts, via, nil)...)
		}
	}
	all = slices.DeleteFunc(all, func(x policy.Frontend) bool { return packet.Of(x.Address) != f.Family() })
	if len(all) == 0 || !f.HasPorts() {
		return f
	}
	x := pick(g, all)
	f.OriginalDestination, f.OriginalPort, f.Protocol = x.Address, x.Port, x.Protocol
	switch g.IntN(8) {
	case 0:
		f.OriginalPort++
	case 1:
		f.Protocol = packet.SCTP
	case 2: // as nobody translated it
		f.Destination, f.DestinationPort, f.OriginalDestination = x.Address, x.Port, netip.Addr{}
	}
	if len(facts.Pods) > 0 && g.chance(2) {
		f.Destination = pick(g, ofAddrs(pick(g, facts.Pods).Addresses, f.Family()))
	}
	return f
}
