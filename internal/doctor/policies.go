package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
)

// policiesMisled: packets to pods of other nodes are translated, and rules for NetworkPolicies
// let pods in by their addresses.
func policiesMisled(p *patient) []Finding {
	var all []Finding
	for i := range p.networks {
		n := &p.networks[i]
		var evidence []string
		at, routes := p.maskedRoutes(n)
		if routes != nil {
			evidence = p.letInByAddress(n)
		}
		if t, rule := p.judgedElsewhere(n); evidence == nil && t != nil {
			// What a program says isn't known: what becomes of packets that it lets pass?
			evidence = rule
			at, routes = p.withoutTable(t).maskedRoutes(n)
		}
		if routes != nil && evidence != nil {
			all = append(all, p.misled(n, at, routes, evidence))
		}
	}
	return all
}

func (p *patient) misled(n *network, at sim.RuleRef, routes []*route.Route, evidence []string) Finding {
	f := Finding{
		Summary:     fmt.Sprintf("network policies know pods by their addresses, and %s masquerades %s on its way to other nodes' pods", called(p.ownerOf(at)), n.prefix),
		Evidence:    append(evidence, p.place(at)),
		Consequence: "Where other nodes are set up as this one, a policy that lets a pod in doesn't fit when it comes from another node: it comes with that node's address, and is dropped; one that lets nodes in lets all their pods in.",
		Mend:        append([]string{"# the same on each node"}, p.changes(at)...),
	}
	for _, rt := range routes {
		p.keep(&f, "pods-see-pods", n.prefix.String(), rt.Destination.String())
	}
	return f
}

// letIn is an address that rules or their sets name, with a port that goes with it.
type letIn struct {
	address netip.Addr
	port    int
}

// letInByAddress finds a pod of another node whose packets rules accept to a pod of this one,
// and would not if they came from its node.
func (p *patient) letInByAddress(n *network) []string {
	senders, receivers := p.namedInFilters(n)
	for _, rt := range p.others(n) {
		node, in := rt.Nexthops[0].Via, rt.Nexthops[0].Interface
		for _, s := range senders {
			if !rt.Destination.Contains(s.address) {
				continue
			}
			for _, to := range receivers {
				if !p.ask(tcp(s.address, to, s.port, in)).every(accepted) {
					continue
				}
				answers := p.ask(tcp(node, to, s.port, in))
				if by, one := answers.rule(); one && answers.every(stopped) {
					return []string{fmt.Sprintf("%s, a pod's of another node, may come to %s; from its node, %s, it may not", s.address, to, node), p.place(by)}
				}
			}
		}
	}
	return nil
}

// namedInFilters are addresses that filter rules and sets let in, and pods of the network
// that they are about.
func (p *patient) namedInFilters(n *network) (senders []letIn, receivers []netip.Addr) {
	const most = 16
	add := func(a netip.Addr, port int) {
		if a.IsValid() && a.Is4() == n.member.Is4() && !n.prefix.Contains(a) && len(senders) < most && !slices.Contains(senders, letIn{a, port}) {
			senders = append(senders, letIn{a, port})
		}
	}
	receive := func(a netip.Addr) {
		if a.IsValid() && n.prefix.Contains(a) && !p.isLocal(a) && len(receivers) < most && !slices.Contains(receivers, a) {
			receivers = append(receivers, a)
		}
	}
	receive(n.member)
	for _, b := range p.host.Network.Neighbors {
		if b.Interface == n.link {
			receive(b.Address)
		}
	}
	for _, t := range p.host.Rules.Tables {
		if t.Native == nil && t.Name == "filter" {
			p.namedInIPTables(t, add, receive)
		}
		if t.Native != nil && t.Name != tableName && t.Name != handoverName {
			for _, set := range t.Native.Sets {
				for _, a := range elements(set) {
					add(a, https)
					receive(a)
				}
			}
		}
	}
	return senders, receivers
}

