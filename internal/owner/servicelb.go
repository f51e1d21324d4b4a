package owner

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// backend of k3s' service load balancer: where a svclb pod sends its service to.
type backend struct {
	family   packet.Family
	address  netip.Addr
	protocol uint8
}

// findServiceLB looks for the rules that klipper-lb writes into the network
// namespace of a svclb pod:
//
//	*filter
//	-A FORWARD -s 0.0.0.0/0 -p tcp -m tcp --dport 80 -j ACCEPT
//	-A FORWARD -d 10.43.12.3/32 -p tcp -m tcp --dport 80 -j DROP
//	*nat
//	-A PREROUTING ! -s 10.43.12.3/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.43.12.3:80
//	-A POSTROUTING -d 10.43.12.3/32 -p tcp -j MASQUERADE
//
// People forward ports with the same NAT rules; the drop, or the exclusion of the
// backend itself, is what they don't write.
func (x *Index) findServiceLB(tables []*ruleset.Table) {
	sent, dropped := map[backend]bool{}, map[backend]bool{}
	for _, t := range tables {
		switch t.Name {
		case "nat":
			findSent(t, sent, dropped)
		case "filter":
			findDropped(t, dropped)
		}
	}
	for b := range sent {
		if dropped[b] {
			x.serviceLB[b] = true
		}
	}
}

// findSent notes what PREROUTING translates to, and with the backend itself left
// out as if it were dropped too.
func findSent(t *ruleset.Table, sent, dropped map[backend]bool) {
	pre := t.Chain("PREROUTING")
	if pre == nil {
		return
	}
	for i := range pre.Rules {
		r := &pre.Rules[i]
		d, ok := r.Target.(ruleset.DNAT)
		if !ok || d.First != d.Last || d.Ports == nil || !destinationPort(r) || asked(r)&^source != protocol|matches {
			continue
		}
		b := backend{t.Family, d.First, r.Protocol.Number}
		switch {
		case asked(r)&source == 0:
			sent[b] = true
		case d.First.IsValid() && isNot(r.Source, netip.PrefixFrom(d.First, d.First.BitLen())):
			sent[b], dropped[b] = true, true
		}
	}
}

func findDropped(t *ruleset.Table, dropped map[backend]bool) {
	forward := t.Chain("FORWARD")
	if forward == nil {
		return
	}
	for i := range forward.Rules {
		r := &forward.Rules[i]
		a, ok := single(r.Destination)
		if ok && drops(r.Target) && asked(r) == destination|protocol|matches && destinationPort(r) {
			dropped[backend{t.Family, a, r.Protocol.Number}] = true
		}
	}
}

// serviceLBRule is one of the rules above.
func serviceLBRule(p place) bool {
	r := p.rule
	if len(p.serviceLB) == 0 || !r.Protocol.Is || r.Protocol.Not {
		return false
	}
	a, _ := single(r.Destination)
	to := p.serviceLB[backend{p.table.Family, a, r.Protocol.Number}]
	switch p.table.Name + " " + p.chain.Name {
	case "nat POSTROUTING":
		return to && asked(r) == destination|protocol && bareMasquerade(r.Target)
	case "nat PREROUTING":
		d, ok := r.Target.(ruleset.DNAT)
		return ok && asked(r)&^source == protocol|matches && p.serviceLB[backend{p.table.Family, d.First, r.Protocol.Number}]
	case "filter FORWARD":
		return to && drops(r.Target) && asked(r) == destination|protocol|matches
	}
	return false
}

func (p place) k3sServiceLB() Owner {
	o := Owner{
		Name: K3sServiceLB, Version: "klipper-lb, in the network namespace of a svclb pod",
		Setting: "Service of type LoadBalancer",
		Change:  []string{"externalTrafficPolicy: Local on the Service", "k3s server --disable=servicelb"},
	}
	if translatesSource(p.rule.Target) {
		o.Because = "the load balancer's pod sends on what it received, under its own address"
		o.Trap = "kube-proxy sees the svclb pod as the client"
	}
	return o
}
