package kubectl

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The objects here are what is used of the API's, by the names of its fields.
// Kubernetes' own types and their clients would be half of the whole binary.

type named struct {
	Name              string            `json:"name"`
	Namespace         string            `json:"namespace"`
	DeletionTimestamp string            `json:"deletionTimestamp"`
	Labels            map[string]string `json:"labels"`
	Annotations       map[string]string `json:"annotations"`
}

func (n named) String() string { return n.Namespace + "/" + n.Name }

type pod struct {
	Metadata named `json:"metadata"`
	Spec     struct {
		NodeName       string      `json:"nodeName"`
		HostNetwork    bool        `json:"hostNetwork"`
		Containers     []container `json:"containers"`
		InitContainers []container `json:"initContainers"`
	} `json:"spec"`
	Status struct {
		Phase             string            `json:"phase"`
		Reason            string            `json:"reason"`
		Message           string            `json:"message"`
		HostIPs           []ip              `json:"hostIPs"`
		PodIPs            []ip              `json:"podIPs"`
		ContainerStatuses []containerStatus `json:"containerStatuses"`
	} `json:"status"`
}

type ip struct {
	IP string `json:"ip"`
}

type container struct {
	Name            string   `json:"name"`
	Image           string   `json:"image"`
	ImagePullPolicy string   `json:"imagePullPolicy"`
	Command         []string `json:"command"`
	Args            []string `json:"args"`
	Env             []struct {
		Name      string `json:"name"`
		Value     string `json:"value"`
		ValueFrom struct {
			FieldRef struct {
				FieldPath string `json:"fieldPath"`
			} `json:"fieldRef"`
		} `json:"valueFrom"`
	} `json:"env"`
	Ports []struct {
		Name          string `json:"name"`
		ContainerPort int    `json:"containerPort"`
		Protocol      string `json:"protocol"`
	} `json:"ports"`
}

type containerStatus struct {
	Name  string `json:"name"`
	Ready bool   `json:"ready"`
	State struct {
		Running    *struct{}    `json:"running"`
		Waiting    *stateReason `json:"waiting"`
		Terminated *stateReason `json:"terminated"`
	} `json:"state"`
}

type stateReason struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

type service struct {
	Metadata named `json:"metadata"`
	Spec     struct {
		Type         string        `json:"type"`
		ClusterIP    string        `json:"clusterIP"`
		ClusterIPs   []string      `json:"clusterIPs"`
		ExternalName string        `json:"externalName"`
		Ports        []servicePort `json:"ports"`
	} `json:"spec"`
}

type servicePort struct {
	Name     string `json:"name"`
	Port     int    `json:"port"`
	Protocol string `json:"protocol"`
}

type endpointSlice struct {
	Metadata  named      `json:"metadata"`
	Endpoints []endpoint `json:"endpoints"`
	Ports     []struct {
		Name     string `json:"name"`
		Port     int    `json:"port"`
		Protocol string `json:"protocol"`
	} `json:"ports"`
}

type endpoint struct {
	Addresses  []string `json:"addresses"`
	Conditions struct {
		// Ready is true where it isn't stated.
		Ready *bool `json:"ready"`
	} `json:"conditions"`
	TargetRef struct {
		Kind      string `json:"kind"`
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	} `json:"targetRef"`
}

func (e *endpoint) ready() bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }

// get an object with the user's rights.
func get[T any](ctx context.Context, c *Client, kind schema.GroupVersionResource, namespace, name string) (*T, error) {
	u, err := c.Objects.Resource(kind).Namespace(namespace).Get(ctx, name, meta.GetOptions{})
	if err != nil {
		return nil, err
	}
	out := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, fmt.Errorf("%s %s/%s: %w", kind.Resource, namespace, name, err)
	}
	return out, nil
}

// list all there are, in portions.
func list[T any](ctx context.Context, c *Client, kind schema.GroupVersionResource, namespace string, o meta.ListOptions) (all []T, err error) {
	const portion = 500
	for o.Limit = portion; ; {
		page, err := c.Objects.Resource(kind).Namespace(namespace).List(ctx, o)
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			var one T
			if err := runtime.DefaultUnstructuredConverter.FromUnstructured(page.Items[i].Object, &one); err != nil {
				return nil, fmt.Errorf("%s %s: %w", kind.Resource, page.Items[i].GetName(), err)
			}
			all = append(all, one)
		}
		if o.Continue = page.GetContinue(); o.Continue == "" {
			return all, nil
		}
	}
}

// addresses of a pod, its first one first.
func (p *pod) addresses() ([]netip.Addr, error) {
	return addresses("pod "+p.Metadata.String(), texts(p.Status.PodIPs))
}

// hostAddresses are its node's.
func (p *pod) hostAddresses() ([]netip.Addr, error) {
	return addresses("node of pod "+p.Metadata.String(), texts(p.Status.HostIPs))
}

func texts(ips []ip) (out []string) {
	for _, i := range ips {
		out = append(out, i.IP)
	}
	return out
}

func addresses(whose string, texts []string) (out []netip.Addr, err error) {
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("%s: its address in the API is %q: %w", whose, text, err)
		}
		out = append(out, a.Unmap())
	}
	return out, nil
}

// ended: its addresses may be another's by now.
func (p *pod) ended() bool { return p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" }

// protocol in unmasq's words.
func protocol(api string) string {
	if api == "" {
		return "tcp"
	}
	return strings.ToLower(api)
}
