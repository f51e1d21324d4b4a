package policy

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/unmasq/unmasq/internal/packet"
)

// Services selects connections by what they were made to, before DNAT. Names,
// Selector and CIDRs are alternatives; without any of them all services are meant.
// Ports, Backends and Via must match too.
type Services struct {
	// Names of Services: NAMESPACE/NAME.
	Names []string
	// Selector of Services; nil without.
	Selector *ServiceSelector
	// CIDRs of ClusterIPs.
	CIDRs []netip.Prefix
	// Ports of the service that the connection was made to; nil: any. A node port may
	// be meant by its own number too.
	Ports    []PortMatch
	Backends Backends
	Via      Via
}

// ServiceSelector selects Services by labels. Neither field is nil.
type ServiceSelector struct {
	Service, Namespace labels.Selector
}

// Backends says where the pod is that the connection goes to.
type Backends string

const (
	AnyBackends Backends = "Any"
	// LocalBackends are pods of this node, as far as they are known.
	LocalBackends Backends = "Local"
	// RemoteBackends are all others.
	RemoteBackends Backends = "Remote"
)

// Via is the kind of address that the connection was made to.
type Via string

const (
	AnyWay          Via = ""
	ViaClusterIP    Via = "ClusterIP"
	ViaNodePort     Via = "NodePort"
	ViaLoadBalancer Via = "LoadBalancer"
	ViaExternalIP   Via = "ExternalIP"
)

// vias are the kinds of addresses, in the order that Frontends has them.
var vias = [...]Via{ViaClusterIP, ViaNodePort, ViaLoadBalancer, ViaExternalIP}

// Service is a Service of the cluster.
type Service struct {
	Namespace, Name         string
	Labels, NamespaceLabels labels.Set
	// NoAddress is why there is none that a connection could be made to: "is
	// headless", "is of type ExternalName"; "" where there is one.
	NoAddress string
	// ClusterIPs say which families the service has.
	ClusterIPs, ExternalIPs, LoadBalancerIPs []netip.Addr
	Ports                                    []ServicePort
	// LocalOnly: externalTrafficPolicy Local, backends of other nodes get nothing
	// from outside.
	LocalOnly bool
}

// ServicePort is a port of a Service; NodePort 0: none.
type ServicePort struct {
	Protocol       uint8
	Port, NodePort uint16
}

// ID is NAMESPACE/NAME.
func (s *Service) ID() string { return s.Namespace + "/" + s.Name }

// Frontend is where connections to a service are made to.
type Frontend struct {
	Address  netip.Addr
	Protocol uint8
	Port     uint16
}

// Frontends of one kind, of those ports; nil: all. A service has node ports, and
// other addresses, in the families of its ClusterIPs only: so kube-proxy has it.
func (s *Service) Frontends(facts *Facts, via Via, ports []PortMatch) []Frontend {
	return s.appendFrontends(nil, facts, via, ports)
}

func (s *Service) appendFrontends(out []Frontend, facts *Facts, via Via, ports []PortMatch) []Frontend {
	var addresses []netip.Addr
	switch via {
	case ViaClusterIP:
		addresses = s.ClusterIPs
	case ViaNodePort:
		addresses = facts.NodeAddresses
	case ViaLoadBalancer:
		addresses = s.LoadBalancerIPs
	case ViaExternalIP:
		addresses = s.ExternalIPs
	}
	for _, a := range addresses {
		if !hasAddr(s.ClusterIPs, packet.Of(a)) {
			continue
		}
		for _, p := range s.Ports {
			f := Frontend{a, p.Protocol, p.Port}
			if via == ViaNodePort {
				f.Port = p.NodePort
			}
			if f.Port != 0 && (len(ports) == 0 || AnyPort(ports, p.Protocol, p.Port) || AnyPort(ports, f.Protocol, f.Port)) {
				out = append(out, f)
			}
		}
	}
	return out
}

// NeedsServices says whether a rule asks for Services. Those that speak of service
// CIDRs alone don't.
func (p *Policy) NeedsServices() bool {
	return slices.ContainsFunc(p.Rules, func(r Rule) bool { return r.To.Services != nil && r.To.Services.NeedsServices() })
}

// NeedsServices says whether the Services themselves must be known.
func (s *Services) NeedsServices() bool {
	return s.named() || len(s.CIDRs) == 0 && s.Via != AnyWay && s.Via != ViaClusterIP
}

// NeedsServiceCIDRs says whether it means all addresses in service CIDRs.
func (s *Services) NeedsServiceCIDRs() bool { return len(s.CIDRs) == 0 && !s.NeedsServices() }

func (s *Services) named() bool { return len(s.Names) > 0 || s.Selector != nil }

// Networks are the service CIDRs that are meant, all ports of them.
func (s *Services) Networks(facts *Facts) []netip.Prefix {
	if s.NeedsServiceCIDRs() {
		return facts.ServiceCIDRs
	}
	return s.CIDRs
}

// Selects says whether the service is meant.
func (s *Services) Selects(v *Service) bool {
	if !s.named() {
		return s.NeedsServices()
	}
	return slices.Contains(s.Names, v.ID()) ||
		s.Selector != nil && s.Selector.Service.Matches(v.Labels) && s.Selector.Namespace.Matches(v.NamespaceLabels)
}

// AppendFrontends appends those of a service that it selects which it means.
func (s *Services) AppendFrontends(out []Frontend, facts *Facts, v *Service) []Frontend {
	for _, via := range vias {
		if s.Via == AnyWay || s.Via == via {
			out = v.appendFrontends(out, facts, via, s.Ports)
		}
	}
	return out
}

// Has says whether it means anything in a family.
func (s *Services) Has(f packet.Family, facts *Facts) bool {
	return hasPrefix(s.Networks(facts), f) || s.NeedsServices() && slices.ContainsFunc(facts.Services, func(v Service) bool {
		return hasAddr(v.ClusterIPs, f) && s.Selects(&v)
	})
}

func (s *Services) matches(facts *Facts, flow packet.Flow) bool {
	if local := facts.localBackend(flow.Destination); s.Backends == LocalBackends && !local || s.Backends == RemoteBackends && local {
		return false
	}
	address, port := flow.Asked()
	if inAny(s.Networks(facts), address) && (len(s.Ports) == 0 || flow.HasPorts() && AnyPort(s.Ports, flow.Protocol, port)) {
		return true
	}
	asked := Frontend{address, flow.Protocol, port}
	return slices.ContainsFunc(facts.Services, func(v Service) bool {
		return s.Selects(&v) && slices.Contains(s.AppendFrontends(nil, facts, &v), asked)
	})
}

// localBackend: what isn't known to be a pod of this node isn't one.
func (f *Facts) localBackend(a netip.Addr) bool {
	if !f.PodsKnown {
		return inAny(f.LocalPodCIDRs, a)
	}
	return slices.ContainsFunc(f.Pods, func(p Pod) bool { return slices.Contains(p.Addresses, a) })
}
