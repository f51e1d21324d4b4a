package doctor_test

// ruleLessons are those about who translates what.
var ruleLessons = []lesson{
	{
		code: "two-masqueraders", name: "docker and flannel",
		provoke: noIPv4 + docker + flannel,
		with:    []string{"exemption-overridden"},
		alike: map[string]string{
			"different networks": noIPv4 + flannel + "iptables -t nat -N DOCKER; iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
			"docker's own network": noIPv4 + masqAgent("10.244.0.0/16") + `ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; ip link set docker0 up
ip link add veth9 type veth peer name veth8; ip link set veth9 master docker0 up; ip link set veth8 up
iptables -t nat -N DOCKER; iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER; iptables -t nat -A DOCKER -i docker0 -j RETURN
iptables -t nat -I POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE`,
			"kube-proxy's marks": noIPv4 + clusterIP + flannel,
			"a policy decides":   noIPv4 + docker + flannel + applied(`{name: all, from: {cidrs: [10.244.1.0/24]}, action: Masquerade}`),
		},
		call: &call{from: pod1, to: out, address: "203.0.113.9:80", before: "192.0.2.1", after: "192.0.2.1"},
	},
	{
		code: "two-masqueraders", name: "flannel and ip-masq-agent",
		provoke: noIPv4 + flannel + masqAgent("10.244.0.0/16", "192.0.2.0/24"),
		with:    []string{"exemption-overridden"},
		call:    &call{from: pod1, to: out, address: "192.0.2.2:80", before: "192.0.2.1", after: "10.244.1.2"},
	},
	{
		code: "exemption-overridden", name: "ip-masq-agent's list",
		provoke: masqAgent("10.244.0.0/16", "192.0.2.0/24"),
		with:    []string{"two-masqueraders"},
		alike: map[string]string{
			"the list holds":        noIPv4 + masqAgent("10.244.0.0/16", "192.0.2.0/24"),
			"of another's sources":  "iptables -t nat -N OWN; iptables -t nat -A POSTROUTING -j OWN; iptables -t nat -A OWN -s 172.17.0.0/16 -d 192.0.2.0/24 -j RETURN",
			"the service mark does": noIPv4 + clusterIP + masqAgent("10.244.0.0/16", "10.96.0.0/16"),
		},
		call: &call{from: pod1, to: out, address: "192.0.2.2:80", before: "192.0.2.1", after: "10.244.1.2"},
	},
	{
		code: "clients-hidden", name: "ip-masq-agent without the pods",
		provoke: noIPv4 + masqAgent("192.0.2.0/24"),
		with:    []string{"pods-not-listed"},
		alike: map[string]string{
			"with the pods":    noIPv4 + masqAgent("10.0.0.0/8"),
			"only what leaves": "iptables -t nat -A POSTROUTING -o eth0 -j MASQUERADE",
		},
		call: &call{from: out, to: pod1, address: "10.244.1.2:80", before: "10.244.1.1", after: "192.0.2.2"},
	},
	{
		code: "clients-hidden", name: "all and everything",
		provoke: noIPv4 + "iptables -t nat -A POSTROUTING -j MASQUERADE",
		call:    &call{from: out, to: pod1, address: "10.244.1.2:80", before: "10.244.1.1", after: "192.0.2.2"},
	},
	{
		code: "families-differ", name: "IPv4 alone",
		provoke: "ip6tables -t nat -F",
		alike: map[string]string{
			"routable addresses": "ip6tables -t nat -F; ip -6 addr del fd00:10:244:1::1/64 dev cni0; ip addr add 2001:db8:5::1/64 dev cni0 nodad",
			"neither":            noRules,
			"nowhere to go":      "ip6tables -t nat -F; ip -6 route del default",
		},
		call: &call{from: pod1, to: out, address: "[2001:db8:113::9]:80", before: lost, after: "2001:db8::1"},
	},
	{
		code: "pods-masqueraded", name: "routes to other nodes",
		provoke: "ip route add 10.244.2.0/24 via 192.0.2.2",
		alike: map[string]string{
			"spared by the rule":  noIPv4 + "ip route add 10.244.2.0/24 via 192.0.2.2; iptables -t nat -A POSTROUTING -s 10.244.1.0/24 ! -d 10.244.0.0/16 -j MASQUERADE",
			"an office's network": "ip route add 172.20.5.0/24 via 192.0.2.2",
			"a policy decides":    "ip route add 10.244.2.0/24 via 192.0.2.2\n" + applied(`{name: pods, from: {cidrs: [10.244.1.0/24]}, to: {cidrs: [10.244.0.0/16]}, action: Keep}`),
		},
		call: &call{from: pod1, to: out, address: "10.244.2.2:80", before: "192.0.2.1", after: "10.244.1.2"},
	},
	{
		code: "duplicate-rules", name: "a rule put back",
		provoke: "iptables -t nat -A POSTROUTING -s 10.244.1.0/24 ! -o cni0 -j MASQUERADE; iptables -t nat -A POSTROUTING -s 10.244.1.0/24 ! -o cni0 -j MASQUERADE",
		alike: map[string]string{
			"other ports":                "iptables -A FORWARD -p tcp --dport 80 -j ACCEPT; iptables -A FORWARD -p tcp --dport 81 -j ACCEPT",
			"a mark that is set between": "iptables -t mangle -A FORWARD -m mark --mark 1 -j ACCEPT; iptables -t mangle -A FORWARD -j MARK --set-mark 1; iptables -t mangle -A FORWARD -m mark --mark 1 -j ACCEPT",
			"chance":                     "iptables -A FORWARD -m statistic --mode random --probability 0.5 -j ACCEPT; iptables -A FORWARD -m statistic --mode random --probability 0.5 -j ACCEPT",
		},
		call: &call{from: pod1, to: out, address: "203.0.113.9:80", before: "192.0.2.1", after: "192.0.2.1"},
	},
	{
		code: "duplicate-rules", name: "both forms of ip-masq-agent",
		provoke: noIPv4 + masqAgent("10.0.0.0/8") + `iptables -t nat -A POSTROUTING -m comment --comment '"ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain"' -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT`,
	},
	{
		code: "never-matches", name: "an exception behind the rule",
		provoke: "iptables -t nat -A POSTROUTING -s 10.244.1.0/24 -d 198.51.100.0/24 ! -o cni0 -j RETURN",
		alike: map[string]string{
			"before it":          "iptables -t nat -I POSTROUTING -s 10.244.1.0/24 -d 198.51.100.0/24 ! -o cni0 -j RETURN",
			"wider than it":      "iptables -t nat -A POSTROUTING -s 10.244.0.0/16 -d 198.51.100.0/24 -j RETURN",
			"it has a condition": "iptables -A FORWARD -m mark --mark 1 -j ACCEPT; iptables -A FORWARD -m mark --mark 1 -j DROP",
			"it only counts":     "iptables -A FORWARD -i cni0; iptables -A FORWARD -i cni0 -j ACCEPT",
		},
	},
	{
		code: "never-matches", name: "ACCEPT behind REJECT",
		provoke: "iptables -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -A INPUT -p tcp -j REJECT; iptables -A INPUT -p tcp -m tcp --dport 10250 -j ACCEPT",
	},
	{
		code: "leftover-rules", name: "docker's bridge is gone",
		provoke: noIPv4 + docker + "iptables -t nat -A POSTROUTING -s 172.18.0.0/16 ! -o br-0123456789ab -j MASQUERADE",
		alike: map[string]string{
			"the bridge is there":  noIPv4 + docker + "ip link add br-0123456789ab type bridge; iptables -t nat -A POSTROUTING -s 172.18.0.0/16 ! -o br-0123456789ab -j MASQUERADE",
			"somebody's for a VPN": "iptables -t nat -A POSTROUTING -s 10.8.0.0/24 ! -o tun0 -j MASQUERADE",
			"GKE's chain alone":    noIPv4 + gke,
		},
	},
	{
		code: "leftover-rules", name: "IP-MASQ beside ip-masq-agent",
		provoke: noIPv4 + gke + masqAgent("10.0.0.0/8"),
		with:    []string{"two-masqueraders", "exemption-overridden", "clients-hidden"},
	},
	{
		code: "leftover-rules", name: "Cilium's old chains",
		provoke: `iptables -t nat -N OLD_CILIUM_POST_nat; iptables -t nat -A POSTROUTING -m comment --comment "cilium-feeder: OLD_CILIUM_POST_nat" -j OLD_CILIUM_POST_nat; iptables -t nat -A OLD_CILIUM_POST_nat -s 10.0.0.0/24 ! -d 10.0.0.0/16 ! -o cilium_+ -m comment --comment "cilium masquerade non-cluster" -j MASQUERADE`,
	},
	{
		code: "two-iptables-variants", name: "different rules",
		provoke: "iptables-legacy -t nat -A POSTROUTING -s 10.9.0.0/24 -o eth0 -j MASQUERADE",
		alike: map[string]string{
			"empty tables":      "iptables-legacy -t nat -S",
			"legacy alone":      noIPv4 + "iptables-legacy -t nat -A POSTROUTING -s 10.244.1.0/24 ! -o cni0 -j MASQUERADE",
			"of another table":  "iptables-legacy -t mangle -A FORWARD -p tcp --syn -j TCPMSS --clamp-mss-to-pmtu",
			"of another family": "iptables -t nat -F; iptables-legacy -t nat -A POSTROUTING -s 10.244.1.0/24 ! -o cni0 -j MASQUERADE",
		},
	},
	{
		code: "two-iptables-variants", name: "a component has changed",
		provoke: "for v in nft legacy; do iptables-$v -t nat -N KUBE-POSTROUTING; iptables-$v -t nat -A POSTROUTING -j KUBE-POSTROUTING; iptables-$v -t nat -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN; done",
	},
	{
		code: "notrack", name: "all that pods send",
		provoke: "iptables -t raw -A PREROUTING -i cni0 -j CT --notrack",
		alike: map[string]string{
			"node-local DNS":    "ip addr add 169.254.20.10/32 dev lo; ip addr add 10.96.0.10/32 dev lo; iptables -t raw -A PREROUTING -d 10.96.0.10/32 -p udp -m udp --dport 53 -j CT --notrack; iptables -t raw -A PREROUTING -d 169.254.20.10/32 -p udp -m udp --dport 53 -j CT --notrack",
			"of other networks": "iptables -t raw -A PREROUTING -s 172.17.0.0/16 -j CT --notrack",
			"nothing to lose":   noRules + "iptables -t raw -A PREROUTING -i cni0 -j CT --notrack",
		},
		call: &call{from: pod1, to: out, address: "203.0.113.9:80", before: "10.244.1.2", after: "192.0.2.1"},
	},
	{
		code: "notrack", name: "nftables",
		provoke: `nft add table inet fast; nft add chain inet fast pre '{ type filter hook prerouting priority raw; }'; nft add rule inet fast pre ip saddr 10.244.1.0/24 notrack`,
		call:    &call{from: pod1, to: out, address: "203.0.113.9:80", before: "10.244.1.2", after: "192.0.2.1"},
	},
}

