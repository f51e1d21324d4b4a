package kube

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/unmasq/unmasq/internal/cluster"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
)

var servicesResource = schema.GroupVersionResource{Version: "v1", Resource: "services"}

// servicesWait is how long Services may take to be listed before rules that need
// them are refused for it.
const servicesWait = 2 * time.Second

// services are followed while they are needed.
type services struct {
	asked chan struct{} // has one when need may be another

	mu     sync.Mutex
	need   bool
	source *source // nil: they aren't followed
	// cached stand in for the API's where those don't come at once; nil: there are none.
	cached *[]cluster.Service
}

// NeedServices says whether a policy asks for Services. They are followed only then:
// all agents of a large cluster that follow them are a load.
func (w *Watch) NeedServices(need bool) {
	w.services.mu.Lock()
	was := w.services.need
	w.services.need = need
	if !need {
		w.services.cached = nil
	}
	w.services.mu.Unlock()
	if need != was {
		wake(w.services.asked)
	}
}

// followServices while they are needed, until the context ends.
func (w *Watch) followServices(ctx context.Context) {
	stop := func() {}
	defer func() { stop() }()
	var following bool
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.services.asked:
		}
		switch need := w.services.needed(); {
		case need && !following:
			stop = w.startServices(ctx)
		case !need && following:
			stop()
			stop = func() {}
			w.services.forget()
			wake(w.input)
		}
		following = w.services.followed()
	}
}

// startServices returns how to stop, which waits until nothing of it runs.
func (w *Watch) startServices(ctx context.Context) (stop func()) {
	s := w.newSource("services", servicesResource, "", serviceOf)
	w.services.mu.Lock()
	w.services.source = s
	w.services.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() { w.follow(ctx, s) })
	all.Go(func() {
		select {
		case <-ctx.Done():
		case <-time.After(servicesWait):
			wake(w.input) // if there is no answer, that is one
		}
	})
	return func() { cancel(); all.Wait() }
}

func (s *services) needed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.need
}

func (s *services) followed() bool { return s.current() != nil }

func (s *services) current() *source {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.source
}

func (s *services) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.source, s.cached = nil, nil
}

// known returns the services, or why they aren't known; "": nobody asked, or the
// answer is on its way.
func (s *services) known() (all []cluster.Service, known bool, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.source != nil && s.source.complete() {
		s.cached = nil
		return list[cluster.Service](s.source), true, ""
	}
	if s.source == nil {
		return nil, false, ""
	}
	why = s.source.unanswered()
	if why != "" && s.cached != nil {
		return *s.cached, true, ""
	}
	return nil, false, why
}

// remember what an agent knew that ran here before.
func (s *services) remember(all []cluster.Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cached = &all
}

// unanswered says why nothing is known of a source; "" for a moment after the start.
func (s *source) unanswered() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.problem != "" && s.problem != notAsked {
		return s.problem
	}
	if time.Since(s.since) < servicesWait {
		return ""
	}
	return "the API server hasn't answered yet"
}

func serviceOf(o runtime.Object) (any, []string) {
	u, f := fieldsOf(o)
	s := cluster.Service{Namespace: u.GetNamespace(), Name: u.GetName(), Labels: u.GetLabels(),
		LocalOnly: f.text("spec", "externalTrafficPolicy") == "Local"}
	ips := f.texts("spec", "clusterIPs")
	switch {
	case f.text("spec", "type") == "ExternalName":
		s.NoAddress = policy.ExternalName
	case slices.Equal(ips, []string{"None"}):
		s.NoAddress = policy.Headless
	default:
		s.ClusterIPs = f.addresses(ips, "spec", "clusterIPs")
		s.ExternalIPs = f.addresses(f.texts("spec", "externalIPs"), "spec", "externalIPs")
		s.LoadBalancerIPs = f.addresses(f.ingress(), "status", "loadBalancer", "ingress")
		s.Ports = f.servicePorts()
	}
	return s, f.strange
}

// ingress are the addresses of load balancers that kube-proxy serves: of those in
// mode Proxy it isn't.
func (f *fields) ingress() (out []string) {
	for _, x := range f.list("status", "loadBalancer", "ingress") {
		m, _ := x.(map[string]any)
		if ip, _ := m["ip"].(string); ip != "" && m["ipMode"] != "Proxy" {
			out = append(out, ip)
		}
	}
	return out
}

func (f *fields) servicePorts() (out []policy.ServicePort) {
	protocols := map[string]uint8{"": packet.TCP, "TCP": packet.TCP, "UDP": packet.UDP, "SCTP": packet.SCTP}
	for _, x := range f.list("spec", "ports") {
		m, _ := x.(map[string]any)
		protocol, _ := m["protocol"].(string)
		number, known := protocols[protocol]
		port, _ := m["port"].(int64)
		nodePort, _ := m["nodePort"].(int64)
		if !known || port < 1 || port > 65535 || nodePort < 0 || nodePort > 65535 {
			f.strange = append(f.strange, fmt.Sprintf("spec.ports: %s port %d, node port %d", protocol, port, nodePort))
			continue
		}
		out = append(out, policy.ServicePort{Protocol: number, Port: uint16(port), NodePort: uint16(nodePort)})
	}
	return out
}

func (f *fields) texts(path ...string) (out []string) {
	for _, x := range f.list(path...) {
		if text, ok := x.(string); ok {
			out = append(out, text)
		}
	}
	return out
}

func (f *fields) addresses(texts []string, path ...string) (out []netip.Addr) {
	for _, text := range texts {
		if a, ok := f.address(text, path...); ok {
			out = append(out, a)
		}
	}
	return out
}
