package owner

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

func flannelChain(chain string) bool { return chain == "FLANNEL-POSTRTG" || chain == "FLANNEL-FWD" }

func flannelComment(text string) bool { return text == "flanneld masq" || text == "flanneld forward" }

// role of a rule among those that flannel before 0.20 put straight into
// POSTROUTING, for a cluster network C and a node's network P.
type role uint8

const (
	noRole      role = 0
	inside      role = 1 << iota // -s C -d C -j RETURN
	leaving                      // -s C ! -d 224.0.0.0/4 -j MASQUERADE
	toLocalPods                  // ! -s C -d P -j RETURN, since 0.9
	entering                     // ! -s C -d C -j MASQUERADE
)

// flannelRole returns the rule's role and C.
func flannelRole(r *ruleset.Rule) (role, netip.Prefix) {
	c := r.Source.Prefix
	if r.Comment != "" && r.Comment != "flanneld masq" || asked(r)&^comment != source|destination || !r.Destination.Prefix.IsValid() || c.IsSingleIP() {
		return noRole, c
	}
	switch {
	case returns(r.Target) && !r.Source.Not && is(r.Destination, c):
		return inside, c
	case masquerade(r.Target) && !r.Source.Not && isNot(r.Destination, multicast(c.Addr())):
		return leaving, c
	case returns(r.Target) && r.Source.Not && !r.Destination.Not && r.Destination.Prefix != c && c.Overlaps(r.Destination.Prefix):
		return toLocalPods, c
	case masquerade(r.Target) && r.Source.Not && is(r.Destination, c):
		return entering, c
	}
	return noRole, c
}

// flannelNetworks are the C whose rules stand together: both masquerading ones,
// or any three. One alone may be anybody's.
//
//	-A POSTROUTING -s 172.16.0.0/16 -d 172.16.0.0/16 -j RETURN
//	-A POSTROUTING -s 172.16.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE
//	-A POSTROUTING ! -s 172.16.0.0/16 -d 172.16.2.0/24 -j RETURN
//	-A POSTROUTING ! -s 172.16.0.0/16 -d 172.16.0.0/16 -j MASQUERADE
func flannelNetworks(c *ruleset.Chain) map[netip.Prefix]bool {
	if c.Name != "POSTROUTING" {
		return nil
	}
	roles := map[netip.Prefix]role{}
	for i := range c.Rules {
		if role, network := flannelRole(&c.Rules[i]); role != noRole {
			roles[network] |= role
		}
	}
	found := map[netip.Prefix]bool{}
	for network, has := range roles {
		three := has&inside != 0 && has&toLocalPods != 0 && has&(leaving|entering) != 0
		if three || has&leaving != 0 && has&entering != 0 {
			found[network] = true
		}
	}
	return found
}

// flannelRule is one of those, or one of the two that let its packets through.
//
//	-A FORWARD -s 10.244.0.0/16 -j ACCEPT
//	-A FORWARD -d 10.244.0.0/16 -j ACCEPT
func flannelRule(p place) bool {
	if p.table.Name == "nat" {
		role, network := flannelRole(p.rule)
		return role != noRole && p.flannelOld[p.chain][network]
	}
	if p.table.Name != "filter" || p.chain.Name != "FORWARD" || !accepts(p.rule.Target) {
		return false
	}
	switch asked(p.rule) {
	case source:
		return !p.rule.Source.Not && p.flannelCluster(p.rule.Source.Prefix)
	case destination:
		return !p.rule.Destination.Not && p.flannelCluster(p.rule.Destination.Prefix)
	}
	return false
}

// flannelForm of a rule with flannel's comment straight in a built-in chain, as
// 0.15 to 0.19 wrote them.
func (p place) flannelForm() bool {
	if p.rule.Comment == "flanneld masq" {
		role, _ := flannelRole(p.rule)
		return role != noRole
	}
	a := asked(p.rule) &^ comment
	return accepts(p.rule.Target) && (a == source || a == destination)
}

func (x *Index) flannelCluster(network netip.Prefix) bool {
	for _, networks := range x.flannelOld {
		if networks[network] {
			return true
		}
	}
	return false
}

// flannel describes its rules. In its own chains every rule has its comment.
//
//	-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
func (p place) flannel() Owner {
	own := flannelChain(p.chain.Name)
	target, _ := jump(p.rule)
	switch {
	case own && !flannelComment(p.rule.Comment):
		return alien(Flannel, p.chain.Name)
	case !own && target == "" && p.rule.Comment != "" && !p.flannelForm():
		return unknown("has flannel's comment, but not its form")
	}
	o := Owner{Name: Flannel, Version: "≥ 0.20", Setting: "--ip-masq"}
	if !own && !flannelChain(target) {
		o.Version = "< 0.20, rules straight in the built-in chain"
	}
	if p.table.Name == "filter" {
		o.Setting = "--iptables-forward-rules"
		o.Change = []string{flannelEdit + "--iptables-forward-rules=false"}
		return o
	}
	o.Change = []string{
		flannelEdit + "without --ip-masq",
		"in net-conf.json widen Network to what must stay untranslated",
	}
	if p.table.Family == packet.IPv6Family {
		o.Change = append(o.Change, "k3s: without --flannel-ipv6-masq")
	} else {
		o.Change = append(o.Change, "k3s has flannel built in, without that setting: k3s server --flannel-backend=none, and a flannel of your own")
	}
	o.Trap = "flannel puts missing rules back every --iptables-resync seconds (5); a restart appends them again"
	if m, ok := p.rule.Target.(ruleset.Masquerade); ok {
		p.flannelBecause(&o, m)
	}
	return o
}

const flannelEdit = "kubectl -n kube-flannel edit daemonset kube-flannel-ds   # args: "

func (p place) flannelBecause(o *Owner, m ruleset.Masquerade) {
	network := p.rule.Source.Prefix
	if !network.IsValid() {
		return
	}
	if p.rule.Source.Not {
		o.Because = "a packet from outside the cluster's pods " + network.String() + " goes to a pod on another node"
	} else {
		o.Because = "a packet of the cluster's pods " + network.String() + " leaves them"
	}
	if !flannelChain(p.chain.Name) && !m.RandomFully {
		o.Version = "< 0.20, rules straight in POSTROUTING"
	}
}
