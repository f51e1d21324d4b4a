package nftables

import "net/netip"

// Addresses calls add with each range of addresses that a rule or set of the
// table names: between two of their borders, no rule tells addresses apart, but
// by bit operations (masked is then true) and by hashes.
func (t *Table) Addresses(add func(first, last netip.Addr)) (masked bool) {
	w := addressWalk{add: add}
	for _, s := range t.Sets {
		for i := range s.Elements {
			w.expr(s.Elements[i].Key)
			w.expr(s.Elements[i].Data)
		}
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			w.statements(r.Statements)
		}
	}
	return w.masked
}

type addressWalk struct {
	add    func(first, last netip.Addr)
	masked bool
}

func (w *addressWalk) statements(all []Statement) {
	for _, s := range all {
		switch s := s.(type) {
		case Match:
			w.expr(s.Left)
			w.expr(s.Right)
		case VerdictMap:
			w.expr(s.Key)
			w.expr(s.Map)
		case Assign:
			w.expr(s.Key)
			w.expr(s.Value)
		case NAT:
			w.expr(s.Address)
		case SetUpdate:
			w.expr(s.Key)
			w.expr(s.Data)
		}
	}
}

func (w *addressWalk) expr(e Expr) {
	switch e := e.(type) {
	case Literal:
		if a, err := netip.ParseAddr(e.Text); err == nil {
			w.add(a, a)
		} else if p, err := netip.ParsePrefix(e.Text); err == nil {
			w.add(ends(p))
		}
	case Prefix:
		if a, ok := address(e.Address); ok {
			if p := netip.PrefixFrom(a, e.Length); p.IsValid() {
				w.add(ends(p))
			}
		}
	case Range:
		first, one := address(e.First)
		last, other := address(e.Last)
		if one && other {
			w.add(first, last)
		}
	case Binary:
		if _, ok := address(e.Right); ok || isAddress(e.Left) {
			w.masked = true
		}
		w.expr(e.Left)
		w.expr(e.Right)
	case RawPayload:
		w.masked = w.masked || e.Base == "nh" && e.Offset < 320 && e.Offset+e.Length > 64 // where either family has its addresses
	case Lookup:
		w.expr(e.Key)
		w.expr(e.Map)
	case Concat:
		for _, p := range e.Parts {
			w.expr(p)
		}
	case List:
		for _, v := range e.Values {
			w.expr(v)
		}
	case SetLiteral:
		for i := range e.Elements {
			w.expr(e.Elements[i].Key)
			w.expr(e.Elements[i].Data)
		}
	}
}

// isAddress says whether an expression is an end of the packet or connection.
func isAddress(e Expr) bool {
	switch e := e.(type) {
	case Payload:
		return (e.Protocol == "ip" || e.Protocol == "ip6") && (e.Field == "saddr" || e.Field == "daddr")
	case CT:
		return e.Key == "saddr" || e.Key == "daddr"
	}
	return false
}

func address(e Expr) (netip.Addr, bool) {
	l, ok := e.(Literal)
	if !ok {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(l.Text)
	return a, err == nil
}

// ends of a network.
func ends(p netip.Prefix) (first, last netip.Addr) {
	b := p.Masked().Addr().AsSlice()
	first, _ = netip.AddrFromSlice(b)
	for i := range b {
		if left := p.Bits() - 8*i; left <= 0 {
			b[i] = 0xff
		} else if left < 8 {
			b[i] |= 0xff >> left
		}
	}
	last, _ = netip.AddrFromSlice(b)
	return first, last
}
