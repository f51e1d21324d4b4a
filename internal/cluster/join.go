package cluster

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/facts"
)

// NoNodes is why to.nodes is refused where nobody said which nodes there are.
const NoNodes = "needs to know the cluster's nodes: state their networks with --node-cidrs, or --watch-nodes in a small cluster"

// NoServiceCIDRs is why rules for all services are refused where nobody said which
// addresses those have.
const NoServiceCIDRs = "needs to know the networks of ClusterIPs, which this API doesn't tell (Kubernetes 1.33 does): state them with --service-cidrs, or here in cidrs"

// Join makes a View. It says the same in whatever order objects come.
func Join(in Input) *View {
	v := &View{NodeLabels: map[string]string{}, Policies: slices.Clone(in.Policies), Before: in.Before, NoResults: in.NoResults, NoServices: in.NoServices}
	if n := in.Node; n != nil {
		v.NodeName, v.NodeUID, v.Paused = n.Name, n.UID, n.Paused
		maps.Copy(v.NodeLabels, n.Labels)
	}
	slices.SortFunc(v.Policies, func(a, b Policy) int { return strings.Compare(a.Name, b.Name) })
	known, withResults := pods(&in)
	v.Facts = facts.Cluster{
		PodCIDRs:     foundAt(in.Stated.PodCIDRs, "--pod-cidrs"),
		NodeCIDRs:    foundAt(in.Stated.NodeCIDRs, "--node-cidrs"),
		ServiceCIDRs: serviceCIDRs(&in),
		Pods:         known,
		Services:     services(&in), ServicesKnown: in.ServicesKnown,
	}
	if v.NoResults == "" && elsewhere(&in, withResults) {
		v.NoResults = Elsewhere
	}
	v.nodes(&in)
	return v
}

// Elsewhere is why results aren't known of a node that has pods with addresses and
// not one result of them: a directory that is there may be one that the mount made,
// or of a runtime before.
const Elsewhere = "none of this node's pods has a network plugin's result where they are looked for: the container runtime keeps them elsewhere"

func elsewhere(in *Input, withResults map[string]bool) bool {
	addressed := false
	for i := range in.Pods {
		p := &in.Pods[i]
		if withResults[p.pluginUID()] {
			return false
		}
		addressed = addressed || !p.HostNetwork && !p.Ended && len(p.Addresses) > 0
	}
	return addressed && len(in.Released) == 0
}

func foundAt[T any](values []T, origin string) (out []facts.Found[T]) {
	for _, x := range values {
		out = append(out, facts.Found[T]{Value: x, Origin: origin})
	}
	return out
}

// serviceCIDRs are stated or else the API's.
func serviceCIDRs(in *Input) []facts.Found[netip.Prefix] {
	if len(in.Stated.ServiceCIDRs) > 0 {
		return foundAt(in.Stated.ServiceCIDRs, "--service-cidrs")
	}
	var out []facts.Found[netip.Prefix]
	for _, s := range in.ServiceCIDRs {
		out = append(out, foundAt(s.CIDRs, "ServiceCIDR "+s.Name)...)
	}
	sortFound(out, netip.Prefix.Compare)
	return out
}

// nodes fills what nodes say: this one of itself, and all of them where nobody
// stated the cluster's networks and they are watched.
func (v *View) nodes(in *Input) {
	all := in.Nodes
	if !in.Stated.AllNodes {
		all = nil
	}
	if in.Node != nil {
		all = append(slices.DeleteFunc(slices.Clone(all), func(n Node) bool { return n.Name == in.Node.Name }), *in.Node)
		v.Facts.LocalPodCIDRs = foundAt(in.Node.PodCIDRs, "Node "+in.Node.Name)
	}
	for _, n := range all {
		v.Facts.Nodes = append(v.Facts.Nodes, foundAt(n.Addresses, "Node "+n.Name)...)
		if in.Stated.AllNodes && len(in.Stated.PodCIDRs) == 0 {
			v.Facts.PodCIDRs = append(v.Facts.PodCIDRs, foundAt(n.PodCIDRs, "Node "+n.Name)...)
		}
	}
	sortFound(v.Facts.Nodes, netip.Addr.Compare)
	sortFound(v.Facts.PodCIDRs, netip.Prefix.Compare)
	if !in.Stated.AllNodes && len(in.Stated.NodeCIDRs) == 0 {
		v.NoNodes = NoNodes
	}
}

// sortFound makes the order one that doesn't depend on the objects'.
func sortFound[T any](all []facts.Found[T], compare func(a, b T) int) {
	slices.SortStableFunc(all, func(a, b facts.Found[T]) int {
		if c := compare(a.Value, b.Value); c != 0 {
			return c
		}
		return strings.Compare(a.Origin, b.Origin)
	})
}
