package ipset

import "strings"

const udplite = 136

// protocolNumber of a name: those of Debian's /etc/protocols, by which ipset
// prints, and its own two spellings of ICMPv6.
func protocolNumber(name string) (uint8, bool) {
	n, ok := protocols[strings.ToLower(name)]
	return n, ok
}

var protocols = map[string]uint8{
	"icmp": 1, "igmp": 2, "ggp": 3, "ipencap": 4, "st": 5, "tcp": 6, "egp": 8, "igp": 9, "pup": 12, "udp": 17,
	"hmp": 20, "xns-idp": 22, "rdp": 27, "iso-tp4": 29, "dccp": 33, "xtp": 36, "ddp": 37, "idpr-cmtp": 38,
	"ipv6": 41, "ipv6-route": 43, "ipv6-frag": 44, "idrp": 45, "rsvp": 46, "gre": 47, "esp": 50, "ah": 51,
	"skip": 57, "ipv6-icmp": 58, "icmpv6": 58, "icmp6": 58, "ipv6-nonxt": 59, "ipv6-opts": 60, "rspf": 73,
	"vmtp": 81, "eigrp": 88, "ospf": 89, "ospfigp": 89, "ax.25": 93, "ipip": 94, "etherip": 97, "encap": 98,
	"pim": 103, "ipcomp": 108, "vrrp": 112, "l2tp": 115, "isis": 124, "sctp": 132, "fc": 133,
	"mobility-header": 135, "udplite": udplite, "mpls-in-ip": 137, "manet": 138, "hip": 139, "shim6": 140,
	"wesp": 141, "rohc": 142, "ethernet": 143,
}

// icmpNames are type<<8 | code by ipset's name (its lib/icmp.c).
var icmpNames = map[string]uint32{
	"echo-reply": 0, "pong": 0,
	"network-unreachable": 3 << 8, "host-unreachable": 3<<8 | 1, "protocol-unreachable": 3<<8 | 2,
	"port-unreachable": 3<<8 | 3, "fragmentation-needed": 3<<8 | 4, "source-route-failed": 3<<8 | 5,
	"network-unknown": 3<<8 | 6, "host-unknown": 3<<8 | 7, "network-prohibited": 3<<8 | 9,
	"host-prohibited": 3<<8 | 10, "TOS-network-unreachable": 3<<8 | 11, "TOS-host-unreachable": 3<<8 | 12,
	"communication-prohibited": 3<<8 | 13, "host-precedence-violation": 3<<8 | 14, "precedence-cutoff": 3<<8 | 15,
	"source-quench":    4 << 8,
	"network-redirect": 5 << 8, "host-redirect": 5<<8 | 1, "TOS-network-redirect": 5<<8 | 2, "TOS-host-redirect": 5<<8 | 3,
	"echo-request": 8 << 8, "ping": 8 << 8, "router-advertisement": 9 << 8, "router-solicitation": 10 << 8,
	"ttl-zero-during-transit": 11 << 8, "ttl-zero-during-reassembly": 11<<8 | 1,
	"ip-header-bad": 12 << 8, "required-option-missing": 12<<8 | 1,
	"timestamp-request": 13 << 8, "timestamp-reply": 14 << 8,
	"address-mask-request": 17 << 8, "address-mask-reply": 18 << 8,
}

// icmpv6Names are the same of ICMPv6 (its lib/icmpv6.c).
var icmpv6Names = map[string]uint32{
	"no-route": 1 << 8, "communication-prohibited": 1<<8 | 1, "address-unreachable": 1<<8 | 3, "port-unreachable": 1<<8 | 4,
	"packet-too-big":          2 << 8,
	"ttl-zero-during-transit": 3 << 8, "ttl-zero-during-reassembly": 3<<8 | 1,
	"bad-header": 4 << 8, "unknown-header-type": 4<<8 | 1, "unknown-option": 4<<8 | 2,
	"echo-request": 128 << 8, "ping": 128 << 8, "echo-reply": 129 << 8, "pong": 129 << 8,
	"router-solicitation": 133 << 8, "router-advertisement": 134 << 8,
	"neighbour-solicitation": 135 << 8, "neigbour-solicitation": 135 << 8,
	"neighbour-advertisement": 136 << 8, "neigbour-advertisement": 136 << 8,
	"redirect": 137 << 8,
}
