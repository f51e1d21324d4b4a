package importer

import (
	"errors"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/unmasq/unmasq/api/v1alpha1"
	"github.com/unmasq/unmasq/internal/masqagent"
	"github.com/unmasq/unmasq/internal/policy"
)

// cilium reads the agent's options, as ConfigMap cilium-config or Helm values have them,
// the file of its ip-masq-agent, and CiliumEgressGatewayPolicies. What it writes without
// masquerading in eBPF:
//
//	-A CILIUM_POST_nat -s PODS -m set --match-set cilium_node_set_v4 dst -j ACCEPT     (native routing)
//	-A CILIUM_POST_nat -s PODS ! -d NATIVE ! -o cilium_+ -j MASQUERADE [--random-fully]
//	-A CILIUM_POST_nat -o INTERFACE ! -d NATIVE -j MASQUERADE [--random-fully]         (egress-masquerade-interfaces)
//
// PODS is the node's pod CIDR, NATIVE ipv4-native-routing-cidr or else PODS.
func cilium() Kind {
	return Kind{
		Name: "cilium", Reads: "ConfigMap cilium-config or Helm values, its ConfigMap ip-masq-agent, CiliumEgressGatewayPolicies",
		Knows: func(f File) bool {
			s := &ciliumSettings{}
			return s.read(f) == nil && len(s.options)+len(s.gateways) > 0
		},
		Import: func(files []File, opts Options) (*Result, error) {
			s := &ciliumSettings{}
			for _, f := range files {
				if err := s.read(f); err != nil {
					return nil, err
				}
			}
			return s.result(opts)
		},
	}
}

var egressGatewayPolicy = resource{"cilium.io", "CiliumEgressGatewayPolicy"}

// ciliumSettings are all that files say.
type ciliumSettings struct {
	// options by the agent's names.
	options Settings
	// agent has the files of its ip-masq-agent.
	agent    masqAgentInput
	gateways []Value

	v4, v6, bpf, native, random bool
	// routing are the CIDRs that pods' addresses are routed in; interfaces those of
	// egress-masquerade-interfaces.
	routing    []Network
	interfaces []v1alpha1.InterfaceName
	// masqAgent is what its ip-masq-agent is told, nil where it is off.
	masqAgent *masqagent.Config
}

// ciliumHelm has the option that each Helm value becomes.
var ciliumHelm = [...]struct{ value, option string }{
	{"enableIPv4Masquerade", "enable-ipv4-masquerade"}, {"enableIPv6Masquerade", "enable-ipv6-masquerade"},
	{"ipv4NativeRoutingCIDR", "ipv4-native-routing-cidr"}, {"ipv6NativeRoutingCIDR", "ipv6-native-routing-cidr"},
	{"bpf.masquerade", "enable-bpf-masquerade"}, {"ipMasqAgent.enabled", "enable-ip-masq-agent"},
	{"egressMasqueradeInterfaces", "egress-masquerade-interfaces"}, {"iptablesRandomFully", "iptables-random-fully"},
	{"enableMasqueradeRouteSource", "enable-masquerade-to-route-source"}, {"ipv4.enabled", "enable-ipv4"}, {"ipv6.enabled", "enable-ipv6"},
	{"routingMode", "routing-mode"}, {"tunnel", "tunnel"}, {"egressGateway.enabled", "enable-ipv4-egress-gateway"},
	{"ipam.operator.clusterPoolIPv4PodCIDRList", "cluster-pool-ipv4-cidr"}, {"ipam.operator.clusterPoolIPv6PodCIDRList", "cluster-pool-ipv6-cidr"},
}

// read takes what is Cilium's of a file; there must be something.
func (s *ciliumSettings) read(f File) error {
	documents, err := Documents(f)
	if err != nil {
		return err
	}
	known := false
	for _, d := range documents {
		switch {
		case egressGatewayPolicy.is(d):
			s.gateways, known = append(s.gateways, d), true
		case isCiliumConfig(d):
			for _, key := range d.Get("data").Keys() {
				s.option(key, d.Get("data", key))
			}
			known = true
		case d.Get("kind").Text() == "ConfigMap":
			known = s.agent.configMap(d) || known
		case !d.Get("kind").Is() && isMasqAgentFile(d):
			s.agent.files, known = append(s.agent.files, masqagent.File(f)), true
		case !d.Get("kind").Is():
			known = s.helm(d) || known
		}
	}
	if !known {
		return &policy.FieldError{File: f.Name, Line: 1, Message: "nothing here is Cilium's; expected " + cilium().Reads}
	}
	return nil
}

func isCiliumConfig(v Value) bool {
	return v.Get("kind").Text() == "ConfigMap" && (nameOf(v) == "cilium-config" || v.Get("data", "enable-ipv4-masquerade").Is())
}

