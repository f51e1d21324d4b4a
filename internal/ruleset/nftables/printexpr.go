package nftables

import (
	"strconv"
	"strings"
)

// ExprText prints an expression as nft does.
func ExprText(e Expr) string {
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
		return ExprText(e.Key) + " map " + ExprText(e.Map)
	}
	return constantText(e)
}

// constantText prints what stands to the right.
func constantText(e Expr) string {
	switch e := e.(type) {
	case Literal:
		return e.Text
	case Concat:
		return joined(e.Parts, " . ")
	case Range:
		return ExprText(e.First) + "-" + ExprText(e.Last)
	case Prefix:
		return ExprText(e.Address) + "/" + strconv.Itoa(e.Length)
	case List:
		return joined(e.Values, ",")
	case SetRef:
		return "@" + e.Name
	case SetLiteral:
		return setText(e.Elements)
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

func joined(all []Expr, between string) string {
	var b strings.Builder
	for i, e := range all {
		if i > 0 {
			b.WriteString(between)
		}
		b.WriteString(ExprText(e))
	}
	return b.String()
}

func setText(elements []Element) string {
	if len(elements) == 0 {
		return "{ }"
	}
	var b strings.Builder
	b.WriteString("{ ")
	for i := range elements {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(elementText(&elements[i]))
	}
	b.WriteString(" }")
	return b.String()
}

func elementText(e *Element) string {
	text := ExprText(e.Key)
	for _, s := range e.Statements {
		text += " " + StatementText(s)
	}
	if e.Timeout != "" {
		text += " timeout " + e.Timeout
	}
	if e.Comment != "" {
		text += " comment " + quoted(e.Comment)
	}
	if e.Data != nil {
		text += " : " + ExprText(e.Data)
	}
	return text
}
