package policy

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/packet"
)

func serviceFacts() *Facts {
	f := testFacts()
	f.PodsKnown = true
	f.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12"), netip.MustParsePrefix("fd00:96::/112")}
	f.NodeAddresses = append(f.NodeAddresses, netip.MustParseAddr("2001:db8::138"))
	addr := func(texts ...string) (out []netip.Addr) {
		for _, text := range texts {
			out = append(out, netip.MustParseAddr(text))
		}
		return out
	}
	f.Services = []Service{
		{Namespace: "shop", Name: "web", Labels: map[string]string{"app": "web"}, NamespaceLabels: map[string]string{"team": "net"},
			ClusterIPs: addr("10.96.0.80", "fd00:96::80"), ExternalIPs: addr("203.0.113.80"), LoadBalancerIPs: addr("203.0.113.81", "2001:db8::81"),
			Ports: []ServicePort{{packet.TCP, 80, 30080}, {packet.UDP, 53, 0}}},
		{Namespace: "shop", Name: "four", ClusterIPs: addr("10.96.0.4"), ExternalIPs: addr("2001:db8::4"), Ports: []ServicePort{{packet.TCP, 80, 30004}}, LocalOnly: true},
		{Namespace: "shop", Name: "beside", ClusterIPs: addr("10.96.0.5", "fd00:96::5"), ExternalIPs: addr("203.0.113.80"), Ports: []ServicePort{{packet.TCP, 8080, 0}}},
		{Namespace: "shop", Name: "db", NoAddress: Headless, Ports: []ServicePort{{packet.TCP, 5432, 0}}},
		{Namespace: "shop", Name: "elsewhere", NoAddress: ExternalName},
	}
	return f
}

const outside = "tcp 172.30.0.9:1 "

// made is the flow that was made to an address before DNAT.
func made(to string) func(*packet.Flow, *Facts) {
	return func(f *packet.Flow, _ *Facts) {
		asked := netip.MustParseAddrPort(to)
		f.OriginalDestination, f.OriginalPort = asked.Addr(), asked.Port()
	}
}

