package doctor_test

import (
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/doctor"
)

// serviceLessons are about kube-proxy, and who comes to its services.
var serviceLessons = []lesson{
	{
		code: "cluster-cidr-missing", name: "iptables",
		provoke: proxy(""),
		alike: map[string]string{
			"it is told":                 proxy(`-A KUBE-SVC-WEBWEBWEBWEBWEBW ! -s 10.244.0.0/16 -d 10.96.0.10/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ`),
			"pods by their bridge":       proxy(`-A KUBE-SVC-WEBWEBWEBWEBWEBW ! -i cni0 -d 10.96.0.10/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ`),
			"told, and overruled":        proxy(`-A KUBE-SVC-WEBWEBWEBWEBWEBW ! -s 10.244.0.0/16 -d 10.96.0.10/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ`) + "iptables -t nat -I POSTROUTING ! -s 10.0.0.0/8 -j ACCEPT",
			"masqueradeAll":              proxy(`-A KUBE-SVC-WEBWEBWEBWEBWEBW -d 10.96.0.10/32 -p tcp -m comment --comment "default/web cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ`),
			"backends here alone":        clusterIP,
			"an external address":        strings.ReplaceAll(proxy(""), "cluster IP", "external IP"),
			"nobody comes from outside":  proxy("") + "ip route del default",
			"what comes in is forbidden": proxy("") + "iptables -A FORWARD -i eth0 -m conntrack --ctstate NEW -j DROP",
			"a policy masquerades them":  proxy("") + strings.Replace(applied(`{name: remote, from: {cidrs: [0.0.0.0/0], except: [10.244.0.0/16]}, to: {services: {backends: Remote}}, action: Masquerade}`), "rules:", "facts: {serviceCIDRs: [10.96.0.0/16]}, rules:", 1),
		},
		before: toClusterIP,
		call:   &call{from: out, to: out, address: "10.96.0.10:80@8080", before: lost, after: "192.0.2.1"},
	},
	{
		code: "cluster-cidr-missing", name: "nftables",
		provoke: proxyNFT(""),
		alike: map[string]string{
			"it is told":                   proxyNFT("ip daddr @cluster-ips ip saddr != 10.244.0.0/16 meta mark set mark or 0x4000"),
			"told, and overruled":          proxyNFT("ip daddr @cluster-ips ip saddr != 10.244.0.0/16 meta mark set mark or 0x4000") + "iptables -t nat -I POSTROUTING ! -s 10.0.0.0/8 -j ACCEPT; nft insert rule ip kube-proxy masquerading ip saddr != 10.0.0.0/8 accept",
			"masqueradeAll":                proxyNFT("ip daddr @cluster-ips meta mark set mark or 0x4000"),
			"it is told, of older version": proxyNFT("") + `nft insert rule ip kube-proxy service-WEB-default/web/tcp/http ip daddr 10.96.0.10 ip saddr != 10.244.0.0/16 jump mark-for-masquerade`,
		},
		before: toClusterIP,
		call:   &call{from: out, to: out, address: "10.96.0.10:80@8080", before: lost, after: "192.0.2.1"},
	},
}

// toClusterIP: a host outside, whose own address is that of a backend too, has a route.
func toClusterIP(l *lab) { l.shell(l.out, "ip route add 10.96.0.0/16 via 192.0.2.1 src 192.0.2.2") }

// proxy is a service of kube-proxy's in iptables mode with a backend here and one on
// another node, with the rules that mark clients.
func proxy(marks string) string {
	text := strings.Replace(clusterIP, "-A KUBE-SVC-WEBWEBWEBWEBWEBW", marks+"\n-A KUBE-SVC-WEBWEBWEBWEBWEBW", 1)
	return strings.ReplaceAll(text, "10.244.1.3", "203.0.113.9")
}

// proxyNFT is the same in nftables mode.
func proxyNFT(marks string) string {
	return `nft -f - <<'END'
table ip kube-proxy {
	set cluster-ips { type ipv4_addr; elements = { 10.96.0.10 }; }
	map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
	chain mark-for-masquerade { meta mark set mark or 0x4000; }
	chain service-WEB-default/web/tcp/http { meta l4proto tcp dnat to 203.0.113.9:8080; }
	chain services {
		` + marks + `
		ip daddr . meta l4proto . th dport vmap @service-ips
	}
	chain nat-prerouting { type nat hook prerouting priority dstnat; jump services; }
	chain masquerading { meta mark & 0x4000 == 0 return; meta mark set mark ^ 0x4000; masquerade fully-random; }
	chain nat-postrouting { type nat hook postrouting priority srcnat; jump masquerading; }
}
add element ip kube-proxy service-ips { 10.96.0.10 . tcp . 80 : goto service-WEB-default/web/tcp/http }
END
`
}

// TestClusterCIDRSeverity: it is a note until somebody comes from outside.
func TestClusterCIDRSeverity(t *testing.T) {
	t.Parallel()
	l := newLab(t, proxy(""))
	toClusterIP(l)
	for _, want := range []doctor.Severity{doctor.Info, doctor.Warning} {
		r := l.examine()
		if len(r.Findings) != 1 || r.Findings[0].Severity != want {
			t.Errorf("expected one %s:\n%s", want, text(&r))
		}
		l.knock(l.out, 1, "10.96.0.10:80")
	}
}
