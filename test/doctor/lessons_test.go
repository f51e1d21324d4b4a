package doctor_test

var lessons = []lesson{
	{
		code: "forwarding-off", name: "everywhere",
		provoke: "sysctl -qw net.ipv4.ip_forward=0",
		alike: map[string]string{
			"a bridge without ports": "sysctl -qw net.ipv4.ip_forward=0; ip link set veth1 nomaster; ip link set veth2 nomaster",
			"another link's":         "sysctl -qw net.ipv4.conf.eth1.forwarding=0",
		},
		call: &call{from: pod1, to: out, address: "203.0.113.9:80", before: lost, after: "192.0.2.1"},
	},
	{
		code: "forwarding-off", name: "of the uplink",
		provoke: "sysctl -qw net.ipv4.conf.eth0.forwarding=0",
		call:    &call{from: pod1, to: out, address: "203.0.113.9:80", before: lost, after: "192.0.2.1"},
	},
	{
		code: "forwarding-off", name: "IPv6",
		provoke: "sysctl -qw net.ipv6.conf.all.forwarding=0",
		call:    &call{from: pod1, to: out, address: "[2001:db8:113::9]:80", before: lost, after: "2001:db8::1"},
	},
	{
		code: "forward-blocked", name: "policy",
		provoke: "iptables -P FORWARD DROP",
		alike: map[string]string{
			"pods are accepted":        "iptables -P FORWARD DROP; iptables -A FORWARD -i cni0 -j ACCEPT; iptables -A FORWARD -o cni0 -j ACCEPT",
			"nobody lets the pods out": "iptables -P FORWARD DROP; iptables -t nat -F",
			"a rule with a condition":  "iptables -A FORWARD -s 10.244.1.2 -j DROP; iptables -A FORWARD -p tcp --dport 443 -j REJECT",
		},
		call: &call{from: pod1, to: out, address: "203.0.113.9:80", before: lost, after: "192.0.2.1"},
	},
	{
		code: "forward-blocked", name: "icmp-host-prohibited",
		provoke: "iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited",
		call:    &call{from: pod1, to: out, address: "203.0.113.9:80", before: lost, after: "192.0.2.1"},
	},
	{
		code: "forward-blocked", name: "nftables",
		provoke: `nft -f - <<'END'
table inet firewall {
	chain forward {
		type filter hook forward priority 10; policy drop;
		ct state established,related accept
	}
}
END`,
		call: &call{from: pod1, to: out, address: "203.0.113.9:80", before: lost, after: "192.0.2.1"},
	},
	{
		code: "rp-filter-strict", name: "published port of a routed network",
		provoke: published + routedAway + "sysctl -qw net.ipv4.conf.eth0.rp_filter=1",
		alike: map[string]string{
			"loose":              published + routedAway + "sysctl -qw net.ipv4.conf.eth0.rp_filter=1 net.ipv4.conf.all.rp_filter=2",
			"the way back is it": published + "sysctl -qw net.ipv4.conf.all.rp_filter=1",
			"off":                published + routedAway,
		},
		call: &call{from: out, to: pod1, address: "192.0.2.1:8080@80", before: lost, after: "192.0.2.2"},
	},
	{
		code: "localnet-exposed", name: "all",
		provoke: "sysctl -qw net.ipv4.conf.all.route_localnet=1",
		alike: map[string]string{
			"kube-proxy's rule": "sysctl -qw net.ipv4.conf.all.route_localnet=1; iptables -I INPUT 1 ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
			"of the bridge":     "sysctl -qw net.ipv4.conf.cni0.route_localnet=1",
		},
	},
	{
		code: "bridge-nf-call-off", name: "IPv4",
		provoke: clusterIP + "sysctl -qw net.bridge.bridge-nf-call-iptables=0",
		alike: map[string]string{
			"no service":                  "sysctl -qw net.bridge.bridge-nf-call-iptables=0",
			"on":                          clusterIP,
			"the backend is elsewhere":    elsewhere + "sysctl -qw net.bridge.bridge-nf-call-iptables=0",
			"all of it is masqueraded":    clusterIP + "iptables -t nat -I POSTROUTING -s 10.244.1.0/24 -d 10.244.1.0/24 -j MASQUERADE; sysctl -qw net.bridge.bridge-nf-call-iptables=0",
			"the backend is the client's": clusterIP + "ip link set veth2 nomaster; ip link set veth1 nomaster; sysctl -qw net.bridge.bridge-nf-call-iptables=0",
		},
		call: &call{from: pod1, to: pod2, address: "10.96.0.10:80@8080", before: lost, after: "10.244.1.2"},
	},
}

const (
	published  = "iptables -t nat -A PREROUTING -p tcp -m addrtype --dst-type LOCAL -m tcp --dport 8080 -j DNAT --to-destination 10.244.1.2:80\n"
	routedAway = "ip rule add from 10.244.1.0/24 lookup 100 prio 1000; ip rule add from 10.244.1.0/24 to 10.244.1.0/24 lookup main prio 900; ip route add default via 198.51.100.2 dev eth1 table 100\n"
	// kube-proxy's own form of a service with one backend.
	clusterIP = `iptables-restore --noflush <<'END'
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-WEBWEBWEBWEBWEBW - [0:0]
:KUBE-SEP-WEBWEBWEBWEBWEBW - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-I POSTROUTING 1 -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING
-A KUBE-SERVICES -d 10.96.0.10/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-WEBWEBWEBWEBWEBW
-A KUBE-SVC-WEBWEBWEBWEBWEBW -m comment --comment "default/web -> 10.244.1.3:8080" -j KUBE-SEP-WEBWEBWEBWEBWEBW
-A KUBE-SEP-WEBWEBWEBWEBWEBW -s 10.244.1.3/32 -m comment --comment "default/web" -j KUBE-MARK-MASQ
-A KUBE-SEP-WEBWEBWEBWEBWEBW -p tcp -m comment --comment "default/web" -m tcp -j DNAT --to-destination 10.244.1.3:8080
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully
COMMIT
END
`
	elsewhere = "iptables -t nat -A PREROUTING -d 10.96.0.10/32 -p tcp -m tcp --dport 80 -j DNAT --to-destination 203.0.113.9:80\n"
)
