package nftables

import (
	"strings"
)

// RuleText prints a rule as nft list ruleset does.
func RuleText(r *Rule) string {
	var b strings.Builder
	for i, s := range r.Statements {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(StatementText(s))
	}
	if r.Comment != "" {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		b.WriteString("comment " + quoted(r.Comment))
	}
	return b.String()
}

// StatementText prints a statement as nft does.
func StatementText(s Statement) string {
	switch s := s.(type) {
	case Match:
		return matchText(s)
	case Verdict:
		return verdictText(s)
	case VerdictMap:
		return ExprText(s.Key) + " vmap " + ExprText(s.Map)
	case Assign:
		return ExprText(s.Key) + " set " + ExprText(s.Value)
	case NAT:
		return natText(s)
	case Reject:
		return rejectText(s)
	case NoTrack:
		return "notrack"
	case Stateful:
		return s.Text
	case SetUpdate:
		return updateText(s)
	case Inert:
		return s.Text
	case XT:
		return xtText(s)
	case UnknownStatement:
		return s.Text
	}
	return ""
}

// matchText: == isn't written where nft wouldn't, and flags have ways of their
// own: tcp flags syn / fin,syn and tcp flags ! fin,syn.
func matchText(m Match) string {
	if masked, is := m.Left.(Binary); is && masked.Op == "&" {
		if mask, is := masked.Right.(List); is {
			return flagsText(m, masked.Left, mask)
		}
	}
	text := ExprText(m.Left)
	if m.Op != "in" && (m.Op != "==" || mustPrintEqual(m)) {
		text += " " + m.Op
	}
	return text + " " + ExprText(m.Right)
}

func flagsText(m Match, left Expr, mask List) string {
	text := ExprText(left) + " "
	if zero, is := m.Right.(Literal); is && zero.Text == "0x0" && m.Op == "==" {
		return text + "! " + ExprText(mask)
	}
	if m.Op != "==" {
		text += m.Op + " "
	}
	return text + ExprText(m.Right) + " / " + ExprText(mask)
}

// mustPrintEqual: behind a bit operation, and for flags that are compared as a
// whole; without it nft would take them for "in".
func mustPrintEqual(m Match) bool {
	switch left := m.Left.(type) {
	case Binary:
		return true
	case CT:
		_, one := m.Right.(Literal)
		return one && (left.Key == "state" || left.Key == "status" || left.Key == "label")
	case Payload:
		_, one := m.Right.(Literal)
		return one && left.Protocol == "tcp" && left.Field == "flags"
	}
	return false
}

func verdictText(v Verdict) string {
	switch v.Kind {
	case Jump, Goto:
		return v.Kind.String() + " " + v.Chain
	case Queue:
		if v.Text != "" {
			return v.Text
		}
	}
	return v.Kind.String()
}

func natText(n NAT) string {
	text := n.Kind.String()
	if n.Address != nil || n.Port != nil {
		if n.Family != "" {
			text += " " + n.Family
		}
		if n.Prefix {
			text += " prefix"
		}
		text += " to "
	}
	text += bracketed(n.Address, n.Port != nil) + portText(n.Port)
	var flags []string
	if n.Random {
		flags = append(flags, "random")
	}
	if n.FullyRandom {
		flags = append(flags, "fully-random")
	}
	if n.Persistent {
		flags = append(flags, "persistent")
	}
	if len(flags) > 0 {
		text += " " + strings.Join(flags, ",")
	}
	return text
}

// bracketed prints an address, of IPv6 in brackets where a port follows.
func bracketed(e Expr, port bool) string {
	if e == nil {
		return ""
	}
	switch a := e.(type) {
	case Literal:
		if port && strings.Contains(a.Text, ":") {
			return "[" + a.Text + "]"
		}
	case Range:
		return bracketed(a.First, port) + "-" + bracketed(a.Last, port)
	}
	return ExprText(e)
}

func portText(e Expr) string {
	if e == nil {
		return ""
	}
	return ":" + ExprText(e)
}

func xtText(x XT) string {
	text := strings.TrimSpace("xt " + x.Kind)
	if x.Name != "" {
		text += " " + quoted(x.Name)
	}
	return text
}

func rejectText(r Reject) string {
	switch {
	case r.Type == "":
		return "reject"
	case r.Code == "":
		return "reject with " + r.Type
	}
	return "reject with " + r.Type + " " + r.Code
}

func updateText(u SetUpdate) string {
	text := u.Op + " @" + u.Set + " { " + ExprText(u.Key)
	if u.Timeout != "" {
		text += " timeout " + u.Timeout
	}
	for _, s := range u.Statements {
		text += " " + StatementText(s)
	}
	if u.Data != nil {
		text += " : " + ExprText(u.Data)
	}
	return text + " }"
}
