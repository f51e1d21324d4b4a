package policy

import (
	"maps"
	"net/netip"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// namespaceNameLabel is the label that Kubernetes gives each namespace.
const namespaceNameLabel = "kubernetes.io/metadata.name"

// facts checks spec.facts.
func (d *document) facts() Stated {
	in := d.object.Spec.Facts
	if in == nil {
		return Stated{}
	}
	var s Stated
	for _, f := range []struct {
		name  string
		texts []v1alpha1.CIDR
		value *StatedValue[[]netip.Prefix]
	}{
		{"podCIDRs", in.PodCIDRs, &s.PodCIDRs},
		{"localPodCIDRs", in.LocalPodCIDRs, &s.LocalPodCIDRs},
		{"serviceCIDRs", in.ServiceCIDRs, &s.ServiceCIDRs},
	} {
		state(d, f.name, f.value, func(path string) []netip.Prefix { return d.prefixes(path, f.texts) })
	}
	state(d, "nodeAddresses", &s.NodeAddresses, func(path string) []netip.Addr { return d.addresses(path, in.NodeAddresses) })
	state(d, "nodes", &s.Nodes, func(path string) []netip.Addr { return d.addresses(path, in.Nodes) })
	state(d, "serviceMark", &s.ServiceMark, func(path string) Mark { m, _ := d.mark(path, in.ServiceMark); return m })
	state(d, "hostPortMark", &s.HostPortMark, func(path string) Mark { m, _ := d.mark(path, in.HostPortMark); return m })
	state(d, "pods", &s.Pods, func(path string) []Pod { return d.pods(path, in.Pods) })
	state(d, "services", &s.Services, func(path string) []Service { return d.statedServices(path, in.Services) })
	return s
}

// state fills a fact that the document has.
func state[T any](d *document, name string, to *StatedValue[T], read func(path string) T) {
	if path := factPath(name); d.has(path) {
		*to = StatedValue[T]{Value: read(path), Set: true, Origin: d.origin(path)}
	}
}

func factPath(name string) string { return "spec.facts." + name }

// pods reads the pods of this node. An empty list says that there are none.
func (d *document) pods(path string, in []filePod) []Pod {
	out := make([]Pod, len(in))
	first := map[string]int{}
	for i := range in {
		out[i] = d.pod(indexPath(path, i), &in[i])
		id := in[i].Namespace + "/" + in[i].Name
		if j, twice := first[id]; twice && in[i].Name != "" {
			d.fail(indexPath(path, i), quoted(id), "is stated in %s too; expected each pod once", indexPath(path, j))
		} else if !twice {
			first[id] = i
		}
	}
	return out
}

func (d *document) pod(path string, in *filePod) Pod {
	d.names(path, "pod", in.Namespace, in.Name)
	if in.Addresses == nil {
		d.fail(path+".addresses", "", "missing; expected the pod's addresses")
	}
	d.labels(path+".labels", in.Labels)
	d.labels(path+".namespaceLabels", in.NamespaceLabels)
	namespaceLabels := labels.Set{namespaceNameLabel: in.Namespace}
	maps.Copy(namespaceLabels, in.NamespaceLabels)
	return Pod{
		Namespace: in.Namespace, Name: in.Name,
		Labels: labels.Set(in.Labels), NamespaceLabels: namespaceLabels,
		Addresses: d.addresses(path+".addresses", in.Addresses),
	}
}

// labels checks keys and values as Kubernetes does.
func (d *document) labels(path string, set map[string]string) {
	for _, key := range sortedKeys(set) {
		at := keyPath(path, key)
		if len(validation.IsQualifiedName(key)) > 0 {
			d.fail(at, quoted(key), "is not a label key; expected one such as app or example.com/app")
		}
		if len(validation.IsValidLabelValue(set[key])) > 0 {
			d.fail(at, quoted(set[key]), "is not a label value; expected letters, digits, '-', '_' and '.', at most 63 characters")
		}
	}
}
