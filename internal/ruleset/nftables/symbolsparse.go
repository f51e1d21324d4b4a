package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset/names"
)

// appendValue appends the bytes of one value. Errors name text and datatype.
func appendValue(dst []byte, d Datatype, text string) ([]byte, error) {
	switch d.Name {
	case "ipv4_addr", "ipv6_addr":
		return appendAddress(dst, d, text)
	case "ether_addr":
		return appendHardware(dst, d, text)
	case "ifname", "string":
		return appendName(dst, d, text)
	case "iface_index":
		return appendInterface(dst, d, text)
	}
	if d.Bytes == 0 {
		return dst, bad(d, text, "the length of its values isn't known")
	}
	n, err := integer(d, unquoted(text))
	if err != nil {
		return dst, bad(d, text, err.Error())
	}
	return appendInteger(dst, d, n)
}

// bad is the error for a literal that isn't of the datatype.
func bad(d Datatype, text, why string) error { return fmt.Errorf("%q as %s: %s", text, d.Name, why) }

func unquoted(text string) string {
	if len(text) >= 2 && text[0] == '"' && text[len(text)-1] == '"' {
		return text[1 : len(text)-1]
	}
	return text
}

func appendAddress(dst []byte, d Datatype, text string) ([]byte, error) {
	a, err := netip.ParseAddr(unquoted(text))
	switch {
	case err != nil:
		return dst, bad(d, text, "no address")
	case a.Zone() != "":
		return dst, bad(d, text, "an address with a zone")
	case a.Is4() != (d.Name == "ipv4_addr"):
		return dst, bad(d, text, "an address of the other family")
	case a.Is4():
		b := a.As4()
		return append(dst, b[:]...), nil
	}
	b := a.As16()
	return append(dst, b[:]...), nil
}

// appendHardware reads 0a:00:27:00:00:00; nft takes single digits too.
func appendHardware(dst []byte, d Datatype, text string) ([]byte, error) {
	rest, parts := unquoted(text), 0
	for more := true; more; parts++ {
		var digits string
		digits, rest, more = strings.Cut(rest, ":")
		b, err := strconv.ParseUint(digits, 16, 8)
		if err != nil || len(digits) > 2 {
			return dst, bad(d, text, "no hardware address")
		}
		dst = append(dst, byte(b))
	}
	if parts != d.Bytes {
		return dst, bad(d, text, "no hardware address of 6 bytes")
	}
	return dst, nil
}

// appendName pads with zeros. A star at the end that stands for itself is \*.
func appendName(dst []byte, d Datatype, text string) ([]byte, error) {
	name := unquoted(text)
	if s, escaped := strings.CutSuffix(name, `\*`); escaped {
		name = s + "*"
	}
	switch {
	case name == "":
		return dst, bad(d, text, "empty")
	case len(name) >= d.Bytes: // the kernel ends names with a zero
		return dst, bad(d, text, "longer than a name can be")
	case strings.IndexByte(name, 0) >= 0:
		return dst, bad(d, text, "a name with a zero byte")
	}
	dst = append(dst, name...)
	for range d.Bytes - len(name) {
		dst = append(dst, 0)
	}
	return dst, nil
}

// appendInterface reads a name, or 0, which is no interface: an empty name. Other
// indexes are those of the node.
func appendInterface(dst []byte, d Datatype, text string) ([]byte, error) {
	n, err := number(text)
	switch {
	case err != nil: // also "7" in quotes, which is a name
		return appendName(dst, d, text)
	case n == 0:
		return append(dst, make([]byte, d.Bytes)...), nil
	}
	return dst, bad(d, text, "the name of the interface with this index isn't known")
}

// appendInteger writes a number in the datatype's bytes.
func appendInteger(dst []byte, d Datatype, n wide) ([]byte, error) {
	if n.bits() > d.width() {
		return dst, fmt.Errorf("%s as %s: more than %d bits", n, d.Name, d.width())
	}
	if n.big == nil && d.Bytes <= 8 {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], n.small)
		return append(dst, b[8-d.Bytes:]...), nil
	}
	at := len(dst)
	dst = append(dst, make([]byte, d.Bytes)...)
	n.int().FillBytes(dst[at:])
	return dst, nil
}

