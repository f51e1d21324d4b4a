package policy

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// services checks to.services.
func (d *document) services(path string, in *v1alpha1.Services) *Services {
	if in == nil {
		return nil
	}
	out := &Services{
		CIDRs:    d.prefixes(path+".cidrs", in.CIDRs),
		Ports:    d.ports(path+".ports", in.Ports),
		Backends: Backends(d.oneOf(path+".backends", in.Backends, string(AnyBackends), string(LocalBackends), string(RemoteBackends))),
		Via:      Via(d.oneOf(path+".via", in.Via, string(AnyWay), string(ViaClusterIP), string(ViaNodePort), string(ViaLoadBalancer), string(ViaExternalIP))),
	}
	d.notEmpty(path+".names", in.Names == nil, len(in.Names))
	for i, name := range in.Names {
		d.serviceName(indexPath(path+".names", i), string(name))
		out.Names = append(out.Names, string(name))
	}
	if in.ServiceSelector != nil || in.NamespaceSelector != nil {
		out.Selector = &ServiceSelector{
			Service:   d.selector(path+".serviceSelector", in.ServiceSelector),
			Namespace: d.selector(path+".namespaceSelector", in.NamespaceSelector),
		}
	}
	if in.CIDRs != nil && out.Via != AnyWay && out.Via != ViaClusterIP {
		d.fail(path+".via", quoted(in.Via), "is not expected with cidrs, which are networks of ClusterIPs; expected ClusterIP, or leave the field out")
	}
	return out
}

// oneOf is a value of a list, the first of which stands for an absent one.
func (d *document) oneOf(path, value string, first string, others ...string) string {
	all := others
	if first != "" {
		all = append([]string{first}, others...)
	}
	switch {
	case !d.has(path):
		return first
	case !slices.Contains(all, value):
		d.fail(path, quoted(value), "is not known; expected %s", orList(all))
	}
	return value
}

func (d *document) serviceName(path, text string) {
	namespace, name, both := strings.Cut(text, "/")
	if !both || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Label(name)) > 0 {
		d.fail(path, quoted(text), "is not the name of a service; expected NAMESPACE/NAME, such as shop/web")
	}
}
