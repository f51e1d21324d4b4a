package nft

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
)

// nft's numbers for types (nftables, include/datatype.h); the kernel only stores them.
const (
	typeInteger     = 4
	typeIPv4        = 7
	typeIPv6        = 8
	typeInetProto   = 12
	typeInetService = 13
	typeVerdict     = 0xffffff00 // NFT_DATA_VERDICT
	concatBits      = 6
)

// elementBytes ends a message's list of elements well below the 64 KiB that a
// nested attribute can hold. Elements of a verdict map with long names take 300 bytes.
const elementBytes = 32 << 10

// names gives chains and sets the suffix of their generation. A generation is a
// whole policy under names of its own: it is built beside the one in force,
// then the base chain's rules are exchanged, then the old one is deleted.
type names struct{ generation int }

func (n names) name(s string) string {
	if n.generation == 0 || s == plan.BaseChain || s == plan.Layout {
		return s
	}
	return fmt.Sprintf("%s.g%d", s, n.generation)
}

// writer adds what a table needs to a batch.
type writer struct {
	batch
	names
	table string
	sets  uint32 // numbers given to anonymous sets
	err   error
}

func (w *writer) addTable(flags uint32) {
	w.add("table "+w.table, unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, func(b []byte) []byte {
		b = attrString(b, unix.NFTA_TABLE_NAME, w.table)
		return attrU32(b, unix.NFTA_TABLE_FLAGS, flags)
	})
}

func (w *writer) deleteTable() {
	w.add("delete table "+w.table, unix.NFT_MSG_DELTABLE, 0, func(b []byte) []byte {
		return attrString(b, unix.NFTA_TABLE_NAME, w.table)
	})
}

