package importer

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/policy"
)

var ovnSubnet = resource{"kubeovn.io", "Subnet"}

// kubeOVN reads subnets. What Kube-OVN writes for them, of the default VPC's:
//
//	-A OVN-POSTROUTING -m set --match-set ovn40subnets src -m set --match-set ovn40subnets dst -j OVN-MASQUERADE
//	-A OVN-POSTROUTING -m set --match-set ovn40subnets-nat-policy src -m set ! --match-set ovn40subnets dst -j OVN-NAT-POLICY
//	-A OVN-POSTROUTING -m mark --mark 0x90001/0x90001 -j OVN-MASQUERADE
//	-A OVN-POSTROUTING -m mark --mark 0x90002/0x90002 -j RETURN
//	-A OVN-POSTROUTING -m set --match-set ovn40subnets-nat src -m set ! --match-set ovn40subnets dst -j OVN-MASQUERADE
//	-A OVN-NAT-PSUBNET-… -m set --match-set … src -m set --match-set … dst -j MARK --set-xmark 0x90001/0x90001   (nat)
//	-A OVN-NAT-PSUBNET-… …                                                   -j MARK --set-xmark 0x90002/0x90002   (forward)
//
// The two marks share bits, so that a packet which a rule with action nat has matched
// carries that mark whatever matches it besides: nat wins over forward, in any order.
func kubeOVN() Kind {
	return Kind{
		Name: "kube-ovn", Reads: "Subnets (kubectl get subnets.kubeovn.io -o yaml)", Knows: holdsAny(ovnSubnet),
		Import: importKubeOVN,
	}
}

// ovnNetwork is a subnet of the default VPC.
type ovnNetwork struct {
	Value
	name  string
	cidrs []Network
	nat   bool
}

func importKubeOVN(files []File, opts Options) (*Result, error) {
	found, err := resourcesOf(files, "Subnets: kubectl get subnets.kubeovn.io -o yaml", ovnSubnet)
	if err != nil {
		return nil, err
	}
	r := &Result{}
	var subnets []ovnNetwork
	for _, v := range found {
		s, ours, err := r.ovnSubnet(v)
		if err != nil {
			return nil, err
		}
		if ours {
			subnets = append(subnets, s)
		}
	}
	if len(subnets) == 0 {
		return nil, found[0].Wrong("no subnet of the default VPC is given, whose pods' packets nodes see")
	}
	slices.SortStableFunc(subnets, func(a, b ovnNetwork) int { return strings.Compare(a.name, b.name) })
	d := NewDocument(opts, "kube-ovn", "What Kube-OVN's natOutgoing does.")
	if err := ovnRules(r, d, subnets); err != nil {
		return nil, err
	}
	r.Documents = append(r.Documents, d)
	return r, nil
}

// ovnSubnet reads one; ours: nodes see its packets.
func (r *Result) ovnSubnet(v Value) (s ovnNetwork, ours bool, err error) {
	spec := v.Get("spec")
	s = ovnNetwork{Value: spec, name: nameOf(v)}
	if s.cidrs, err = spec.Get("cidrBlock").commaNetworks(); err != nil {
		return s, false, err
	}
	if len(s.cidrs) == 0 {
		return s, false, spec.Get("cidrBlock").Wrong("expected the subnet's CIDR, or one of each family with a comma between them")
	}
	if s.nat, err = spec.Get("natOutgoing").Bool(false); err != nil {
		return s, false, err
	}
	gateway, err := spec.Get("logicalGateway").Bool(false)
	if err != nil {
		return s, false, err
	}
	const vpc = "ovn-cluster"
	if cmp.Or(spec.Get("vpc").Text(), vpc) != vpc || spec.Get("vlan").Text() != "" && !gateway {
		r.Warn(v.Get("metadata", "name").Place(), "subnet %s isn't the nodes': of another VPC, or of a VLAN with a gateway of its own; it is left out", shown(s.name))
		return s, false, nil
	}
	if node := spec.Get("gatewayNode"); s.nat && strings.Contains(node.Text(), ":") {
		r.Warn(node.Place(), "names source addresses of its nodes, which are left out: on those nodes Kube-OVN takes them, the rules take the outgoing interface's")
	}
	return s, true, nil
}

