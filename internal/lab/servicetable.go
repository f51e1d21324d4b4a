package lab

import "github.com/unmasq/unmasq/internal/packet"

// services: who is seen as whom by ClusterIP, by node port and by a service's own
// pod, from each kind of caller.
func services() Scenario {
	s := Scenario{
		Name:     "services",
		Policies: policiesOf("services"),
		Summary:  "ClusterIP, node ports and hairpin from pods, nodes and a client outside: whom each backend sees",
		Story: "Backends: near's is web1 on node1, far's web2 on node2, strict's web1 too (its node port has externalTrafficPolicy\n" +
			"Local), self's is pod1, which calls itself by it. kube-proxy, told the cluster's CIDR, hides clients from outside,\n" +
			"whoever calls a node port that may lead to another node, and hairpins. masqueradeAll hides pods as well.\n" +
			"Where the backend is on the node that translates, replies come back by it: there nobody needs to hide.",
		Spaces:      servicesSpaces(),
		Grid:        true,
		ClusterCIDR: prefixes("10.20.0.0/16", "fd00:10:20::/48"),
		Services: []Service{
			withNodePort(service("near", "10.96.0.20", "fd00:96::20", "web1"), 30081, false),
			withNodePort(service("far", "10.96.0.21", "fd00:96::21", "web2"), 30082, false),
			withNodePort(service("strict", "10.96.0.22", "fd00:96::22", "web1"), 30083, true),
			service("self", "10.96.0.23", "fd00:96::23", "pod1"),
		},
		Calls: serviceCalls(),
	}
	for _, k := range []KubeProxy{{ClusterCIDR: true}, {ClusterCIDR: true, Native: true}} {
		all := k
		all.MasqueradeAll = true
		s.Recorded = append(s.Recorded, k, all)
		s.Forms = append(s.Forms, servicesForm(k, all, &s))
	}
	return s
}

func withNodePort(s Service, port uint16, local bool) Service {
	s.NodePort, s.Local = port, local
	return s
}

// serviceCalls: each caller by each way.
func serviceCalls() []Call {
	var calls []Call
	for _, from := range []string{"pod1", "pod2", "node1", "node2", "client"} {
		calls = append(calls,
			Call{From: from, To: "web1", Service: "near"}, Call{From: from, To: "web2", Service: "far"},
			Call{From: from, To: "web1", Service: "near", Node: "node1"}, Call{From: from, To: "web2", Service: "far", Node: "node1"},
			Call{From: from, To: "web1", Service: "strict", Node: "node1"}, Call{From: from, To: "web1", Service: "strict", Node: "node2"})
	}
	return append(calls, Call{From: "pod1", To: "pod1", Service: "self"})
}

func servicesForm(k, all KubeProxy, s *Scenario) Form {
	mode := map[bool]string{false: "iptables", true: "nftables"}[k.Native]
	expect := func(sight func(Call) Sight) map[Call]Expect {
		m := map[Call]Expect{}
		for _, c := range s.Calls {
			m[c] = Both(sight(c))
		}
		return m
	}
	return Form{Name: mode, About: "kube-proxy in " + mode + " mode, as the real one wrote them, with --cluster-cidr",
		Rules: s.KubeProxy(k),
		Stages: []Stage{
			{Title: "before: kube-proxy alone", Expect: expect(servicesBefore)},
			{Title: "with masqueradeAll", Step: restart(s.KubeProxy(all)), Expect: expect(servicesAll)},
			{Title: "after: unmasq with this policy, without masqueradeAll", Policy: "policy.yaml", Step: restartPeers, Expect: expect(servicesAfter)},
		}}
}

// servicesBefore is what kube-proxy makes of a call.
func servicesBefore(c Call) Sight {
	outside := c.From == "client"
	switch {
	case c.Service == "self":
		return "node1"
	case c.Node == "" && outside: // ClusterIPs are routed to node1
		return "node1"
	case c.Node == "node1" && c.Service != "strict" && c.From != "node1":
		return "node1"
	case c.Node == "node2" && (outside || c.From == "node1"):
		return NoReply // no backend of strict is there
	case c.Node == "node2" && c.From == "pod1":
		return NoReply // node2 takes pods to web1, a neighbour of pod1: it answers by itself
	}
	return Itself
}

