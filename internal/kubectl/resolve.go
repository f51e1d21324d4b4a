package kubectl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/unmasq/unmasq/internal/packet"
)

// Question as it was typed.
type Question struct {
	// Source is a pod, NAMESPACE/POD or POD, or an address or network; with Node also
	// an interface of it.
	Source string
	// Destination is a service or a pod with a port and a protocol if wanted, or an
	// address or network; empty where all are asked about.
	Destination string
	// Node whose agent is asked; "": the source's.
	Node string
	// Family that is asked about where both would do: ipv4, ipv6, or "".
	Family string
}

// Asked is a question by addresses, as unmasq explain on the node takes it.
type Asked struct {
	Node                string
	Source, Destination string
	// Names of addresses; the first of an address counts.
	Names []Name
	// Notes are what the user should know of how names were read.
	Notes []string
}

// Name of an address.
type Name struct {
	Address netip.Addr
	Name    string
}

// Resolve turns names into addresses, as the API has them now. What has no address,
// or several that differ, is refused with what there is.
func (c *Client) Resolve(ctx context.Context, q Question) (Asked, error) {
	r := &resolution{client: c, question: q, asked: Asked{Node: q.Node}}
	from, err := r.source(ctx)
	if err != nil {
		return Asked{}, about("source", q.Source, err)
	}
	if r.asked.Node == "" {
		return Asked{}, usageError{fmt.Errorf("source %s is an address: name the node that is asked with --node, or a pod as source", q.Source)}
	}
	to, err := r.destination(ctx)
	if err != nil {
		return Asked{}, about("destination", q.Destination, err)
	}
	if err := r.choose(from, to); err != nil {
		return Asked{}, usageError{err}
	}
	return r.asked, nil
}

// PodNode is the node of a pod, NAMESPACE/POD or POD.
func (c *Client) PodNode(ctx context.Context, text string) (string, error) {
	n, err := podName(text, c.Namespace)
	if err != nil {
		return "", usageError{fmt.Errorf("pod %q: %w", text, err)}
	}
	p, err := get[pod](ctx, c, Pods, n.namespace, n.name)
	if err != nil {
		return "", about("pod", text, notThere(err, "pod", n))
	}
	if p.Spec.NodeName == "" {
		return "", fmt.Errorf("pod %s is on no node yet (%s)", n, p.Status.Phase)
	}
	return p.Spec.NodeName, nil
}

// about says whose error it is. What the API server said, or the state of an object,
// isn't the user's mistake.
func about(what, text string, err error) error {
	wrapped := fmt.Errorf("%s %q: %w", what, text, err)
	var state stateError
	var status apierrors.APIStatus
	if errors.As(err, &state) || errors.As(err, &status) && !apierrors.IsNotFound(err) {
		return wrapped
	}
	return usageError{wrapped}
}

// stateError is in what the cluster has, not in the question.
type stateError struct{ error }

func notThere(err error, what string, n name) error {
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("there is no %s %s", what, n)
	}
	return err
}

// end of a flow: addresses with what it is, or a text for unmasq explain.
type end struct {
	// literal is what was typed where it is no name.
	literal string
	what    string
	// addresses are at most one of each family, in the order of preference.
	addresses []netip.Addr
	port      int
	protocol  string
}

// resolution of one question.
type resolution struct {
	client   *Client
	question Question
	asked    Asked
}

func (r *resolution) note(format string, args ...any) {
	r.asked.Notes = append(r.asked.Notes, fmt.Sprintf(format, args...))
}

func (r *resolution) name(n string, all ...netip.Addr) {
	for _, a := range all {
		r.asked.Names = append(r.asked.Names, Name{a, n})
	}
}

func (r *resolution) source(ctx context.Context) (end, error) {
	text := r.question.Source
	// With a node, a bare word is an interface of it, as for unmasq explain.
	if isAddress(text) || r.question.Node != "" && !strings.Contains(text, "/") {
		return end{literal: text}, nil
	}
	n, err := podName(text, r.client.Namespace)
	if err != nil {
		return end{}, err
	}
	p, err := get[pod](ctx, r.client, Pods, n.namespace, n.name)
	if err != nil {
		return end{}, notThere(err, "pod", n)
	}
	e, err := r.pod(p)
	if err != nil {
		return end{}, err
	}
	if r.asked.Node = cmp.Or(r.question.Node, p.Spec.NodeName); r.asked.Node != p.Spec.NodeName {
		r.note("%s runs on node %s; asked is node %s", e.what, p.Spec.NodeName, r.asked.Node)
	}
	return e, nil
}

// pod's addresses; one that has none, or no more, is refused.
func (r *resolution) pod(p *pod) (end, error) {
	e := end{what: "pod " + p.Metadata.String()}
	var err error
	e.addresses, err = p.addresses()
	switch {
	case err != nil:
		return e, stateError{err}
	case p.ended():
		return e, stateError{fmt.Errorf("the pod has ended (%s): its addresses may be another's", p.Status.Phase)}
	case len(e.addresses) == 0:
		return e, stateError{fmt.Errorf("the pod has no address yet (%s)", cmp.Or(p.Status.Phase, "Unknown"))}
	}
	if p.Spec.HostNetwork {
		r.note("%s is in its node's network: it has the node's addresses", e.what)
	}
	r.name(p.Metadata.String(), e.addresses...)
	return e, nil
}

