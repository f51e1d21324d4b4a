package kubectl

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// Agent is a pod that runs unmasq on a node.
type Agent struct {
	Node, Namespace, Pod, Container string
	// Image of the container, as its pod has it.
	Image string
	// NodeAddresses, the first one first.
	NodeAddresses []netip.Addr
	// HealthAddress is where it can be asked on its node whether it is ready, as its
	// arguments say; "" where they don't.
	HealthAddress string
	// Problem says why nothing can be run in it; "" where it runs.
	Problem string
}

// AgentOn a node: the one that runs. An error says what there is instead.
func (c *Client) AgentOn(ctx context.Context, node string) (Agent, error) {
	o := meta.ListOptions{LabelSelector: c.Where.Selector, FieldSelector: fields.OneTermEqualSelector("spec.nodeName", node).String()}
	all, err := c.agents(ctx, o)
	if err != nil {
		return Agent{}, err
	}
	all = slices.DeleteFunc(all, func(a Agent) bool { return a.Node != node })
	if len(all) == 0 {
		return Agent{}, fmt.Errorf("node %s has no agent: no pod with labels %s in namespace %s runs there: see `kubectl -n %s get pods -o wide`; "+
			"where it is installed elsewhere, name the namespace with --agent-namespace", node, c.Where.Selector, c.Where.Namespace, c.Where.Namespace)
	}
	if a := all[0]; a.Problem != "" {
		return a, fmt.Errorf("the agent on node %s can't be asked: %s", node, a.Problem)
	}
	return all[0], nil
}

// Agents of all nodes, one a node, in the order of their names.
func (c *Client) Agents(ctx context.Context) ([]Agent, error) {
	all, err := c.agents(ctx, meta.ListOptions{LabelSelector: c.Where.Selector})
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(a Agent) bool { return a.Node == "" })
	return slices.CompactFunc(all, func(a, b Agent) bool { return a.Node == b.Node }), nil
}

// NodeNames of the cluster; a user may not be allowed to know them.
func (c *Client) NodeNames(ctx context.Context) ([]string, error) {
	nodes, err := list[struct {
		Metadata named `json:"metadata"`
	}](ctx, c, Nodes, "", meta.ListOptions{})
	var names []string
	for _, n := range nodes {
		names = append(names, n.Metadata.Name)
	}
	slices.Sort(names)
	return names, err
}

// agents by node; of one node those that run first, and of these the newest, as
// between two versions of a daemon set.
func (c *Client) agents(ctx context.Context, o meta.ListOptions) ([]Agent, error) {
	pods, err := list[pod](ctx, c, Pods, c.Where.Namespace, o)
	switch {
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("you may not look for agents: %w; it takes list on pods in namespace %s", err, c.Where.Namespace)
	case err != nil:
		return nil, fmt.Errorf("look for agents in namespace %s: %w", c.Where.Namespace, err)
	}
	var all []Agent
	for i := range pods {
		a, err := c.agentOf(&pods[i])
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b Agent) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(min(len(a.Problem), 1), min(len(b.Problem), 1)), cmp.Compare(a.Pod, b.Pod))
	})
	return all, nil
}

func (c *Client) agentOf(p *pod) (Agent, error) {
	a := Agent{Node: p.Spec.NodeName, Namespace: p.Metadata.Namespace, Pod: p.Metadata.Name}
	var err error
	if a.NodeAddresses, err = p.hostAddresses(); err != nil {
		return a, err
	}
	box := p.container(agentContainer)
	if box == nil {
		a.Problem = fmt.Sprintf("pod %s has no container named %s, and more than one", p.Metadata, agentContainer)
		return a, nil
	}
	a.Container, a.Image = box.Name, box.Image
	// Written with brackets for IPv6's sake, which a URL has around IPv6 alone.
	address := cmp.Or(p.flag(box, "--health-address"), p.flag(box, "--metrics-address"))
	if host, port, err := net.SplitHostPort(address); err == nil {
		a.HealthAddress = net.JoinHostPort(host, port)
	}
	a.Problem = p.problem(box.Name)
	return a, nil
}

// container of that name, or the only one.
func (p *pod) container(name string) *container {
	all := p.Spec.Containers
	if i := slices.IndexFunc(all, func(c container) bool { return c.Name == name }); i >= 0 {
		return &all[i]
	}
	if len(all) == 1 {
		return &all[0]
	}
	return nil
}

// problem says why nothing runs in the container.
func (p *pod) problem(container string) string {
	look := fmt.Sprintf("; see `kubectl -n %s describe pod %s`", p.Metadata.Namespace, p.Metadata.Name)
	if p.Metadata.DeletionTimestamp != "" {
		return fmt.Sprintf("pod %s is being deleted", p.Metadata) + look
	}
	for _, s := range p.Status.ContainerStatuses {
		if s.Name != container {
			continue
		}
		switch {
		case s.State.Running != nil:
			return ""
		case s.State.Waiting != nil:
			return fmt.Sprintf("pod %s waits: %s", p.Metadata, s.State.Waiting.Reason) + look
		case s.State.Terminated != nil:
			return fmt.Sprintf("pod %s has ended: %s", p.Metadata, s.State.Terminated.Reason) + look
		}
	}
	return fmt.Sprintf("pod %s doesn't run yet (%s)", p.Metadata, cmp.Or(p.Status.Phase, "Unknown")) + look
}

// flag of the container's command line as the kubelet gives it: with its
// environment's values for $(NAME).
func (p *pod) flag(c *container, name string) (value string) {
	words := append(slices.Clone(c.Command), c.Args...)
	for i, word := range words {
		if given, ok := strings.CutPrefix(word, name+"="); ok {
			value = given
		} else if word == name && i+1 < len(words) {
			value = words[i+1]
		}
	}
	for _, e := range c.Env {
		known := e.Value
		switch e.ValueFrom.FieldRef.FieldPath {
		case "status.hostIP":
			known = first(texts(p.Status.HostIPs))
		case "status.podIP":
			known = first(texts(p.Status.PodIPs))
		case "spec.nodeName":
			known = p.Spec.NodeName
		}
		value = strings.ReplaceAll(value, "$("+e.Name+")", known)
	}
	return value
}

func first(texts []string) string {
	if len(texts) == 0 {
		return ""
	}
	return texts[0]
}
