package doctor

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// service is what rules translate to somewhere else: a ClusterIP, a published port.
type service struct {
	// address is invalid where any address of the node will do.
	address  netip.Addr
	protocol uint8
	port     int
}

// mostServices are asked about; more would tell nothing else.
const mostServices = 256

// services that the node's rules name.
func (p *patient) services() []service {
	var all []service
	add := func(s service, ok bool) {
		if ok && len(all) < mostServices && !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	for _, t := range p.host.Rules.Tables {
		switch {
		case t.Native != nil:
			for _, set := range t.Native.Sets {
				for i := range set.Elements {
					add(elementService(set, &set.Elements[i]))
				}
			}
		case t.Name == "nat":
			for _, c := range t.Chains {
				for i := range c.Rules {
					add(ruleService(&c.Rules[i]))
				}
			}
		}
	}
	return all
}

// ruleService is that of a rule such as
//
//	-A KUBE-SERVICES -d 10.96.0.10/32 -p udp … --dport 53 -j KUBE-SVC-TCOU7JCQXEZGVUNU
//	-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
func ruleService(rule *ruleset.Rule) (service, bool) {
	switch rule.Target.(type) {
	case ruleset.DNAT, ruleset.Jump:
	default:
		return service{}, false
	}
	s := service{protocol: rule.Protocol.Number}
	if !rule.Protocol.Is || rule.Protocol.Not || rule.Destination.Not {
		return service{}, false
	}
	if d := rule.Destination.Prefix; d.IsValid() {
		if !d.IsSingleIP() {
			return service{}, false
		}
		s.address = d.Addr()
	}
	for _, m := range rule.Matches {
		if ports, ok := m.(ruleset.Ports); ok && ports.Side == ruleset.Destination && !ports.Not && len(ports.Ranges) == 1 && ports.Ranges[0].First == ports.Ranges[0].Last {
			s.port = int(ports.Ranges[0].First)
		}
	}
	return s, s.port != 0
}

// elementService is that of an element of a verdict map of kube-proxy.
//
//	10.96.0.10 . udp . 53 : goto service-…
//	tcp . 30080 : goto external-…
func elementService(set *nftables.Set, e *nftables.Element) (service, bool) {
	key, ok := e.Key.(nftables.Concat)
	if !ok || !set.Map || len(key.Parts) < 2 || len(key.Parts) > 3 {
		return service{}, false
	}
	parts := make([]string, len(key.Parts))
	for i, part := range key.Parts {
		parts[i] = nftables.ExprText(part)
	}
	var s service
	if len(parts) == 3 {
		a, err := netip.ParseAddr(parts[0])
		if err != nil {
			return service{}, false
		}
		s.address, parts = a, parts[1:]
	}
	s.protocol = map[string]uint8{"tcp": packet.TCP, "udp": packet.UDP, "sctp": packet.SCTP}[parts[0]]
	port, err := strconv.Atoi(parts[1])
	s.port = port
	return s, err == nil && s.protocol != 0
}
