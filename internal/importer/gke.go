package importer

import (
	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/cidr"
)

var egressNATPolicy = resource{"networking.gke.io", "EgressNATPolicy"}

// gke reads EgressNATPolicy: destinations to which pods of Autopilot and Dataplane V2
// clusters keep their addresses. All others see the node's.
func gke() Kind {
	const reads = "EgressNATPolicy (kubectl get egressnatpolicies -o yaml)"
	return Kind{
		Name: "gke", Reads: reads, Knows: holdsAny(egressNATPolicy),
		Import: func(files []File, opts Options) (*Result, error) {
			found, err := resourcesOf(files, reads, egressNATPolicy)
			if err != nil {
				return nil, err
			}
			r := &Result{}
			for _, v := range found {
				if err := r.egressNATPolicy(v, opts); err != nil {
					return nil, err
				}
			}
			if len(r.Documents) == 0 {
				return nil, found[0].Get("metadata", "name").Wrong("GKE asks the policy named default alone")
			}
			return r, nil
		},
	}
}

func (r *Result) egressNATPolicy(v Value, opts Options) error {
	if nameOf(v) != "default" {
		r.Warn(v.Get("metadata", "name").Place(), "GKE asks the policy named default alone; this one is left out")
		return nil
	}
	if action := v.Get("spec", "action"); action.Text() != "NoSNAT" {
		return action.Wrong("is no action that is known; expected NoSNAT")
	}
	d := NewDocument(opts, "gke", "What GKE does for its EgressNATPolicy.")
	d.Facts.PodCIDRs = d.CIDRs("facts.podCIDRs", stated("--pod-cidrs", opts.PodCIDRs))
	var kept []Network
	for _, item := range v.Get("spec", "destinations").Items() {
		n, err := item.Get("cidr").Prefix()
		if err != nil {
			return err
		}
		kept = append(kept, n)
	}
	if !v.Get("spec", "destinations").IsList() {
		return v.Get("spec", "destinations").Wrong("expected a list of destinations, each with a cidr")
	}
	if len(kept) > 0 {
		d.Rule(v1alpha1.Rule{Name: "no-snat", From: fromPods(), To: &v1alpha1.To{CIDRs: d.CIDRs(d.cidrsPath("to.cidrs"), kept)}, Action: "Keep"},
			v.Get("spec", "action").Place().String()+": these see pods' own addresses.")
	}
	d.Rule(v1alpha1.Rule{Name: "link-local", From: fromPods(), To: &v1alpha1.To{CIDRs: []v1alpha1.CIDR{"169.254.0.0/16"}}, Action: "Leave"},
		"The metadata server and the like: GKE's own.")
	d.Rule(v1alpha1.Rule{Name: "snat", From: fromPods(), To: everywhere(true, false), Action: "Masquerade"},
		"All others see the node's; IPv6 isn't translated.")
	for _, p := range opts.PodCIDRs {
		if len(cidr.Subtract([]cidr.Range{cidr.FromPrefix(p)}, ranges(kept))) > 0 && p.Addr().Is4() {
			r.Warn(v.Get("spec", "destinations").Place(), "doesn't hold all of the pods' network %s: pods are hidden from each other", p)
		}
	}
	r.Documents = append(r.Documents, d)
	return nil
}

func ranges(networks []Network) (all []cidr.Range) {
	for _, n := range networks {
		all = append(all, cidr.FromPrefix(n.Prefix))
	}
	return all
}
