package kubectl

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Pod that was named, with the node that it is on and its addresses.
type Pod struct {
	Name, Node  string
	Addresses   []netip.Addr
	HostNetwork bool
}

// Pod finds NAMESPACE/POD or POD.
func (c *Client) Pod(ctx context.Context, text string) (Pod, error) {
	n, err := podName(text, c.Namespace)
	if err != nil {
		return Pod{}, usageError{fmt.Errorf("pod %q: %w", text, err)}
	}
	p, err := get[pod](ctx, c, Pods, n.namespace, n.name)
	if err != nil {
		return Pod{}, about("pod", text, notThere(err, "pod", n))
	}
	r := &resolution{client: c}
	e, err := r.pod(p)
	if err != nil {
		return Pod{}, about("pod", text, err)
	}
	return Pod{n.String(), p.Spec.NodeName, e.addresses, p.Spec.HostNetwork}, nil
}

// mostNamedPods of a cluster are named all; of larger ones, those of the node.
const mostNamedPods = 5000

// NamesFor what a node sees: pods, services and nodes, as far as the user may know
// them; notes say what isn't named.
func (c *Client) NamesFor(ctx context.Context, node string) (names []Name, notes []string, err error) {
	some, noted, err := c.podNames(ctx, node)
	if err != nil {
		return nil, nil, err
	}
	names, notes = some, noted
	services, err := list[service](ctx, c, Services, "", meta.ListOptions{})
	switch {
	case apierrors.IsForbidden(err):
		notes = append(notes, "services aren't named: "+err.Error())
	case err != nil:
		return nil, nil, err
	}
	for _, s := range services {
		ips := s.Spec.ClusterIPs
		if len(ips) == 0 {
			ips = []string{s.Spec.ClusterIP}
		}
		for _, text := range ips {
			if a, err := netip.ParseAddr(text); err == nil { // "None" and "" are no addresses
				names = append(names, Name{a, s.Metadata.String()})
			}
		}
	}
	agents, err := c.Agents(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range agents {
		for _, address := range a.NodeAddresses {
			names = append(names, Name{address, a.Node})
		}
	}
	return names, notes, nil
}

// podNames of all, or of the node where there are too many, or the user may not
// know others.
func (c *Client) podNames(ctx context.Context, node string) (names []Name, notes []string, err error) {
	ofNode := meta.ListOptions{FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String()}
	first, err := c.Objects.Resource(Pods).List(ctx, meta.ListOptions{Limit: 1})
	var o meta.ListOptions
	switch {
	case apierrors.IsForbidden(err):
		return nil, []string{"pods aren't named: " + err.Error()}, nil
	case err != nil:
		return nil, nil, fmt.Errorf("list pods: %w", err)
	}
	if more := first.GetRemainingItemCount(); more != nil && *more >= mostNamedPods {
		o = ofNode
		notes = append(notes, fmt.Sprintf("the cluster has %d pods: only those of node %s are named", *more+1, node))
	}
	pods, err := list[pod](ctx, c, Pods, "", o)
	if err != nil {
		return nil, nil, fmt.Errorf("list pods: %w", err)
	}
	// An address may be one pod's after another's: the node's own pods come first.
	slices.SortStableFunc(pods, func(a, b pod) int { return rank(&a, node) - rank(&b, node) })
	for i := range pods {
		p := &pods[i]
		if p.Spec.HostNetwork || p.ended() {
			continue
		}
		addresses, err := p.addresses()
		if err != nil {
			return nil, nil, err
		}
		for _, a := range addresses {
			names = append(names, Name{a, p.Metadata.String()})
		}
	}
	return names, notes, nil
}

func rank(p *pod, node string) int {
	if p.Spec.NodeName == node {
		return 0
	}
	return 1
}
