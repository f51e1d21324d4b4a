package policy

import (
	"maps"
	"net/netip"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// fileService is a Service as files state it: the fields of its object that say
// where connections to it are made to.
type fileService struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	Labels    map[string]string `json:"labels,omitempty"`
	// NamespaceLabels are as those of pods.
	NamespaceLabels map[string]string `json:"namespaceLabels,omitempty"`
	// Type says something only where it is ExternalName.
	Type string `json:"type,omitempty"`
	// ClusterIPs, [None] of a headless one.
	ClusterIPs            []string          `json:"clusterIPs,omitempty"`
	ExternalIPs           []string          `json:"externalIPs,omitempty"`
	LoadBalancerIPs       []string          `json:"loadBalancerIPs,omitempty"`
	ExternalTrafficPolicy string            `json:"externalTrafficPolicy,omitempty"`
	Ports                 []fileServicePort `json:"ports,omitempty"`
}

type fileServicePort struct {
	Protocol string `json:"protocol,omitempty"`
	Port     int32  `json:"port"`
	NodePort *int32 `json:"nodePort,omitempty"`
}

// Why a service has no address of its own.
const (
	Headless     = "is headless"
	ExternalName = "is of type ExternalName"
)

// services reads the cluster's Services. An empty list says that there are none.
func (d *document) statedServices(path string, in []fileService) []Service {
	out := make([]Service, len(in))
	first := map[string]int{}
	for i := range in {
		at := indexPath(path, i)
		out[i] = d.statedService(at, &in[i])
		if j, twice := first[out[i].ID()]; twice && in[i].Name != "" {
			d.fail(at, quoted(out[i].ID()), "is stated in %s too; expected each service once", indexPath(path, j))
		} else if !twice {
			first[out[i].ID()] = i
		}
	}
	return out
}

func (d *document) statedService(path string, in *fileService) Service {
	d.names(path, "service", in.Namespace, in.Name)
	d.labels(path+".labels", in.Labels)
	d.labels(path+".namespaceLabels", in.NamespaceLabels)
	namespaceLabels := labels.Set{namespaceNameLabel: in.Namespace}
	maps.Copy(namespaceLabels, in.NamespaceLabels)
	s := Service{
		Namespace: in.Namespace, Name: in.Name, Labels: labels.Set(in.Labels), NamespaceLabels: namespaceLabels,
		ExternalIPs:     d.addresses(path+".externalIPs", in.ExternalIPs),
		LoadBalancerIPs: d.addresses(path+".loadBalancerIPs", in.LoadBalancerIPs),
		LocalOnly:       d.oneOf(path+".externalTrafficPolicy", in.ExternalTrafficPolicy, "Cluster", "Local") == "Local",
	}
	s.ClusterIPs, s.NoAddress = d.clusterIPs(path, in)
	for i := range in.Ports {
		s.Ports = append(s.Ports, d.servicePort(indexPath(path+".ports", i), &in.Ports[i]))
	}
	if len(in.Ports) == 0 && s.NoAddress == "" {
		d.fail(path+".ports", "", "missing; expected the service's ports")
	}
	return s
}

// names checks namespace and name of an object.
func (d *document) names(path, kind, namespace, name string) {
	for _, f := range []struct{ name, value string }{{"namespace", namespace}, {"name", name}} {
		switch at := path + "." + f.name; {
		case f.value == "" && !d.has(at):
			d.fail(at, "", "missing; expected the %s's %s", kind, f.name)
		case len(validation.IsDNS1123Subdomain(f.value)) > 0:
			d.fail(at, quoted(f.value), "is not a DNS name; expected lower case letters, digits, '-' and '.'")
		}
	}
}

func (d *document) clusterIPs(path string, in *fileService) (all []netip.Addr, none string) {
	external := d.oneOf(path+".type", in.Type, "ClusterIP", "NodePort", "LoadBalancer", "ExternalName") == "ExternalName"
	switch {
	case external:
		if in.ClusterIPs != nil {
			d.fail(path+".clusterIPs", "", "not expected with type ExternalName, which has none")
		}
		return nil, ExternalName
	case in.ClusterIPs == nil:
		d.fail(path+".clusterIPs", "", "missing; expected the service's ClusterIPs, [None] of a headless one")
		return nil, ""
	case len(in.ClusterIPs) == 1 && in.ClusterIPs[0] == "None":
		return nil, Headless
	}
	return d.addresses(path+".clusterIPs", in.ClusterIPs), ""
}

func (d *document) servicePort(path string, in *fileServicePort) ServicePort {
	port := v1alpha1.Port{Protocol: in.Protocol, Port: &in.Port}
	m := d.port(path, &port)
	p := ServicePort{Protocol: m.Protocol, Port: m.First}
	if in.NodePort != nil {
		p.NodePort, _ = d.portNumber(path+".nodePort", *in.NodePort)
	}
	return p
}
