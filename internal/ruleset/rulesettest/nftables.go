package rulesettest

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"strings"
)

// KubeProxyNFT is what nft list ruleset prints on a node where kube-proxy 1.34
// in nftables mode serves so many ClusterIP services, each with so many
// endpoints: services*(1+endpoints) chains of two rules, and three dozen more.
func KubeProxyNFT(services, endpoints int) string {
	all := Services(services, endpoints)
	var b strings.Builder
	b.Grow(400 * services * (endpoints + 1))
	b.WriteString("table ip kube-proxy {\n\tcomment \"rules for kube-proxy\"\n\tset cluster-ips {\n\t\ttype ipv4_addr\n\t\telements = { ")
	separated(&b, len(all), func(i int) string { return all[i].ClusterIP.String() })
	b.WriteString(" }\n\t}\n\n\tmap service-ips {\n\t\ttype ipv4_addr . inet_proto . inet_service : verdict\n\t\telements = { ")
	separated(&b, len(all), func(i int) string {
		return fmt.Sprintf("%s . tcp . %d : goto %s", all[i].ClusterIP, Port, serviceChain(all[i].Name))
	})
	b.WriteString(" }\n\t}\n" + nftHooks)
	for _, s := range all {
		serviceNFT(&b, s)
	}
	b.WriteString("}\n")
	return b.String()
}

func separated(b *strings.Builder, n int, text func(int) string) {
	for i := range n {
		switch {
		case i == 0:
		case i%2 == 0:
			b.WriteString(",\n\t\t\t     ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(text(i))
	}
}

// serviceChain is kube-proxy's name for it: service-HASH-NAMESPACE/NAME/PROTOCOL/PORT.
func serviceChain(name string) string {
	return "service-" + shortHash(name) + "-" + strings.Replace(name, ":", "/tcp/", 1)
}

func shortHash(of string) string {
	hash := sha256.Sum256([]byte(of))
	return base32.StdEncoding.EncodeToString(hash[:])[:8]
}

func serviceNFT(b *strings.Builder, s Service) {
	endpoint := func(i int) string {
		e := s.Endpoints[i]
		return fmt.Sprintf("endpoint-%s-%s__%s/%d", shortHash(s.Name+e.String()), strings.Replace(s.Name, ":", "/tcp/", 1), e.Addr(), e.Port())
	}
	for i, e := range s.Endpoints {
		fmt.Fprintf(b, "\n\tchain %s {\n\t\tip saddr %s jump mark-for-masquerade\n\t\tmeta l4proto tcp dnat to %s\n\t}\n", endpoint(i), e.Addr(), e)
	}
	fmt.Fprintf(b, "\n\tchain %s {\n\t\tip daddr %s tcp dport %d ip saddr != %s jump mark-for-masquerade\n\t\tnumgen random mod %d vmap { ",
		serviceChain(s.Name), s.ClusterIP, Port, PodCIDR, len(s.Endpoints))
	separated(b, len(s.Endpoints), func(i int) string { return fmt.Sprintf("%d : goto %s", i, endpoint(i)) })
	b.WriteString(" }\n\t}\n")
}

// nftHooks are the base chains and what they jump to.
const nftHooks = `
	chain filter-forward {
		type filter hook forward priority filter; policy accept;
		ct state new jump cluster-ips-check
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

	chain services {
		ip daddr . meta l4proto . th dport vmap @service-ips
	}

	chain masquerading {
		meta mark & 0x00004000 == 0x00000000 return
		meta mark set meta mark ^ 0x00004000
		masquerade fully-random
	}

	chain cluster-ips-check {
		ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"
		ip daddr 10.96.0.0/16 drop comment "Drop traffic to unallocated ClusterIPs"
	}

	chain mark-for-masquerade {
		meta mark set meta mark | 0x00004000
	}
`
