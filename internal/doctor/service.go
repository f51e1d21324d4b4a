package doctor

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/vicinity"
)

// service is what rules translate to somewhere else: a ClusterIP, a published port.
type service struct {
	// address is invalid where any address of the node will do.
	address  netip.Addr
	protocol uint8
	port     int
	// clusterIP: kube-proxy made it for a service's own address.
	clusterIP bool
}

// mostServices are asked about; more would tell nothing else.
const mostServices = 256

// services that the node's rules name, and that have a backend.
func (p *patient) services() []service { return p.firstServices(mostServices) }

func (p *patient) firstServices(most int) []service {
	var all []service
	for _, s := range vicinity.Services(p.host, most) {
		if !s.NoBackends {
			all = append(all, service{s.Address, s.Protocol, int(s.Port), s.Kind == vicinity.ClusterIP && s.Name != ""})
		}
	}
	return all
}
