package nftables

import (
	"strconv"
	"strings"
)

// form is how nft's text has the values of a datatype that its JSON has as bare
// numbers and strings: 0x00000001 and not 1, "lo" and not lo.
type form uint8

const (
	formPlain form = iota
	// formQuoted: names, days and hours.
	formQuoted
	// formName: a name in quotes, or a number where there is no name.
	formName
	// formMark: 0x00000001.
	formMark
	// formHex of bit masks and raw payload; the others are that wide.
	formHex
	formHex1
	formHex2
	formHex4
	// formTime: 1h30m; the JSON has seconds.
	formTime
)

// formOfType of a datatype by nft's name, or of a kind of object.
func formOfType(name string) form {
	switch name {
	case "ifname", "string", "day", "hour", "cgroupsv2", "counter", "quota", "limit", "ct helper", "ct timeout",
		"ct expectation", "synproxy", "secmark", "tunnel":
		return formQuoted
	case "iface_index", "realm", "devgroup", "uid", "gid", "ct_label":
		return formName
	case "mark":
		return formMark
	case "bitmask", "tcp_flag", "ct_state", "ct_status", "ct_event":
		return formHex
	case "ecn":
		return formHex1
	case "dscp":
		return formHex2
	case "ether_type":
		return formHex4
	case "time":
		return formTime
	}
	return formPlain
}

func formsOfTypes(names []string) []form {
	forms := make([]form, len(names))
	for i, name := range names {
		forms[i] = formOfType(name)
	}
	return forms
}

// formsOf the values that an expression is compared with: one for each part.
func (r *jsonReader) formsOf(e Expr) []form {
	switch e := e.(type) {
	case Concat:
		var all []form
		for _, p := range e.Parts {
			of := r.formsOf(p)
			if len(of) == 0 {
				of = []form{formPlain}
			}
			all = append(all, of...)
		}
		return all
	case RawPayload:
		return []form{formHex}
	case Binary:
		if _, constant := e.Left.(Literal); constant {
			return r.formsOf(e.Right)
		}
		return r.formsOf(e.Left)
	case SetRef:
		if s := r.table.Set(e.Name); s != nil {
			return r.formsOfSet(s.Type, s.TypeOf)
		}
		return nil
	case Lookup:
		if ref, named := e.Map.(SetRef); named && r.table.Set(ref.Name) != nil {
			s := r.table.Set(ref.Name)
			return r.formsOfSet(s.DataType, s.DataTypeOf)
		}
		return nil
	case UnknownExpr:
		return []form{formOfUnknown(e)}
	}
	types, _ := r.table.TypeOf(e)
	forms := make([]form, len(types))
	for i, d := range types {
		forms[i] = formOfType(d.Name)
	}
	return forms
}

func (r *jsonReader) formsOfSet(types []string, typeOf Expr) []form {
	if typeOf != nil {
		return r.formsOf(typeOf)
	}
	return formsOfTypes(types)
}

func formOfUnknown(e UnknownExpr) form {
	switch {
	case e.Name == "osf", e.Name == "socket" && strings.Contains(e.Text, "cgroup"):
		return formQuoted
	case e.Name == "socket" && strings.HasSuffix(e.Text, " mark"):
		return formMark
	}
	return formPlain
}

// formAt of the forms, plain beyond their end.
func formAt(forms []form, i int) form {
	if i < len(forms) {
		return forms[i]
	}
	return formPlain
}

// invalidType is what nft 1.0 prints behind numbers whose type it lost.
const invalidType = " [invalid type]"

// literal as nft's text has it.
func literal(v *jsonValue, f form) Literal {
	switch v.kind {
	case jsonBool:
		if v.text == "true" {
			return Literal{"exists"}
		}
		return Literal{"missing"}
	case jsonNumber:
		return Literal{formNumber(v.text, f)}
	}
	text := strings.TrimSuffix(v.text, invalidType)
	switch f {
	case formQuoted, formMark, formTime: // names of marks; meta time
		return Literal{quoted(text)}
	case formName:
		if _, err := strconv.ParseUint(text, 0, 64); err != nil {
			return Literal{quoted(text)}
		}
	}
	return Literal{text}
}

func quoted(s string) string { return `"` + s + `"` }

func formNumber(digits string, f form) string {
	n, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return digits
	}
	wide := 0
	switch f {
	case formMark:
		wide = 8
	case formHex, formHex1:
		wide = 1
	case formHex2:
		wide = 2
	case formHex4:
		wide = 4
	case formTime:
		if n > 1<<53 {
			return digits + "s"
		}
		return duration(n * 1000)
	default:
		return digits
	}
	hex := strconv.FormatUint(n, 16)
	return "0x" + strings.Repeat("0", max(0, wide-len(hex))) + hex
}

// duration of milliseconds as nft prints it: 1d2h3m4s5ms.
func duration(ms uint64) string {
	if ms == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range []struct {
		name string
		ms   uint64
	}{{"d", 86400000}, {"h", 3600000}, {"m", 60000}, {"s", 1000}, {"ms", 1}} {
		if n := ms / u.ms; n > 0 {
			b.WriteString(strconv.FormatUint(n, 10) + u.name)
			ms %= u.ms
		}
	}
	return b.String()
}
