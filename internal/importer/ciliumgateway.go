package importer

import (
	"fmt"
	"net/netip"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// gatewayOrder stands before the policy for all pods, which has the default.
const gatewayOrder = 50

// namespaceLabel is how Cilium's pod selectors name a namespace.
const namespaceLabel = "io.kubernetes.pod.namespace"

// gateway carries a CiliumEgressGatewayPolicy over as far as one node can: on the
// gateway its own pods leave with the policy's address. Nobody leads the pods of other
// nodes there.
func (s *ciliumSettings) gateway(r *Result, v Value, i int, opts Options) error {
	spec := v.Get("spec")
	gateway, err := oneGateway(spec)
	if err != nil {
		return err
	}
	d := NewDocument(Options{}, "cilium-egress-"+uniqueLabel(nameOf(v), map[string]bool{}), "What Cilium does for its egress gateway policy "+nameOf(v)+", on the gateway.")
	if opts.Name != "" {
		d.Name = fmt.Sprintf("%s-egress-%d", opts.Name, i+1)
	}
	d.Order = int32(gatewayOrder + i)
	if d.NodeSelector, err = gateway.Get("nodeSelector").selector(); err != nil {
		return err
	}
	r.Warn(v.Get("metadata", "name").Place(), "unmasq leads no packets to another node: pods on the gateway leave by this rule, those of other nodes by their own node's")
	rule, err := egressRule(r, spec, gateway)
	if err != nil {
		return err
	}
	if err := s.gatewayRules(r, d, spec, rule); err != nil {
		return err
	}
	if len(d.Rules) > 0 {
		r.Documents = append(r.Documents, d)
	}
	return nil
}

// oneGateway of egressGateway and the newer list egressGateways.
func oneGateway(spec Value) (Value, error) {
	gateway := spec.Get("egressGateway")
	more := spec.Get("egressGateways").Items()
	switch {
	case gateway.IsMap() && len(more) == 0:
		return gateway, nil
	case !gateway.Is() && len(more) == 1 && more[0].IsMap():
		return more[0], nil
	case len(more) > 0:
		return gateway, spec.Get("egressGateways").Wrong("has more than one gateway, among which Cilium divides pods; a policy can't")
	}
	return gateway, gateway.Wrong("expected the gateway of the policy")
}

// egressRule is the rule, but for the pods that it is about.
func egressRule(r *Result, spec, gateway Value) (rule v1alpha1.Rule, err error) {
	to := spec.Get("destinationCIDRs")
	destinations, err := to.networks()
	if err != nil {
		return rule, err
	}
	if len(destinations) == 0 {
		return rule, to.Wrong("expected the destinations of the policy")
	}
	except, err := spec.Get("excludedCIDRs").networks()
	if err != nil {
		return rule, err
	}
	rule = v1alpha1.Rule{To: &v1alpha1.To{CIDRs: prefixTexts(destinations), Except: prefixTexts(except)}, Action: "Masquerade"}
	if name, err := gateway.Get("interface").String(); err != nil {
		return rule, err
	} else if name != "" {
		rule.OutInterfaces = []v1alpha1.InterfaceName{v1alpha1.InterfaceName(name)}
		r.Warn(gateway.Get("interface").Place(), "Cilium sends packets out by it; here the routes have to lead there")
	}
	address := gateway.Get("egressIP")
	if !address.Is() || address.Text() == "" {
		return rule, nil
	}
	ip, err := netip.ParseAddr(address.Text())
	if err != nil || ip.Is4In6() || ip.Zone() != "" {
		return rule, address.Wrong("is not an address")
	}
	rule.Action, rule.SNAT = "SNAT", &v1alpha1.SNAT{Addresses: []v1alpha1.AddressRange{v1alpha1.AddressRange(ip.String())}}
	return rule, nil
}

// gatewayRules are for each of the policy's selectors. Destinations in the cluster are
// none of the gateway's.
func (s *ciliumSettings) gatewayRules(r *Result, d *Document, spec Value, rule v1alpha1.Rule) error {
	selectors := spec.Get("selectors")
	if len(selectors.Items()) == 0 {
		return selectors.Wrong("expected selectors of pods")
	}
	for i, item := range selectors.Items() {
		if n := item.Get("nodeSelector"); n.Is() {
			r.Warn(n.Place(), "selects by nodes, which a rule can't: what is selected so is left out")
			continue
		}
		pods, err := podsOf(item)
		if err != nil {
			return err
		}
		from := &v1alpha1.From{Pods: pods}
		d.Rule(v1alpha1.Rule{Name: fmt.Sprintf("cluster-%d", i+1), From: from, To: toPods(), Action: "Keep"}, "Pods see each other's addresses.")
		d.Rule(v1alpha1.Rule{Name: fmt.Sprintf("nodes-%d", i+1), From: from, To: &v1alpha1.To{Nodes: &v1alpha1.Empty{}}, Action: s.toNodes()}, "Nodes are none of the gateway's destinations.")
		rule.Name, rule.From = fmt.Sprintf("egress-%d", i+1), from
		d.Rule(rule, item.Place().String())
	}
	return nil
}

// toNodes is what happens to pods' packets to nodes: with native routing nodes see
// pods' addresses, with tunnels they don't.
func (s *ciliumSettings) toNodes() string {
	switch {
	case len(s.options) == 0 || !s.v4:
		return "Leave"
	case s.native:
		return "Keep"
	}
	return "Masquerade"
}

// podsOf a selector of the policy.
func podsOf(item Value) (*v1alpha1.PodPeer, error) {
	pods, err := item.Get("podSelector").selector()
	if err != nil {
		return nil, err
	}
	namespaces, err := item.Get("namespaceSelector").selector()
	if err != nil {
		return nil, err
	}
	if pods == nil && namespaces == nil {
		return nil, item.Wrong("expected a podSelector or namespaceSelector")
	}
	if pods != nil && pods.MatchLabels[namespaceLabel] != "" {
		if namespaces == nil {
			namespaces = &v1alpha1.LabelSelector{}
		}
		if namespaces.MatchLabels == nil {
			namespaces.MatchLabels = map[string]v1alpha1.LabelValue{}
		}
		namespaces.MatchLabels["kubernetes.io/metadata.name"] = pods.MatchLabels[namespaceLabel]
		if delete(pods.MatchLabels, namespaceLabel); len(pods.MatchLabels) == 0 {
			pods.MatchLabels = nil
		}
	}
	return &v1alpha1.PodPeer{PodSelector: pods, NamespaceSelector: namespaces}, nil
}