func (w *writer) addCounter(name string, v Count) {
	w.add("counter "+name, unix.NFT_MSG_NEWOBJ, unix.NLM_F_CREATE, func(b []byte) []byte {
		b = attrString(b, unix.NFTA_OBJ_TABLE, w.table)
		b = attrString(b, unix.NFTA_OBJ_NAME, name)
		b = attrU32(b, unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
		b, at := nest(b, unix.NFTA_OBJ_DATA)
		b = attrU64(b, unix.NFTA_COUNTER_BYTES, v.Bytes)
		b = attrU64(b, unix.NFTA_COUNTER_PACKETS, v.Packets)
		return end(b, at)
	})
}

func (w *writer) deleteObject(x object) {
	w.add("delete object "+x.name, unix.NFT_MSG_DELOBJ, 0, func(b []byte) []byte {
		b = attrString(b, unix.NFTA_OBJ_TABLE, w.table)
		b = attrString(b, unix.NFTA_OBJ_NAME, x.name)
		return attrU32(b, unix.NFTA_OBJ_TYPE, x.typ)
	})
}

func (w *writer) addChain(c *plan.Chain) {
	w.add("chain "+c.Name, unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, func(b []byte) []byte {
		b = attrString(b, unix.NFTA_CHAIN_TABLE, w.table)
		b = attrString(b, unix.NFTA_CHAIN_NAME, w.name(c.Name))
		if !c.Base {
			return b
		}
		priority := int32(plan.Priority)
		b, at := nest(b, unix.NFTA_CHAIN_HOOK)
		b = attrU32(b, unix.NFTA_HOOK_HOOKNUM, unix.NF_INET_POST_ROUTING)
		b = attrU32(b, unix.NFTA_HOOK_PRIORITY, uint32(priority))
		b = end(b, at)
		b = attrU32(b, unix.NFTA_CHAIN_POLICY, nfAccept)
		return attrString(b, unix.NFTA_CHAIN_TYPE, "nat")
	})
}

// deleteChain takes the chain's full name.
func (w *writer) deleteChain(name string) {
	w.add("delete chain "+name, unix.NFT_MSG_DELCHAIN, 0, func(b []byte) []byte {
		b = attrString(b, unix.NFTA_CHAIN_TABLE, w.table)
		return attrString(b, unix.NFTA_CHAIN_NAME, name)
	})
}

// flushChain takes the chain's full name.
func (w *writer) flushChain(name string) {
	w.add("flush chain "+name, unix.NFT_MSG_DELRULE, 0, func(b []byte) []byte {
		b = attrString(b, unix.NFTA_RULE_TABLE, w.table)
		return attrString(b, unix.NFTA_RULE_CHAIN, name)
	})
}

func (w *writer) addRules(c *plan.Chain) {
	enc := ruleEncoder{w.names, w.addAnonymous}
	for i := range c.Rules {
		r := &c.Rules[i]
		expressions, err := enc.expressions(nil, r.Statements)
		if err != nil && w.err == nil {
			w.err = fmt.Errorf("chain %s, rule %d: %w", c.Name, i+1, err)
		}
		what := fmt.Sprintf("rule %d of chain %s", i+1, c.Name)
		w.add(what, unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, func(b []byte) []byte {
			b = attrString(b, unix.NFTA_RULE_TABLE, w.table)
			b = attrString(b, unix.NFTA_RULE_CHAIN, w.name(c.Name))
			b = attr(b, unix.NFTA_RULE_EXPRESSIONS|unix.NLA_F_NESTED, expressions...)
			if r.Comment != "" {
				b = attr(b, unix.NFTA_RULE_USERDATA, commentData(r.Comment)...)
			}
			return b
		})
	}
}

// udataHostByteOrder tells nft how to print keys that are numbers:
// NFTNL_UDATA_SET_KEYBYTEORDER, length 4, BYTEORDER_HOST_ENDIAN.
var udataHostByteOrder = []byte{0, 4, 1, 0, 0, 0}

// udataComment is NFTNL_UDATA_RULE_COMMENT: type, length, text with its NUL.
const udataComment = 0

func commentData(s string) []byte {
	b := []byte{udataComment, byte(len(s) + 1)}
	return append(append(b, s...), 0)
}

func (w *writer) addSet(s *plan.Set) {
	typ, size := keyType(s.Key)
	var flags uint32
	if s.Interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if s.Map {
		flags |= unix.NFT_SET_MAP
	}
	w.sets++
	id := w.sets
	w.add("set "+s.Name, unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, func(b []byte) []byte {
		b = setHead(b, w.table, w.name(s.Name), flags, typ, size, id)
		if s.Map {
			b = attrU32(b, unix.NFTA_SET_DATA_TYPE, typeVerdict)
			b = attrU32(b, unix.NFTA_SET_DATA_LEN, 16)
		}
		return b
	})
	w.addElements(s, s.Elements)
}

func setHead(b []byte, table, name string, flags, typ, size, id uint32) []byte {
	b = attrString(b, unix.NFTA_SET_TABLE, table)
	b = attrString(b, unix.NFTA_SET_NAME, name)
	b = attrU32(b, unix.NFTA_SET_FLAGS, flags)
	b = attrU32(b, unix.NFTA_SET_KEY_TYPE, typ)
	b = attrU32(b, unix.NFTA_SET_KEY_LEN, size)
	return attrU32(b, unix.NFTA_SET_ID, id)
}

// deleteSet takes the set's full name.
func (w *writer) deleteSet(name string) {
	w.add("delete set "+name, unix.NFT_MSG_DELSET, 0, func(b []byte) []byte {
		b = attrString(b, unix.NFTA_SET_TABLE, w.table)
		return attrString(b, unix.NFTA_SET_NAME, name)
	})
}

func (w *writer) addElements(s *plan.Set, elements []plan.Element) {
	w.elements("elements of set "+s.Name, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, s, elements)
}

func (w *writer) deleteElements(s *plan.Set, elements []plan.Element) {
	w.elements("delete elements of set "+s.Name, unix.NFT_MSG_DELSETELEM, 0, s, elements)
}

func (w *writer) elements(what string, typ, flags uint16, s *plan.Set, elements []plan.Element) {
	for len(elements) > 0 {
		w.add(what, typ, flags, func(b []byte) []byte {
			b = attrString(b, unix.NFTA_SET_ELEM_LIST_TABLE, w.table)
			b = attrString(b, unix.NFTA_SET_ELEM_LIST_SET, w.name(s.Name))
			b, at := nest(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
			for len(elements) > 0 && len(b)-at < elementBytes {
				b = w.element(b, s, &elements[0])
				elements = elements[1:]
			}
			return end(b, at)
		})
	}
}

// element appends a key, or in an interval set the range's start and the key
// after its end. A range up to the last key has no end.
func (w *writer) element(b []byte, s *plan.Set, e *plan.Element) []byte {
	b, at := nest(b, unix.NFTA_LIST_ELEM)
	b, key := nest(b, unix.NFTA_SET_ELEM_KEY)
	b = end(attrKey(b, unix.NFTA_DATA_VALUE, e.First), key)
	if s.Map {
		b = w.verdictData(b, e.Verdict)
	}
	b = end(b, at)
	if !s.Interval {
		return b
	}
	after, ok := successor(e.Last)
	if !ok {
		return b
	}
	b, at = nest(b, unix.NFTA_LIST_ELEM)
	b = attrU32(b, unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
	b, key = nest(b, unix.NFTA_SET_ELEM_KEY)
	b = end(attrKey(b, unix.NFTA_DATA_VALUE, after), key)
	return end(b, at)
}

func (w *writer) verdictData(b []byte, v plan.Verdict) []byte {
	b, data := nest(b, unix.NFTA_SET_ELEM_DATA)
	b, verdict := nest(b, unix.NFTA_DATA_VERDICT)
	b = attrU32(b, unix.NFTA_VERDICT_CODE, uint32(verdictCode(v.Kind)))
	if v.Chain != "" {
		b = attrString(b, unix.NFTA_VERDICT_CHAIN, w.name(v.Chain))
	}
	return end(end(b, verdict), data)
}

// successor is the next key; false behind the last.
func successor(key string) (string, bool) {
	b := []byte(key)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return string(b), true
		}
	}
	return "", false
}

// addAnonymous adds a constant set that lives as long as the next rule.
func (w *writer) addAnonymous(s anonymousSet) uint32 {
	w.sets++
	id := w.sets
	flags := uint32(unix.NFT_SET_ANONYMOUS | unix.NFT_SET_CONSTANT)
	if s.dataType != 0 {
		flags |= unix.NFT_SET_MAP
	}
	w.add("anonymous set", unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, func(b []byte) []byte {
		b = setHead(b, w.table, s.name(), flags, s.keyType, s.keySize, id)
		b = attr(b, unix.NFTA_SET_USERDATA, udataHostByteOrder...)
		if s.dataType != 0 {
			b = attrU32(b, unix.NFTA_SET_DATA_TYPE, s.dataType)
			b = attrU32(b, unix.NFTA_SET_DATA_LEN, s.dataSize)
		}
		return b
	})
	w.add("elements of an anonymous set", unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, func(b []byte) []byte {
		b = attrString(b, unix.NFTA_SET_ELEM_LIST_TABLE, w.table)
		b = attrString(b, unix.NFTA_SET_ELEM_LIST_SET, s.name())
		b = attrU32(b, unix.NFTA_SET_ELEM_LIST_SET_ID, id)
		b, list := nest(b, unix.NFTA_SET_ELEM_LIST_ELEMENTS)
		for i, key := range s.keys {
			var at, inner int
			b, at = nest(b, unix.NFTA_LIST_ELEM)
			b, inner = nest(b, unix.NFTA_SET_ELEM_KEY)
			b = end(attr(b, unix.NFTA_DATA_VALUE, key...), inner)
			if s.dataType != 0 {
				b, inner = nest(b, unix.NFTA_SET_ELEM_DATA)
				b = end(attr(b, unix.NFTA_DATA_VALUE, s.values[i]...), inner)
			}
			b = end(b, at)
		}
		return end(b, list)
	})
	return id
}

func keyType(k plan.KeyType) (typ, size uint32) {
	switch k {
	case plan.IPv4Addr:
		return typeIPv4, 4
	case plan.IPv6Addr:
		return typeIPv6, 16
	case plan.IPv4Pair:
		return typeIPv4<<concatBits | typeIPv4, 8
	case plan.IPv6Pair:
		return typeIPv6<<concatBits | typeIPv6, 32
	default:
		return typeInetService, 2
	}
}

func addrType(f packet.Family) uint32 {
	if f == packet.IPv6Family {
		return typeIPv6
	}
	return typeIPv4
}
