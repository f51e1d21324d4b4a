package policy

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// Decide says what happens to a flow under a policy, given what its words mean
// on this node. It is pure, and it is the specification of the compiler: a plain
// scan that asks the guards first, then each rule in its order.
func Decide(p *Policy, facts *Facts, flow packet.Flow) Decision {
	guard, overridable := guardOf(facts, flow)
	if guard != "" && !overridable {
		return Decision{Action: Leave, Guard: guard}
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		if guard != "" && !r.OverrideServiceMasquerade {
			continue
		}
		if r.matches(facts, flow) {
			return r.decide(flow)
		}
	}
	return Decision{Action: Leave, Guard: guard}
}

func (r *Rule) decide(flow packet.Flow) Decision {
	d := Decision{Action: r.Action, Rule: r, ClearServiceMark: r.OverrideServiceMasquerade}
	if r.Action == SNAT {
		d.Address = SNATAddress(r.addressesOf(flow.Family()), flow.Source)
	}
	return d
}

// addressesOf returns the SNAT addresses of a family, in order.
func (r *Rule) addressesOf(f packet.Family) []netip.Addr {
	var out []netip.Addr
	for _, a := range r.Addresses {
		if packet.Of(a) == f {
			out = append(out, a)
		}
	}
	return out
}

func (r *Rule) matches(facts *Facts, flow packet.Flow) bool {
	if r.Action == SNAT && len(r.addressesOf(flow.Family())) == 0 {
		return false
	}
	return r.From.matches(facts, flow) && r.To.matches(facts, flow) && r.leavesBy(flow.OutInterface)
}

// leavesBy says whether the rule's interfaces have the name among them.
func (r *Rule) leavesBy(name string) bool {
	return len(r.OutInterfaces) == 0 || slices.ContainsFunc(r.OutInterfaces, func(pattern string) bool {
		if prefix, wildcard := strings.CutSuffix(pattern, "*"); wildcard {
			return strings.HasPrefix(name, prefix)
		}
		return name == pattern
	})
}

// matches: packets that this host sends are seen by Node only, and Node sees no others.
func (f *From) matches(facts *Facts, flow packet.Flow) bool {
	if inAny(f.Except, flow.Source) {
		return false
	}
	if flow.Local {
		return f.Node
	}
	return f.Forwarded ||
		f.PodCIDRs && inAny(facts.PodCIDRs, flow.Source) ||
		inAny(f.CIDRs, flow.Source) ||
		f.Pods != nil && slices.ContainsFunc(facts.Pods, func(p Pod) bool {
			return f.Pods.Matches(&p) && slices.Contains(p.Addresses, flow.Source)
		})
}

func (t *To) matches(facts *Facts, flow packet.Flow) bool {
	if inAny(t.Except, flow.Destination) || !t.matchesPort(flow) {
		return false
	}
	return t.Everywhere ||
		t.PodCIDRs && inAny(facts.PodCIDRs, flow.Destination) ||
		t.Nodes && (slices.Contains(facts.Nodes, flow.Destination) || inAny(facts.NodeCIDRs, flow.Destination)) ||
		inAny(t.CIDRs, flow.Destination) ||
		t.Services != nil && t.Services.matches(facts, flow)
}

func (t *To) matchesPort(flow packet.Flow) bool {
	return len(t.Ports) == 0 || flow.HasPorts() && AnyPort(t.Ports, flow.Protocol, flow.DestinationPort)
}

// AnyPort says whether one of the ports is this one.
func AnyPort(ports []PortMatch, protocol uint8, port uint16) bool {
	return slices.ContainsFunc(ports, func(p PortMatch) bool { return p.Protocol == protocol && p.Contains(port) })
}

// Contains says whether the port is in the range.
func (r PortRange) Contains(port uint16) bool { return r.First <= port && port <= r.Last }

func inAny(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}
