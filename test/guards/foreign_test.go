package guards_test

import (
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/foreign"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/rig"
)

// The rules are those of the real programs, as they were saved from a node,
// shortened to one service or one published port, with web's address in
// IPv4; toIPv6 makes the other family's.

// dockerHairpin publishes web's port without the userland proxy (docker 20.10).
const dockerHairpin = `*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -o docker0 -m addrtype --src-type LOCAL -j MASQUERADE
-A POSTROUTING -s 10.244.1.0/24 ! -o docker0 -j MASQUERADE
-A POSTROUTING -s 10.244.1.7/32 -d 10.244.1.7/32 -p tcp -m tcp --dport 80 -j MASQUERADE
-A DOCKER -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.1.7:80
COMMIT
`

// dockerHairpinNFTables is the same by docker 29 with its nftables backend.
const dockerHairpinNFTables = `table ip docker-bridges {
	map nat-postrouting-in-jumps {
		type ifname : verdict
		elements = { "docker0" : jump nat-postrouting-in__docker0 }
	}
	map nat-postrouting-out-jumps {
		type ifname : verdict
		elements = { "docker0" : jump nat-postrouting-out__docker0 }
	}
	chain nat-OUTPUT {
		type nat hook output priority -100; policy accept;
		fib daddr type local counter jump nat-prerouting-and-output
	}
	chain nat-POSTROUTING {
		type nat hook postrouting priority srcnat; policy accept;
		iifname vmap @nat-postrouting-out-jumps
		oifname vmap @nat-postrouting-in-jumps
	}
	chain nat-PREROUTING {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local counter jump nat-prerouting-and-output
	}
	chain nat-prerouting-and-output {
		tcp dport 8080 counter dnat to 10.244.1.7:80 comment "DNAT"
	}
	chain nat-postrouting-in__docker0 {
		fib saddr type local counter masquerade comment "MASQUERADE FROM HOST"
		ip saddr 10.244.1.7 ip daddr 10.244.1.7 tcp dport 80 counter masquerade comment "MASQ TO OWN PORT"
	}
	chain nat-postrouting-out__docker0 {
		oifname != "docker0" ip saddr 10.244.1.0/24 counter masquerade comment "MASQUERADE"
	}
}
`

// portmap is the CNI plugin with its iptables backend (plugins 1.9.1).
const portmap = `*nat
:CNI-DN-984a7a017355168c01142 - [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A CNI-DN-984a7a017355168c01142 -s 10.244.1.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-984a7a017355168c01142 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.1.7:80
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"podnet\" id: \"pod-1\"" -m multiport --dports 8080 -j CNI-DN-984a7a017355168c01142
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000
COMMIT
`

// portmapLocalhost is the same with its rule for localhost.
var portmapLocalhost = strings.Replace(portmap, "-A CNI-DN-984a7a017355168c01142 -p tcp",
	"-A CNI-DN-984a7a017355168c01142 -s 127.0.0.1/32 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK\n-A CNI-DN-984a7a017355168c01142 -p tcp", 1)

// portmapNFTables is the CNI plugin with its nftables backend (plugins 1.9.1).
const portmapNFTables = `table ip cni_hostport {
	comment "CNI portmap plugin"
	chain hostports {
		tcp dport 8080 dnat to 10.244.1.7:80 comment "pod-1"
	}
	chain hostip_hostports {
	}
	chain hostports_all {
		jump hostip_hostports
		jump hostports
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local jump hostports_all
	}
	chain output {
		type nat hook output priority -100; policy accept;
		fib daddr type local jump hostports_all
	}
	chain masquerading {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.244.1.7 ip daddr 10.244.1.7 masquerade comment "pod-1"
		ip saddr 127.0.0.1 ip daddr 10.244.1.7 masquerade comment "pod-1"
	}
}
`