func (s *ciliumSettings) option(name string, v Value) {
	texts := []string{v.Text()}
	for _, item := range v.Items() {
		texts = append(texts, item.Text())
	}
	at := v.Place()
	at.Setting = v.path
	s.options = append(s.options, Setting{Name: name, Value: strings.Trim(strings.Join(texts, ","), ","), At: at})
}

func (s *ciliumSettings) helm(v Value) (known bool) {
	for _, h := range ciliumHelm {
		if value := v.Get(strings.Split(h.value, ".")...); value.Is() {
			s.option(h.option, value)
			known = true
		}
	}
	config := v.Get("ipMasqAgent", "config")
	if text, err := yaml.Marshal(config.node); config.IsMap() && err == nil {
		s.agent.files = append(s.agent.files, masqagent.File{Name: config.file, Data: []byte(strings.Repeat("\n", max(config.Line()-1, 0)) + string(text))})
		known = true
	}
	return known
}

func (s *ciliumSettings) result(opts Options) (*Result, error) {
	r := &Result{}
	if err := s.understand(r); err != nil {
		return nil, err
	}
	for i, v := range s.gateways {
		if err := s.gateway(r, v, i, opts); err != nil {
			return nil, err
		}
	}
	if len(s.options)+len(s.agent.files) > 0 {
		d := NewDocument(opts, "cilium", "What Cilium's masquerading does.")
		if err := s.rules(r, d, opts); err != nil {
			return nil, err
		}
		r.Documents = append(r.Documents, d)
	}
	if len(s.gateways)+len(r.Documents) == 0 {
		return nil, errors.New("these files set no option of Cilium's; expected " + cilium().Reads)
	}
	if len(r.Documents) == 0 {
		return nil, s.gateways[0].Wrong("nothing of it can be carried over")
	}
	return r, nil
}

// understand reads the options.
func (s *ciliumSettings) understand(r *Result) (err error) {
	on := func(name string, otherwise bool) bool {
		b, _, bad := s.options.Bool("", name, otherwise)
		if bad != nil && err == nil {
			err = bad
		}
		return b
	}
	s.v4 = on("enable-ipv4", true) && on("enable-ipv4-masquerade", true)
	s.v6 = on("enable-ipv6", false) && on("enable-ipv6-masquerade", true)
	s.bpf, s.random = on("enable-bpf-masquerade", false), on("iptables-random-fully", false)
	agent, source := on("enable-ip-masq-agent", len(s.options) == 0), on("enable-masquerade-to-route-source", false)
	if err != nil {
		return err
	}
	mode, _ := s.options.Get("routing-mode")
	tunnel, _ := s.options.Get("tunnel")
	s.native = mode.Value == "native" || tunnel.Value == "disabled"
	if source {
		at, _ := s.options.Get("enable-masquerade-to-route-source")
		r.Warn(at.At, "Masquerade takes the primary address of the outgoing interface, not the route's source: use action SNAT where they differ")
	}
	if s.bpf {
		at, _ := s.options.Get("enable-bpf-masquerade")
		r.Warn(at.At, "masquerades in eBPF, past netfilter: no policy decides there until it is off")
	}
	if err := s.networks(); err != nil {
		return err
	}
	if !agent {
		for _, f := range s.agent.files {
			r.Warn(Place{File: f.Name, Setting: "nonMasqueradeCIDRs"}, "has no effect: enable-ip-masq-agent isn't true")
		}
		return nil
	}
	return s.ipMasqAgent(r)
}

func (s *ciliumSettings) networks() error {
	for _, name := range []string{"ipv4-native-routing-cidr", "ipv6-native-routing-cidr"} {
		if one, ok := s.options.Get(name); ok {
			networks, err := one.Networks()
			if err != nil {
				return err
			}
			s.routing = append(s.routing, networks...)
		}
	}
	one, _ := s.options.Get("egress-masquerade-interfaces")
	for _, name := range strings.FieldsFunc(one.Value, func(r rune) bool { return r == ',' || r == ' ' }) {
		s.interfaces = append(s.interfaces, v1alpha1.InterfaceName(name))
	}
	return nil
}

func (s *ciliumSettings) ipMasqAgent(r *Result) error {
	if at, stated := s.options.Get("enable-ip-masq-agent"); stated && !s.bpf {
		return at.Wrong("needs enable-bpf-masquerade: true beside it; Cilium doesn't start like this")
	}
	config, warnings, err := masqagent.Parse(s.agent.files, masqagent.Settings{Dialect: masqagent.Cilium, EnableIPv6: s.v6})
	if err != nil {
		return err
	}
	for _, w := range warnings {
		r.Warnings = append(r.Warnings, Warning{Place{File: w.File, Line: w.Line}, w.Text})
	}
	s.masqAgent = &config
	return nil
}

