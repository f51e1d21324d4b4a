package nft

import (
	"encoding/binary"
	"fmt"
	"net"
	"strings"

	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
)

// Registers and constants that x/sys/unix and the expr package don't name.
const (
	reg1       = 1 // 16 bytes, also 32-bit registers 8 to 11
	reg2       = 2
	reg32At1   = 9 // the second 32-bit register within reg1
	nfAccept   = 1 // NF_ACCEPT
	rtXFRM     = 4 // NFT_RT_XFRM: 1 where the route has a transformation
	ctDNATed   = 1 << 5
	ctOriginal = 0    // IP_CT_DIR_ORIGINAL
	protoUse   = 0x2  // NF_NAT_RANGE_PROTO_SPECIFIED
	protoRand  = 0x10 // NF_NAT_RANGE_PROTO_RANDOM_FULLY
)

// ruleEncoder turns statements into the kernel's expressions, as nft does: the
// same text from `nft list`, and the same instructions.
type ruleEncoder struct {
	names
	// anonymous adds a constant set to the batch, before the rule that needs it,
	// and returns its number in the batch.
	anonymous func(anonymousSet) (id uint32)
}

// anonymousSet belongs to one rule: `{ tcp, udp }`, or the map behind a hash.
type anonymousSet struct {
	keyType, keySize   uint32
	dataType, dataSize uint32 // 0 for a set
	keys, values       [][]byte
}

// name is a template that the kernel fills in.
func (a anonymousSet) name() string {
	if a.dataType != 0 {
		return "__map%d"
	}
	return "__set%d"
}

// expressions is the payload of NFTA_RULE_EXPRESSIONS.
func (e ruleEncoder) expressions(b []byte, statements []plan.Statement) ([]byte, error) {
	for _, s := range statements {
		if m, ok := s.(plan.Masquerade); ok {
			b = e.masquerade(b, m)
			continue
		}
		b = original(b, s)
		for _, x := range e.statement(s) {
			data, err := expr.Marshal(unix.NFPROTO_INET, x)
			if err != nil {
				return nil, fmt.Errorf("encode %T: %w", s, err)
			}
			b = attr(b, unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, data...)
		}
	}
	return b, nil
}

func (e ruleEncoder) statement(s plan.Statement) []expr.Any {
	switch s := s.(type) {
	case plan.OutLoopback:
		return meta(expr.MetaKeyOIF, native32(1)) // lo is 1 in every namespace
	case plan.NoInput:
		return meta(expr.MetaKeyIIF, native32(0))
	case plan.SourceIsLocal:
		return []expr.Any{&expr.Fib{Register: reg1, FlagSADDR: true, ResultADDRTYPE: true}, equal(native32(unix.RTN_LOCAL))}
	case plan.OutInterface:
		return meta(expr.MetaKeyOIFNAME, interfaceName(s.Name))
	case plan.NFProto:
		return nfproto(s.Family)
	case plan.L4Proto:
		return e.l4proto(s)
	case plan.InSet:
		return append(append(load(s.Family, s.Field), masked(s.Family, s.Bits)...), &expr.Lookup{SourceRegister: reg1, SetName: e.name(s.Set), Invert: s.Not})
	case plan.VerdictMap:
		return append(append(load(s.Family, s.Field), masked(s.Family, s.Bits)...),
			&expr.Lookup{SourceRegister: reg1, DestRegister: 0, IsDestRegSet: true, SetName: e.name(s.Map)})
	case plan.DNATed:
		return append([]expr.Any{&expr.Ct{Key: expr.CtKeySTATUS, Register: reg1}}, bits(ctDNATed, expr.CmpOpNeq, 0)...)
	case plan.IPsec:
		return []expr.Any{&expr.Rt{Key: rtXFRM, Register: reg1}, equal([]byte{1})}
	case plan.MarkIs:
		return append([]expr.Any{&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1}}, bits(s.Mark.Mask, expr.CmpOpEq, s.Mark.Value)...)
	case plan.ClearMark:
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1},
			&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: native32(^s.Mask), Xor: native32(0)},
			&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg1},
		}
	case plan.Count:
		return []expr.Any{&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: s.Counter}}
	case plan.Verdict:
		return []expr.Any{e.verdict(s)}
	case plan.Keep:
		return append(load(s.Family, plan.SourceAddress), sourceNAT(s.Family, false))
	case plan.SNAT:
		return e.snat(s)
	}
	panic(fmt.Sprintf("statement %T has no expressions", s))
}