// servicesAll is that with masqueradeAll.
func servicesAll(c Call) Sight {
	if host := map[string]Sight{"pod1": "node1", "pod2": "node2"}[c.From]; host != "" && c.Node == "" {
		return host
	}
	return servicesBefore(c)
}

// servicesAfter is that with the policy.
func servicesAfter(c Call) Sight {
	fromHere := c.From == "pod1" // two pods of one node count as hairpin, unless facts.pods states them
	if c.Service == "near" && !fromHere {
		return Itself
	}
	return servicesBefore(c)
}

func servicesSpaces() []Space {
	const lan4, lan6 = "10.0.10.1/24", "fd00:10:0:10::1/64"
	const wan4, wan6 = "198.51.100.1/24", "2001:db8:100::1/64"
	return []Space{
		{Name: "router", Role: Router,
			Bridges: []Bridge{{"lan", prefixes(lan4, lan6)}, {"wan", prefixes(wan4, wan6)}},
			Routes: []Route{
				via("10.20.1.0/24", "10.0.10.11"), via("fd00:10:20:1::/64", "fd00:10:0:10::11"),
				via("10.20.2.0/24", "10.0.10.12"), via("fd00:10:20:2::/64", "fd00:10:0:10::12"),
				via("10.96.0.0/16", "10.0.10.11"), via("fd00:96::/112", "fd00:10:0:10::11")},
			Sysctls: frank()},
		servicesNode("node1", "11", "1", via("10.20.2.0/24", "10.0.10.12"), via("fd00:10:20:2::/64", "fd00:10:0:10::12")),
		servicesNode("node2", "12", "2", via("10.20.1.0/24", "10.0.10.11"), via("fd00:10:20:1::/64", "fd00:10:0:10::11")),
		routedPod("pod1", "node1", "1", "5"),
		routedPod("web1", "node1", "1", "6"),
		routedPod("pod2", "node2", "2", "5"),
		routedPod("web2", "node2", "2", "6"),
		{Name: "client", Role: Outside,
			Ports:  []Port{{"eth0", "router", "wan", prefixes("198.51.100.10/24", "2001:db8:100::10/64")}},
			Routes: defaultVia(wan4, wan6)},
	}
}

// servicesNode has what its bridge passes on translated too, as nodes have where the
// kernel can (br_netfilter).
func servicesNode(name, number, network string, toPods ...Route) Space {
	return Space{Name: name, Role: Host, Hairpin: true,
		Bridges: []Bridge{{"cni0", prefixes("10.20."+network+".1/24", "fd00:10:20:"+network+"::1/64")}},
		Ports:   []Port{{"eth0", "router", "lan", prefixes("10.0.10."+number+"/24", "fd00:10:0:10::"+number+"/64")}},
		Routes:  append(toPods, defaultVia("10.0.10.1/24", "fd00:10:0:10::1/64")...),
		Sysctls: append(frank(), "-net.bridge.bridge-nf-call-iptables=1", "-net.bridge.bridge-nf-call-ip6tables=1")}
}

// routedPod sends everything to its node, as many CNI plugins have it, answers to its
// neighbours too: so they are translated back on kernels without br_netfilter as well,
// which a lab can't load without changing the host.
func routedPod(name, host, network, number string) Space {
	gateways := prefixes("10.20."+network+".1/32", "fd00:10:20:"+network+"::1/128")
	s := Space{Name: name, Role: Pod,
		Ports: []Port{{"eth0", host, "cni0", prefixes("10.20."+network+"."+number+"/32", "fd00:10:20:"+network+"::"+number+"/128")}},
		// Its node says that there is a shorter way.
		Sysctls: []string{"net.ipv4.conf.all.accept_redirects=0", "net.ipv4.conf.default.accept_redirects=0",
			"net.ipv6.conf.all.accept_redirects=0", "net.ipv6.conf.default.accept_redirects=0"}}
	for _, g := range gateways {
		s.Routes = append(s.Routes, Route{To: g, Dev: "eth0"}, Route{To: packet.Of(g.Addr()).Everywhere(), Via: g.Addr()})
	}
	return s
}
