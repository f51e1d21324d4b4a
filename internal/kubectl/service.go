package kubectl

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/unmasq/unmasq/internal/packet"
)

// service's ClusterIPs with the port. What isn't behind addresses that a node knows
// is refused, with where clients really go.
func (r *resolution) service(ctx context.Context, s *service, n name) (end, error) {
	e := end{what: "service " + s.Metadata.String()}
	if s.Spec.Type == "ExternalName" {
		return e, fmt.Errorf("the service is another name for %s (ExternalName), which clients ask DNS for: expected one of its addresses", s.Spec.ExternalName)
	}
	port, err := r.servicePort(s, n)
	if err != nil {
		return e, err
	}
	backends, known := r.backends(ctx, s, port)
	if s.Spec.ClusterIP == "None" {
		e.protocol = protocol(port.Protocol)
		return r.headless(e, backends, known)
	}
	if e.addresses, err = addresses(e.what, s.clusterIPs()); err != nil {
		return e, stateError{err}
	}
	if len(e.addresses) == 0 {
		return e, stateError{fmt.Errorf("the service has no ClusterIP")}
	}
	r.name(s.Metadata.String(), e.addresses...)
	for _, b := range backends {
		r.name(b.name, b.address)
	}
	e.port, e.protocol = port.Port, protocol(port.Protocol)
	for _, a := range e.addresses {
		same := func(b backend) bool { return packet.Of(b.address) == packet.Of(a) }
		if known && !slices.ContainsFunc(backends, same) {
			r.note("%s has no %s endpoint that is ready", e.what, packet.Of(a))
		}
	}
	return e, nil
}

func (s *service) clusterIPs() []string {
	if len(s.Spec.ClusterIPs) > 0 {
		return s.Spec.ClusterIPs
	}
	if s.Spec.ClusterIP != "" {
		return []string{s.Spec.ClusterIP}
	}
	return nil
}

// servicePort by number or name. Left out, it is the only one there is; where the
// number has several protocols it is tcp's, as everywhere in unmasq.
func (r *resolution) servicePort(s *service, n name) (servicePort, error) {
	var have []string
	var fits []servicePort
	for _, p := range s.Spec.Ports {
		have = append(have, p.String())
		if n.fits(p) {
			fits = append(fits, p)
		}
	}
	list := strings.Join(have, ", ")
	switch {
	case len(s.Spec.Ports) == 0:
		return servicePort{}, fmt.Errorf("the service has no ports: expected one of its endpoints, a pod")
	case len(fits) == 0:
		return servicePort{}, fmt.Errorf("the service has no port %s; it has %s (another port is asked about with the service's address)", slash(n.port, n.protocol), list)
	case len(fits) == 1:
		if n.port == "" {
			r.note("service %s has one port that fits: %s", n, fits[0])
		}
		return fits[0], nil
	}
	if n.port != "" && n.protocol == "" {
		for _, p := range fits {
			if protocol(p.Protocol) == "tcp" {
				r.note("port %s of service %s is asked about by tcp; it has %s", n.port, n, list)
				return p, nil
			}
		}
	}
	return servicePort{}, fmt.Errorf("the service has several such ports: %s; expected one of them, as in %s:%d/%s", list, n, fits[0].Port, protocol(fits[0].Protocol))
}

func (n name) fits(p servicePort) bool {
	if n.protocol != "" && n.protocol != protocol(p.Protocol) {
		return false
	}
	if isNumber(n.port) {
		return n.port == strconv.Itoa(p.Port)
	}
	return n.port == "" || n.port == p.Name
}

func (p servicePort) String() string {
	text := fmt.Sprintf("%d/%s", p.Port, protocol(p.Protocol))
	if p.Name != "" {
		text += " (" + p.Name + ")"
	}
	return text
}

func slash(port, protocol string) string {
	if protocol == "" {
		return port
	}
	return port + "/" + protocol
}

func portNumber(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q; expected a number from 1 to 65535", text)
	}
	return int(n), nil
}

// backend of a service that is ready.
type backend struct {
	address netip.Addr
	name    string
	port    int
}

// backends of a service's port. Not known where the user isn't allowed to ask: then
// a note says so.
func (r *resolution) backends(ctx context.Context, s *service, port servicePort) (out []backend, known bool) {
	selector := labels.Set{"kubernetes.io/service-name": s.Metadata.Name}.String()
	found, err := list[endpointSlice](ctx, r.client, EndpointSlices, s.Metadata.Namespace, meta.ListOptions{LabelSelector: selector})
	if err != nil {
		r.note("endpoints of service %s aren't named, and whether it has any isn't known: %v", s.Metadata, err)
		return nil, false
	}
	for i := range found {
		slice := &found[i]
		number, has := slice.port(port)
		for j := range slice.Endpoints {
			e := &slice.Endpoints[j]
			if !has || !e.ready() || len(e.Addresses) == 0 {
				continue
			}
			a, err := netip.ParseAddr(e.Addresses[0]) // the first alone has a meaning
			if err != nil {
				continue // of addressType FQDN, which kube-proxy leaves out, too
			}
			out = append(out, backend{a.Unmap(), e.name(s), number})
		}
	}
	return out, true
}

// port of a slice that is the service's: of the same name and protocol.
func (s *endpointSlice) port(p servicePort) (int, bool) {
	for _, own := range s.Ports {
		if own.Name == p.Name && protocol(own.Protocol) == protocol(p.Protocol) {
			return own.Port, true
		}
	}
	return 0, false
}

func (e *endpoint) name(s *service) string {
	if e.TargetRef.Kind == "Pod" {
		return e.TargetRef.Namespace + "/" + e.TargetRef.Name
	}
	return s.Metadata.String() + "-endpoint"
}

// headless: DNS gives clients the addresses of its endpoints, so one has to be
// chosen where there are several.
func (r *resolution) headless(e end, all []backend, known bool) (end, error) {
	var list, names []string
	for _, b := range all {
		list = append(list, fmt.Sprintf("%s (%s)", b.name, netip.AddrPortFrom(b.address, uint16(b.port))))
		if !slices.Contains(names, b.name) {
			names = append(names, b.name)
		}
	}
	const headless = "the service is headless (no ClusterIP): clients connect to one of its endpoints"
	switch {
	case !known:
		return e, stateError{fmt.Errorf("%s; %s", headless, strings.Join(r.asked.Notes, "; "))}
	case len(all) == 0:
		return e, stateError{fmt.Errorf("%s, and none is ready: its name leads nowhere", headless)}
	case len(names) > 1:
		return e, fmt.Errorf("%s; expected one of %s", headless, strings.Join(list, ", "))
	}
	r.note("%s is headless: clients connect to its one endpoint, %s", e.what, strings.Join(list, ", "))
	e.port = all[0].port
	for _, b := range all {
		r.name(b.name, b.address)
		if !slices.ContainsFunc(e.addresses, func(a netip.Addr) bool { return packet.Of(a) == packet.Of(b.address) }) {
			e.addresses = append(e.addresses, b.address)
		}
	}
	return e, nil
}
