package nftables

import (
	"strconv"
	"strings"
)

// ExprText prints an expression as nft does, but names without their quotes
// where what they are compared with isn't part of it.
func ExprText(e Expr) string { return exprText(e, nil) }

// formsFor the values that an expression is compared with, as far as that can be
// told without its table.
func formsFor(e Expr) []form { return (&Table{}).formsOf(e) }

// exprText prints an expression whose values have these forms: one, or one for
// each part of a concatenation.
func exprText(e Expr, forms []form) string {
	switch e := e.(type) {
	case Meta:
		return metaText(e)
	case CT:
		return "ct " + spaced(e.Direction) + spaced(e.Family) + e.Key
	case Payload:
		return e.Protocol + " " + e.Field
	case RawPayload:
		return "@" + e.Base + "," + strconv.Itoa(e.Offset) + "," + strconv.Itoa(e.Length)
	case FIB:
		return "fib " + strings.Join(e.Keys, " . ") + " " + e.Result
	case RT:
		return "rt " + spaced(e.Family) + e.Key
	case Numgen:
		mode := "inc"
		if e.Random {
			mode = "random"
		}
		return "numgen " + mode + moduloText(e.Modulus, "", e.Offset)
	case JHash:
		seed := ""
		if e.Seeded {
			seed = " seed 0x" + strconv.FormatUint(uint64(e.Seed), 16)
		}
		return "jhash " + ExprText(e.Key) + moduloText(e.Modulus, seed, e.Offset)
	case SymHash:
		return "symhash" + moduloText(e.Modulus, "", e.Offset)
	case Binary:
		return operandText(e.Op, e.Left) + " " + e.Op + " " + operandText(e.Op, e.Right)
	case Lookup:
		return ExprText(e.Key) + " map " + setText(e.Map, formsFor(e.Key), forms)
	}
	return constantText(e, forms)
}

// constantText prints what stands to the right.
func constantText(e Expr, forms []form) string {
	switch e := e.(type) {
	case Literal:
		return literalText(e.Text, formAt(forms, 0))
	case Concat:
		parts := make([]string, len(e.Parts))
		for i, p := range e.Parts {
			parts[i] = exprText(p, []form{formAt(forms, i)})
		}
		return strings.Join(parts, " . ")
	case Range:
		return exprText(e.First, forms) + "-" + exprText(e.Last, forms)
	case Prefix:
		return exprText(e.Address, forms) + "/" + strconv.Itoa(e.Length)
	case List:
		return joined(e.Values, ",", forms)
	case SetRef:
		return "@" + e.Name
	case SetLiteral:
		return setText(e, forms, nil)
	case Any:
		return "*"
	case VerdictValue:
		return verdictText(e.Verdict)
	case UnknownExpr:
		return e.Text
	}
	return ""
}

// metaText: some keys stand without meta.
func metaText(m Meta) string {
	switch m.Key {
	case "iif", "oif", "iifname", "oifname", "iifgroup", "oifgroup":
		return m.Key
	}
	return "meta " + m.Key
}

func spaced(s string) string {
	if s == "" {
		return ""
	}
	return s + " "
}

func moduloText(modulus uint32, seed string, offset uint32) string {
	text := " mod " + strconv.FormatUint(uint64(modulus), 10) + seed
	if offset > 0 {
		text += " offset " + strconv.FormatUint(uint64(offset), 10)
	}
	return text
}

// precedence of bit operations: those of higher numbers bind less.
func precedence(op string) int {
	switch op {
	case "<<", ">>":
		return 1
	case "&":
		return 2
	case "^":
		return 3
	}
	return 4
}

func operandText(op string, e Expr) string {
	if inner, is := e.(Binary); is && precedence(op) < precedence(inner.Op) {
		return "(" + ExprText(e) + ")"
	}
	return ExprText(e)
}

func joined(all []Expr, between string, forms []form) string {
	var b strings.Builder
	for i, e := range all {
		if i > 0 {
			b.WriteString(between)
		}
		b.WriteString(exprText(e, forms))
	}
	return b.String()
}

// literalText puts names in quotes, but no numbers, times and addresses.
func literalText(text string, f form) string {
	quote := false
	first := byte('"')
	if text != "" {
		first = text[0]
	}
	number := first >= '0' && first <= '9'
	switch f {
	case formQuoted:
		quote = first != '"'
	case formName:
		_, err := strconv.ParseUint(text, 0, 64)
		quote = err != nil && first != '"' && text != "exists" && text != "missing"
	case formMark:
		quote = !number && first != '"'
	case formTime: // a date, not 1h30m
		quote = strings.ContainsAny(text, " -")
	}
	if quote {
		return quoted(text)
	}
	return text
}

// setText prints @name, { a, b } or { a : b }.
func setText(set Expr, keys, data []form) string {
	literal, is := set.(SetLiteral)
	if !is {
		return exprText(set, keys)
	}
	if len(literal.Elements) == 0 {
		return "{ }"
	}
	var b strings.Builder
	b.WriteString("{ ")
	for i := range literal.Elements {
		if i > 0 {
			b.WriteString(", ")
		}
		elementText(&b, &literal.Elements[i], keys, data)
	}
	b.WriteString(" }")
	return b.String()
}

func elementText(b *strings.Builder, e *Element, keys, data []form) {
	if flags, is := e.Key.(List); is {
		b.WriteString(joined(flags.Values, " | ", keys))
	} else {
		b.WriteString(exprText(e.Key, keys))
	}
	for _, s := range e.Statements {
		b.WriteString(" " + StatementText(s))
	}
	if e.Timeout != "" {
		b.WriteString(" timeout " + e.Timeout)
	}
	if e.Comment != "" {
		b.WriteString(" comment " + quoted(e.Comment))
	}
	if e.Data != nil {
		b.WriteString(" : " + exprText(e.Data, data))
	}
}
