package cluster

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/unmasq/unmasq/internal/policy"
)

// services with the labels of their namespaces, in a fixed order.
func services(in *Input) []policy.Service {
	namespaces := make(map[string]labels.Set, len(in.Namespaces))
	for _, n := range in.Namespaces {
		namespaces[n.Name] = n.Labels
	}
	out := make([]policy.Service, len(in.Services))
	for i, s := range in.Services {
		out[i] = policy.Service{Namespace: s.Namespace, Name: s.Name, Labels: s.Labels, NamespaceLabels: namespaces[s.Namespace], NoAddress: s.NoAddress,
			ClusterIPs: s.ClusterIPs, ExternalIPs: s.ExternalIPs, LoadBalancerIPs: s.LoadBalancerIPs, Ports: s.Ports, LocalOnly: s.LocalOnly}
	}
	slices.SortFunc(out, func(a, b policy.Service) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	return out
}
