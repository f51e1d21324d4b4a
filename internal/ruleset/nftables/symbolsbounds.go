package nftables

import (
	"bytes"
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// appendBounds appends the first and the last value of what an expression of
// constants stands for.
func appendBounds(dst []byte, d Datatype, e Expr) ([]byte, error) {
	switch e := e.(type) {
	case Literal:
		return appendLiteral(dst, d, e.Text)
	case Range:
		return appendRange(dst, d, e.First, e.Last)
	case Prefix:
		return appendPrefix(dst, d, e.Address, e.Length)
	case List:
		return appendFlags(dst, d, e.Values)
	case Binary:
		return appendBinary(dst, d, e)
	case Any:
		return appendAll(dst, d), nil
	}
	return dst, fmt.Errorf("%s as %s: no constant", describe(e), d.Name)
}

// appendAll appends the bounds of every value.
func appendAll(dst []byte, d Datatype) []byte {
	for range d.Bytes {
		dst = append(dst, 0)
	}
	for range d.Bytes {
		dst = append(dst, 0xff)
	}
	if d.Bits > 0 && d.Bytes > 0 {
		dst[len(dst)-d.Bytes] = 0xff >> (d.Bytes*8 - d.Bits)
	}
	return dst
}

// appendLiteral reads one value; what ends in a star, holds a slash or a hyphen
// may stand for more.
func appendLiteral(dst []byte, d Datatype, text string) ([]byte, error) {
	at := len(dst)
	bare := unquoted(text)
	if bare == "*" && d.Bytes > 0 {
		return appendAll(dst, d), nil
	}
	if isName(d) {
		if begin, wild := strings.CutSuffix(bare, "*"); wild && !strings.HasSuffix(begin, `\`) {
			return appendWildcard(dst, d, begin)
		}
	}
	out, err := appendValue(dst, d, text)
	if err == nil {
		return append(out, out[at:]...), nil
	}
	if isName(d) {
		return dst, err
	}
	if address, length, is := strings.Cut(bare, "/"); is {
		if n, bad := strconv.ParseUint(length, 10, 8); bad == nil {
			return appendPrefix(dst, d, Literal{address}, int(n))
		}
	}
	if first, last, is := strings.Cut(bare, "-"); is && !strings.Contains(last, "-") {
		if out, bad := appendRange(dst, d, Literal{first}, Literal{last}); bad == nil {
			return out, nil
		}
	}
	return dst, err
}

func isName(d Datatype) bool {
	return d.Name == "ifname" || d.Name == "iface_index" || d.Name == "string"
}

// appendWildcard appends the bounds of all names that begin so.
func appendWildcard(dst []byte, d Datatype, begin string) ([]byte, error) {
	if len(begin) >= d.Bytes {
		return dst, bad(d, begin+"*", "longer than a name can be")
	}
	for _, fill := range [...]byte{0, 0xff} {
		dst = append(dst, begin...)
		for range d.Bytes - len(begin) {
			dst = append(dst, fill)
		}
	}
	return dst, nil
}

// single appends one value.
func single(dst []byte, d Datatype, e Expr) ([]byte, error) {
	out, err := appendBounds(dst, d, e)
	if err != nil {
		return dst, err
	}
	if first, last := out[len(dst):len(dst)+d.Bytes], out[len(dst)+d.Bytes:]; !bytes.Equal(first, last) {
		return dst, fmt.Errorf("%s as %s: not one value", describe(e), d.Name)
	}
	return out[:len(dst)+d.Bytes], nil
}

func appendRange(dst []byte, d Datatype, first, last Expr) ([]byte, error) {
	at := len(dst)
	out, err := single(dst, d, first)
	if err != nil {
		return dst, err
	}
	middle := len(out)
	if out, err = single(out, d, last); err != nil {
		return dst, err
	}
	if bytes.Compare(out[at:middle], out[middle:]) > 0 {
		return dst, fmt.Errorf("%s-%s as %s: begins after its end", describe(first), describe(last), d.Name)
	}
	return out, nil
}

// appendPrefix appends the bounds of a prefix; bits after it count for nothing.
func appendPrefix(dst []byte, d Datatype, address Expr, length int) ([]byte, error) {
	at := len(dst)
	if length < 0 || length > d.width() {
		return dst, fmt.Errorf("%s/%d as %s: longer than its %d bits", describe(address), length, d.Name, d.width())
	}
	out, err := single(dst, d, address)
	if err != nil {
		return dst, err
	}
	out = append(out, out[at:]...)
	first, last := out[at:at+d.Bytes], out[at+d.Bytes:]
	for bit := d.Bytes*8 - d.width() + length; bit < d.Bytes*8; bit++ {
		first[bit/8] &^= 0x80 >> (bit % 8)
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	return out, nil
}

// appendFlags ors the values of a list.
func appendFlags(dst []byte, d Datatype, values []Expr) ([]byte, error) {
	if len(values) == 0 || len(values) > 1 && !d.Flags {
		return dst, fmt.Errorf("%s as %s: no list of flags", describe(List{values}), d.Name)
	}
	at := len(dst)
	out, err := single(dst, d, values[0])
	for _, v := range values[1:] {
		var more []byte
		if err == nil {
			more, err = single(nil, d, v)
		}
		for i := range more {
			out[at+i] |= more[i]
		}
	}
	if err != nil {
		return dst, err
	}
	return append(out, out[at:]...), nil
}

// appendBinary folds an operation of constants: syn | ack.
func appendBinary(dst []byte, d Datatype, e Binary) ([]byte, error) {
	no := func(why string) ([]byte, error) {
		return dst, fmt.Errorf("%s as %s: %s", describe(e), d.Name, why)
	}
	left, err := single(nil, d, e.Left)
	if err != nil {
		return dst, err
	}
	counts := d
	if e.Op == "<<" || e.Op == ">>" {
		counts = IntegerOf(d.Bytes * 8) // of bits, whatever is shifted
	}
	right, err := single(nil, counts, e.Right)
	if err != nil {
		return dst, err
	}
	a, b, result := new(big.Int).SetBytes(left), new(big.Int).SetBytes(right), new(big.Int)
	switch e.Op {
	case "&":
		result.And(a, b)
	case "|":
		result.Or(a, b)
	case "^":
		result.Xor(a, b)
	case "<<", ">>":
		if !b.IsUint64() || b.Uint64() > uint64(d.width()) {
			return no("shifted by more than its bits")
		}
		if e.Op == ">>" {
			result.Rsh(a, uint(b.Uint64()))
		} else {
			result.Lsh(a, uint(b.Uint64()))
		}
	default:
		return no("not understood")
	}
	if result.BitLen() > d.width() {
		return no("more bits than it has")
	}
	at := len(dst)
	out := append(dst, make([]byte, d.Bytes)...)
	result.FillBytes(out[at:])
	return append(out, out[at:]...), nil
}

// describe names an expression in an error.
func describe(e Expr) string {
	switch e := e.(type) {
	case Literal:
		return strconv.Quote(e.Text)
	case Range:
		return describe(e.First) + "-" + describe(e.Last)
	case Prefix:
		return describe(e.Address) + "/" + strconv.Itoa(e.Length)
	case Concat:
		return describeAll(e.Parts, " . ")
	case List:
		return describeAll(e.Values, ",")
	case Binary:
		return describe(e.Left) + " " + e.Op + " " + describe(e.Right)
	case Any:
		return "*"
	case SetRef:
		return "@" + e.Name
	case UnknownExpr:
		return strconv.Quote(e.Text)
	}
	return strings.TrimPrefix(fmt.Sprintf("%T", e), "nftables.")
}

func describeAll(list []Expr, sep string) string {
	words := make([]string, len(list))
	for i, e := range list {
		words[i] = describe(e)
	}
	return strings.Join(words, sep)
}
