package kubectl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/unmasq/unmasq/api/v1alpha1"
)

// Resources that uninstalling deletes.
var (
	DaemonSets  = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}
	NodeReports = v1alpha1.GroupVersion().WithResource(v1alpha1.NodeReports)
)

// Installed is what of unmasq a cluster has that is to go.
type Installed struct {
	// DaemonSets of agents, by their names in the agents' namespace.
	DaemonSets []string
	// Release of Helm that they are of; "": of none.
	Release string
	// Nodes where a table may be: those with an agent or a report, or all where there
	// are no reports to go by. Agents has those that run one.
	Nodes, Agents []string
	// Reports by the names of their nodes.
	Reports []string
	// Clearing is how a node without an agent is cleared.
	Clearing Clearing
}

type daemonSet struct {
	Metadata named `json:"metadata"`
	Spec     struct {
		Template struct {
			Spec struct {
				ImagePullSecrets  []any          `json:"imagePullSecrets"`
				PriorityClassName string         `json:"priorityClassName"`
				SecurityContext   map[string]any `json:"securityContext"`
				Containers        []container    `json:"containers"`
			} `json:"spec"`
		} `json:"template"`
	} `json:"spec"`
}

type node struct {
	Metadata named `json:"metadata"`
}

// linux: other nodes never had an agent.
func (n *node) linux() bool {
	os := n.Metadata.Labels["kubernetes.io/os"]
	return os == "" || os == "linux"
}

// Installed finds out what there is. All counts every node as one where a table may
// be.
func (c *Client) Installed(ctx context.Context, all bool) (*Installed, error) {
	out := &Installed{}
	sets, err := list[daemonSet](ctx, c, DaemonSets, c.Where.Namespace, meta.ListOptions{LabelSelector: c.Where.Selector})
	if err != nil {
		return nil, fmt.Errorf("look for agents' daemon sets: %w", err)
	}
	for i := range sets {
		out.take(&sets[i])
	}
	agents, err := c.Agents(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range agents {
		out.Agents = append(out.Agents, a.Node)
	}
	reports, err := list[node](ctx, c, NodeReports, "", meta.ListOptions{})
	if err != nil && !apierrors.IsNotFound(err) { // a cluster without the definition has none
		return nil, fmt.Errorf("look for reports: %w", err)
	}
	for _, r := range reports {
		out.Reports = append(out.Reports, r.Metadata.Name)
	}
	nodes, err := list[node](ctx, c, Nodes, "", meta.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("look for nodes: %w", err)
	}
	for _, n := range nodes {
		name := n.Metadata.Name
		if n.linux() && (all || len(out.Reports) == 0 || slices.Contains(out.Reports, name) || slices.Contains(out.Agents, name)) {
			out.Nodes = append(out.Nodes, name)
		}
	}
	slices.Sort(out.Nodes)
	return out, nil
}

// take what a daemon set says.
func (i *Installed) take(set *daemonSet) {
	i.DaemonSets = append(i.DaemonSets, set.Metadata.Name)
	if set.Metadata.Labels["app.kubernetes.io/managed-by"] == "Helm" {
		i.Release = set.Metadata.Annotations["meta.helm.sh/release-name"]
	}
	spec := &set.Spec.Template.Spec
	for _, box := range spec.Containers {
		if box.Name == agentContainer {
			i.Clearing = Clearing{Image: box.Image, PullPolicy: box.ImagePullPolicy, PullSecrets: spec.ImagePullSecrets,
				PriorityClass: spec.PriorityClassName, SecurityContext: spec.SecurityContext}
		}
	}
}

// StopAgents deletes their daemon sets and waits until their pods are gone, or
// nothing happens for so long. It returns the nodes whose agents said at their end that they
// cleared them; of the others nothing is known.
func (c *Client) StopAgents(ctx context.Context, sets []string, patience time.Duration) (cleared []string, err error) {
	o := meta.ListOptions{LabelSelector: c.Where.Selector}
	pods := c.Objects.Resource(Pods).Namespace(c.Where.Namespace)
	there, err := pods.List(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("look for agents: %w", err)
	}
	o.ResourceVersion = there.GetResourceVersion()
	ends, err := pods.Watch(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("watch agents: %w", err)
	}
	defer ends.Stop()
	left, err := c.deleteAgents(ctx, sets, there.Items)
	if err != nil {
		return nil, err
	}
	for len(left) > 0 {
		select {
		case <-ctx.Done():
			return cleared, ctx.Err()
		case <-time.After(patience):
			return cleared, nil // of those that are left nothing is known
		case e, open := <-ends.ResultChan():
			if !open {
				return cleared, nil
			}
			if node := c.ended(e, left); node != "" {
				cleared = append(cleared, node)
			}
		}
	}
	return cleared, nil
}

// deleteAgents deletes daemon sets, which takes their pods with them, and pods of none.
// It returns all pods' names.
func (c *Client) deleteAgents(ctx context.Context, sets []string, pods []unstructured.Unstructured) (map[string]bool, error) {
	background := meta.DeletePropagationBackground
	for _, name := range sets {
		err := c.Objects.Resource(DaemonSets).Namespace(c.Where.Namespace).Delete(ctx, name, meta.DeleteOptions{PropagationPolicy: &background})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("delete daemon set %s/%s: %w", c.Where.Namespace, name, err)
		}
	}
	names := map[string]bool{}
	for _, p := range pods {
		names[p.GetName()] = true
		if len(p.GetOwnerReferences()) > 0 {
			continue
		}
		// Its daemon set was deleted without it (--cascade=orphan).
		err := c.Objects.Resource(Pods).Namespace(c.Where.Namespace).Delete(ctx, p.GetName(), meta.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("delete pod %s/%s: %w", c.Where.Namespace, p.GetName(), err)
		}
	}
	return names, nil
}

// ended takes an agent that is gone from those that are left, and returns its node if
// it said that it cleared it. A pod's last words are in the object that is deleted.
func (c *Client) ended(e watch.Event, left map[string]bool) (node string) {
	u, ok := e.Object.(*unstructured.Unstructured)
	if !ok {
		return ""
	}
	if e.Type != watch.Deleted {
		left[u.GetName()] = true
		return ""
	}
	delete(left, u.GetName())
	var p pod
	if runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &p) != nil {
		return ""
	}
	for _, s := range p.Status.ContainerStatuses {
		if s.Name == agentContainer && s.State.Terminated != nil && s.State.Terminated.Message == SaidCleared {
			return p.Spec.NodeName
		}
	}
	return ""
}

// DeleteReports of nodes. One that is gone is as good.
func (c *Client) DeleteReports(ctx context.Context, nodes []string) error {
	var errs []error
	for _, name := range nodes {
		err := c.Objects.Resource(NodeReports).Delete(ctx, name, meta.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete the report of node %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
