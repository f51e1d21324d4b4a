package kube

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/policy"
)

// The functions here take what is used out of the API's objects, and say what is
// strange in them.

// fields reads below an object; what isn't there is the zero value.
type fields struct {
	object  map[string]any
	strange []string
}

func fieldsOf(o runtime.Object) (*unstructured.Unstructured, *fields) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		u = &unstructured.Unstructured{Object: map[string]any{}}
	}
	return u, &fields{object: u.Object}
}

func (f *fields) at(path ...string) any {
	var x any = f.object
	for _, name := range path {
		m, ok := x.(map[string]any)
		if !ok {
			return nil
		}
		x = m[name]
	}
	return x
}

func (f *fields) text(path ...string) string { s, _ := f.at(path...).(string); return s }
func (f *fields) flag(path ...string) bool   { b, _ := f.at(path...).(bool); return b }
func (f *fields) list(path ...string) []any  { l, _ := f.at(path...).([]any); return l }

// address reads one; what is none is strange.
func (f *fields) address(text string, path ...string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		f.strange = append(f.strange, fmt.Sprintf("%s: %q is not an address", strings.Join(path, "."), text))
		return netip.Addr{}, false
	}
	return a.Unmap(), true
}

// prefixes of a list of texts.
func (f *fields) prefixes(path ...string) (out []netip.Prefix) {
	for _, x := range f.list(path...) {
		text, _ := x.(string)
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			f.strange = append(f.strange, fmt.Sprintf("%s: %q is not a CIDR", strings.Join(path, "."), text))
			continue
		}
		out = append(out, p.Masked())
	}
	return out
}

func nodeOf(o runtime.Object) (any, []string) {
	u, f := fieldsOf(o)
	n := cluster.Node{Name: u.GetName(), UID: string(u.GetUID()), Labels: u.GetLabels(), PodCIDRs: f.prefixes("spec", "podCIDRs"),
		Paused: u.GetAnnotations()[cluster.PauseAnnotation] == "true"}
	for _, x := range f.list("status", "addresses") {
		m, _ := x.(map[string]any)
		text, _ := m["address"].(string)
		if t := m["type"]; t != "InternalIP" && t != "ExternalIP" {
			continue
		}
		if a, ok := f.address(text, "status", "addresses"); ok && !slices.Contains(n.Addresses, a) {
			n.Addresses = append(n.Addresses, a)
		}
	}
	slices.SortFunc(n.Addresses, netip.Addr.Compare)
	return n, f.strange
}

func podOf(o runtime.Object) (any, []string) {
	u, f := fieldsOf(o)
	phase := f.text("status", "phase")
	p := cluster.Pod{Namespace: u.GetNamespace(), Name: u.GetName(), UID: string(u.GetUID()), Labels: u.GetLabels(),
		HostNetwork: f.flag("spec", "hostNetwork"), Ended: phase == "Succeeded" || phase == "Failed",
		Created: u.GetCreationTimestamp().Unix()}
	// kubelet makes an object for a static pod, with another UID than its own.
	if u.GetAnnotations()["kubernetes.io/config.mirror"] != "" {
		p.StaticUID = u.GetAnnotations()["kubernetes.io/config.hash"]
	}
	if p.HostNetwork {
		return p, nil
	}
	for _, x := range f.list("status", "podIPs") {
		m, _ := x.(map[string]any)
		text, _ := m["ip"].(string)
		if a, ok := f.address(text, "status", "podIPs"); ok && !slices.Contains(p.Addresses, a) {
			p.Addresses = append(p.Addresses, a)
		}
	}
	slices.SortFunc(p.Addresses, netip.Addr.Compare)
	return p, f.strange
}

func namespaceOf(o runtime.Object) (any, []string) {
	if m, ok := o.(*metav1.PartialObjectMetadata); ok {
		return cluster.Namespace{Name: m.Name, Labels: m.Labels}, nil
	}
	u, _ := fieldsOf(o)
	return cluster.Namespace{Name: u.GetName(), Labels: u.GetLabels()}, nil
}

func policyOf(o runtime.Object) (any, []string) {
	u, f := fieldsOf(o)
	source, err := policy.ObjectSource(u.Object)
	if err != nil { // it was JSON a moment ago
		f.strange = append(f.strange, err.Error())
	}
	return cluster.Policy{Name: u.GetName(), UID: string(u.GetUID()), Generation: u.GetGeneration(), Source: source}, f.strange
}

func serviceCIDROf(o runtime.Object) (any, []string) {
	u, f := fieldsOf(o)
	return cluster.ServiceCIDR{Name: u.GetName(), CIDRs: f.prefixes("spec", "cidrs")}, f.strange
}
