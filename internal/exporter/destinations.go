package exporter

import (
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

// peer is what a component can be told.
type peer struct {
	// implied: the component does what the rule says anyhow.
	implied func(*policy.Rule) bool
	// snat: it can take a stated address.
	snat bool
	// interfaces: its translation can be bound to outgoing interfaces.
	interfaces bool
	// nodes: it keeps pods' addresses to nodes without being told these.
	nodes bool
	// pods: it keeps pods' addresses among pods without being told their networks.
	pods bool
	// anySource: it doesn't ask who sends.
	anySource bool
}

// sender is a class of packets that the component treats alike.
type sender uint8

const (
	pods sender = iota
	// others that the node forwards, and what it sends itself.
	others
	node
)

// coverage is how many of a class a rule is about.
type coverage uint8

const (
	none coverage = iota
	some
	all
)

// reading of a policy for a peer.
type reading struct {
	peer
	podCIDRs []netip.Prefix
	nodes    []netip.Addr
	losses   []Loss
	// masquerading are the rules that translate and were said.
	masquerading []*policy.Rule
}

// lists are the destinations of rules in their order; translates says which are translated.
type lists struct {
	ranges     map[packet.Family][][]cidr.Range
	translates []bool
}

func newReading(p peer, loaded *policy.Loaded, opts Options) *reading {
	r := &reading{peer: p, podCIDRs: opts.PodCIDRs}
	if loaded.Stated.PodCIDRs.Set && len(opts.PodCIDRs) == 0 {
		r.podCIDRs = loaded.Stated.PodCIDRs.Value
	}
	if r.nodes = loaded.Stated.Nodes.Value; len(r.podCIDRs) > 0 {
		return r
	}
	for i := range loaded.Policy.Rules { // the networks that rules are about are taken for the pods'
		if rule := &loaded.Policy.Rules[i]; translating(rule) && !everyAddress(rule.From.CIDRs) {
			r.podCIDRs = append(r.podCIDRs, rule.From.CIDRs...)
		}
	}
	return r
}

func everyAddress(prefixes []netip.Prefix) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Bits() == 0 })
}

func translating(r *policy.Rule) bool {
	return r.Action == policy.Masquerade || r.Action == policy.SNAT
}

func (r *reading) lose(rule *policy.Rule, why string, args ...any) {
	l := Loss{Why: fmt.Sprintf(why, args...)}
	if rule != nil {
		l.Rule = rule.ID()
	}
	if !slices.Contains(r.losses, l) {
		r.losses = append(r.losses, l)
	}
}

// wider notes what the component translates though the policy doesn't.
func (r *reading) wider(why string, args ...any) {
	r.losses = append(r.losses, Loss{Why: fmt.Sprintf(why, args...), Wider: true})
}

// read the rules for a class. quiet: losses are said for another class already.
func (r *reading) read(p *policy.Policy, who sender, quiet bool) lists {
	l := lists{ranges: map[packet.Family][][]cidr.Range{}}
	before := r.losses
	for i := range p.Rules {
		rule := &p.Rules[i]
		about := r.about(&rule.From, who)
		if r.peer.pods && len(r.podCIDRs) == 0 && keepsPods(rule) {
			continue
		}
		if r.implied != nil && r.implied(rule) {
			continue
		}
		if about == none {
			if who == pods && translating(rule) && !(r.anySource && r.alike(&rule.From)) {
				r.lose(rule, "is left out: it is about others than pods")
			}
			continue
		}
		keep := !translating(rule)
		conditions := r.conditions(rule, about)
		if unknown := r.unknown(rule); unknown != "" && keep {
			r.losses = append(r.losses, Loss{rule.ID(), "pods' addresses aren't kept to " + unknown, true})
		} else if unknown != "" {
			conditions = unknown
		}
		switch {
		case conditions != "" && !keep:
			r.lose(rule, "is left out: it is about %s; what it would translate isn't", conditions)
			continue
		case conditions != "":
			r.lose(rule, "is about %s: all pods keep their addresses to its destinations", conditions)
		case rule.Action == policy.SNAT && !r.snat:
			r.lose(rule, "has addresses of its own, which can't be told: its destinations see pods' addresses")
			keep = true
		case !keep && who == pods:
			r.masquerading = append(r.masquerading, rule)
		}
		if rule.OverrideServiceMasquerade {
			r.lose(rule, "overrideServiceMasquerade can't be told: kube-proxy decides about its marked packets")
		}
		r.addTo(&l, rule, keep, who)
	}
	if quiet {
		r.losses = before
	}
	return l
}

// about is how much of a class a rule is about.
func (r *reading) about(f *policy.From, who sender) coverage {
	if who == node {
		switch {
		case !f.Node:
			return none
		case len(f.Except) > 0:
			return some
		}
		return all
	}
	if who == others {
		switch {
		case !f.Forwarded && !everyAddress(f.CIDRs) && len(cidr.Subtract(ranges(f.CIDRs), ranges(r.podCIDRs))) == 0:
			return none
		case !f.Forwarded && !everyAddress(f.CIDRs) || len(f.Except) > 0:
			return some
		}
		return all
	}
	return r.aboutPods(f)
}

// alike: others than pods are all meant, as far as they are.
func (r *reading) alike(f *policy.From) bool {
	return r.about(f, others) != some && r.about(f, node) != some
}

