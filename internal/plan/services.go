package plan

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strconv"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// serviceLookups find the rule of a connection by what it was made to.
//
// nft can't have conntrack's original port in a concatenation. So a map leads from
// the original destination to a chain that asks for ports; addresses that have the
// same ports to the same rules share one, so that there are few chains and sets,
// however many services there are. Chains and sets of ports are named after what is
// in them: they never change.
type serviceLookups struct {
	// conditions come before the lookups: except and backends.
	conditions []Statement
	except     *Set
	// frontends is the map of original addresses to chains of ports; nil: no rule of
	// the group needs services.
	frontends *Set
	// networks are service CIDRs of the group's one rule; nil: it has none.
	networks     *Set
	networkPorts []portSet
	rule         Verdict
}

// servicesOnly: no other place is named, and no service CIDR, so that several rules
// can share a map.
func servicesOnly(to *policy.To) bool {
	return to.Services != nil && to.Services.NeedsServices() && len(to.Services.CIDRs) == 0 && !otherPlaces(to)
}

func otherPlaces(to *policy.To) bool { return to.PodCIDRs || to.Nodes || len(to.CIDRs) > 0 }

// servicesKey is equal for rules that may share the lookups.
func servicesKey(r *policy.Rule) string {
	switch {
	case r.To.Services == nil:
		return ""
	case servicesOnly(&r.To):
		return fmt.Sprint("services ", r.To.Services.Backends, r.To.Except)
	}
	return fmt.Sprint("services of rule ", r.Number)
}

func (c *compiler) services(v *view, g *group) *serviceLookups {
	s, f := g.first.To.Services, v.family
	if s == nil {
		return nil
	}
	out := &serviceLookups{rule: goTo(RuleChainName(g.first, f))}
	if except := ranges(g.first.To.Except, f); len(except) > 0 {
		out.except = &Set{Name: v.setName("except", g.first), Key: addrKey(f), Interval: true, Elements: rangeElements(except)}
		out.conditions = append(out.conditions, InSet{Family: f, Field: DestinationAddress, Set: out.except.Name, Not: true})
	}
	if byBackend(s) {
		out.conditions = append(out.conditions, InSet{Family: f, Field: DestinationAddress, Set: name(localBackendsSet, f), Not: s.Backends == policy.RemoteBackends})
	}
	if s.NeedsServices() {
		out.frontends = &Set{Name: v.setName("services", g.first), Key: addrKey(f), Map: true, Elements: c.frontends(f, g.rules)}
	}
	if s.NeedsServiceCIDRs() || len(s.CIDRs) > 0 {
		out.networks = &Set{Name: v.setName("service-nets", g.first), Key: addrKey(f), Interval: true, Elements: rangeElements(ranges(s.Networks(c.facts), f))}
		out.networkPorts = portSets(v, "service-ports", g.first, s.Ports)
	}
	return out
}

// add adds the lookups to a chain, behind conditions.
func (s *serviceLookups) add(ch *Chain, f packet.Family, conditions []Statement) {
	if s == nil {
		return
	}
	conditions = slices.Concat(conditions, s.conditions)
	rule := func(statements ...Statement) { ch.add("", slices.Concat(conditions, statements)...) }
	if s.frontends != nil {
		rule(VerdictMap{Family: f, Field: OriginalDestination, Map: s.frontends.Name})
	}
	if s.networks == nil {
		return
	}
	within := InSet{Family: f, Field: OriginalDestination, Set: s.networks.Name}
	if len(s.networkPorts) == 0 {
		rule(within, s.rule)
	}
	for _, ps := range s.networkPorts {
		rule(L4Proto{[]uint8{ps.protocol}}, InSet{Field: OriginalPort, Set: ps.set}, within, s.rule)
	}
}

func (s *serviceLookups) addSets(c *compiler) {
	if s == nil {
		return
	}
	for _, set := range []*Set{s.except, s.frontends, s.networks} {
		if set != nil {
			c.set(*set)
		}
	}
	for _, ps := range s.networkPorts {
		c.set(ps.definition())
	}
}

// localBackends adds the sets of backends on this node, where a rule asks for them.
func (c *compiler) localBackends(p *policy.Policy, views []*view) {
	if !slices.ContainsFunc(p.Rules, func(r policy.Rule) bool {
		return r.To.Services != nil && byBackend(r.To.Services)
	}) {
		return
	}
	for _, f := range packet.Families {
		if !anyFamily(views, f) {
			continue
		}
		set := Set{Name: name(localBackendsSet, f), Key: addrKey(f), Interval: !c.facts.PodsKnown}
		if c.facts.PodsKnown {
			set.Elements = addrElements(podAddresses(c.facts.Pods, f))
		} else {
			set.Elements = rangeElements(ranges(c.facts.LocalPodCIDRs, f))
		}
		c.set(set)
	}
}

func byBackend(s *policy.Services) bool {
	return s.Backends == policy.LocalBackends || s.Backends == policy.RemoteBackends
}

