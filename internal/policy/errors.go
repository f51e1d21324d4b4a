package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// FieldError is one thing wrong with a document.
type FieldError struct {
	// File is the source's name; Line counts from 1, 0: not known.
	File string
	Line int
	// Path of the field, e.g. spec.rules[2].to.cidrs[0]; "" for the whole document.
	Path string
	// Value as shown: strings quoted, others bare; "" where the message needs none.
	Value string
	// Message says what is wrong and what was expected.
	Message string
}

// Error is, for example,
//
//	policy.yaml:12: spec.rules[0].to.cidrs[1]: "10.0.0.1/8" has host bits set; the network is 10.0.0.0/8
func (e *FieldError) Error() string {
	var b strings.Builder
	b.WriteString(e.File)
	if e.Line > 0 {
		fmt.Fprintf(&b, ":%d", e.Line)
	}
	b.WriteString(": ")
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	if e.Value != "" {
		b.WriteString(e.Value + " ")
	}
	b.WriteString(e.Message)
	return b.String()
}

// Errors are all that is wrong with a set of documents, one line each.
type Errors []FieldError

func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.As each FieldError.
func (e Errors) Unwrap() []error {
	out := make([]error, len(e))
	for i := range e {
		out[i] = &e[i]
	}
	return out
}

// quoted shows a string of a document in a message, long ones cut.
func quoted(s string) string {
	const most = 80
	if len(s) > most {
		return strconv.Quote(strings.ToValidUTF8(s[:most], "")) + "…"
	}
	return strconv.Quote(s)
}