func meta(key expr.MetaKey, value []byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: reg1}, equal(value)}
}

func equal(value []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: value}
}

func bits(mask uint32, op expr.CmpOp, value uint32) []expr.Any {
	return []expr.Any{
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: native32(mask), Xor: native32(0)},
		&expr.Cmp{Op: op, Register: reg1, Data: native32(value)},
	}
}

func nfproto(f packet.Family) []expr.Any {
	if f == packet.IPv4Family {
		return meta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV4})
	}
	return meta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV6})
}

func (e ruleEncoder) l4proto(s plan.L4Proto) []expr.Any {
	if len(s.Protocols) == 1 {
		return meta(expr.MetaKeyL4PROTO, s.Protocols)
	}
	set := anonymousSet{keyType: typeInetProto, keySize: 1}
	for _, p := range s.Protocols {
		set.keys = append(set.keys, []byte{p})
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Lookup{SourceRegister: reg1, SetName: set.name(), SetID: e.anonymous(set)},
	}
}

// load puts a field into reg1. Fields of an IP header are loaded only from
// packets of that family; port fields expect an L4Proto before them.
func load(f packet.Family, field plan.Field) []expr.Any {
	network := func(register uint32, source bool) expr.Any {
		offset, size := uint32(12), uint32(4)
		if f == packet.IPv6Family {
			offset, size = 8, 16
		}
		if !source {
			offset += size
		}
		return &expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size}
	}
	transport := func(offset uint32) []expr.Any {
		return []expr.Any{&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseTransportHeader, Offset: offset, Len: 2}}
	}
	switch field {
	case plan.SourceAddress:
		return append(nfproto(f), network(reg1, true))
	case plan.DestinationAddress:
		return append(nfproto(f), network(reg1, false))
	case plan.BothAddresses:
		second := uint32(reg32At1)
		if f == packet.IPv6Family {
			second = reg2
		}
		return append(nfproto(f), network(reg1, true), network(second, false))
	case plan.OriginalDestination, plan.OriginalPort:
		return nil // see original
	case plan.SourcePort:
		return transport(0)
	default:
		return transport(2)
	}
}

// original puts what conntrack knows of the connection's first packet into reg1,
// where a lookup asks for it. Package expr sends no direction with addresses of one
// family, which the kernel refuses. Packets of another family don't match.
func original(b []byte, s plan.Statement) []byte {
	var field plan.Field
	var family packet.Family
	switch s := s.(type) {
	case plan.InSet:
		field, family = s.Field, s.Family
	case plan.VerdictMap:
		field, family = s.Field, s.Family
	}
	key := uint32(unix.NFT_CT_PROTO_DST)
	switch {
	case field == plan.OriginalDestination && family == packet.IPv6Family:
		key = unix.NFT_CT_DST_IP6
	case field == plan.OriginalDestination:
		key = unix.NFT_CT_DST_IP
	case field != plan.OriginalPort:
		return b
	}
	b, elem := nest(b, unix.NFTA_LIST_ELEM)
	b = attrString(b, unix.NFTA_EXPR_NAME, "ct")
	b, data := nest(b, unix.NFTA_EXPR_DATA)
	b = attrU32(b, unix.NFTA_CT_KEY, key)
	b = attrU32(b, unix.NFTA_CT_DREG, reg1)
	b = attr(b, unix.NFTA_CT_DIRECTION, ctOriginal)
	return end(end(b, data), elem)
}

// masked reduces the address in reg1 to a prefix.
func masked(f packet.Family, bits int) []expr.Any {
	size := 4
	if f == packet.IPv6Family {
		size = 16
	}
	if bits == 0 || bits == 8*size {
		return nil
	}
	return []expr.Any{&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: uint32(size),
		Mask: net.CIDRMask(bits, 8*size), Xor: make([]byte, size)}}
}