func TestServices(t *testing.T) {
	udp := func(f *packet.Flow, _ *Facts) { f.Protocol = packet.UDP }
	nobodyKnown := func(_ *packet.Flow, f *Facts) { f.PodsKnown, f.Pods = false, nil }
	marked := mark(0x4000)
	rule := func(services string) string {
		return "{name: s, to: {services: {" + services + "}}, action: Masquerade}"
	}
	const here, there, here6 = "10.244.1.7:8080", "10.244.2.7:8080", "[fd00:244:0:1::7]:8080"
	for _, c := range []struct {
		name, rule, to string
		change         func(*packet.Flow, *Facts)
		match          bool
	}{
		{"a ClusterIP", rule(""), there, made("10.96.0.80:80"), true},
		{"one of a service that nobody knows", rule(""), there, made("10.97.1.1:1"), true},
		{"not one", rule(""), there, made("10.95.0.1:80"), false},
		{"by its pod", rule(""), there, nil, false},
		{"not translated", rule(""), "10.96.0.80:80", nil, true},
		{"a node port is no ClusterIP", rule(""), there, made("192.168.5.138:30080"), false},
		{"only via ClusterIP", rule("via: ClusterIP"), there, made("10.97.1.1:1"), true},
		{"with that port", rule("ports: [{port: 80}]"), there, made("10.97.1.1:80"), true},
		{"with another port", rule("ports: [{port: 80}]"), there, made("10.97.1.1:81"), false},
		{"with another protocol", rule("ports: [{port: 80}]"), there, both(made("10.97.1.1:80"), udp), false},
		{"the pod's port isn't the service's", rule("ports: [{port: 8080}]"), there, made("10.97.1.1:80"), false},
		{"ports of the pod", "{name: s, to: {services: {}, ports: [{port: 8080}]}, action: Masquerade}", there, made("10.97.1.1:80"), true},
		{"other ports of the pod", "{name: s, to: {services: {}, ports: [{port: 80}]}, action: Masquerade}", there, made("10.97.1.1:80"), false},
		{"in those CIDRs", rule("cidrs: [10.97.0.0/16]"), there, made("10.97.1.1:80"), true},
		{"not in those CIDRs", rule("cidrs: [10.97.0.0/16]"), there, made("10.96.1.1:80"), false},

		{"remote", rule("backends: Remote"), there, made("10.96.0.80:80"), true},
		{"not remote", rule("backends: Remote"), here, made("10.96.0.80:80"), false},
		{"not known to be local", rule("backends: Remote"), "10.244.1.99:8080", made("10.96.0.80:80"), true},
		{"local", rule("backends: Local"), here, made("10.96.0.80:80"), true},
		{"not local", rule("backends: Local"), there, made("10.96.0.80:80"), false},
		{"pods not known, within local pod CIDRs", rule("backends: Local"), "10.244.1.99:8080", both(made("10.96.0.80:80"), nobodyKnown), true},
		{"pods not known, outside", rule("backends: Local"), there, both(made("10.96.0.80:80"), nobodyKnown), false},
		{"except", "{name: s, to: {services: {}, except: [10.244.2.0/24]}, action: Masquerade}", there, made("10.96.0.80:80"), false},
		{"or another place", "{name: s, to: {services: {}, cidrs: [10.244.2.0/24]}, action: Masquerade}", there, nil, true},

		{"by name", rule("names: [shop/web]"), there, made("10.96.0.80:80"), true},
		{"by name, UDP", rule("names: [shop/web]"), there, both(made("10.96.0.80:53"), udp), true},
		{"by name, TCP to a UDP port", rule("names: [shop/web]"), there, made("10.96.0.80:53"), false},
		{"by name, another's", rule("names: [shop/web]"), there, made("10.96.0.4:80"), false},
		{"by name, node port", rule("names: [shop/web]"), there, made("192.168.5.138:30080"), true},
		{"by name, node port of another node", rule("names: [shop/web]"), there, made("192.168.5.139:30080"), false},
		{"by name, external", rule("names: [shop/web]"), there, made("203.0.113.80:80"), true},
		{"by name, another's port of a shared address", rule("names: [shop/web]"), there, made("203.0.113.80:8080"), false},
		{"by name, load balancer", rule("names: [shop/web]"), there, made("203.0.113.81:80"), true},
		{"by name, via", rule("names: [shop/web], via: LoadBalancer"), there, made("203.0.113.81:80"), true},
		{"by name, via another", rule("names: [shop/web], via: LoadBalancer"), there, made("203.0.113.80:80"), false},
		{"by name, node port by the service's", rule("names: [shop/web], via: NodePort, ports: [{port: 80}]"), there, made("192.168.5.138:30080"), true},
		{"by name, node port by its number", rule("names: [shop/web], via: NodePort, ports: [{port: 30080}]"), there, made("192.168.5.138:30080"), true},
		{"by name, another port", rule("names: [shop/web], via: NodePort, ports: [{port: 53}]"), there, made("192.168.5.138:30080"), false},
		{"all node ports", rule("via: NodePort"), there, made("192.168.5.138:30004"), true},
		{"no node port", rule("via: NodePort"), there, made("192.168.5.138:30005"), false},
		{"all external addresses", rule("via: ExternalIP"), there, made("203.0.113.80:8080"), true},
		{"by label", rule("serviceSelector: {matchLabels: {app: web}}"), there, made("10.96.0.80:80"), true},
		{"by another label", rule("serviceSelector: {matchLabels: {app: db}}"), there, made("10.96.0.80:80"), false},
		{"by the namespace's label", rule("namespaceSelector: {matchLabels: {team: net}}"), there, made("10.96.0.80:80"), true},
		{"by both", rule("serviceSelector: {matchLabels: {app: db}}, namespaceSelector: {matchLabels: {team: net}}"), there, made("10.96.0.80:80"), false},
		{"name or label", rule("names: [shop/four], serviceSelector: {matchLabels: {app: web}}"), there, made("10.96.0.4:80"), true},
		{"name or network", rule("names: [shop/four], cidrs: [10.97.0.0/16]"), there, made("10.97.0.4:80"), true},
		{"headless", rule("names: [shop/db]"), "10.244.2.7:5432", nil, false},
		{"IPv6", rule("names: [shop/web]"), here6, made("[fd00:96::80]:80"), true},
		{"IPv6 node port", rule("names: [shop/web]"), here6, made("[2001:db8::138]:30080"), true},
		{"IPv6 node port of a service of IPv4", rule("names: [shop/four]"), here6, made("[2001:db8::138]:30004"), false},
		{"IPv6 address of a service of IPv4", rule("names: [shop/four]"), here6, made("[2001:db8::4]:80"), false},

		{"marked", rule(""), there, both(made("10.96.0.80:80"), marked), false},
		{"marked, overridden", "{name: s, to: {services: {}}, action: Keep, overrideServiceMasquerade: true}", there, both(made("10.96.0.80:80"), marked), true},
		{"hairpin", "{name: s, from: {pods: {}}, to: {services: {}}, action: Keep, overrideServiceMasquerade: true}", here,
			both(made("10.96.0.80:80"), func(f *packet.Flow, _ *Facts) { f.Source = f.Destination }), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := outside + c.to
			if netip.MustParseAddrPort(c.to).Addr().Is6() {
				text = "tcp [fd00:172::9]:1 " + c.to
			}
			facts, flow := serviceFacts(), flowOf(t, text)
			if c.change != nil {
				c.change(&flow, facts)
			}
			rules := loadServiceRules(t, c.rule)
			if got := Decide(rules, facts, flow); (got.Rule != nil) != c.match {
				t.Errorf("%s: got %s, want a match: %v", c.rule, got, c.match)
			}
		})
	}
}

