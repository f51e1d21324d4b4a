package nftables

// payloadTypes of PROTOCOL FIELD; a number is an integer of so many bits.
var payloadTypes = map[string]string{
	"ether daddr": "ether_addr", "ether saddr": "ether_addr", "ether type": "ether_type",
	"vlan id": "12", "vlan dei": "1", "vlan cfi": "1", "vlan pcp": "3", "vlan type": "ether_type",

	"arp htype": "16", "arp ptype": "ether_type", "arp hlen": "8", "arp plen": "8", "arp operation": "arp_op",
	"arp saddr ether": "ether_addr", "arp daddr ether": "ether_addr", "arp saddr ip": "ipv4_addr", "arp daddr ip": "ipv4_addr",

	"ip version": "4", "ip hdrlength": "4", "ip dscp": "dscp", "ip ecn": "ecn", "ip length": "16", "ip id": "16",
	"ip frag-off": "16", "ip ttl": "8", "ip protocol": "inet_proto", "ip checksum": "16", "ip saddr": "ipv4_addr",
	"ip daddr": "ipv4_addr",

	"ip6 version": "4", "ip6 dscp": "dscp", "ip6 ecn": "ecn", "ip6 flowlabel": "20", "ip6 length": "16",
	"ip6 nexthdr": "inet_proto", "ip6 hoplimit": "8", "ip6 saddr": "ipv6_addr", "ip6 daddr": "ipv6_addr",

	"icmp type": "icmp_type", "icmp code": "icmp_code", "icmp checksum": "16", "icmp id": "16", "icmp sequence": "16",
	"icmp gateway": "32", "icmp mtu": "16",
	"icmpv6 type": "icmpv6_type", "icmpv6 code": "icmpv6_code", "icmpv6 checksum": "16",
	"icmpv6 parameter-problem": "32", "icmpv6 mtu": "32", "icmpv6 id": "16", "icmpv6 sequence": "16",
	"icmpv6 max-delay": "16", "icmpv6 taddr": "ipv6_addr", "icmpv6 daddr": "ipv6_addr",
	"igmp type": "igmp_type", "igmp mrt": "8", "igmp checksum": "16", "igmp group": "32",

	"th sport": "inet_service", "th dport": "inet_service",
	"tcp sport": "inet_service", "tcp dport": "inet_service", "tcp sequence": "32", "tcp ackseq": "32", "tcp doff": "4",
	"tcp reserved": "4", "tcp flags": "tcp_flag", "tcp window": "16", "tcp checksum": "16", "tcp urgptr": "16",
	"udp sport": "inet_service", "udp dport": "inet_service", "udp length": "16", "udp checksum": "16",
	"udplite sport": "inet_service", "udplite dport": "inet_service", "udplite checksum": "16", "udplite csumcov": "16",
	"sctp sport": "inet_service", "sctp dport": "inet_service", "sctp vtag": "32", "sctp checksum": "32",
	"dccp sport": "inet_service", "dccp dport": "inet_service", "dccp type": "dccp_pkttype",

	"ah nexthdr": "inet_proto", "ah hdrlength": "8", "ah reserved": "16", "ah spi": "32", "ah sequence": "32",
	"esp spi": "32", "esp sequence": "32",
	"comp nexthdr": "inet_proto", "comp flags": "8", "comp cpi": "16",
	"gre version": "3", "gre flags": "5", "gre protocol": "ether_type",
	"vxlan vni": "24", "vxlan flags": "8", "geneve vni": "24", "geneve type": "ether_type",
}
