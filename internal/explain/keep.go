package explain

import (
	"fmt"
	"net/netip"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
)

// keepPolicy is a SourcePolicy with which the flow keeps its source: for the
// network that the rule names where it holds the source, else for it alone.
// It is empty where no policy can do so: a guard stands before all rules
// (hairpin traffic, tunnels, what stays on the node).
func keepPolicy(rule *ruleset.Rule, q sim.Question, o *sim.Outcome) string {
	from := fmt.Sprintf("cidrs: [%q]", sourcePrefix(rule, q.Source))
	if q.Local {
		from = "node: {}"
	}
	text := fmt.Sprintf(`apiVersion: unmasq.io/v1alpha1
kind: SourcePolicy
metadata: {name: keep}
spec:
  rules:
  - name: keep
    from: {%s}
    to: {cidrs: ["%s/%d"]}
    action: Keep
`, from, o.Destination, o.Destination.BitLen())
	loaded, err := policy.Load([]policy.Source{{Name: "keep.yaml", Content: []byte(text)}}, policy.Options{})
	if err != nil {
		return "" // a network that no policy may name
	}
	if policy.Decide(&loaded.Policy, nodeFacts(q, o), leaving(q, o)).Action != policy.Keep {
		return ""
	}
	return text
}

func sourcePrefix(rule *ruleset.Rule, source netip.Addr) string {
	if rule != nil && rule.Native != nil {
		if p := nativeSource(rule.Native); p.IsValid() && p.Bits() > 0 && p.Contains(source) {
			return p.Masked().String()
		}
	}
	if rule != nil && !rule.Source.Not && rule.Source.Prefix.Bits() > 0 && rule.Source.Prefix.Contains(source) {
		return rule.Source.Prefix.Masked().String()
	}
	return netip.PrefixFrom(source, source.BitLen()).String()
}

// nodeFacts are those that guards ask for: a flow that DNAT sent back to its own
// source is hairpin traffic.
func nodeFacts(q sim.Question, o *sim.Outcome) *policy.Facts {
	f := &policy.Facts{ServiceMark: policy.DefaultServiceMark, HostPortMark: policy.DefaultHostPortMark, PodsKnown: true}
	if q.Source == o.Destination {
		f.Pods = []policy.Pod{{Addresses: []netip.Addr{q.Source}}}
	}
	return f
}

// leaving is the flow as the postrouting hook sees it, before its source is translated.
func leaving(q sim.Question, o *sim.Outcome) packet.Flow {
	f := packet.Flow{
		Source: q.Source, Destination: o.Destination, Protocol: q.Protocol, Mark: o.Mark, Local: q.Local, OutInterface: o.OutInterface,
	}
	if o.Protocol != 0 {
		f.Protocol = o.Protocol
	}
	if q.SourcePort != sim.UnknownPort {
		f.SourcePort = uint16(q.SourcePort)
	}
	if o.DestinationPort != sim.UnknownPort {
		f.DestinationPort = uint16(o.DestinationPort)
	}
	if o.Destination != q.Destination {
		f.OriginalDestination = q.Destination
	}
	if o.ToNode {
		f.OutInterface = "lo"
	}
	return f
}