// kubeService is kube-proxy's part for a service with one endpoint, web, in
// iptables mode (1.34).
const kubeService = `*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-SVC-CDGGSHYLG3RE2FKL - [0:0]
:KUBE-SEP-ELX6N4Z5RGB67TLC - [0:0]
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A OUTPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.83.77/32 -p tcp -m comment --comment "default/web:http cluster IP" -m tcp --dport 80 -j KUBE-SVC-CDGGSHYLG3RE2FKL
-A KUBE-SVC-CDGGSHYLG3RE2FKL ! -s 10.244.0.0/16 -d 10.96.83.77/32 -p tcp -m comment --comment "default/web:http cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ
-A KUBE-SVC-CDGGSHYLG3RE2FKL -m comment --comment "default/web:http -> 10.244.1.7:80" -j KUBE-SEP-ELX6N4Z5RGB67TLC
-A KUBE-SEP-ELX6N4Z5RGB67TLC -s 10.244.1.7/32 -m comment --comment "default/web:http" -j KUBE-MARK-MASQ
-A KUBE-SEP-ELX6N4Z5RGB67TLC -p tcp -m comment --comment "default/web:http" -m tcp -j DNAT --to-destination 10.244.1.7:80
COMMIT
`

// kubeNodePort is its part for the same service's node port, localhost included.
const kubeNodePort = `*nat
:KUBE-EXT-CDGGSHYLG3RE2FKL - [0:0]
:KUBE-NODEPORTS - [0:0]
-A KUBE-SERVICES -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/web:http" -m tcp --dport 8080 -j KUBE-EXT-CDGGSHYLG3RE2FKL
-A KUBE-EXT-CDGGSHYLG3RE2FKL -m comment --comment "masquerade traffic for default/web:http external destinations" -j KUBE-MARK-MASQ
-A KUBE-EXT-CDGGSHYLG3RE2FKL -j KUBE-SVC-CDGGSHYLG3RE2FKL
COMMIT
`

// kubeNFTables135 is kube-proxy's nftables mode up to 1.35: hairpin traffic is
// marked in the endpoint's chain.
const kubeNFTables135 = kubeNFTablesHead + `
	chain masquerading {
		meta mark & 0x00004000 == 0x00000000 return
		meta mark set meta mark ^ 0x00004000
		masquerade fully-random
	}
	chain mark-for-masquerade {
		meta mark set meta mark | 0x00004000
	}
	chain endpoint-7FUMELAF-default/web/tcp/http__10.244.1.7/80 {
		ip saddr 10.244.1.7 jump mark-for-masquerade
		meta l4proto tcp dnat to 10.244.1.7:80
	}
	chain service-SUSTUHLJ-default/web/tcp/http {
		ip daddr 10.96.83.77 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
		numgen random mod 1 vmap { 0 : goto endpoint-7FUMELAF-default/web/tcp/http__10.244.1.7/80 }
	}
	chain services {
		ip daddr . meta l4proto . th dport vmap @service-ips
	}
}
`

// kubeNFTables136 is kube-proxy's nftables mode from 1.36 on: hairpin traffic
// carries no mark.
const kubeNFTables136 = kubeNFTablesHead + `
	set hairpin-connections {
		type ipv4_addr . ipv4_addr . inet_proto . inet_service
		comment "service hairpin connections"
		elements = { 10.244.1.7 . 10.244.1.7 . tcp . 80 }
	}
	chain masquerading {
		meta mark & 0x00004000 != 0x00000000 meta mark set meta mark ^ 0x00004000 masquerade fully-random
		ct status dnat ip saddr . ip daddr . meta l4proto . th dport @hairpin-connections masquerade fully-random
	}
	chain endpoint-7FUMELAF-default/web/tcp/http__10.244.1.7/80 {
		meta l4proto tcp dnat to 10.244.1.7:80
	}
	chain service-SUSTUHLJ-default/web/tcp/http {
		numgen random mod 1 vmap { 0 : goto endpoint-7FUMELAF-default/web/tcp/http__10.244.1.7/80 }
	}
	chain services {
		ip daddr 10.96.83.77 ip saddr != 10.244.0.0/16 meta mark set meta mark | 0x00004000
		ip daddr . meta l4proto . th dport vmap @service-ips
	}
}
`

