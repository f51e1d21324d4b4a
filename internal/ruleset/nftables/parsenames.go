package nftables

import "strings"

// fieldsOf are the fields of a header, options and chunks, with blanks around each.
func fieldsOf(header string) string {
	switch header {
	case "ether":
		return " daddr saddr type "
	case "vlan":
		return " id cfi dei pcp type "
	case "arp":
		return " htype ptype hlen plen operation saddr daddr "
	case "ip":
		return " version hdrlength dscp ecn length id frag-off ttl protocol checksum saddr daddr option "
	case "ip6":
		return " version dscp ecn flowlabel length nexthdr hoplimit saddr daddr "
	case "icmp":
		return " type code checksum id sequence gateway mtu "
	case "icmpv6":
		return " type code checksum parameter-problem packet-too-big id sequence max-delay mtu taddr daddr "
	case "igmp":
		return " type checksum mrt group "
	case "tcp":
		return " sport dport sequence ackseq doff reserved flags window checksum urgptr option "
	case "udp":
		return " sport dport length checksum "
	case "udplite":
		return " sport dport csumcov checksum cscov "
	case "sctp":
		return " sport dport vtag checksum chunk "
	case "dccp":
		return " sport dport type option "
	case "th":
		return " sport dport "
	case "ah":
		return " nexthdr hdrlength reserved spi sequence "
	case "esp":
		return " spi sequence "
	case "comp":
		return " nexthdr flags cpi "
	}
	return moreFieldsOf(header)
}

func moreFieldsOf(header string) string {
	const inner = " ether vlan arp ip ip6 icmp icmpv6 igmp tcp udp udplite sctp dccp th "
	switch header {
	case "gre":
		return " flags version protocol" + inner
	case "gretap":
		return inner
	case "vxlan":
		return " flags vni" + inner
	case "geneve":
		return " flags vni type" + inner
	case "tcp option":
		return " kind length size count left right tsval tsecr subtype cookie digest "
	case "ip option":
		return " type length ptr value addr "
	case "sctp chunk":
		return " type flags length init-tag a-rwnd num-outbound-streams num-inbound-streams initial-tsn cum-tsn-ack " +
			"num-gap-ack-blocks num-dup-tsns lowest-tsn tsn stream ssn ppid new-cum-tsn seqno "
	case "rt":
		return " classid nexthop mtu ipsec ip ip6 type seg-left nexthdr hdrlength addr "
	case "hbh", "dst":
		return " nexthdr hdrlength "
	case "frag":
		return " nexthdr reserved frag-off reserved2 more-fragments id "
	case "mh":
		return " nexthdr hdrlength type reserved checksum "
	case "srh":
		return " last-entry flags tag sid seg-left "
	case "rt0", "rt2":
		return " addr "
	case "exthdr":
		return " hbh rt rt0 rt2 srh frag dst mh "
	}
	return ""
}

// isField says whether the header has the field.
func isField(header, field string) bool {
	return strings.Contains(fieldsOf(header), " "+field+" ")
}

// isProtocol says whether the word is a header whose fields are matched.
func isProtocol(word string) bool {
	switch word {
	case "ether", "vlan", "arp", "ip", "ip6", "icmp", "icmpv6", "igmp", "tcp", "udp", "udplite",
		"sctp", "dccp", "th", "ah", "esp", "comp", "gre", "gretap", "vxlan", "geneve":
		return true
	}
	return false
}

// isTunnel says whether the header has packets in it.
func isTunnel(protocol string) bool {
	switch protocol {
	case "gre", "gretap", "vxlan", "geneve":
		return true
	}
	return false
}