// loadServiceRules as a cluster's, where services are known.
func loadServiceRules(t *testing.T, rules ...string) *Policy {
	t.Helper()
	text := "apiVersion: unmasq.io/v1alpha1\nkind: SourcePolicy\nmetadata: {name: p}\nspec:\n  rules:\n"
	for _, r := range rules {
		text += "  - " + r + "\n"
	}
	loaded, err := Load([]Source{{Name: "test.yaml", Content: []byte(text)}}, Options{PodsKnown: true, ServicesKnown: true, ServiceCIDRsKnown: true})
	if err != nil {
		t.Fatal(err)
	}
	return &loaded.Policy
}

func TestNeedsServices(t *testing.T) {
	for services, want := range map[string]bool{
		"": false, "backends: Remote": false, "cidrs: [10.96.0.0/12]": false, "via: ClusterIP": false, "cidrs: [10.96.0.0/12], via: ClusterIP": false,
		"names: [a/b]": true, "serviceSelector: {}": true, "namespaceSelector: {}": true, "via: NodePort": true, "via: LoadBalancer": true, "via: ExternalIP": true,
		"cidrs: [10.96.0.0/12], names: [a/b]": true,
	} {
		p := loadServiceRules(t, everything, "{name: s, to: {services: {"+services+"}}, action: Keep}")
		if got := p.NeedsServices(); got != want {
			t.Errorf("%s: %v, want %v", services, got, want)
		}
	}
	if loadServiceRules(t, everything).NeedsServices() {
		t.Error("a policy without such rules needs services")
	}
}

