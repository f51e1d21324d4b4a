package others

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/conflict"
)

// match is what a rule asks of a packet, as far as it is read. What isn't, is more.
type match struct {
	source, destination netip.Prefix
	protocol            uint8
	port                uint16
	more                bool
}

// rule as far as it matters here.
type rule struct {
	match
	chain, comment, jump string
	ends                 bool // accept, drop or return
	effect               conflict.Effect
}

// load is what a register was loaded with.
type load struct {
	what string // saddr, daddr, dport, l4proto, family
	bits int    // of the value that are compared
	size int    // of an address in bytes
}

// ruleOf a message, under what was asked on the way to it.
func ruleOf(data []byte, asked match) rule {
	x := rule{match: asked}
	if len(data) < sizeofNfGenMsg {
		return x
	}
	attributes(data[sizeofNfGenMsg:], func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.NFTA_RULE_CHAIN:
			x.chain = d.String()
		case unix.NFTA_RULE_USERDATA:
			if c := commentOf(d.Bytes()); c != "" {
				x.comment = c
			}
		case unix.NFTA_RULE_EXPRESSIONS:
			var loaded load
			attributes(d.Bytes(), func(d *netlink.AttributeDecoder) {
				name, body := "", []byte(nil)
				attributes(d.Bytes(), func(d *netlink.AttributeDecoder) {
					switch d.Type() {
					case unix.NFTA_EXPR_NAME:
						name = d.String()
					case unix.NFTA_EXPR_DATA:
						body = d.Bytes()
					}
				})
				x.expression(name, body, &loaded)
			})
		}
	})
	return x
}

// commentOf a rule of nft: its user data are type, length, value; 0 is the comment.
func commentOf(data []byte) string {
	for len(data) >= 2 && len(data) >= 2+int(data[1]) {
		if data[0] == 0 {
			return strings.TrimRight(string(data[2:2+int(data[1])]), "\x00")
		}
		data = data[2+int(data[1]):]
	}
	return ""
}

// expression takes the next one of a rule.
func (x *rule) expression(name string, body []byte, l *load) {
	switch name {
	case "counter", "log", "limit", "quota", "last":
	case "payload":
		*l = loadOf(body, x.source.IsValid() && x.source.Addr().Is6())
		x.more = x.more || l.what == ""
	case "meta":
		*l = metaOf(body)
		x.more = x.more || l.what == ""
	case "bitwise":
		l.bits = bitsOf(body)
		x.more = x.more || l.bits < 0
	case "cmp":
		x.compare(body, *l)
		*l = load{}
	case "match":
		x.xtMatch(xt(body))
	case "target":
		x.xtTarget(xt(body))
	case "notrack":
		x.effect = conflict.Untracks
	case "masq", "nat", "redir":
		x.effect = conflict.Translates
	case "immediate":
		x.jump, x.ends = verdictOf(body)
	default:
		x.more = true
	}
}

// number of an attribute in network byte order.
func number(d *netlink.AttributeDecoder) uint32 {
	if b := d.Bytes(); len(b) == 4 {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

// loadOf a part of a packet, which is of a known family: nft asks for it first.
func loadOf(body []byte, ipv6 bool) (l load) {
	var base, offset, size uint32
	attributes(body, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.NFTA_PAYLOAD_BASE:
			base = number(d)
		case unix.NFTA_PAYLOAD_OFFSET:
			offset = number(d)
		case unix.NFTA_PAYLOAD_LEN:
			size = number(d)
		}
	})
	type field struct{ base, offset, size uint32 }
	const network, transport = unix.NFT_PAYLOAD_NETWORK_HEADER, unix.NFT_PAYLOAD_TRANSPORT_HEADER
	l = load{bits: int(size) * 8, size: 4}
	source, destination, protocol := uint32(12), uint32(16), uint32(9)
	if ipv6 {
		l.size, source, destination, protocol = 16, 8, 24, 6
	}
	switch f := (field{base, offset, size}); {
	case f == field{network, protocol, 1}:
		l.what = "l4proto"
	case f == field{transport, 2, 2}:
		l.what = "dport"
	case base == network && offset == source && int(size) <= l.size:
		l.what = "saddr"
	case base == network && offset == destination && int(size) <= l.size:
		l.what = "daddr"
	}
	return l
}

func metaOf(body []byte) (l load) {
	attributes(body, func(d *netlink.AttributeDecoder) {
		if d.Type() == unix.NFTA_META_KEY {
			switch number(d) {
			case unix.NFT_META_L4PROTO:
				l.what = "l4proto"
			case unix.NFT_META_NFPROTO, unix.NFT_META_PROTOCOL:
				l.what = "family"
			}
		}
	})
	return l
}

// bitsOf a mask that is a prefix's; else -1.
func bitsOf(body []byte) int {
	var mask []byte
	attributes(body, func(d *netlink.AttributeDecoder) {
		if d.Type() == unix.NFTA_BITWISE_MASK {
			mask = valueOf(d.Bytes())
		}
	})
	return maskBits(mask)
}

