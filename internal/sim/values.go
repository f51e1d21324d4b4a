package sim

import (
	"encoding/binary"
	"net/netip"

	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

func number32(n uint32) nftables.Value {
	return nftables.Value(binary.BigEndian.AppendUint32(nil, n))
}

func number8(n uint8) nftables.Value { return nftables.Value([]byte{n}) }

// fieldValues remembers the packet's fields as values: rules ask for the same few
// again and again, in all runs.
type fieldValues struct {
	addresses [8]addressValue
	numbers   [16]numberValue
	ports     [4]numberValue
}

type addressValue struct {
	of    netip.Addr
	value nftables.Value
}

type numberValue struct {
	of    uint32
	value nftables.Value
}

func (v *fieldValues) address(a netip.Addr) nftables.Value {
	last := a.As16()[15]
	at := &v.addresses[(last^last>>3)%uint8(len(v.addresses))]
	if at.of != a {
		*at = addressValue{a, nftables.Value(a.AsSlice())}
	}
	return at.value
}

// number32 is a mark, a state or the like: one bit, mostly.
func (v *fieldValues) number32(n uint32) nftables.Value {
	at := &v.numbers[n*0x9e3779b1>>28] // Fibonacci hashing
	if at.of != n || at.value == "" {
		*at = numberValue{n, number32(n)}
	}
	return at.value
}

func (v *fieldValues) port(n uint16) nftables.Value {
	at := &v.ports[(n^n>>2)%uint16(len(v.ports))]
	if at.of != uint32(n) || at.value == "" {
		*at = numberValue{uint32(n), number16(n)}
	}
	return at.value
}

func number16(n uint16) nftables.Value {
	return nftables.Value(binary.BigEndian.AppendUint16(nil, n))
}

// interfaceName is a name as registers hold it.
func interfaceName(name string) nftables.Value {
	var b [16]byte
	copy(b[:15], name)
	return nftables.Value(b[:])
}

func contains(set []nftables.Interval, v nftables.Value) bool {
	for i := range set {
		if set[i].Contains(v) {
			return true
		}
	}
	return false
}
