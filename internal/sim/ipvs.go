package sim

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// balance is IPVS's hook: at input before source NAT (priority 98), at output
// after destination NAT (-99). A packet to a virtual server gets the address of
// one of its real servers, without conntrack's DNAT status. true where it does.
// The kernel's net/netfilter/ipvs/ip_vs_core.c; only forwarding method masq
// changes addresses.
func (r *run) balance() bool {
	if r.balanced || !r.hasPorts() || r.connection != nil {
		return false
	}
	host := r.node.host
	if !host.VirtualServersGiven {
		r.missingVirtualServers()
		return false
	}
	if !r.dport.known {
		return false
	}
	r.work += len(host.VirtualServers)
	for i := range host.VirtualServers {
		v := &host.VirtualServers[i]
		at, err := netip.ParseAddrPort(v.Address)
		if err == nil && v.Protocol == r.protocol && at.Addr() == r.dst && at.Port() == r.dport.port {
			return r.toServer(v)
		}
	}
	return false
}

// missingVirtualServers: an address on kube-ipvs0 is a service's.
func (r *run) missingVirtualServers() {
	name, ok := holder(&r.node.host.Network, r.dst)
	if !ok || name != "kube-ipvs0" {
		return
	}
	r.lacks("IPVS", "the virtual servers weren't given (ipvsadm -Sn); "+r.dst.String()+" on kube-ipvs0 is one")
	r.doubt, r.kind, r.sourceKnown = true, SourceUnknown, false
}

// toServer chooses a real server; rr and the like are taken as dice by weight.
func (r *run) toServer(v *snapshot.VirtualServer) bool {
	var servers []snapshot.RealServer
	total := 0
	for _, s := range v.Servers {
		if s.Weight > 0 {
			servers = append(servers, s)
			total += s.Weight
		}
	}
	if len(servers) == 0 {
		r.verdict, r.rejectWith = Rejected, "port-unreachable"
		r.decider = &Decider{Text: "IPVS virtual server " + v.Address + " has no real server"}
		return false
	}
	alternatives := make([]alternative, len(servers))
	for i, s := range servers {
		alternatives[i] = alternative{weight: float64(s.Weight) / float64(total)}
	}
	s := servers[r.choose("", "IPVS scheduler", alternatives...)]
	r.balanced = true
	r.record(Step{Hook: r.hook.String(), Matched: true, Effect: "IPVS " + v.Address + " to " + s.Address + " (" + s.Method + ")"})
	to, err := netip.ParseAddrPort(s.Address)
	if err != nil || s.Method != "masq" {
		r.lacks("IPVS", "forwarding method "+s.Method+" of "+s.Address+" isn't followed")
		return true
	}
	r.dst, r.dport = to.Addr(), portOf(int(to.Port()))
	r.needRoute, r.routeMark = true, r.mark
	return true
}

// sendOn is the way of a packet that IPVS took at input: out again, as if the
// node sent it, with the source it came with.
func (r *run) sendOn() {
	r.toNode = false
	result := r.node.host.Network.Lookup(route.Query{
		Source: r.src, Destination: r.dst, Mark: r.mark, Protocol: r.protocol,
		SourcePort: r.sport.number(), DestinationPort: r.dport.number(),
	})
	if !result.Known {
		r.lacks("routes", result.Why)
		r.openOut()
	} else if !r.takeRoute(result) {
		return
	}
	if r.pass(output) && r.pass(postrouting) && !r.toNode {
		r.leave()
	}
}
