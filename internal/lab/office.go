package lab

import "net/netip"

// office: clients behind a tunnel reach ClusterIPs by one node, and the replies of
// pods on another node pass it by.
func office() Scenario {
	s := Scenario{
		Name:     "office",
		Policies: policiesOf("office"),
		Summary:  "an office behind a tunnel calls ClusterIPs by node1: services with their pod on node2 hang; masqueradeAll hides all clients",
		Story: "The site routes ClusterIPs to node1. A pod on node2 answers the office itself, from an address that the client never\n" +
			"called; the network between, which is stateful, drops that. masqueradeAll cures it by hiding every client of every\n" +
			"service; where kube-proxy is told the cluster's CIDR it hides all clients from outside anyway. The policies hide those\n" +
			"of remote backends alone. Pinging a ClusterIP proves nothing: kube-proxy translates a service's ports, and an echo\n" +
			"request has none. Be it a service that works or one that hangs: in iptables mode the packet circles between node1 and\n" +
			"the fabric until its time to live is over, in nftables mode node1 rejects it.",
		Spaces:      officeSpaces(),
		ClusterCIDR: prefixes("10.20.0.0/16", "fd00:10:20::/48"),
		Services: []Service{
			service("local", "10.96.0.10", "fd00:96::10", "web1"),
			service("remote", "10.96.0.11", "fd00:96::11", "web2"),
			service("both", "10.96.0.12", "fd00:96::12", "web1", "web2"),
		},
		Calls: officeCalls,
	}
	for _, k := range []KubeProxy{{}, {Native: true}, {ClusterCIDR: true}, {ClusterCIDR: true, Native: true}} {
		all := k
		all.MasqueradeAll = true
		s.Recorded = append(s.Recorded, k, all)
		s.Forms = append(s.Forms, officeForm(k, all, &s))
	}
	return s
}

func service(name, address4, address6 string, backends ...string) Service {
	return Service{Name: name, Port: 80, Backends: backends,
		Addresses: []netip.Addr{netip.MustParseAddr(address4), netip.MustParseAddr(address6)}}
}

// officeCalls: pods themselves, services by their backend, a pod as client, pings.
var officeCalls = []Call{
	{From: "client", To: "web1"}, {From: "client", To: "web2"},
	{From: "client", To: "web1", Service: "local"}, {From: "client", To: "web2", Service: "remote"},
	{From: "client", To: "web1", Service: "both"}, {From: "client", To: "web2", Service: "both"},
	{From: "web1", To: "web2", Service: "remote"},
	{From: "client", Service: "local"}, {From: "client", Service: "remote"},
}

// officeExpect says whom the backends of services see: local and remote ones the
// client, and a remote one a pod.
func officeExpect(local, remote, pod Sight) map[Call]Expect {
	expect := map[Call]Expect{}
	for _, c := range officeCalls {
		sight := Itself
		switch {
		case c.Ping():
			sight = NoReply
		case c.From == "web1":
			sight = pod
		case c.Service != "" && c.To == "web1":
			sight = local
		case c.Service != "":
			sight = remote
		}
		expect[c] = Both(sight)
	}
	return expect
}

func officeForm(k, all KubeProxy, s *Scenario) Form {
	mode := map[bool]string{false: "iptables", true: "nftables"}[k.Native]
	rules := s.KubeProxy(k)
	before, policy := Stage{}, ""
	about := "kube-proxy in " + mode + " mode, as the real one wrote them"
	after := officeExpect(Itself, "node1", Itself)
	if k.ClusterCIDR {
		before = Stage{Title: "before: kube-proxy knows the cluster's CIDR and hides every client from outside", Expect: officeExpect("node1", "node1", Itself)}
		about += ", with --cluster-cidr"
		policy = "keep-local.yaml"
	} else {
		before = Stage{Title: "before: kube-proxy hides nobody; services with a remote backend hang", Expect: officeExpect(Itself, NoReply, Itself)}
		about += ", without --cluster-cidr"
		policy = "masquerade-remote.yaml"
	}
	return Form{Name: k.String(), About: about, Rules: rules, Stages: []Stage{
		before,
		{Title: "with masqueradeAll, kube-proxy's own cure: all answer, all clients are hidden", Step: restart(s.KubeProxy(all)),
			Expect: officeExpect("node1", "node1", "node1")},
		{Title: "after: unmasq with this policy, without masqueradeAll", Policy: policy, Step: restartPeers, Expect: after},
	}}
}

