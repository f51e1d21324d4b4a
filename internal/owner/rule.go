package owner

import (
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// asks is what a rule asks of a packet. A form is recognised by exactly what it
// asks: one condition more, and somebody else wrote it.
type asks uint8

const (
	source asks = 1 << iota
	destination
	in
	out
	protocol
	matches
	comment
)

// asked by the rule.
func asked(r *ruleset.Rule) asks {
	var a asks
	add := func(yes bool, bit asks) {
		if yes {
			a |= bit
		}
	}
	add(asksAddress(r.Source), source)
	add(asksAddress(r.Destination), destination)
	add(asksInterface(r.In), in)
	add(asksInterface(r.Out), out)
	add(r.Protocol.Is, protocol)
	add(len(r.Matches) > 0, matches)
	add(r.Comment != "", comment)
	return a
}

func asksAddress(a ruleset.Address) bool {
	return a.Prefix.IsValid() && (a.Prefix.Bits() > 0 || a.Not)
}

func asksInterface(i ruleset.Interface) bool { return i.Name != "" || i.Wildcard }

// is says whether an address of a rule is that prefix, not negated.
func is(a ruleset.Address, p netip.Prefix) bool { return !a.Not && a.Prefix == p.Masked() }

// isNot is the negated [is].
func isNot(a ruleset.Address, p netip.Prefix) bool { return a.Not && a.Prefix == p.Masked() }

// single address of a rule, as in -s 192.0.2.1/32.
func single(a ruleset.Address) (netip.Addr, bool) {
	if a.Not || !a.Prefix.IsValid() || !a.Prefix.IsSingleIP() {
		return netip.Addr{}, false
	}
	return a.Prefix.Addr(), true
}

// named is an interface without wildcard and negation.
func named(i ruleset.Interface) bool { return i.Name != "" && !i.Wildcard && !i.Not }

// multicast of the family as components write it: 224.0.0.0/4, ff00::/8.
func multicast(a netip.Addr) netip.Prefix {
	if packet.Of(a) == packet.IPv4Family {
		return netip.PrefixFrom(netip.AddrFrom4([4]byte{224}), 4)
	}
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0xff}), 8)
}

// masquerade without ports and with no more than --random-fully.
func masquerade(t ruleset.Target) bool {
	m, ok := t.(ruleset.Masquerade)
	return ok && m.Ports == nil && !m.Random && !m.Persistent
}

// bareMasquerade has no options at all.
func bareMasquerade(t ruleset.Target) bool {
	m, ok := t.(ruleset.Masquerade)
	return ok && m == ruleset.Masquerade{}
}

// translatesSource: MASQUERADE, SNAT.
func translatesSource(t ruleset.Target) bool {
	switch t.(type) {
	case ruleset.Masquerade, ruleset.SNAT:
		return true
	}
	return false
}

func jump(r *ruleset.Rule) (string, bool) {
	j, ok := r.Target.(ruleset.Jump)
	return j.Chain, ok
}

func accepts(t ruleset.Target) bool { _, ok := t.(ruleset.Accept); return ok }
func drops(t ruleset.Target) bool   { _, ok := t.(ruleset.Drop); return ok }
func returns(t ruleset.Target) bool { _, ok := t.(ruleset.Return); return ok }

// sets that the rule looks into.
func sets(r *ruleset.Rule) []ruleset.Set {
	var all []ruleset.Set
	for _, m := range r.Matches {
		if s, ok := m.(ruleset.Set); ok {
			all = append(all, s)
		}
	}
	return all
}

// usesSet says whether the rule looks into a set with that beginning of a name.
func usesSet(r *ruleset.Rule, prefixes ...string) bool {
	for _, s := range sets(r) {
		for _, p := range prefixes {
			if strings.HasPrefix(s.Name, p) {
				return true
			}
		}
	}
	return false
}

// extension returns the text of a match that isn't understood, such as ipvs or policy.
func extension(r *ruleset.Rule, name string) (string, bool) {
	for _, m := range r.Matches {
		if u, ok := m.(ruleset.Unknown); ok && u.Name == name {
			return u.Text, true
		}
	}
	return "", false
}

// only match of the rule, nil where there are more or none.
func only(r *ruleset.Rule) ruleset.Match {
	if len(r.Matches) != 1 {
		return nil
	}
	return r.Matches[0]
}

// destinationPort is the one match of the rule, for a single port.
func destinationPort(r *ruleset.Rule) bool {
	p, ok := only(r).(ruleset.Ports)
	return ok && p.Side == ruleset.Destination && !p.Not && len(p.Ranges) == 1 && p.Ranges[0].First == p.Ranges[0].Last
}

// sourceIsLocal is the one match of the rule: -m addrtype --src-type LOCAL.
func sourceIsLocal(r *ruleset.Rule) bool {
	a, ok := only(r).(ruleset.AddressType)
	return ok && a == ruleset.AddressType{Source: ruleset.TypeLocal}
}

// established is the one match of the rule: RELATED,ESTABLISHED.
func established(r *ruleset.Rule) bool {
	c, ok := only(r).(ruleset.Conntrack)
	return ok && c == ruleset.Conntrack{States: ruleset.StateRelated | ruleset.StateEstablished}
}

// builtIn chains exist in every table that has their hook.
func builtIn(chain string) bool {
	switch chain {
	case "PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING":
		return true
	}
	return false
}

// words strips what some versions of ip-masq-agent wrote around their comment:
// quotes that are part of it.
func words(comment string) string { return strings.Trim(comment, `"`) }

func hasAnyPrefix(s string, prefixes ...string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// afterPrefix: s is one of the prefixes followed by something that ok takes.
func afterPrefix(s string, ok func(string) bool, prefixes ...string) bool {
	for _, p := range prefixes {
		if rest, cut := strings.CutPrefix(s, p); cut && ok(rest) {
			return true
		}
	}
	return false
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

func hexadecimal(s string) bool { return s != "" && strings.Trim(s, "0123456789abcdefABCDEF") == "" }

// hash of base32, as kube-proxy cuts it for its chains.
func hash(s string) bool {
	return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
}
