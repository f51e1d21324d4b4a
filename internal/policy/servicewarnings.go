package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
)

// serviceWarnings says of a rule for services what it can't mean, and where what
// it does loses replies.
func serviceWarnings(r *Rule, facts *Facts) []string {
	s := r.To.Services
	if s == nil {
		return nil
	}
	var out []string
	tell := func(format string, args ...any) {
		out = append(out, fmt.Sprintf("rule %s: "+format, append([]any{r.ID()}, args...)...))
	}
	if outside := outsideOf(s.CIDRs, facts.ServiceCIDRs); len(outside) > 0 {
		tell("to.services.cidrs %s: not within a service CIDR; every connection to such addresses is taken for one to a service", several(outside, "networks", false))
	}
	if s.NeedsServices() {
		s.tellMeant(facts, tell)
	}
	if r.losesReplies(facts) {
		tell("keeps the address of clients from outside also where the backend is on another node, which then answers them itself, from an address that they never asked: " +
			"add backends: Local, unless its replies return through this node")
	}
	return out
}

// tellMeant goes through the services that a rule names or selects. Whether they
// have endpoints isn't known here: of one that has none, nothing is forwarded.
func (s *Services) tellMeant(facts *Facts, tell func(string, ...any)) {
	byID := map[string]*Service{}
	selected := 0
	for i := range facts.Services {
		v := &facts.Services[i]
		byID[v.ID()] = v
		if s.Selector != nil && s.Selector.Service.Matches(v.Labels) && s.Selector.Namespace.Matches(v.NamespaceLabels) {
			selected++
		}
	}
	said := map[string][]string{}
	for _, name := range s.Names {
		why := "doesn't exist"
		if v := byID[name]; v != nil {
			why = s.without(facts, v)
		}
		if why != "" {
			said[why] = append(said[why], name)
		}
	}
	for _, why := range sortedKeys(said) {
		for _, name := range said[why][:min(len(said[why]), 3)] {
			tell("service %s %s", name, why)
		}
		if more := len(said[why]) - 3; more > 0 {
			tell("%d more of its services: %s", more, why)
		}
	}
	if s.Selector != nil && selected == 0 {
		tell("no service is selected by %s", s.Selector)
	}
}

// without says why a named service means less than it seems to, "" where it doesn't.
func (s *Services) without(facts *Facts, v *Service) string {
	if v.NoAddress != "" {
		return v.NoAddress + ": it has no address that a connection could be made to"
	}
	if s.Via != AnyWay && len(v.Frontends(facts, s.Via, nil)) == 0 {
		return "has no address of the kind " + string(s.Via)
	}
	if len(s.AppendFrontends(nil, facts, v)) == 0 {
		return "has no such port"
	}
	for _, f := range packet.Families {
		if !hasAddr(v.ClusterIPs, f) && hasPrefix(facts.ServiceCIDRs, f) {
			return "has no ClusterIP in " + f.String() + ": of that family nothing of it matches"
		}
	}
	return ""
}

// losesReplies: the source is kept though kube-proxy would translate it, for
// clients that aren't pods of this node, whose replies come by another way.
func (r *Rule) losesReplies(facts *Facts) bool {
	s := r.To.Services
	if r.Action != Keep || !r.OverrideServiceMasquerade || s.Backends == LocalBackends || !r.From.Forwarded && !r.From.PodCIDRs && len(r.From.CIDRs) == 0 {
		return false
	}
	if !s.NeedsServices() {
		return false // ClusterIPs: routes decide, and whoever wrote them knows
	}
	return slices.ContainsFunc(facts.Services, func(v Service) bool {
		if v.LocalOnly || !s.Selects(&v) {
			return false
		}
		return slices.ContainsFunc(vias[1:], func(via Via) bool {
			return (s.Via == AnyWay || s.Via == via) && len(v.Frontends(facts, via, s.Ports)) > 0
		})
	})
}

// outsideOf are the prefixes that aren't within known ones of their family.
func outsideOf(prefixes, known []netip.Prefix) (out []string) {
	for _, p := range prefixes {
		if hasPrefix(known, packet.Of(p.Addr())) && !within([]netip.Prefix{p}, known) {
			out = append(out, p.String())
		}
	}
	return out
}
