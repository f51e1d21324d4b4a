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

// fieldValues remembers what the packet's fields are as values: rules ask for the
// same ones again and again.
type fieldValues struct {
	source, destination  addressValue
	numbers              [8]numberValue
	sourcePort, destPort numberValue
}

type addressValue struct {
	of    netip.Addr
	value nftables.Value
}

func (v *addressValue) get(a netip.Addr) nftables.Value {
	if v.of != a {
		v.of, v.value = a, nftables.Value(a.AsSlice())
	}
	return v.value
}

type numberValue struct {
	of    uint32
	value nftables.Value
}

// number32 is a mark, a state or the like.
func (v *fieldValues) number32(n uint32) nftables.Value {
	at := &v.numbers[n%uint32(len(v.numbers))]
	if at.of != n || at.value == "" {
		*at = numberValue{n, number32(n)}
	}
	return at.value
}

func (v *numberValue) port(n uint16) nftables.Value {
	if v.of != uint32(n) || v.value == "" {
		*v = numberValue{uint32(n), number16(n)}
	}
	return v.value
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