func (r *resolution) destination(ctx context.Context) (end, error) {
	text := r.question.Destination
	if text == "" || isAddress(text) {
		return end{literal: text}, nil
	}
	n, err := parseName(text, r.client.Namespace)
	if err != nil {
		return end{}, err
	}
	s, errService := get[service](ctx, r.client, Services, n.namespace, n.name)
	if errService != nil && !apierrors.IsNotFound(errService) {
		return end{}, errService
	}
	if n.service {
		if errService != nil {
			return end{}, notThere(errService, "service", n)
		}
		return r.service(ctx, s, n)
	}
	p, errPod := get[pod](ctx, r.client, Pods, n.namespace, n.name)
	switch {
	case errService == nil && errPod == nil:
		return end{}, fmt.Errorf("%s is a service and a pod: write %s.%s.svc for the service, or the pod's address %s",
			n, n.name, n.namespace, strings.Join(texts(p.Status.PodIPs), " or "))
	case errService == nil:
		return r.service(ctx, s, n)
	case apierrors.IsNotFound(errPod):
		return end{}, notThere(errPod, "service and no pod", n)
	case errPod != nil:
		return end{}, errPod
	}
	return r.podPort(p, n)
}

// podPort is a pod with a port of its own.
func (r *resolution) podPort(p *pod, n name) (end, error) {
	e, err := r.pod(p)
	if err != nil {
		return e, err
	}
	if e.protocol = n.protocol; n.port == "" {
		return e, nil
	}
	if isNumber(n.port) {
		e.port, err = portNumber(n.port)
		return e, err
	}
	var have []string
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.InitContainers) {
		for _, port := range c.Ports {
			if port.Name == "" {
				continue
			}
			if port.Name == n.port && (n.protocol == "" || n.protocol == protocol(port.Protocol)) {
				e.port, e.protocol = port.ContainerPort, protocol(port.Protocol)
				return e, nil
			}
			have = append(have, fmt.Sprintf("%s (%d/%s)", port.Name, port.ContainerPort, protocol(port.Protocol)))
		}
	}
	if len(have) == 0 {
		return e, fmt.Errorf("the pod has no port of that name; its ports have no names: expected a number")
	}
	return e, fmt.Errorf("the pod has no port named %s; it has %s", slash(n.port, n.protocol), strings.Join(have, ", "))
}

// choose addresses of one family. Two literal ends are the node's to judge.
func (r *resolution) choose(from, to end) error {
	r.asked.Source, r.asked.Destination = from.literal, to.literal
	if from.literal != "" && to.addresses == nil {
		if r.question.Family != "" {
			return errors.New("--family chooses among a name's addresses; expected a name")
		}
		return nil
	}
	families := common(from.families(), to.families())
	family := packet.Family(0)
	switch wanted := r.question.Family; {
	case len(families) == 0:
		return fmt.Errorf("the two have no family in common: %s; %s", from, to)
	case wanted != "":
		i := slices.IndexFunc(families, func(f packet.Family) bool { return strings.EqualFold(f.String(), wanted) })
		if i < 0 {
			return fmt.Errorf("--family %s: not both have it: %s; %s", wanted, from, to)
		}
		family = families[i]
	default:
		family = families[0]
		r.sayFamily(families, from, to)
	}
	r.asked.Source, r.asked.Destination = from.text(family), to.text(family)
	return nil
}

func (r *resolution) sayFamily(families []packet.Family, from, to end) {
	if len(families) > 1 {
		r.note("asked about %s; --family %s asks about the other", families[0], strings.ToLower(families[1].String()))
	} else if from.addresses != nil && to.addresses != nil && len(from.addresses) != len(to.addresses) {
		r.note("asked about %s, the only family that both have: %s; %s", families[0], from, to)
	}
}

// common to both ends, in the destination's order. nil is an end that may be of any.
func common(from, to []packet.Family) (out []packet.Family) {
	if to == nil {
		return from
	}
	for _, f := range to {
		if from == nil || slices.Contains(from, f) {
			out = append(out, f)
		}
	}
	return out
}

// families that it has; nil where that isn't known.
func (e end) families() (out []packet.Family) {
	for _, a := range e.addresses {
		out = append(out, packet.Of(a))
	}
	if a, ok := literalAddress(e.literal); ok {
		out = append(out, packet.Of(a))
	}
	return out
}

// literalAddress is the one that a typed text begins with.
func literalAddress(text string) (netip.Addr, bool) {
	text = strings.TrimPrefix(text, "[")
	end := strings.IndexAny(text, "]/")
	if end < 0 {
		end = len(text)
	}
	a, err := netip.ParseAddr(text[:end])
	if err != nil {
		host, _, _ := strings.Cut(text[:end], ":")
		a, err = netip.ParseAddr(host)
	}
	return a.Unmap(), err == nil
}

func (e end) text(f packet.Family) string {
	for _, a := range e.addresses {
		if packet.Of(a) == f {
			return join(a, e.port, e.protocol)
		}
	}
	return e.literal
}

func (e end) String() string {
	if e.what == "" {
		return e.literal
	}
	var texts []string
	for _, a := range e.addresses {
		texts = append(texts, a.String())
	}
	return e.what + " has " + strings.Join(texts, " and ")
}
