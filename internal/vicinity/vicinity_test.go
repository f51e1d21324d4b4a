package vicinity_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/snapshot"
	"github.com/unmasq/unmasq/internal/vicinity"
)

func host(t *testing.T, text string) *snapshot.Host {
	t.Helper()
	h, err := snapshot.Read([]string{"-"}, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

var kinds = map[vicinity.ServiceKind]string{vicinity.ClusterIP: "cluster-ip", vicinity.ExternalIP: "external-ip", vicinity.NodePort: "node-port", vicinity.Published: "published"}

func told(s vicinity.Service) string {
	line := fmt.Sprintf("%s %q %s:%d/%d", kinds[s.Kind], s.Name, s.Address, s.Port, s.Protocol)
	if s.Local {
		line += " local"
	}
	if s.NoBackends {
		line += " none"
	}
	return line
}

// TestServices of all who write rules for some.
func TestServices(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"kube-proxy, iptables", `*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
-A KUBE-SERVICES -d 10.96.0.5/32 -p tcp -m comment --comment "default/none:http has no endpoints" -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable
-A KUBE-EXTERNAL-SERVICES -p tcp -m comment --comment "default/far:http has no local endpoints" -m addrtype --dst-type LOCAL -m tcp --dport 30082 -j DROP
-A KUBE-EXTERNAL-SERVICES -d 203.0.113.9/32 -p tcp -m comment --comment "default/none:http has no endpoints" -m tcp --dport 80 -j REJECT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-SVC-A - [0:0]
:KUBE-SVC-X - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-EXT-A - [0:0]
:KUBE-EXT-B - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp -m comment --comment "kube-system/dns:dns cluster IP" -m udp --dport 53 -j KUBE-SVC-X
-A KUBE-SERVICES -d 10.96.0.11/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-SVC-A
-A KUBE-SERVICES -d 203.0.113.5/32 -p tcp -m comment --comment "default/web loadbalancer IP" -m tcp --dport 80 -j KUBE-EXT-A
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
-A KUBE-NODEPORTS -d 127.0.0.0/8 -p tcp -m comment --comment "default/web" -m tcp --dport 30080 -j KUBE-EXT-A
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/web" -m tcp --dport 30080 -j KUBE-EXT-A
-A KUBE-NODEPORTS -p tcp -m comment --comment "default/strict" -m tcp --dport 30081 -j KUBE-EXT-B
-A KUBE-EXT-A -m comment --comment "masquerade traffic for default/web external destinations" -j KUBE-MARK-MASQ
-A KUBE-EXT-B -m comment --comment "masquerade LOCAL traffic for default/strict external destinations" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ
COMMIT
`, []string{
			`node-port "default/far:http" invalid IP:30082/6 local none`,
			`cluster-ip "default/none:http" 10.96.0.5:80/6 none`,
			`external-ip "default/none:http" 203.0.113.9:80/6 none`,
			`node-port "default/strict" invalid IP:30081/6 local`,
			`cluster-ip "default/web" 10.96.0.11:80/6`,
			`external-ip "default/web" 203.0.113.5:80/6`,
			`node-port "default/web" invalid IP:30080/6`,
			`cluster-ip "kube-system/dns:dns" 10.96.0.10:53/17`,
		}},
		{"kube-proxy, nftables", `table ip kube-proxy {
	set cluster-ips {
		type ipv4_addr
		elements = { 10.96.0.5, 10.96.0.11 }
	}
	map no-endpoint-services {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.5 . tcp . 80 comment "default/none:http" : goto reject-chain, 203.0.113.9 . tcp . 80 comment "default/none:http" : goto reject-chain }
	}
	map service-ips {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.11 . tcp . 80 : goto service-AAAAAAAA-default/web/tcp/, 203.0.113.5 . tcp . 80 : goto external-AAAAAAAA-default/web/tcp/ }
	}
	map service-nodeports {
		type inet_proto . inet_service : verdict
		elements = { tcp . 30080 : goto external-AAAAAAAA-default/web/tcp/, tcp . 30081 : goto external-BBBBBBBB-default/strict/tcp/http }
	}
	chain reject-chain {
		reject
	}
	chain service-AAAAAAAA-default/web/tcp/ {
	}
	chain external-AAAAAAAA-default/web/tcp/ {
		meta mark set meta mark | 0x00004000
	}
	chain external-BBBBBBBB-default/strict/tcp/http {
		fib saddr type local meta mark set meta mark | 0x00004000
	}
}
`, []string{
			`cluster-ip "default/none:http" 10.96.0.5:80/6 none`,
			`external-ip "default/none:http" 203.0.113.9:80/6 none`,
			`node-port "default/strict:http" invalid IP:30081/6 local`,
			`cluster-ip "default/web" 10.96.0.11:80/6`,
			`external-ip "default/web" 203.0.113.5:80/6`,
			`node-port "default/web" invalid IP:30080/6`,
		}},
		{"docker", `*nat
:PREROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
-A DOCKER -d 192.0.2.11/32 ! -i docker0 -p udp -m udp --dport 53 -j DNAT --to-destination 172.17.0.2:53
-A DOCKER ! -d 192.0.2.11/32 -p tcp -m tcp --dport 81 -j DNAT --to-destination 172.17.0.2:80
COMMIT
`, []string{`published "" invalid IP:8080/6`, `published "" 192.0.2.11:53/17`}},
		{"docker, nftables", `table ip docker-bridges {
	chain nat-prerouting-and-output {
		iifname != "docker0" tcp dport 8080 counter packets 0 bytes 0 dnat to 172.17.0.2:80 comment "DNAT"
		iifname != "docker0" ip daddr 192.0.2.11 udp dport 53 dnat to 172.17.0.2:53
		ip daddr 127.0.0.1 tcp dport 8082 dnat to 172.17.0.2:82
		tcp dport != 9000 dnat to 172.17.0.2:90
		tcp dport 9001 accept
	}
}
`, []string{`published "" invalid IP:8080/6`, `published "" 192.0.2.11:53/17`}},
		{"ipvs", "-A -t 10.96.0.10:80 -s rr\n-a -t 10.96.0.10:80 -r 10.244.1.8:8080 -m -w 1\n-A -t 10.96.0.11:80 -s rr\n-A -t 127.0.0.1:30080 -s rr\n",
			[]string{`cluster-ip "" 10.96.0.10:80/6`, `cluster-ip "" 10.96.0.11:80/6 none`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, s := range vicinity.Services(host(t, c.text), 100) {
				got = append(got, told(s))
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

const node = `$ ip -d link
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN
2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc fq state UP
3: cni0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP
    bridge forward_delay 1500
4: veth1@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue master cni0 state UP
    veth
5: docker0: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500 qdisc noqueue state DOWN
    bridge forward_delay 1500
6: virbr0: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500 qdisc noqueue state DOWN
    bridge forward_delay 1500
7: br0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP
    bridge forward_delay 1500
8: eth1: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc fq master br0 state UP
9: cali1@if3: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc noqueue state UP
    veth
$ ip addr
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536
    inet 127.0.0.1/8 scope host lo
2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500
    inet 192.0.2.11/24 scope global eth0
3: cni0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500
    inet 10.244.1.1/24 scope global cni0
5: docker0: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500
    inet 172.17.0.1/16 scope global docker0
6: virbr0: <NO-CARRIER,BROADCAST,MULTICAST,UP> mtu 1500
    inet 192.168.122.1/24 scope global virbr0
7: br0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500
    inet 198.51.100.1/24 scope global br0
$ ip route
default via 192.0.2.1 dev eth0
10.244.1.0/24 dev cni0 proto kernel scope link src 10.244.1.1
10.244.2.0/24 via 192.0.2.12 dev eth0
10.245.0.0/16 via 192.0.2.13 dev eth0
10.244.1.77 dev cali1 scope link
172.17.0.0/16 dev docker0 proto kernel scope link src 172.17.0.1 linkdown
192.0.2.0/24 dev eth0 proto kernel scope link src 192.0.2.11
$ ip neigh
10.244.1.9 dev cni0 lladdr 02:00:00:00:00:09 REACHABLE
10.244.1.5 dev cni0 lladdr 02:00:00:00:00:05 STALE
10.244.1.6 dev cni0 FAILED
`

// TestNetworks of a node with bridges of several kinds.
func TestNetworks(t *testing.T) {
	h := host(t, node)
	var got []string
	for _, n := range vicinity.Networks(h) {
		line := fmt.Sprint(n.Prefix, " ", n.Link, " ", n.Members)
		if n.Empty {
			line += " empty"
		}
		got = append(got, line)
	}
	want := []string{"10.244.1.0/24 cni0 [10.244.1.5 10.244.1.9]", "172.17.0.0/16 docker0 [] empty", "10.244.1.77/32 cali1 [10.244.1.77]"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	own := vicinity.Networks(h)[0]
	remotes := vicinity.Remotes(h, &own)
	if len(remotes) != 1 || remotes[0].Destination != netip.MustParsePrefix("10.244.2.0/24") {
		t.Errorf("other nodes' networks: %v", remotes)
	}
	if a := vicinity.Primary(h, packet.IPv4Family); a != netip.MustParseAddr("192.0.2.11") {
		t.Errorf("primary address %s", a)
	}
	if a := vicinity.Primary(h, packet.IPv6Family); a.IsValid() {
		t.Errorf("primary IPv6 address %s", a)
	}
	taken := netip.MustParseAddr("10.244.1.2")
	if a := vicinity.Free(h, own.Prefix, func(a netip.Addr) bool { return a == taken }); a != netip.MustParseAddr("10.244.1.3") {
		t.Errorf("free address %s", a)
	}
	if a := vicinity.Free(h, netip.MustParsePrefix("10.244.1.0/30"), func(a netip.Addr) bool { return true }); a.IsValid() {
		t.Errorf("free address %s of a full network", a)
	}
}

// TestKept: what ip-masq-agent leaves alone, but for what is link-local, or for certain sources.
func TestKept(t *testing.T) {
	h := host(t, `*nat
:POSTROUTING ACCEPT [0:0]
:IP-MASQ-AGENT - [0:0]
-A POSTROUTING -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT
-A POSTROUTING -d 198.51.100.0/24 -j RETURN
-A IP-MASQ-AGENT -d 169.254.0.0/16 -j RETURN
-A IP-MASQ-AGENT -d 10.0.0.0/8 -j RETURN
-A IP-MASQ-AGENT -s 10.1.0.0/16 -d 192.0.2.0/24 -j RETURN
-A IP-MASQ-AGENT ! -d 203.0.113.0/24 -j RETURN
-A IP-MASQ-AGENT -d 172.16.0.0/12 -j MASQUERADE
-A IP-MASQ-AGENT -j MASQUERADE --random-fully
COMMIT
`)
	if got := vicinity.Kept(h); len(got) != 1 || got[0] != netip.MustParsePrefix("10.0.0.0/8") {
		t.Errorf("%v", got)
	}
}
