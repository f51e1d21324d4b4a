package guards_test

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/rig"
)

// rulesOf a component, in the forms in which it writes them.
type rulesOf struct {
	name  string
	rules string
	// native: nft text.
	native bool
}

// variants of iptables; for nft text one, of no meaning.
func (c rulesOf) variants() []foreign.Variant {
	if c.native {
		return foreign.Variants[:1]
	}
	return foreign.Variants[:]
}

// each makes a proof for each variant and family.
func (c rulesOf) each(p func(foreign.Variant, packet.Family) proof) []proof {
	var out []proof
	for _, v := range c.variants() {
		for _, f := range packet.Families {
			each := p(v, f)
			each.name = c.name + " " + f.String()
			if !c.native {
				each.name = c.name + " " + string(v) + " " + f.String()
			}
			out = append(out, each)
		}
	}
	return out
}

// choose returns what belongs to the family.
func choose[T any](f packet.Family, v4, v6 T) T {
	if f == packet.IPv6Family {
		return v6
	}
	return v4
}

// toPublished is a TCP packet to a published port of the node.
func toPublished(from netip.Addr) packet.Flow {
	return packet.Flow{Source: from, Destination: rig.AddressOf(rig.Eth0, from.Is6()), Protocol: packet.TCP, SourcePort: 40000, DestinationPort: 8080}
}

// toService is a TCP packet to a service's ClusterIP.
func toService(from netip.Addr) packet.Flow {
	service := choose(packet.Of(from), addr("10.96.83.77"), addr("fd00:96::8a5"))
	return packet.Flow{Source: from, Destination: service, Protocol: packet.TCP, SourcePort: 40000, DestinationPort: 80}
}

// hairpins: web connects to its own published port or its own service. Were its
// source kept, it would receive a packet from itself and never answer.
func hairpins() []proof {
	var out []proof
	for _, c := range []rulesOf{
		{"docker", dockerHairpin, false}, {"docker nftables", dockerHairpinNFTables, true},
		{"portmap nftables", portmapNFTables, true}, {"kube-proxy nftables 1.36", kubeNFTables136, true},
	} {
		out = append(out, c.each(func(v foreign.Variant, f packet.Family) proof { return c.hairpin(v, f, keepAll()) })...)
		c.name += ", pods not known one by one"
		out = append(out, c.each(func(v foreign.Variant, f packet.Family) proof {
			p := c.hairpin(v, f, keepAll())
			p.facts = func(facts *policy.Facts) { facts.PodsKnown, facts.Pods = false, nil }
			return p
		})...)
	}
	return out
}

// markedHairpins carry a mark too. It holds most rules off, but not those that
// override marks.
func markedHairpins() []proof {
	var out []proof
	for _, c := range []rulesOf{
		{"kube-proxy iptables", kubeService, false}, {"kube-proxy nftables 1.35", kubeNFTables135, true},
		{"portmap iptables", portmap, false},
	} {
		out = append(out, c.each(func(v foreign.Variant, f packet.Family) proof { return c.hairpin(v, f, overriding(keepAll())) })...)
	}
	return out
}

// hairpin is web's packet to itself.
func (c rulesOf) hairpin(v foreign.Variant, f packet.Family, rule policy.Rule) proof {
	p := proof{guard: policy.GuardHairpin, foreign: load(c.rules, v, f), rule: rule, hidden: rig.Bridge}
	switch c.rules {
	case kubeService:
		p.foreign = together(kubeMasquerade(v, f), p.foreign)
		fallthrough
	case kubeNFTables135, kubeNFTables136:
		p.flow = toService(choose(f, web, web6))
	default:
		p.flow = toPublished(choose(f, web, web6))
	}
	return p
}

// serviceMarks: a client from outside reaches a service through this node. Were
// its source kept, the answer could go another way and be refused.
func serviceMarks() []proof {
	var out []proof
	for _, c := range []rulesOf{
		{"kube-proxy iptables", kubeService, false},
		{"kube-proxy nftables 1.35", kubeNFTables135, true}, {"kube-proxy nftables 1.36", kubeNFTables136, true},
	} {
		out = append(out, c.each(func(v foreign.Variant, f packet.Family) proof {
			setUp := load(c.rules, v, f)
			if !c.native {
				setUp = together(kubeMasquerade(v, f), setUp)
			}
			return proof{guard: policy.GuardServiceMark, foreign: setUp, rule: keepAll(), flow: toService(choose(f, vpn, vpn6)), hidden: rig.Bridge}
		})...)
	}
	// Up to 1.35 the mark alone tells hairpin traffic; the guard for hairpins
	// doesn't see it where the endpoint isn't known as a pod of this node.
	old := rulesOf{"kube-proxy nftables 1.35, hairpin", kubeNFTables135, true}
	return append(out, old.each(func(v foreign.Variant, f packet.Family) proof {
		return proof{guard: policy.GuardServiceMark, foreign: load(old.rules, v, f), rule: keepAll(),
			facts: func(facts *policy.Facts) { facts.Pods = nil }, flow: toService(choose(f, web, web6)), hidden: rig.Bridge}
	})...)
}

// hostPortMarks: a pod reaches a neighbour through the node's port. Were its
// source kept, the neighbour would answer directly, from an address that the pod
// never asked.
func hostPortMarks() []proof {
	c := rulesOf{"portmap iptables", portmap, false}
	return c.each(func(v foreign.Variant, f packet.Family) proof {
		return proof{guard: policy.GuardHostPortMark, foreign: load(c.rules, v, f), rule: keepAll(), flow: toPublished(choose(f, client, client6)), hidden: rig.Bridge}
	})
}