func (e ruleEncoder) verdict(v plan.Verdict) expr.Any {
	x := &expr.Verdict{Kind: expr.VerdictKind(int32(verdictCode(v.Kind)))}
	if v.Chain != "" {
		x.Chain = e.name(v.Chain)
	}
	return x
}

func verdictCode(k plan.VerdictKind) int32 {
	switch k {
	case plan.Goto:
		return unix.NFT_GOTO
	case plan.Jump:
		return unix.NFT_JUMP
	case plan.Return:
		return unix.NFT_RETURN
	default:
		return nfAccept
	}
}

func sourceNAT(f packet.Family, fullyRandom bool) expr.Any {
	family := uint32(unix.NFPROTO_IPV4)
	if f == packet.IPv6Family {
		family = unix.NFPROTO_IPV6
	}
	return &expr.NAT{Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: reg1, FullyRandom: fullyRandom}
}

func (e ruleEncoder) snat(s plan.SNAT) []expr.Any {
	if len(s.Addresses) == 1 {
		return []expr.Any{
			&expr.Immediate{Register: reg1, Data: s.Addresses[0].AsSlice()},
			sourceNAT(s.Family, s.FullyRandom),
		}
	}
	// The source goes to reg2, as nft has it, and its hash to reg1.
	xs := load(s.Family, plan.SourceAddress)
	source := xs[len(xs)-1].(*expr.Payload)
	source.DestRegister = reg2
	set := anonymousSet{keyType: typeInteger, keySize: 4, dataType: addrType(s.Family), dataSize: source.Len}
	for i, a := range s.Addresses {
		set.keys = append(set.keys, native32(uint32(i)))
		set.values = append(set.values, a.AsSlice())
	}
	return append(xs,
		&expr.Hash{SourceRegister: reg2, DestRegister: reg1, Length: source.Len, Modulus: uint32(len(s.Addresses)), Seed: policy.HashSeed, Type: expr.HashTypeJenkins},
		&expr.Lookup{SourceRegister: reg1, DestRegister: reg1, IsDestRegSet: true, SetName: set.name(), SetID: e.anonymous(set)},
		sourceNAT(s.Family, s.FullyRandom))
}

// masquerade is encoded here, not by package expr, which sends a port range
// without the flag that makes the kernel heed it.
func (e ruleEncoder) masquerade(b []byte, m plan.Masquerade) []byte {
	var flags uint32
	if m.FullyRandom {
		flags |= protoRand
	}
	ranged := m.Ports != (policy.PortRange{})
	if ranged {
		flags |= protoUse
		b = immediatePort(b, reg1, m.Ports.First)
		b = immediatePort(b, reg2, m.Ports.Last)
	}
	b, elem := nest(b, unix.NFTA_LIST_ELEM)
	b = attrString(b, unix.NFTA_EXPR_NAME, "masq")
	b, data := nest(b, unix.NFTA_EXPR_DATA)
	if flags != 0 {
		b = attrU32(b, unix.NFTA_MASQ_FLAGS, flags)
	}
	if ranged {
		b = attrU32(b, unix.NFTA_MASQ_REG_PROTO_MIN, reg1)
		b = attrU32(b, unix.NFTA_MASQ_REG_PROTO_MAX, reg2)
	}
	return end(end(b, data), elem)
}

func immediatePort(b []byte, register uint32, port uint16) []byte {
	b, elem := nest(b, unix.NFTA_LIST_ELEM)
	b = attrString(b, unix.NFTA_EXPR_NAME, "immediate")
	b, data := nest(b, unix.NFTA_EXPR_DATA)
	b = attrU32(b, unix.NFTA_IMMEDIATE_DREG, register)
	b, value := nest(b, unix.NFTA_IMMEDIATE_DATA)
	b = attr(b, unix.NFTA_DATA_VALUE, byte(port>>8), byte(port))
	return end(end(end(b, value), data), elem)
}

// interfaceName is a comparison's operand: 16 bytes with the final NULs, or with
// a trailing * only what must be equal.
func interfaceName(name string) []byte {
	if prefix, ok := strings.CutSuffix(name, "*"); ok {
		return []byte(prefix)
	}
	return append([]byte(name), make([]byte, unix.IFNAMSIZ-len(name))...)
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