const (
	noRules = "iptables -t nat -F; ip6tables -t nat -F\n"
	noIPv4  = "iptables -t nat -F\n"
	docker  = `iptables -t nat -N DOCKER; iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A DOCKER -i cni0 -j RETURN
iptables -t nat -A POSTROUTING -s 10.244.1.0/24 ! -o cni0 -j MASQUERADE
`
	flannel = `iptables-restore --noflush <<'END'
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
COMMIT
END
`
	gke = `iptables-restore --noflush <<'END'
*nat
:IP-MASQ - [0:0]
-A POSTROUTING -m comment --comment "ip-masq: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ chain" -m addrtype ! --dst-type LOCAL -j IP-MASQ
-A IP-MASQ -d 169.254.0.0/16 -m comment --comment "ip-masq: local traffic is not subject to MASQUERADE" -j RETURN
-A IP-MASQ -d 10.0.0.0/8 -m comment --comment "ip-masq: local traffic is not subject to MASQUERADE" -j RETURN
-A IP-MASQ -m comment --comment "ip-masq: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE
COMMIT
END
`
)

// masqAgent are ip-masq-agent's rules for a list.
func masqAgent(list ...string) string {
	text := `iptables-restore --noflush <<'END'
*nat
:IP-MASQ-AGENT - [0:0]
-A POSTROUTING -m comment --comment "ip-masq-agent: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom IP-MASQ-AGENT chain" -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT
-A IP-MASQ-AGENT -d 169.254.0.0/16 -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN
`
	for _, n := range list {
		text += `-A IP-MASQ-AGENT -d ` + n + ` -m comment --comment "ip-masq-agent: local traffic is not subject to MASQUERADE" -j RETURN` + "\n"
	}
	return text + `-A IP-MASQ-AGENT -m comment --comment "ip-masq-agent: outbound traffic is subject to MASQUERADE (must be last in chain)" -j MASQUERADE --random-fully
COMMIT
END
`
}

// applied puts a policy of one rule in force.
func applied(rule string) string {
	return "unmasq apply -f - <<'END'\napiVersion: unmasq.io/v1alpha1\nkind: SourcePolicy\nmetadata: {name: own}\nspec: {rules: [" + rule + "]}\nEND\n"
}