func officeSpaces() []Space {
	const office4, office6 = "192.168.200.0/24", "fd00:192:168:200::/64"
	const nodes4, nodes6, pods4, pods6 = "10.0.10.1/24", "fd00:10:0:10::1/64", "10.0.20.1/24", "fd00:10:0:20::1/64"
	site := func(hop4, hop6 string) []Route {
		return []Route{via("10.0.0.0/8", hop4), via("fd00:10::/32", hop6), via("fd00:96::/112", hop6)}
	}
	toOffice := func(hop4, hop6 string) []Route { return []Route{via(office4, hop4), via(office6, hop6)} }
	tunnel := func(local, remote string, addresses ...string) []Tunnel {
		return []Tunnel{{Name: "vpn0", ID: 42, Local: netip.MustParseAddr(local), Remote: netip.MustParseAddr(remote), Addresses: prefixes(addresses...)}}
	}
	return []Space{
		{Name: "gateway", Role: Router, // of the site, where the tunnel ends
			Bridges: []Bridge{{"wan", prefixes("203.0.113.1/24")}},
			Ports:   []Port{{"eth0", "fabric", "uplink", prefixes("10.0.0.2/24", "fd00:10::2/64")}},
			Tunnels: tunnel("203.0.113.1", "203.0.113.2", "172.31.255.1/30", "fd00:172:31::1/64"),
			Routes:  append(site("10.0.0.1", "fd00:10::1"), toOffice("172.31.255.2", "fd00:172:31::2")...)},
		{Name: "officegw", Role: Router,
			Bridges: []Bridge{{"lan", prefixes("192.168.200.1/24", "fd00:192:168:200::1/64")}},
			Ports:   []Port{{"wan0", "gateway", "wan", prefixes("203.0.113.2/24")}},
			Tunnels: tunnel("203.0.113.2", "203.0.113.1", "172.31.255.2/30", "fd00:172:31::2/64"),
			Routes:  site("172.31.255.1", "fd00:172:31::1")},
		{Name: "client", Role: Outside,
			Ports:  []Port{{"eth0", "officegw", "lan", prefixes("192.168.200.10/24", "fd00:192:168:200::10/64")}},
			Routes: defaultVia("192.168.200.1/24", "fd00:192:168:200::1/64")},
		{Name: "fabric", Role: Router,
			Bridges: []Bridge{
				{"uplink", prefixes("10.0.0.1/24", "fd00:10::1/64")},
				{"nodes", prefixes(nodes4, nodes6)},
				{"pods", prefixes(pods4, pods6)}},
			Routes: append(toOffice("10.0.0.2", "fd00:10::2"),
				via("10.20.1.0/24", "10.0.20.11"), via("fd00:10:20:1::/64", "fd00:10:0:20::11"),
				via("10.20.2.0/24", "10.0.20.12"), via("fd00:10:20:2::/64", "fd00:10:0:20::12"),
				via("10.96.0.0/16", "10.0.10.11"), via("fd00:96::/112", "fd00:10:0:10::11")),
			Sysctls: append(frank(), "net.netfilter.nf_conntrack_tcp_loose=0"),
			Filter:  officeFilter},
		officeNode("node1", "11", "1", via("10.20.2.0/24", "10.0.20.12"), via("fd00:10:20:2::/64", "fd00:10:0:20::12")),
		officeNode("node2", "12", "2", via("10.20.1.0/24", "10.0.20.11"), via("fd00:10:20:1::/64", "fd00:10:0:20::11")),
		pod("web1", "node1", "cni0", "10.20.1.5/24", "fd00:10:20:1::5/64"),
		pod("web2", "node2", "cni0", "10.20.2.5/24", "fd00:10:20:2::5/64"),
	}
}

// officeFilter: the office may open connections to the site, the site none to the
// office; a reply whose request wasn't seen is no reply.
const officeFilter = `table inet fabric {
	chain forward {
		type filter hook forward priority filter; policy accept;
		ct state established,related accept
		ct state invalid counter drop
		oifname "uplink" ct state new counter drop
	}
}
`

// officeNode has two interfaces: what pods send to the office leaves by that in their
// subnet, what the node sends by the other. Nodes are neighbours in both.
func officeNode(name, number, network string, toPods ...Route) Space {
	pods4, pods6 := prefix("10.20."+network+".0/24"), prefix("fd00:10:20:"+network+"::/64")
	return Space{Name: name, Role: Host,
		Bridges: []Bridge{{"cni0", prefixes("10.20."+network+".1/24", "fd00:10:20:"+network+"::1/64")}},
		Ports: []Port{
			{"eth0", "fabric", "nodes", prefixes("10.0.10."+number+"/24", "fd00:10:0:10::"+number+"/64")},
			{"eth1", "fabric", "pods", prefixes("10.0.20."+number+"/24", "fd00:10:0:20::"+number+"/64")}},
		Routes: append(toPods, append(defaultVia("10.0.10.1/24", "fd00:10:0:10::1/64"),
			Route{To: prefix("192.168.200.0/24"), Via: netip.MustParseAddr("10.0.20.1"), From: pods4},
			Route{To: prefix("fd00:192:168:200::/64"), Via: netip.MustParseAddr("fd00:10:0:20::1"), From: pods6})...),
		Sysctls: frank()}
}

// frank settings: nothing is dropped because it came by another way than answers
// take, every ICMP error is sent, and what a bridge passes on is no business of iptables.
func frank() []string {
	return []string{"-net.bridge.bridge-nf-call-iptables=0", "-net.bridge.bridge-nf-call-ip6tables=0",
		"net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0"}
}