var errName = errors.New("a name that only the node knows, or none that nft prints")

// integer reads a number or symbol of a datatype.
func integer(d Datatype, text string) (wide, error) {
	if n, known := symbols[d.Name][text]; known {
		return wide{small: n}, nil
	}
	switch d.Name {
	case "inet_service":
		if port, known := names.Service(text); known {
			return wide{small: uint64(port)}, nil
		}
	case "inet_proto":
		if text == "ip" {
			return wide{}, nil
		}
		if n, known := names.Protocol(text); known {
			return wide{small: uint64(n)}, nil
		}
	case "ct_label":
		return labelBit(text)
	case "classid":
		if n, ok := classID(text); ok {
			return wide{small: n}, nil
		}
	case "time":
		if d.Bytes == relativeTime.Bytes {
			ms, err := milliseconds(text)
			return wide{small: ms}, err
		}
		return wide{}, errors.New("dates depend on the node's time zone")
	case "hour":
		return wide{}, errors.New("hours depend on the node's time zone")
	}
	if n, err := number(text); err == nil {
		return wide{small: n}, nil
	}
	if d.Bytes > 8 && text != "" && text[0] >= '0' && text[0] <= '9' && !strings.Contains(text, "_") {
		if n, ok := new(big.Int).SetString(text, 0); ok {
			return wide{big: n}, nil
		}
	}
	return wide{}, errName
}

// number reads as nft does: decimal, 0x, and octal after a zero.
func number(text string) (uint64, error) {
	if text == "" || text[0] < '0' || text[0] > '9' || strings.IndexByte(text, '_') >= 0 {
		return 0, errName
	}
	if len(text) > 1 && text[0] == '0' && strings.IndexByte("oObB", text[1]) >= 0 {
		return 0, errName
	}
	return strconv.ParseUint(text, 0, 64)
}

// labelBit: labels are printed by the number of their bit.
func labelBit(text string) (wide, error) {
	bit, err := number(text)
	if err != nil || bit > 127 {
		return wide{}, errName
	}
	return wide{big: new(big.Int).Lsh(big.NewInt(1), uint(bit))}, nil
}

// classID reads MAJOR:MINOR, hexadecimal.
func classID(text string) (uint64, bool) {
	major, minor, both := strings.Cut(text, ":")
	if !both {
		return 0, false
	}
	high, err1 := strconv.ParseUint("0"+major, 16, 16)
	low, err2 := strconv.ParseUint("0"+minor, 16, 16)
	return high<<16 | low, err1 == nil && err2 == nil
}

// units of times, longest word first; unitLength is how long each is in milliseconds.
var (
	units      = [...]string{"ms", "w", "d", "h", "m", "s"}
	unitLength = [...]uint64{1, 604_800_000, 86_400_000, 3_600_000, 60_000, 1000}
)

// milliseconds reads 1d2h3m4s500ms, and seconds without a unit.
func milliseconds(text string) (uint64, error) {
	if n, err := number(text); err == nil && n < 1<<32 {
		return n * 1000, nil
	}
	var total uint64
	for rest := text; ; {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		n, err := strconv.ParseUint(rest[:digits], 10, 32)
		rest = rest[digits:]
		unit := slices.IndexFunc(units[:], func(u string) bool { return strings.HasPrefix(rest, u) })
		if err != nil || unit < 0 {
			return 0, errors.New("no time as 1d2h3m4s5ms")
		}
		if total += n * unitLength[unit]; total >= 1<<62 {
			return 0, errors.New("a time of ages")
		}
		if rest = rest[len(units[unit]):]; rest == "" {
			return total, nil
		}
	}
}

// wide is a number of any length; big is nil for those of 64 bits.
type wide struct {
	small uint64
	big   *big.Int
}

func (w wide) int() *big.Int {
	if w.big != nil {
		return w.big
	}
	return new(big.Int).SetUint64(w.small)
}

func (w wide) bits() int {
	if w.big != nil {
		return w.big.BitLen()
	}
	return bits.Len64(w.small)
}

func (w wide) String() string { return w.int().String() }