func ovnRules(r *Result, d *Document, subnets []ovnNetwork) error {
	var all, translated []Network
	for _, s := range subnets {
		if all = append(all, s.cidrs...); s.nat {
			translated = append(translated, s.cidrs...)
		}
	}
	if len(translated) == 0 {
		d.Rule(v1alpha1.Rule{Name: "subnets", From: &v1alpha1.From{CIDRs: d.CIDRs(d.cidrsPath("from.cidrs"), all)}, Action: "Leave"},
			"No subnet has natOutgoing: pods keep their addresses unless another component hides them; Keep holds against those, too.")
		return nil
	}
	d.Rule(v1alpha1.Rule{
		Name: "subnets", From: &v1alpha1.From{CIDRs: prefixTexts(translated)}, To: &v1alpha1.To{CIDRs: d.CIDRs(d.cidrsPath("to.cidrs"), all)}, Action: "Leave",
	}, "Pods talk to each other past this; what comes here is service traffic, which Kube-OVN has to hide, and does.")
	for _, s := range subnets {
		if !s.nat {
			continue
		}
		if err := s.policyRules(r, d); err != nil {
			return err
		}
	}
	d.Rule(v1alpha1.Rule{
		Name: "nat-outgoing", From: &v1alpha1.From{CIDRs: d.CIDRs(d.cidrsPath("from.cidrs"), translated)}, Action: "Masquerade", Masquerade: randomly(true),
	}, "natOutgoing: all others see the node's address.")
	return nil
}

// policyRules of a subnet: those with action nat first, since they win.
func (s ovnNetwork) policyRules(r *Result, d *Document) error {
	items := s.Get("natOutgoingPolicyRules")
	if items.Is() && !items.IsList() {
		return items.Wrong("is no list of rules")
	}
	both := map[string]bool{}
	for _, item := range items.Items() {
		action := item.Get("action")
		if !slices.Contains([]string{"nat", "forward"}, action.Text()) {
			return action.Wrong("is neither nat nor forward")
		}
		both[action.Text()] = true
	}
	if len(both) > 1 {
		r.Warn(items.Place(), "has both actions: where rules of both match a packet, nat holds in Kube-OVN, whatever their order, and so it does here")
	}
	for _, action := range []string{"nat", "forward"} {
		for i, item := range items.Items() {
			if item.Get("action").Text() == action {
				if err := s.policyRule(r, d, item, fmt.Sprintf("%s-%s-%d", s.name, action, i+1)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (s ovnNetwork) policyRule(r *Result, d *Document, item Value, name string) error {
	sources, err := item.Get("match", "srcIPs").commaNetworks()
	if err != nil {
		return err
	}
	destinations, err := item.Get("match", "dstIPs").commaNetworks()
	if err != nil {
		return err
	}
	if len(sources)+len(destinations) == 0 {
		r.Warn(item.Place(), "matches nothing in Kube-OVN: it names neither srcIPs nor dstIPs")
		return nil
	}
	from := s.cidrs
	if len(sources) > 0 {
		from = inBoth(sources, s.cidrs)
	}
	if len(from) == 0 {
		r.Warn(item.Get("match", "srcIPs").Place(), "are none of the subnet's: the rule matches nothing")
		return nil
	}
	if err := oneFamily(item.Get("match"), sources, destinations); err != nil {
		return err
	}
	rule := v1alpha1.Rule{Name: uniqueLabel(name, d.ruleNames()), From: &v1alpha1.From{CIDRs: d.CIDRs(d.cidrsPath("from.cidrs"), from)}, Action: "Keep"}
	if item.Get("action").Text() == "nat" {
		rule.Action, rule.Masquerade = "Masquerade", randomly(true)
	}
	if len(destinations) > 0 {
		rule.To = &v1alpha1.To{CIDRs: d.CIDRs(d.cidrsPath("to.cidrs"), destinations)}
	}
	d.Rule(rule, item.Place().String())
	return nil
}

// ruleNames that the document has.
func (d *Document) ruleNames() map[string]bool {
	names := map[string]bool{}
	for _, r := range d.Rules {
		names[r.Name] = true
	}
	return names
}

// inBoth are the networks that two lists share, with the places of the first's.
func inBoth(a, b []Network) (both []Network) {
	for _, x := range a {
		for _, y := range b {
			if !x.Overlaps(y.Prefix) {
				continue
			}
			if x.Bits() >= y.Bits() {
				both = append(both, x)
			} else {
				both = append(both, Network{y.Prefix, x.At})
			}
		}
	}
	return both
}

// oneFamily: Kube-OVN makes a set of one family of each rule's addresses.
func oneFamily(at Value, lists ...[]Network) error {
	v4, v6 := families(slices.Concat(lists...))
	if v4 && v6 {
		return &policy.FieldError{File: at.file, Line: at.Line(), Path: at.path, Message: "mixes IPv4 and IPv6; expected one family in a rule"}
	}
	return nil
}