func (r *reading) aboutPods(f *policy.From) coverage {
	known := ranges(r.podCIDRs)
	left := cidr.Subtract(known, ranges(f.Except))
	switch {
	case f.Forwarded || f.PodCIDRs || f.Pods != nil && f.Pods.Pod.Empty() && f.Pods.Namespace.Empty():
		if len(known) > 0 && len(cidr.Subtract(known, left)) > 0 || len(known) == 0 && len(f.Except) > 0 {
			return some
		}
		return all
	case f.Pods != nil:
		return some
	case len(f.CIDRs) == 0:
		return none
	case everyAddress(f.CIDRs) && len(f.Except) == 0:
		return all
	}
	missed := cidr.Subtract(known, cidr.Subtract(ranges(f.CIDRs), ranges(f.Except)))
	switch {
	case len(known) > 0 && len(ofFamilies(missed, f.CIDRs)) == 0:
		return all
	case len(known) > 0 && slices.Equal(missed, cidr.Subtract(known, nil)):
		return none
	}
	return some
}

// ofFamilies are the ranges of families that the prefixes have.
func ofFamilies(rs []cidr.Range, like []netip.Prefix) (out []cidr.Range) {
	for _, x := range rs {
		if slices.ContainsFunc(like, func(p netip.Prefix) bool { return p.Addr().Is4() == x.First.Is4() }) {
			out = append(out, x)
		}
	}
	return out
}

// conditions that a destination alone can't say; "" where there are none.
func (r *reading) conditions(rule *policy.Rule, about coverage) string {
	switch {
	case about == some:
		return "some sources alone"
	case len(rule.To.Ports) > 0:
		return "some ports alone"
	case len(rule.OutInterfaces) > 0 && !(r.interfaces && translating(rule)):
		return "some interfaces alone"
	case rule.To.Services != nil:
		return "services, which are pods where addresses are translated"
	}
	return ""
}

// unknown is a place of destinations that isn't known; "" where there is none.
func (r *reading) unknown(rule *policy.Rule) string {
	switch to := &rule.To; {
	case to.Nodes && len(r.nodes) == 0 && !(r.peer.nodes && !translating(rule)):
		return "nodes, whose addresses aren't stated (facts.nodes)"
	case (to.PodCIDRs || to.Services != nil) && len(r.podCIDRs) == 0:
		return "pods, whose networks aren't stated (facts.podCIDRs, --pod-cidrs)"
	}
	return ""
}

func (r *reading) addTo(l *lists, rule *policy.Rule, keep bool, who sender) {
	to := &rule.To
	in := ranges(to.CIDRs)
	if to.Everywhere {
		in = append(in, cidr.FromPrefix(packet.IPv4Family.Everywhere()), cidr.FromPrefix(packet.IPv6Family.Everywhere()))
	}
	if to.PodCIDRs || to.Services != nil {
		in = append(in, ranges(r.podCIDRs)...)
	}
	if to.Nodes {
		for _, a := range r.nodes {
			in = append(in, cidr.FromAddr(a))
		}
	}
	for _, f := range packet.Families {
		var own []cidr.Range
		if r.matches(rule, keep, who, f) {
			own = cidr.Subtract(ofFamily(in, f), ofFamily(ranges(to.Except), f))
		}
		l.ranges[f] = append(l.ranges[f], own)
	}
	l.translates = append(l.translates, !keep)
}

// matches says whether the rule can match packets of the class in a family at all.
func (r *reading) matches(rule *policy.Rule, keep bool, who sender, f packet.Family) bool {
	of := func(p netip.Prefix) bool { return packet.Of(p.Addr()) == f }
	from := &rule.From
	switch {
	case who == pods && len(r.podCIDRs) > 0 && !slices.ContainsFunc(r.podCIDRs, of) && !(r.anySource && (from.Forwarded || everyAddress(from.CIDRs))):
		return false // no pod has such an address
	case rule.Action == policy.SNAT && !keep && !slices.ContainsFunc(rule.Addresses, func(a netip.Addr) bool { return packet.Of(a) == f }):
		return false
	case who == node || from.Forwarded || who == pods && (from.PodCIDRs || from.Pods != nil):
		return true
	}
	return slices.ContainsFunc(from.CIDRs, of)
}

func ofFamily(rs []cidr.Range, f packet.Family) (out []cidr.Range) {
	for _, x := range rs {
		if packet.Of(x.First) == f {
			out = append(out, x)
		}
	}
	return out
}

// split the addresses of a family into those that keep sources, as rules state them,
// and those that are translated.
func (l *lists) split(f packet.Family) (kept, translated []cidr.Range) {
	all := append(slices.Clone(l.ranges[f]), []cidr.Range{cidr.FromPrefix(f.Everywhere())})
	for _, p := range cidr.FirstMatch(all...) {
		if p.Owner < len(l.translates) && l.translates[p.Owner] {
			translated = append(translated, p.Range)
		} else {
			kept = append(kept, p.Range)
		}
	}
	return kept, translated
}

func ranges(prefixes []netip.Prefix) []cidr.Range {
	out := make([]cidr.Range, 0, len(prefixes))
	for _, p := range prefixes {
		out = append(out, cidr.FromPrefix(p))
	}
	return out
}

// prefixes that make up ranges.
func prefixes(rs []cidr.Range) (out []netip.Prefix) {
	for _, x := range rs {
		out = append(out, netipx.IPRangeFrom(x.First, x.Last).Prefixes()...)
	}
	return out
}
