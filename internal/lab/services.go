package lab

import (
	"fmt"
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/probe"
)

// Service is one of Kubernetes, TCP and UDP, as kube-proxy's rules have it.
type Service struct {
	Name string
	// Addresses are its ClusterIPs, one of each family.
	Addresses []netip.Addr
	Port      uint16
	// NodePort, where not 0.
	NodePort uint16
	// Local: the node port leads to backends of its own node only
	// (externalTrafficPolicy Local).
	Local bool
	// Backends are pods; they answer at probe.Port.
	Backends []string
}

// Address of a family; the zero Addr where it has none.
func (s *Service) Address(f packet.Family) netip.Addr {
	for _, a := range s.Addresses {
		if packet.Of(a) == f {
			return a
		}
	}
	return netip.Addr{}
}

// Service returns the service of a name.
func (s *Scenario) Service(name string) (*Service, error) {
	for i := range s.Services {
		if s.Services[i].Name == name {
			return &s.Services[i], nil
		}
	}
	return nil, fmt.Errorf("scenario %s has no service %q", s.Name, name)
}

// Ping says whether the call is an echo request to a service's address.
func (c Call) Ping() bool { return c.To == "" }

// Protocols that the call is made by: services have ports, an echo request has none.
func (c Call) Protocols() []string {
	switch {
	case c.Ping():
		return []string{probe.ICMP}
	case c.Service != "":
		return []string{probe.TCP, probe.UDP}
	}
	return []string{probe.TCP, probe.UDP, probe.ICMP}
}

// String is "client to web1 by service web at node1".
func (c Call) String() string {
	text := c.From + " to " + c.To
	if c.Ping() {
		return c.From + " by ping to service " + c.Service
	}
	if c.Service != "" {
		text += " by service " + c.Service
	}
	if c.Node != "" {
		text += " at " + c.Node
	}
	return text
}

// Target is the address and port that a call is made to; of an echo request the port
// counts for nothing.
func (s *Scenario) Target(c Call, f packet.Family) (netip.AddrPort, error) {
	if c.Service == "" {
		to, err := s.Space(c.To)
		if err != nil {
			return netip.AddrPort{}, err
		}
		return netip.AddrPortFrom(to.Address(f), probe.Port), nil
	}
	service, err := s.Service(c.Service)
	if err != nil {
		return netip.AddrPort{}, err
	}
	if c.Node == "" {
		return netip.AddrPortFrom(service.Address(f), service.Port), nil
	}
	node, err := s.Space(c.Node)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(node.Address(f), service.NodePort), nil
}

// endpoints are the spaces that a call may reach, To first.
func (s *Scenario) endpoints(c Call) []string {
	if c.Ping() {
		return nil
	}
	names := []string{c.To}
	if service, err := s.Service(c.Service); err == nil {
		for _, b := range service.Backends {
			if b != c.To {
				names = append(names, b)
			}
		}
	}
	return names
}