// namedInIPTables looks through a filter table.
//
//	-A KUBE-NWPLCY-X -p tcp -m set --match-set KUBE-SRC-X src -m set --match-set KUBE-DST-X dst -m tcp --dport 80 …
//	-A KUBE-ROUTER-FORWARD -d 10.244.1.2/32 … -j KUBE-POD-FW-X
func (p *patient) namedInIPTables(t *ruleset.Table, add func(netip.Addr, int), receive func(netip.Addr)) {
	for _, c := range t.Chains {
		for i := range c.Rules {
			rule := &c.Rules[i]
			if d := rule.Destination; d.Prefix.IsValid() && !d.Not && d.Prefix.IsSingleIP() {
				receive(d.Prefix.Addr())
			}
			port := portOf(rule)
			if s := rule.Source; s.Prefix.IsValid() && !s.Not && s.Prefix.IsSingleIP() {
				add(s.Prefix.Addr(), port)
			}
			for _, m := range rule.Matches {
				set, ok := m.(ruleset.Set)
				if !ok || set.Not || len(set.Directions) == 0 {
					continue
				}
				for _, a := range p.inSet(set.Name) {
					if set.Directions[0] == ruleset.Source {
						add(a, port)
					} else {
						receive(a)
					}
				}
			}
		}
	}
}

// portOf is a TCP port that the rule asks for.
func portOf(rule *ruleset.Rule) int {
	for _, m := range rule.Matches {
		if ports, ok := m.(ruleset.Ports); ok && ports.Side == ruleset.Destination && !ports.Not && len(ports.Ranges) > 0 && rule.Protocol.Number == packet.TCP {
			return int(ports.Ranges[0].First)
		}
	}
	return https
}

// inSet are single addresses of an ipset, or of the sets that it lists; a few tell.
func (p *patient) inSet(name string) []netip.Addr {
	const most = 16
	set := p.host.Sets[name]
	if set == nil {
		return nil
	}
	var all []netip.Addr
	for _, member := range append([]string{name}, set.Members...) {
		if s := p.host.Sets[member]; s != nil {
			for _, r := range s.Addresses(0) {
				if r.First == r.Last && len(all) < most {
					all = append(all, r.First)
				}
			}
		}
	}
	return all
}

// elements of a set of nftables that are addresses.
func elements(set *nftables.Set) []netip.Addr {
	if set.Map {
		return nil
	}
	var all []netip.Addr
	for i := range set.Elements {
		if a, err := netip.ParseAddr(nftables.ExprText(set.Elements[i].Key)); err == nil {
			all = append(all, a)
		}
	}
	return all
}

// judgedElsewhere is a table with which a program judges packets of pods that policies are
// about, by their addresses, as kube-network-policies does, kindnet's too.
//
//	table inet kube-network-policies { set podips-v4 { … } chain … { ip daddr @podips-v4 queue flags bypass to 100 } }
func (p *patient) judgedElsewhere(n *network) (*ruleset.Table, []string) {
	for _, t := range p.host.Rules.Tables {
		if t.Native == nil || !strings.Contains(t.Name, "network-policies") || !slices.ContainsFunc(t.Native.Sets, func(s *nftables.Set) bool {
			return slices.ContainsFunc(elements(s), n.prefix.Contains)
		}) {
			continue
		}
		for _, c := range t.Chains {
			for i := range c.Rules {
				if hands(&c.Rules[i]) {
					return t, []string{p.place(sim.RuleRef{Table: t, Chain: c, Rule: &c.Rules[i]})}
				}
			}
		}
	}
	return nil, nil
}

// withoutTable is the node as it would be if a table weren't there.
func (p *patient) withoutTable(t *ruleset.Table) *patient {
	host := *p.host
	host.Rules.Tables = slices.DeleteFunc(slices.Clone(p.host.Rules.Tables), func(o *ruleset.Table) bool { return o == t })
	return newPatient(Node{Host: &host})
}

// hands packets to a program.
func hands(rule *ruleset.Rule) bool {
	return rule.Native != nil && slices.ContainsFunc(rule.Native.Statements, func(s nftables.Statement) bool {
		v, is := s.(nftables.Verdict)
		return is && v.Kind == nftables.Queue
	})
}