func TestServiceWarnings(t *testing.T) {
	keep := func(from, services string) string {
		return "{name: k, from: {" + from + "}, to: {services: {" + services + "}}, action: Keep, overrideServiceMasquerade: true}"
	}
	lost := []string{"rule p/k: keeps the address of clients from outside also where the backend is on another node, which then answers them itself, from an address that they never asked: add backends: Local, unless its replies return through this node"}
	for _, c := range []struct {
		name, rule string
		change     func(*Facts)
		want       []string
	}{
		{"nothing to say", "{name: a, to: {services: {names: [shop/web, shop/beside], backends: Remote}}, action: Masquerade}", nil, nil},
		{"names", "{name: a, to: {services: {names: [shop/gone, shop/db, shop/elsewhere, shop/four, gone/web]}}, action: Masquerade}", nil, []string{
			"rule p/a: service shop/gone doesn't exist", "rule p/a: service gone/web doesn't exist",
			"rule p/a: service shop/four has no ClusterIP in IPv6: of that family nothing of it matches",
			"rule p/a: service shop/elsewhere is of type ExternalName: it has no address that a connection could be made to",
			"rule p/a: service shop/db is headless: it has no address that a connection could be made to"}},
		{"many names", "{name: a, to: {services: {names: [a/a, a/b, a/c, a/d, a/e]}}, action: Masquerade}", nil, []string{
			"rule p/a: service a/a doesn't exist", "rule p/a: service a/b doesn't exist", "rule p/a: service a/c doesn't exist",
			"rule p/a: 2 more of its services: doesn't exist"}},
		{"one family in a cluster of one", "{name: a, to: {services: {names: [shop/four]}}, action: Masquerade}", func(f *Facts) { f.ServiceCIDRs = f.ServiceCIDRs[:1] }, nil},
		{"no such port", "{name: a, to: {services: {names: [shop/web], ports: [{port: 81}]}}, action: Masquerade}", nil, []string{"rule p/a: service shop/web has no such port"}},
		{"no such way", "{name: a, to: {services: {names: [shop/beside], via: NodePort}}, action: Masquerade}", nil, []string{"rule p/a: service shop/beside has no address of the kind NodePort"}},
		{"no service selected", "{name: a, to: {services: {serviceSelector: {matchLabels: {app: wbe}}}}, action: Masquerade}", nil, []string{"rule p/a: no service is selected by app=wbe"}},
		{"CIDRs", "{name: a, to: {services: {cidrs: [10.96.0.0/16, 10.0.0.0/8, 192.168.0.0/16]}}, action: Masquerade}", nil,
			[]string{"rule p/a: to.services.cidrs 10.0.0.0/8 and 192.168.0.0/16: not within a service CIDR; every connection to such addresses is taken for one to a service"}},
		{"no service CIDR of a family", "{name: a, to: {services: {}}, action: Masquerade}", func(f *Facts) { f.ServiceCIDRs = f.ServiceCIDRs[:1] },
			[]string{"services matches nothing in IPv6 in rule p/a: no serviceCIDRs of that family are known"}},
		{"no pods of that family either", "{name: a, to: {services: {}}, action: Masquerade}", func(f *Facts) { f.ServiceCIDRs, f.PodCIDRs = f.ServiceCIDRs[:1], f.PodCIDRs[:1] }, nil},
		{"node ports kept", keep("", "via: NodePort"), nil, lost},
		{"node ports of a service kept", keep("cidrs: [172.30.0.0/16]", "names: [shop/web]"), nil, lost},
		{"with local backends", keep("", "via: NodePort, backends: Local"), nil, nil},
		{"of services with local endpoints only", keep("", "names: [shop/four], via: NodePort"), func(f *Facts) { f.ServiceCIDRs = f.ServiceCIDRs[:1] }, nil},
		{"for this node's pods", keep("pods: {podSelector: {}}", "via: NodePort"), nil, nil},
		{"ClusterIPs", keep("", "backends: Remote"), nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			facts := serviceFacts()
			if c.change != nil {
				c.change(facts)
			}
			stated := Stated{PodCIDRs: StatedValue[[]netip.Prefix]{Set: true}}
			got := Warnings(loadServiceRules(t, c.rule), facts, stated)
			slices.Sort(got)
			slices.Sort(c.want)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
