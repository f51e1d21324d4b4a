package sim

import (
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// Numbers of protocols whose headers rules name.
var headers = map[string]uint8{
	"tcp": packet.TCP, "udp": packet.UDP, "udplite": udpLite, "sctp": packet.SCTP, "dccp": dccp, "icmp": packet.ICMP, "icmpv6": packet.ICMPv6,
	"esp": 50, "ah": 51, "comp": 108, "igmp": 2, "gre": 47,
}

// payloadSubject is a field of a header: net/netfilter/nft_payload.c. nft puts a
// comparison of the protocol before it that its listing leaves out.
func payloadSubject(e nftables.Payload) subject {
	switch e.Protocol {
	case "ip", "ip6":
		return networkSubject(e)
	case "th":
		if s, ok := portField(e.Field, (*run).hasPorts); ok {
			s.value = anyPort(s.value)
			return s
		}
	case "tcp", "udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "esp", "ah", "comp", "igmp", "gre":
		return transportSubject(e)
	}
	return subject{value: func(r *run) (nftables.Value, state) {
		if e.Protocol == "ether" && r.local && r.hook < hookCount {
			return "", broken
		}
		return "", open
	}}
}

// anyPort: th dport of a protocol without ports reads what stands there instead.
func anyPort(value func(*run) (nftables.Value, state)) func(*run) (nftables.Value, state) {
	return func(r *run) (nftables.Value, state) {
		v, s := value(r)
		if s == broken {
			s = open
		}
		return v, s
	}
}

func portField(field string, has func(*run) bool) (subject, bool) {
	switch field {
	case "sport":
		return portSubject(ruleset.Source, has), true
	case "dport":
		return portSubject(ruleset.Destination, has), true
	}
	return subject{}, false
}

func networkSubject(e nftables.Payload) subject {
	family := packet.IPv4Family
	if e.Protocol == "ip6" {
		family = packet.IPv6Family
	}
	var read func(r *run) nftables.Value
	switch e.Field {
	case "saddr":
		read = func(r *run) nftables.Value { return r.values.address(r.src) }
	case "daddr":
		read = func(r *run) nftables.Value { return r.values.address(r.dst) }
	case "protocol", "nexthdr":
		read = func(r *run) nftables.Value { return number8(r.protocol) }
	case "version":
		read = func(r *run) nftables.Value {
			if r.family == packet.IPv4Family {
				return number8(4)
			}
			return number8(6)
		}
	}
	return subject{value: func(r *run) (nftables.Value, state) {
		switch {
		case r.family != family:
			return "", broken
		case read == nil, e.Field == "saddr" && !r.sourceKnown:
			return "", open
		}
		return read(r), known
	}}
}

func transportSubject(e nftables.Payload) subject {
	want := headers[e.Protocol]
	has := func(r *run) bool { return r.protocol == want }
	if s, ok := portField(e.Field, has); ok {
		return s
	}
	return subject{value: func(r *run) (nftables.Value, state) {
		if !has(r) {
			return "", broken
		}
		first := r.connection == nil
		switch {
		case e.Field == "flags" && want == packet.TCP && first:
			return number8(0x02), known // SYN alone
		case e.Field == "type" && want == packet.ICMP:
			return number8(8), known
		case e.Field == "type" && want == packet.ICMPv6:
			return number8(128), known
		case e.Field == "code" && (want == packet.ICMP || want == packet.ICMPv6):
			return number8(0), known
		}
		return "", open
	}}
}
