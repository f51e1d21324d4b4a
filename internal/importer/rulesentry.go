package importer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/importer/rules"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// ruleWriter makes rules of documents of what NAT rules do.
type ruleWriter struct {
	result  *Result
	opts    Options
	byOwner bool
	node    nodeAddresses
	current *Document
	// name of the current document without its number; used counts those of a name,
	// rules the names of rules in the current one.
	name  string
	used  map[string]int
	rules map[string]bool
	// unknown are rules about the node's own packets that can't be said.
	unknown []Place
}

// nodeAddresses are the node's own that its packets can have when they leave.
type nodeAddresses struct {
	all   []netip.Addr
	known bool
}

func nodeOf(host *snapshot.Host) nodeAddresses {
	n := nodeAddresses{known: host.Network.KnownAddresses}
	for _, a := range host.Network.Addresses {
		ip := a.Prefix.Addr().Unmap().WithZone("")
		if !ip.IsLoopback() && !ip.IsLinkLocalUnicast() && !slices.Contains(n.all, ip) {
			n.all = append(n.all, ip)
		}
	}
	return n
}

// split the addresses of a family into those that are meant, and the others.
func (n nodeAddresses) split(f packet.Family, by rules.Addresses) (in, out []netip.Prefix) {
	for _, a := range n.all {
		switch {
		case packet.Of(a) != f:
		case by.Contains(a):
			in = append(in, netip.PrefixFrom(a, a.BitLen()))
		default:
			out = append(out, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return in, out
}

// entry makes a rule, unless it would decide nothing.
func (w *ruleWriter) entry(e *rules.Entry) {
	from, some := w.from(e)
	if !some {
		return
	}
	to := to(e, from)
	rule := v1alpha1.Rule{From: shorter(from, to), To: to, Action: string(e.Action)}
	for _, name := range e.Out {
		rule.OutInterfaces = append(rule.OutInterfaces, v1alpha1.InterfaceName(name))
	}
	switch e.Action {
	case policy.Masquerade:
		rule.Masquerade = masquerade(e)
	case policy.SNAT:
		rule.SNAT = &v1alpha1.SNAT{Addresses: []v1alpha1.AddressRange{addressRange(e.First, e.Last)}, FullyRandom: e.FullyRandom}
	}
	d := w.document(e)
	rule.Name = w.ruleName(e)
	path := d.Rule(rule)
	for _, r := range e.Rules {
		at := placeOf(r)
		d.Note(path, fmt.Sprintf("%s (%s)", at, ownerText(r.Owner)))
	}
}

func masquerade(e *rules.Entry) *v1alpha1.Masquerade {
	m := v1alpha1.Masquerade{FullyRandom: e.FullyRandom}
	if e.Ports != nil {
		m.Ports = fmt.Sprintf("%d-%d", max(e.Ports.First, 1), e.Ports.Last)
	}
	if m == (v1alpha1.Masquerade{}) {
		return nil
	}
	return &m
}

func addressRange(first, last netip.Addr) v1alpha1.AddressRange {
	if first == last {
		return v1alpha1.AddressRange(first.String())
	}
	return v1alpha1.AddressRange(first.String() + "-" + last.String())
}

// from of an entry. The node's own packets come from its addresses: those that aren't
// meant are taken out; a rule about others' alone is right where none of them is.
func (w *ruleWriter) from(e *rules.Entry) (from *v1alpha1.From, some bool) {
	node, except := e.Node, e.Source.Except
	if limited := len(e.Source.In) != 1 || e.Source.In[0].Bits() > 0; node && limited {
		in, out := w.node.split(e.Family, e.Source)
		node = len(in) > 0
		for _, p := range out {
			if !slices.ContainsFunc(except, func(q netip.Prefix) bool { return q.Contains(p.Addr()) }) && node {
				except = append(slices.Clip(except), p)
			}
		}
		if !w.node.known && (e.Action == policy.Masquerade || e.Action == policy.SNAT) && len(e.Rules) > 0 {
			w.unknown = append(w.unknown, placeOf(e.Rules[0]))
		}
	}
	if !node && !e.Forwarded {
		return nil, false
	}
	from = &v1alpha1.From{Except: cidrsOf(except)}
	if node {
		from.Node = &v1alpha1.Empty{}
	}
	if e.Forwarded {
		from.CIDRs = cidrsOf(e.Source.In)
	}
	return from, true
}

// shorter leaves out what is so anyway: all forwarded packets, where to names the family.
func shorter(from *v1alpha1.From, to *v1alpha1.To) *v1alpha1.From {
	if from.Node != nil || to == nil || to.CIDRs == nil || !strings.HasSuffix(string(from.CIDRs[0]), "/0") {
		return from
	}
	if from.CIDRs = nil; from.Except == nil {
		return nil
	}
	return from
}

// to of an entry. One of the two sides has to name the family.
func to(e *rules.Entry, from *v1alpha1.From) *v1alpha1.To {
	out := &v1alpha1.To{Except: cidrsOf(e.Destination.Except)}
	for _, p := range e.Region.Ports {
		out.Ports = append(out.Ports, portOf(p))
	}
	everywhere := len(e.Destination.In) == 1 && e.Destination.In[0].Bits() == 0
	if !everywhere || from.Node != nil {
		out.CIDRs = cidrsOf(e.Destination.In)
	}
	if len(out.CIDRs)+len(out.Except)+len(out.Ports) == 0 {
		return nil
	}
	return out
}

func portOf(p policy.PortMatch) v1alpha1.Port {
	port := v1alpha1.Port{Protocol: map[uint8]string{packet.TCP: "TCP", packet.UDP: "UDP", packet.SCTP: "SCTP"}[p.Protocol]}
	if p.First == 0 && p.Last == 65535 {
		return port
	}
	first, last := int32(max(p.First, 1)), int32(p.Last)
	if port.Port = &first; last > first {
		port.EndPort = &last
	}
	return port
}

func cidrsOf(prefixes []netip.Prefix) (out []v1alpha1.CIDR) {
	for _, p := range prefixes {
		out = append(out, v1alpha1.CIDR(p.String()))
	}
	return out
}

// ruleName is made of the chain and number of the rule that decided.
func (w *ruleWriter) ruleName(e *rules.Entry) string {
	name := "rule"
	if len(e.Rules) > 0 {
		name = fmt.Sprintf("%s-%d", e.Rules[0].Chain.Name, e.Rules[0].Rule.Index)
	}
	if !e.Forwarded {
		name += "-node"
	}
	if e.Family == packet.IPv6Family {
		name += "-v6"
	}
	return uniqueLabel(name, w.rules)
}