func podAddresses(pods []policy.Pod, f packet.Family) (out []netip.Addr) {
	for i := range pods {
		out = append(out, familyAddrs(pods[i].Addresses, f)...)
	}
	return out
}

func addrElements(addrs []netip.Addr) (out []Element) {
	slices.SortFunc(addrs, netip.Addr.Compare)
	for _, a := range slices.Compact(addrs) {
		out = append(out, element(cidr.FromAddr(a), Verdict{}))
	}
	return out
}

// frontend leads to the rule of an index.
type frontend struct {
	policy.Frontend
	rule int
}

// frontends are the elements of the map of addresses, for rules in their order. It
// adds the chains of ports that they lead to.
func (c *compiler) frontends(f packet.Family, rules []*policy.Rule) []Element {
	var all []frontend
	var of []policy.Frontend
	for i, r := range rules {
		for _, v := range c.meant(r.To.Services) {
			of = r.To.Services.AppendFrontends(of[:0], c.facts, v)
			for _, x := range of {
				if packet.Of(x.Address) == f {
					all = append(all, frontend{x, i})
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b frontend) int {
		return cmp.Or(a.Address.Compare(b.Address), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port), cmp.Compare(a.rule, b.rule))
	})
	all = slices.CompactFunc(all, func(a, b frontend) bool { return a.Frontend == b.Frontend }) // the first rule has it
	var out []Element
	for len(all) > 0 {
		n := 1
		for n < len(all) && all[n].Address == all[0].Address {
			n++
		}
		out = append(out, element(cidr.FromAddr(all[0].Address), Verdict{Kind: Jump, Chain: c.portChain(f, rules, all[:n])}))
		all = all[n:]
	}
	return out
}

// meant are the services that a rule selects.
func (c *compiler) meant(s *policy.Services) (out []*policy.Service) {
	if s.Selector == nil && len(s.Names) > 0 {
		for _, id := range s.Names {
			if v := c.serviceByID(id); v != nil {
				out = append(out, v)
			}
		}
		return out
	}
	for i := range c.facts.Services {
		if v := &c.facts.Services[i]; s.Selects(v) {
			out = append(out, v)
		}
	}
	return out
}

func (c *compiler) serviceByID(id string) *policy.Service {
	if c.byID == nil {
		c.byID = make(map[string]*policy.Service, len(c.facts.Services))
		for i := range c.facts.Services {
			c.byID[c.facts.Services[i].ID()] = &c.facts.Services[i]
		}
	}
	return c.byID[id]
}

// portChain is the chain that leads from an address's ports to rules. Without one of
// them evaluation goes on behind the map.
func (c *compiler) portChain(f packet.Family, rules []*policy.Rule, of []frontend) string {
	id := c.portChainID(rules, of)
	chain := name("service-"+id, f)
	if c.portChains[chain] {
		return chain
	}
	c.portChains[chain] = true
	ch := Chain{Name: chain}
	for i := range rules {
		for _, protocol := range []uint8{packet.TCP, packet.UDP, packet.SCTP} {
			var ports []uint16
			for _, x := range of {
				if x.rule == i && x.Protocol == protocol {
					ports = append(ports, x.Port)
				}
			}
			if len(ports) > 0 {
				ch.add("", L4Proto{[]uint8{protocol}}, InSet{Field: OriginalPort, Set: c.portsSet(protocol, ports)}, goTo(RuleChainName(rules[i], f)))
			}
		}
	}
	c.later = append(c.later, ch)
	return chain
}

// portChainID is short where there is little in it.
func (c *compiler) portChainID(rules []*policy.Rule, of []frontend) string {
	var b []byte
	for i, x := range of {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendInt(b, int64(c.tag(rules[x.rule])), 10)
		b = append(append(append(b, '-'), ProtocolName(x.Protocol)...), '-')
		b = strconv.AppendUint(b, uint64(x.Port), 10)
	}
	return brief(string(b))
}

// portsSet is the name of a set of ports, which it adds where there is none yet.
func (c *compiler) portsSet(protocol uint8, ports []uint16) string {
	s := Set{Key: InetService}
	var b []byte
	for i, p := range ports {
		if i > 0 {
			b = append(b, '.')
		}
		b = strconv.AppendUint(b, uint64(p), 10)
		k := string(binary.BigEndian.AppendUint16(nil, p))
		s.Elements = append(s.Elements, Element{First: k, Last: k})
	}
	s.Name = "service-ports-" + brief(string(b))
	if !c.portChains[s.Name] {
		c.portChains[s.Name] = true
		c.set(s)
	}
	return s.Name
}

// brief keeps names readable, and short.
func brief(s string) string {
	const most = 40
	if len(s) <= most {
		return s
	}
	h := fnv.New128a()
	h.Write([]byte(s))
	return fmt.Sprintf("%x", h.Sum(nil))
}
