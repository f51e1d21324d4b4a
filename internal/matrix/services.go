package matrix

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/vicinity"
)

// service is one door of a service, in all families that it has.
type service struct {
	name  string
	kind  vicinity.ServiceKind
	local bool
	// none: its rules say that it has no backends.
	none    bool
	targets []Target
	// sticky: a client's backend depends on what is remembered of it.
	sticky bool
}

// Bounds of a node's services: of how many are read, and how many are looked at for
// one of each kind.
const (
	mostServices = 50000
	mostLookedAt = 256
)

// findServices groups the doors that here's rules have.
func (w *world) findServices() {
	at := map[string]*service{}
	for _, s := range vicinity.Services(w.here().Host, mostServices) {
		if s.Protocol != w.Protocol || !slices.Contains(w.families, s.Family) {
			continue
		}
		key := fmt.Sprint(s.Kind, s.Name, s.Port)
		if s.Name == "" && s.Address.IsValid() {
			key = fmt.Sprint(s.Kind, s.Address, s.Port)
		}
		group := at[key]
		if group == nil || group.target(s.Family) != nil {
			group = &service{name: s.Name, kind: s.Kind}
			at[key] = group
			w.services = append(w.services, group)
		}
		address := s.Address
		if !address.IsValid() {
			address = w.here().primary(s.Family)
		}
		if !address.IsValid() {
			continue
		}
		if s.Kind == vicinity.ClusterIP && w.here().holds(address) && s.Name == "" {
			group.kind = vicinity.NodePort // of IPVS, which has no other sign
		}
		group.local, group.none = group.local || s.Local, group.none || s.NoBackends
		group.targets = append(group.targets, Target{Address: address, Port: s.Port, Protocol: protocolName(w.Protocol)})
	}
	w.services = slices.DeleteFunc(w.services, func(s *service) bool { return len(s.targets) == 0 })
	for _, s := range w.services {
		slices.SortFunc(s.targets, func(a, b Target) int { return cmp.Compare(a.Address.BitLen(), b.Address.BitLen()) })
	}
}

func protocolName(p uint8) string {
	if p == packet.UDP {
		return "udp"
	}
	return "tcp"
}

func (s *service) target(f packet.Family) *Target {
	i := slices.IndexFunc(s.targets, func(t Target) bool { return packet.Of(t.Address) == f })
	if i < 0 {
		return nil
	}
	return &s.targets[i]
}

// is says whether that is how the service was named: with its port's name or without,
// or by its address, with its port or without.
func (s *service) is(name string) bool {
	if bare, _, _ := strings.Cut(s.name, ":"); name == s.name || name == bare {
		return s.name != ""
	}
	return slices.ContainsFunc(s.targets, func(t Target) bool {
		return name == t.Address.String() || name == netip.AddrPortFrom(t.Address, t.Port).String()
	})
}

// String is what people call it.
func (s *service) String() string {
	if s.name != "" {
		return s.name
	}
	return netip.AddrPortFrom(s.targets[0].Address, s.targets[0].Port).String()
}

// fillBackends with where the service's rules lead what the node itself sends, or,
// where that is nowhere, what comes from outside.
func (w *world) fillBackends(s *service) {
	for i := range s.targets {
		t := &s.targets[i]
		if t.Backends != nil || s.none {
			continue
		}
		w.askBackends(s, t, w.here().speaksAs(t.Address), true)
		if len(t.Backends) == 0 {
			w.askBackends(s, t, vicinity.Outside(packet.Of(t.Address)), false)
		}
	}
}

// askBackends of a target, as a client that is the node itself, or is outside.
func (w *world) askBackends(s *service, t *Target, from netip.Addr, local bool) {
	t.Backends = []netip.AddrPort{}
	if !from.IsValid() {
		return
	}
	q := sim.Question{
		Source: from, Destination: t.Address, DestinationPort: int(t.Port), Protocol: w.Protocol, SourcePort: sourcePort, Local: local, At: w.here().Name,
	}
	for _, o := range w.explain.Leads(q) {
		if !o.Destination.IsValid() || o.Destination == t.Address || o.DestinationPort == sim.UnknownPort {
			continue
		}
		s.sticky = s.sticky || o.Probability == 0
		if b := netip.AddrPortFrom(o.Destination, uint16(o.DestinationPort)); !slices.Contains(t.Backends, b) {
			t.Backends = append(t.Backends, b)
		}
	}
	slices.SortFunc(t.Backends, netip.AddrPort.Compare)
}

// spread of a service's backends over the nodes.
func (w *world) spread(s *service) (here, there int) {
	for _, t := range s.targets {
		for _, b := range t.Backends {
			if w.whereIs(b.Addr()) == 0 {
				here++
			} else {
				there++
			}
		}
	}
	return here, there
}

// role of a service's column.
func (w *world) role(s *service) Role {
	here, there := w.spread(s)
	switch {
	case s.kind == vicinity.Published:
		return Published
	case s.kind == vicinity.ExternalIP:
		return ExternalIP
	case s.kind == vicinity.NodePort && s.local:
		return NodePortLocal
	case s.kind == vicinity.NodePort:
		return NodePortCluster
	case here > 0 && there > 0:
		return ClusterIPBoth
	case here > 0:
		return ClusterIPHere
	case there > 0:
		return ClusterIPThere
	}
	return ClusterIPNone
}

// serviceRoles in the order of columns.
var serviceRoles = [...]Role{ClusterIPHere, ClusterIPThere, ClusterIPBoth, ClusterIPNone, NodePortCluster, NodePortLocal, ExternalIP, Published}

// chosen are the services to ask about: those named, all, or one of each role.
func (w *world) chosen() []*service {
	switch {
	case len(w.Services) > 0:
		var all []*service
		for _, s := range w.services {
			if slices.ContainsFunc(w.Services, s.is) {
				all = append(all, s)
			}
		}
		return w.filled(all)
	case w.AllServices:
		return w.filled(w.services)
	}
	return w.sampled()
}

func (w *world) filled(all []*service) []*service {
	for _, s := range all {
		w.fillBackends(s)
	}
	return all
}

// sampled is the one that tells most of each role.
func (w *world) sampled() []*service {
	best, worth, kinds := map[Role]*service{}, map[Role]int{}, map[vicinity.ServiceKind]int{}
	for _, s := range w.services {
		if kinds[s.kind]++; kinds[s.kind] > mostLookedAt {
			continue
		}
		w.fillBackends(s)
		if role, v := w.role(s), w.worth(s); best[role] == nil || v > worth[role] {
			best[role], worth[role] = s, v
		}
	}
	var all []*service
	for _, role := range serviceRoles {
		if best[role] != nil {
			all = append(all, best[role])
		}
	}
	if more := len(w.services) - len(all); more > 0 {
		w.note("more addresses of services are known (%d): --service NAME, --all-services", more)
	}
	return all
}

// worth of a service as a sample: both families, backends that are pods, few of them;
// of node ports one with a backend on either side.
func (w *world) worth(s *service) (v int) {
	here, there := w.spread(s)
	v = 100*len(s.targets) - min(here+there, 50)
	if slices.ContainsFunc(s.targets, func(t Target) bool { return len(t.Backends) == 0 }) && !s.none {
		v -= 60
	}
	if s.kind != vicinity.ClusterIP && here > 0 && there > 0 {
		v += 80
	}
	if s.sticky {
		v -= 70
	}
	if s.name == "default/kubernetes:https" { // its backends are nodes
		v -= 90
	}
	return v
}