// kubeNFTablesHead is common to both; the chains that it names come after it.
const kubeNFTablesHead = `table ip kube-proxy {
	comment "rules for kube-proxy"
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		comment "ClusterIP, ExternalIP and LoadBalancer IP traffic"
		elements = { 10.96.83.77 . tcp . 80 : goto service-SUSTUHLJ-default/web/tcp/http }
	}
	chain nat-prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		jump services
	}
	chain nat-output {
		type nat hook output priority -100; policy accept;
		jump services
	}
	chain nat-postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		jump masquerading
	}
`

// istioProbes is istio's CNI agent in ambient mode: kubelet's probes of pods get
// an address by which the pods know them.
const istioProbes = `*nat
:ISTIO_POSTRT - [0:0]
-A POSTROUTING -j ISTIO_POSTRT
-A ISTIO_POSTRT -p tcp -m owner --socket-exists -m set --match-set istio-inpod-probes-v4 dst -j SNAT --to-source 169.254.7.127
COMMIT
`

// toIPv6 makes IPv6 rules out of IPv4 ones.
func toIPv6(rules string) string {
	return strings.NewReplacer(
		"http__10.244.1.7/", "http__fd00.10.244.1..7/",
		"10.244.1.7:80", "[fd00:10:244:1::7]:80", "10.244.1.7/32", "fd00:10:244:1::7/128", "10.244.1.7", "fd00:10:244:1::7",
		"10.244.1.0/24", "fd00:10:244:1::/64", "10.244.0.0/16", "fd00:10:244::/48",
		"10.96.83.77/32", "fd00:96::8a5/128", "10.96.83.77", "fd00:96::8a5",
		"\t\tip saddr 127.0.0.1 ip daddr 10.244.1.7 masquerade comment \"pod-1\"\n", "",
		"ip saddr", "ip6 saddr", "ip daddr", "ip6 daddr", "table ip ", "table ip6 ", "ipv4_addr", "ipv6_addr",
	).Replace(rules)
}

// inFamily returns the rules of a family.
func inFamily(rules string, f packet.Family) string {
	if f == packet.IPv6Family {
		return toIPv6(rules)
	}
	return rules
}

// load loads nft text, or lines of iptables-save into the variant.
func load(rules string, v foreign.Variant, f packet.Family) func(*testing.T, *rig.Rig) {
	return func(t *testing.T, r *rig.Rig) {
		t.Helper()
		loadText(t, r, inFamily(rules, f), v, f)
	}
}

// loadText loads what is of the family already.
func loadText(t *testing.T, r *rig.Rig, rules string, v foreign.Variant, f packet.Family) {
	t.Helper()
	if !strings.HasPrefix(rules, "*") {
		r.NFT(t, rules)
		return
	}
	program := "iptables-" + string(v) + "-restore"
	if f == packet.IPv6Family {
		program = "ip6tables-" + string(v) + "-restore"
	}
	r.Run(t, rules, program, "-w", "--noflush")
}

// together sets up several things.
func together(all ...func(*testing.T, *rig.Rig)) func(*testing.T, *rig.Rig) {
	return func(t *testing.T, r *rig.Rig) {
		t.Helper()
		for _, each := range all {
			each(t, r)
		}
	}
}

// sysctl sets a kernel parameter of the node.
func sysctl(key, value string) func(*testing.T, *rig.Rig) {
	return func(t *testing.T, r *rig.Rig) {
		t.Helper()
		if err := r.Node.Sysctl(key, value); err != nil {
			t.Fatal(err)
		}
	}
}

// kubeMasquerade is kube-proxy's treatment of what it has marked.
func kubeMasquerade(v foreign.Variant, f packet.Family) func(*testing.T, *rig.Rig) {
	return func(t *testing.T, r *rig.Rig) {
		t.Helper()
		steps := foreign.KubeProxy().Write(foreign.Node{}, v, f)
		if err := foreign.Run(t.Context(), foreign.In(r.Node), steps); err != nil {
			t.Fatal(err)
		}
	}
}