// maskBits of a prefix's mask; -1 of others, and of nothing.
func maskBits(mask []byte) int {
	ones, _ := net.IPMask(mask).Size() // 0, 0 of what is no prefix's
	if ones == 0 {
		return -1
	}
	return ones
}

// valueOf nested NFTA_DATA_VALUE.
func valueOf(body []byte) (value []byte) {
	attributes(body, func(d *netlink.AttributeDecoder) {
		if d.Type() == unix.NFTA_DATA_VALUE {
			value = d.Bytes()
		}
	})
	return value
}

// compare narrows what the rule matches. What it must not be is left out: the rule
// concerns more than it is taken for, never less.
func (x *rule) compare(body []byte, l load) {
	var value []byte
	equal := true
	attributes(body, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.NFTA_CMP_OP:
			equal = number(d) == unix.NFT_CMP_EQ
		case unix.NFTA_CMP_DATA:
			value = valueOf(d.Bytes())
		}
	})
	if !equal {
		x.more = true
		return
	}
	switch l.what {
	case "saddr":
		x.source = narrow(x.source, value, l)
	case "daddr":
		x.destination = narrow(x.destination, value, l)
	case "family":
		x.family(value)
	case "l4proto":
		if len(value) == 1 {
			x.protocol = value[0]
		}
	case "dport":
		if len(value) == 2 {
			x.port = binary.BigEndian.Uint16(value)
		}
	}
}

// family of meta nfproto: of what family a rule's sources are.
func (x *rule) family(value []byte) {
	if len(value) == 1 && !x.source.IsValid() {
		x.source = anyOf(value[0])
	}
}

// anyOf a family's addresses; invalid of others.
func anyOf(family byte) netip.Prefix {
	switch family {
	case unix.NFPROTO_IPV4:
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	case unix.NFPROTO_IPV6:
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.Prefix{}
}

// narrow is what both ask for; where they have nothing in common, the second.
func narrow(before netip.Prefix, value []byte, l load) netip.Prefix {
	full := make([]byte, l.size)
	copy(full, value) // nft loads no more bytes than a prefix has
	a, _ := netip.AddrFromSlice(full)
	now, err := a.Prefix(min(l.bits, a.BitLen()))
	if err != nil || before.IsValid() && before.Bits() > now.Bits() && before.Overlaps(now) {
		return before
	}
	return now
}

// takes the packets of a source away from the rules behind it, all of them.
func (x *rule) takes() bool {
	return x.ends && !x.more && x.source.IsValid() && !x.destination.IsValid() && x.protocol == 0 && x.port == 0
}

// verdictOf an immediate: the chain that it leads to, or whether it ends this one.
func verdictOf(body []byte) (name string, ends bool) {
	attributes(body, func(d *netlink.AttributeDecoder) {
		if d.Type() != unix.NFTA_IMMEDIATE_DATA {
			return
		}
		attributes(d.Bytes(), func(d *netlink.AttributeDecoder) {
			if d.Type() != unix.NFTA_DATA_VERDICT {
				return
			}
			attributes(d.Bytes(), func(d *netlink.AttributeDecoder) {
				switch d.Type() {
				case unix.NFTA_VERDICT_CHAIN:
					name = d.String()
				case unix.NFTA_VERDICT_CODE:
					switch int32(number(d)) {
					case 0, 1, unix.NFT_RETURN: // NF_DROP, NF_ACCEPT
						ends = true
					}
				}
			})
		})
	})
	return name, ends
}

// xt is an extension of iptables: name and data.
func xt(body []byte) (name string, info []byte) {
	attributes(body, func(d *netlink.AttributeDecoder) {
		switch d.Type() { // NFTA_MATCH_* and NFTA_TARGET_* alike
		case unix.NFTA_TARGET_NAME:
			name = d.String()
		case unix.NFTA_TARGET_INFO:
			info = d.Bytes()
		}
	})
	return name, info
}

// xtMatch reads the comment, and the destination port of tcp and udp.
func (x *rule) xtMatch(name string, info []byte) {
	switch {
	case name == "comment":
		text, _, _ := strings.Cut(string(info), "\x00")
		x.comment = text
	case (name == "tcp" || name == "udp") && len(info) >= 8:
		// struct xt_udp { u16 spts[2], dpts[2]; …}, in the host's byte order
		at := func(i int) uint16 { return binary.NativeEndian.Uint16(info[2*i:]) }
		if at(0) != 0 || at(1) != 0xffff {
			x.more = true
		}
		switch {
		case at(2) == at(3):
			x.port = at(2)
		case at(2) != 0 || at(3) != 0xffff:
			x.more = true
		}
	default:
		x.more = true
	}
}

func (x *rule) xtTarget(name string, info []byte) {
	const notrack = 1 // XT_CT_NOTRACK, in the first word of struct xt_ct_target_info
	switch name {
	case "MASQUERADE", "SNAT", "NETMAP":
		x.effect = conflict.Translates
	case "NOTRACK":
		x.effect = conflict.Untracks
	case "CT":
		if len(info) >= 2 && binary.NativeEndian.Uint16(info)&notrack != 0 {
			x.effect = conflict.Untracks
		}
	}
}
