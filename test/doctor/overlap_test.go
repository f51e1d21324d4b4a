package doctor_test

import "strings"

// overlapLessons: each pair of the networks of pods, of services, of the node and of offices.
var overlapLessons = []lesson{
	{
		code: "networks-overlap", name: "pods and an office",
		provoke: knownPod + "ip route add 10.244.1.0/30 via 198.51.100.2",
		alike: map[string]string{
			"other pods":             knownPod + "ip route add 10.244.1.128/25 via 198.51.100.2",
			"all pods of all nodes":  knownPod + "ip route add 10.244.0.0/16 via 192.0.2.2",
			"a person's single host": knownPod + "ip route add 10.244.1.2/32 via 198.51.100.2",
			"nobody is known there":  "ip route add 10.244.1.0/30 via 198.51.100.2",
		},
		call: &call{from: node, to: pod1, address: "10.244.1.2:80", before: lost, after: "10.244.1.1"},
	},
	{
		code: "networks-overlap", name: "the node's network and an office",
		provoke: known + "ip route add 198.51.100.0/29 via 192.0.2.2",
		alike: map[string]string{
			"other hosts":            known + "ip route add 198.51.100.128/25 via 192.0.2.2",
			"a wider network":        known + "ip route add 198.51.0.0/16 via 192.0.2.2",
			"a person's single host": known + "ip route add 198.51.100.2/32 via 192.0.2.2",
			"the same on two links":  known + "ip addr add 198.51.100.9/24 dev eth0; ip addr del 198.51.100.1/24 dev eth1; ip addr add 198.51.100.1/24 dev eth1; " + known,
			"the same, further away": known + "ip route add 198.51.100.0/24 via 192.0.2.2 metric 100",
		},
		call: &call{from: node, to: out, address: "198.51.100.2:80", before: "192.0.2.1", after: "198.51.100.1"},
	},
	{
		code: "networks-overlap", name: "services and pods",
		provoke: serviceAt("10.244.1.77"), mended: renumbered,
		alike: map[string]string{"elsewhere": serviceAt("10.96.0.10")},
	},
	{
		code: "networks-overlap", name: "services and another node's pods",
		provoke: otherPods + serviceAt("10.244.2.77"), mended: renumbered, with: []string{"pods-masqueraded"},
		alike: map[string]string{"next to them": otherPods + serviceAt("10.244.3.77")},
	},
	{
		code: "networks-overlap", name: "services and the node's network",
		provoke: serviceAt("198.51.100.77"), mended: renumbered,
		alike: map[string]string{
			"a load balancer's address":  strings.Replace(serviceAt("198.51.100.77"), "default/web cluster IP", "default/web loadbalancer IP", 1),
			"no service, a redirection":  "iptables -t nat -A PREROUTING -d 198.51.100.77 -p tcp --dport 80 -j DNAT --to-destination 10.244.1.3:8080",
			"the node's own, as kind's ": "ip addr add 10.96.0.10/32 dev lo\n" + serviceAt("10.96.0.10"),
		},
	},
	{
		code: "networks-overlap", name: "services and an office",
		provoke: serviceAt("10.96.0.10") + "ip route add 10.96.0.0/24 via 192.0.2.2",
		mended:  func(l *lab) { l.shell(l.node, "ip route del 10.96.0.0/24") },
		alike: map[string]string{
			"all private addresses":    serviceAt("10.96.0.10") + "ip route add 10.0.0.0/8 via 192.0.2.2",
			"announced to the fabric":  serviceAt("10.96.0.10") + "ip route add 10.96.0.0/12 via 192.0.2.2 proto bird",
			"OVN's way to services":    serviceAt("10.96.0.10") + "ip route add 10.96.0.0/16 via 169.254.169.4 dev eth0 onlink",
			"the source to call from":  serviceAt("10.96.0.10") + "ip route add 10.96.0.0/16 dev eth1 src 198.51.100.1",
			"one service for the node": serviceAt("10.96.0.10") + "ip route add 10.96.0.10/32 via 192.0.2.2",
			"other addresses":          serviceAt("10.96.0.10") + "ip route add 10.97.0.0/16 via 192.0.2.2",
		},
	},
	{
		code: "networks-overlap", name: "services and a part of the fabric",
		provoke: serviceAt("10.96.0.10") + service("iptables", "10.97.0.10", "10.244.1.3:8080") + "ip route add 10.97.0.0/16 via 192.0.2.2 proto bird",
		mended:  func(l *lab) { l.shell(l.node, "ip route del 10.97.0.0/16 proto bird") },
	},
	{
		code: "networks-overlap", name: "services and pods, IPv6",
		provoke: service("ip6tables", "fd00:10:244:1::77", "[fd00:10:244:1::3]:8080"),
		mended: func(l *lab) {
			l.shell(l.node, noRules+clean+service("ip6tables", "fd00:96::10", "[fd00:10:244:1::3]:8080"))
		},
		alike: map[string]string{"elsewhere": service("ip6tables", "fd00:96::10", "[fd00:10:244:1::3]:8080")},
	},
}

// knownPod: the node has talked with pod1.
const knownPod = "bash -c ': </dev/tcp/10.244.1.2/9' 2>/dev/null || true\n"

// serviceAt is a service at another address than the lab's.
func serviceAt(address string) string {
	return strings.ReplaceAll(clusterIP, "10.96.0.10", address)
}

// renumbered: the service was made anew, in another network.
func renumbered(l *lab) {
	l.shell(l.node, noRules+"iptables -t nat -X\n"+clean+serviceAt("10.96.0.10"))
}

// service is one of kube-proxy's in the least that tells it.
func service(program, address, backend string) string {
	return program + " -t nat -A PREROUTING -d " + address + ` -p tcp -m comment --comment "default/dns cluster IP" -m tcp --dport 80 -j DNAT --to-destination ` + backend + "\n"
}
