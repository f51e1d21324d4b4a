package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/unmasq/unmasq/internal/packet"
)

// Warnings says what is allowed in a policy and yet hardly meant, given what is
// known on this node. The order is always the same.
func Warnings(p *Policy, facts *Facts, stated Stated) []string {
	var out []string
	out = append(out, wordsWithoutMeaning(p, facts)...)
	out = append(out, discoveredOnly(p, stated)...)
	selectors := selectorsOf(p)
	for i := range p.Rules {
		r := &p.Rules[i]
		out = append(out, foreignAddresses(r, facts)...)
		out = append(out, unknownNamespaceKeys(r, facts)...)
		out = append(out, serviceAddresses(r, facts)...)
		out = append(out, serviceWarnings(r, facts)...)
		out = append(out, unreachable(p.Rules, i, selectors)...)
	}
	return out
}

// selector of a rule's pods, by which it is compared with many others.
type selector struct {
	// number is the same for selectors of the same text; 0: none.
	number int
	// all: the rule's sources are all, whatever pods there are.
	all bool
}

func selectorsOf(p *Policy) []selector {
	out := make([]selector, len(p.Rules))
	numbers := map[string]int{}
	for i := range p.Rules {
		from := &p.Rules[i].From
		out[i].all = from.Forwarded || everyAddress(from.CIDRs)
		if from.Pods != nil {
			text := from.Pods.String()
			if numbers[text] == 0 {
				numbers[text] = len(numbers) + 1
			}
			out[i].number = numbers[text]
		}
	}
	return out
}

// mostCompared bounds the rules that each rule is compared with.
const mostCompared = 1000

// unreachable: a rule before this one matches all that it does.
func unreachable(rules []Rule, i int, selectors []selector) []string {
	r, mine := &rules[i], selectors[i]
	for j := range rules[:min(i, mostCompared)] {
		if s := selectors[j]; !s.all && mine.number != 0 && s.number != mine.number {
			continue
		}
		if b := &rules[j]; b.covers(r) {
			return []string{fmt.Sprintf("rule %s is never reached: rule %s comes first and matches all that it does", r.ID(), b.ID())}
		}
	}
	return nil
}

// wordsWithoutMeaning: pods and nodes match nothing in a family without facts.
func wordsWithoutMeaning(p *Policy, facts *Facts) []string {
	var out []string
	for _, f := range packet.Families {
		for _, word := range []struct {
			name, fact string
			known      bool
			used       func(*Rule) bool
		}{
			{"pods", "podCIDRs", hasPrefix(facts.PodCIDRs, f), func(r *Rule) bool { return r.From.PodCIDRs || r.To.PodCIDRs }},
			{"nodes", "nodes", hasAddr(facts.Nodes, f) || hasPrefix(facts.NodeCIDRs, f), func(r *Rule) bool { return r.To.Nodes }},
			// A cluster without pods of a family has no services of it either.
			{"services", "serviceCIDRs", hasPrefix(facts.ServiceCIDRs, f) || len(facts.ServiceCIDRs) > 0 && !hasPrefix(facts.PodCIDRs, f),
				func(r *Rule) bool { return r.To.Services != nil && r.To.Services.NeedsServiceCIDRs() }},
		} {
			if rules := rulesWith(p, word.used); !word.known && len(rules) > 0 {
				out = append(out, fmt.Sprintf("%s matches nothing in %s in %s: no %s of that family are known",
					word.name, f, ruleList(rules), word.fact))
			}
		}
	}
	return out
}

// discoveredOnly: a host sees its own pods and addresses only, not other hosts'.
func discoveredOnly(p *Policy, stated Stated) []string {
	var out []string
	for _, word := range []struct {
		name, fact string
		stated     bool
		used       func(*Rule) bool
	}{
		{"pods", "podCIDRs", stated.PodCIDRs.Set, func(r *Rule) bool { return r.To.PodCIDRs }},
		{"nodes", "nodes", stated.Nodes.Set, func(r *Rule) bool { return r.To.Nodes }},
	} {
		if rules := rulesWith(p, word.used); !word.stated && len(rules) > 0 {
			out = append(out, fmt.Sprintf("to.%s in %s means this host's alone: other hosts' are not known; state spec.facts.%s",
				word.name, ruleList(rules), word.fact))
		}
	}
	return out
}

// foreignAddresses: replies to an address that the node doesn't have must be routed to it.
func foreignAddresses(r *Rule, facts *Facts) []string {
	if r.Action != SNAT || len(facts.NodeAddresses) == 0 {
		return nil
	}
	var foreign []string
	for _, a := range r.Addresses {
		if !slices.Contains(facts.NodeAddresses, a) {
			foreign = append(foreign, a.String())
		}
	}
	if len(foreign) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("rule %s: SNAT to %s, which this node doesn't have: replies reach it only where the network routes them here",
		r.ID(), several(foreign, "addresses", false))}
}

// unknownNamespaceKeys: a label that no namespace has is often misspelt.
func unknownNamespaceKeys(r *Rule, facts *Facts) []string {
	if r.From.Pods == nil || !facts.PodsKnown || len(facts.Pods) == 0 {
		return nil
	}
	var out []string
	requirements, _ := r.From.Pods.Namespace.Requirements()
	for _, req := range requirements {
		if needsKey(req) && !slices.ContainsFunc(facts.Pods, func(p Pod) bool { return p.NamespaceLabels.Has(req.Key()) }) {
			out = append(out, fmt.Sprintf("rule %s: no pod here is in a namespace with the label %q that its namespaceSelector asks for", r.ID(), req.Key()))
		}
	}
	return out
}

// serviceAddresses: rules see packets after DNAT, when no service address is left.
func serviceAddresses(r *Rule, facts *Facts) []string {
	var never []string
	for _, p := range r.To.CIDRs {
		if within([]netip.Prefix{p}, facts.ServiceCIDRs) {
			never = append(never, p.String())
		}
	}
	if len(never) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("rule %s: to.cidrs %s can never match: addresses of services are gone when a rule sees a packet, after DNAT",
		r.ID(), several(never, "networks", false))}
}

// needsKey says whether a requirement matches only where the label is there.
func needsKey(r labels.Requirement) bool {
	return r.Operator() != selection.DoesNotExist && r.Operator() != selection.NotIn && r.Operator() != selection.NotEquals
}

func rulesWith(p *Policy, used func(*Rule) bool) []string {
	var ids []string
	for i := range p.Rules {
		if used(&p.Rules[i]) {
			ids = append(ids, p.Rules[i].ID())
		}
	}
	return ids
}

// ruleList is "rule a/b", "rules a/b, a/c and 3 more".
func ruleList(ids []string) string {
	const most = 3
	switch {
	case len(ids) == 1:
		return "rule " + ids[0]
	case len(ids) > most:
		return fmt.Sprintf("rules %s and %d more", strings.Join(ids[:most], ", "), len(ids)-most)
	}
	return "rules " + strings.Join(ids, ", ")
}

func hasPrefix(prefixes []netip.Prefix, f packet.Family) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return packet.Of(p.Addr()) == f })
}

func hasAddr(addrs []netip.Addr, f packet.Family) bool {
	return slices.ContainsFunc(addrs, func(a netip.Addr) bool { return packet.Of(a) == f })
}