// rules are those for all pods.
func (s *ciliumSettings) rules(r *Result, d *Document, opts Options) error {
	pods := stated("--pod-cidrs", opts.PodCIDRs)
	for _, name := range []string{"cluster-pool-ipv4-cidr", "cluster-pool-ipv6-cidr"} {
		if one, ok := s.options.Get(name); ok && len(opts.PodCIDRs) == 0 {
			networks, err := one.Networks()
			if err != nil {
				return err
			}
			pods = append(pods, networks...)
		}
	}
	d.Facts.PodCIDRs = d.CIDRs("facts.podCIDRs", pods)
	if !s.v4 && !s.v6 {
		d.Rule(v1alpha1.Rule{Name: "masquerade", From: fromPods(), Action: "Leave"},
			"Masquerading is off: pods keep their addresses unless another component hides them; Keep holds against those, too.")
		return nil
	}
	s.kept(d)
	s.listed(d)
	if !s.bpf && len(s.interfaces) == 0 {
		d.Rule(v1alpha1.Rule{Name: "cilium-interfaces", From: fromPods(), OutInterfaces: []v1alpha1.InterfaceName{"cilium_+"}, Action: "Leave"},
			"What goes into Cilium's own interfaces isn't masqueraded.")
	}
	rule := v1alpha1.Rule{Name: "masquerade", From: s.from(), To: everywhere(s.v4, s.v6), Action: "Masquerade", Masquerade: randomly(s.random && !s.bpf)}
	if s.byInterface() {
		rule.OutInterfaces, rule.To = s.interfaces, &v1alpha1.To{CIDRs: anywhereCIDRs(s.v4, s.v6)}
	}
	at, _ := s.options.Get("enable-ipv4-masquerade")
	at.At.Setting = "enable-ipv4-masquerade, enable-ipv6-masquerade"
	d.Rule(rule, at.At.String())
	return nil
}

// byInterface: rules of iptables go by the outgoing interface, whoever sends.
func (s *ciliumSettings) byInterface() bool { return !s.bpf && len(s.interfaces) > 0 }

// from is whose packets Cilium masquerades.
func (s *ciliumSettings) from() *v1alpha1.From {
	if s.byInterface() {
		return &v1alpha1.From{CIDRs: anywhereCIDRs(s.v4, s.v6), Node: &v1alpha1.Empty{}}
	}
	return fromPods()
}

// kept are destinations in the cluster. Of others than pods nothing is pinned.
func (s *ciliumSettings) kept(d *Document) {
	action := "Keep"
	if s.byInterface() {
		action = "Leave"
	}
	if len(s.routing) > 0 {
		d.Rule(v1alpha1.Rule{Name: "native-routing", From: s.from(), To: &v1alpha1.To{CIDRs: d.CIDRs(d.cidrsPath("to.cidrs"), s.routing)}, Action: action})
	}
	if len(s.routing) == 0 || !s.native {
		d.Rule(v1alpha1.Rule{Name: "cluster", From: fromPods(), To: toPods(), Action: "Keep"}, "Pods see each other's addresses.")
	}
	if s.native {
		d.Rule(v1alpha1.Rule{Name: "nodes", From: s.from(), To: &v1alpha1.To{Nodes: &v1alpha1.Empty{}}, Action: action},
			"With native routing nodes see pods' own addresses.")
	}
}

// listed are the destinations of its ip-masq-agent.
func (s *ciliumSettings) listed(d *Document) {
	if s.masqAgent == nil {
		return
	}
	var kept []Network
	for _, x := range s.masqAgent.Destinations {
		at := Place{File: x.File, Line: x.Line, Setting: "nonMasqueradeCIDRs"}
		if x.File == "" {
			at = Place{Setting: "nonMasqueradeCIDRs"}
		}
		kept = append(kept, Network{x.Prefix, at})
	}
	for _, x := range []struct {
		masq   bool
		prefix string
	}{{s.masqAgent.MasqLinkLocal, "169.254.0.0/16"}, {s.masqAgent.MasqLinkLocalIPv6, "fe80::/10"}} {
		if p, _ := prefixOrAddress(x.prefix); !x.masq {
			kept = append(kept, Network{p, Place{Setting: "masqLinkLocal"}})
		}
	}
	kept = slices.DeleteFunc(kept, func(n Network) bool { return n.Addr().Is6() && !s.v6 })
	if len(kept) > 0 {
		d.Rule(v1alpha1.Rule{Name: "listed", From: fromPods(), To: &v1alpha1.To{CIDRs: d.CIDRs(d.cidrsPath("to.cidrs"), kept)}, Action: "Keep"},
			"Its ip-masq-agent: these see pods' own addresses.")
	}
}
