// Package render prints a table as the nft text that `nft -f` loads and
// `nft list table inet unmasq` shows.
//
//	render.Table(os.Stdout, table)
//
// It is for people, and for hosts where nothing but nft may write rules; the
// agent itself speaks netlink.
package render

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/plan"
	"github.com/unmasq/unmasq/internal/policy"
)

// header says what the text can't: old nft programs can't read table flags.
const header = `# Written by unmasq. While an agent runs, the table also has the flags owner and
# persist (Linux 6.9 and later), so that no other process can change it.
`

// Table prints t as one table of family inet.
func Table(out io.Writer, t *plan.Table) error {
	w := bufio.NewWriter(out)
	fmt.Fprintf(w, "%stable inet %s {\n", header, plan.TableName)
	for _, c := range t.Counters {
		fmt.Fprintf(w, "\tcounter %s {\n\t}\n\n", c.Name)
	}
	for i := range t.Sets {
		set(w, &t.Sets[i])
	}
	for i := range t.Chains {
		if i > 0 {
			fmt.Fprintln(w)
		}
		chain(w, &t.Chains[i])
	}
	fmt.Fprintln(w, "}")
	return w.Flush()
}

func set(w io.Writer, s *plan.Set) {
	kind, value := "set", ""
	if s.Map {
		kind, value = "map", " : verdict"
	}
	fmt.Fprintf(w, "\t%s %s {\n\t\ttype %s%s\n", kind, s.Name, s.Key, value)
	if s.Interval {
		fmt.Fprintln(w, "\t\tflags interval")
	}
	for i, e := range s.Elements {
		lead := "\t\t             "
		if i == 0 {
			lead = "\t\telements = { "
		}
		fmt.Fprint(w, lead, Key(s.Key, e.First, e.Last))
		if s.Map {
			fmt.Fprint(w, " : ", verdict(e.Verdict))
		}
		if i == len(s.Elements)-1 {
			fmt.Fprintln(w, " }")
		} else {
			fmt.Fprintln(w, ",")
		}
	}
	fmt.Fprint(w, "\t}\n\n")
}

func chain(w io.Writer, c *plan.Chain) {
	fmt.Fprintf(w, "\tchain %s {\n", c.Name)
	if c.Base {
		fmt.Fprintf(w, "\t\ttype nat hook postrouting priority %d; policy accept;\n", plan.Priority)
	}
	for i := range c.Rules {
		fmt.Fprintln(w, "\t\t"+Rule(&c.Rules[i]))
	}
	fmt.Fprintln(w, "\t}")
}

// Rule is the text of one rule.
func Rule(r *plan.Rule) string {
	parts := make([]string, 0, len(r.Statements)+1)
	for _, s := range r.Statements {
		parts = append(parts, statement(s))
	}
	if r.Comment != "" {
		parts = append(parts, fmt.Sprintf("comment %q", r.Comment))
	}
	return strings.Join(parts, " ")
}

func statement(s plan.Statement) string {
	switch s := s.(type) {
	case plan.OutLoopback:
		return `oif "lo"`
	case plan.NoInput:
		return "iif 0"
	case plan.SourceIsLocal:
		return "fib saddr type local"
	case plan.OutInterface:
		return fmt.Sprintf("oifname %q", s.Name)
	case plan.NFProto:
		return "meta nfproto " + strings.ToLower(s.Family.String())
	case plan.L4Proto:
		return "meta l4proto " + protocols(s.Protocols)
	case plan.InSet:
		not := map[bool]string{true: " !="}[s.Not]
		return field(s.Family, s.Field) + mask(s.Family, s.Bits) + not + " @" + s.Set
	case plan.VerdictMap:
		return field(s.Family, s.Field) + mask(s.Family, s.Bits) + " vmap @" + s.Map
	case plan.DNATed:
		return "ct status dnat"
	case plan.IPsec:
		return "rt ipsec exists"
	case plan.MarkIs:
		return fmt.Sprintf("meta mark & 0x%08x == 0x%08x", s.Mark.Mask, s.Mark.Value)
	case plan.ClearMark:
		return fmt.Sprintf("meta mark set meta mark & 0x%08x", ^s.Mask)
	case plan.Count:
		return fmt.Sprintf("counter name %q", s.Counter)
	case plan.Verdict:
		return verdict(s)
	}
	return translation(s)
}

func translation(s plan.Statement) string {
	switch s := s.(type) {
	case plan.Keep:
		return fmt.Sprintf("snat %s to %s", ip(s.Family), field(s.Family, plan.SourceAddress))
	case plan.Masquerade:
		text := "masquerade"
		if s.Ports != (policy.PortRange{}) {
			text += " to :" + portRange(s.Ports.First, s.Ports.Last)
		}
		return text + random(s.FullyRandom)
	case plan.SNAT:
		return fmt.Sprintf("snat %s to %s", ip(s.Family), snatAddress(s)) + random(s.FullyRandom)
	}
	panic(fmt.Sprintf("statement %T has no text", s))
}

func snatAddress(s plan.SNAT) string {
	if len(s.Addresses) == 1 {
		return s.Addresses[0].String()
	}
	choices := make([]string, len(s.Addresses))
	for i, a := range s.Addresses {
		choices[i] = fmt.Sprintf("%d : %s", i, a)
	}
	return fmt.Sprintf("jhash %s mod %d seed 0x%x map { %s }",
		field(s.Family, plan.SourceAddress), len(s.Addresses), policy.HashSeed, strings.Join(choices, ", "))
}

func random(fully bool) string {
	if fully {
		return " fully-random"
	}
	return ""
}

func ip(f packet.Family) string {
	if f == packet.IPv4Family {
		return "ip"
	}
	return "ip6"
}

func field(f packet.Family, field plan.Field) string {
	switch field {
	case plan.SourceAddress:
		return ip(f) + " saddr"
	case plan.DestinationAddress:
		return ip(f) + " daddr"
	case plan.BothAddresses:
		return ip(f) + " saddr . " + ip(f) + " daddr"
	case plan.SourcePort:
		return "th sport"
	case plan.OriginalDestination:
		return "ct original " + ip(f) + " daddr"
	case plan.OriginalPort:
		return "ct original proto-dst"
	default:
		return "th dport"
	}
}

// mask is what a lookup of prefixes of one length masks addresses with.
func mask(f packet.Family, bits int) string {
	ones := netip.AddrFrom4([4]byte{255, 255, 255, 255})
	if f == packet.IPv6Family {
		ones = netip.MustParseAddr("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
	}
	if bits == 0 || bits == ones.BitLen() {
		return ""
	}
	return " & " + netip.PrefixFrom(ones, bits).Masked().Addr().String()
}

func protocols(list []uint8) string {
	names := make([]string, len(list))
	for i, p := range list {
		names[i] = plan.ProtocolName(p)
	}
	if len(names) == 1 {
		return names[0]
	}
	return "{ " + strings.Join(names, ", ") + " }"
}

func verdict(v plan.Verdict) string {
	switch v.Kind {
	case plan.Accept:
		return "accept"
	case plan.Return:
		return "return"
	case plan.Jump:
		return "jump " + v.Chain
	default:
		return "goto " + v.Chain
	}
}

// Key is the text of a set's key, or range of keys: a prefix where it is one.
func Key(t plan.KeyType, first, last string) string {
	switch t {
	case plan.InetService:
		return portRange(binary.BigEndian.Uint16([]byte(first)), binary.BigEndian.Uint16([]byte(last)))
	case plan.IPv4Pair, plan.IPv6Pair:
		half := len(first) / 2
		return addr(first[:half]).String() + " . " + addr(first[half:]).String()
	}
	if first == last {
		return addr(first).String()
	}
	return addrRange(addr(first), addr(last))
}

func portRange(first, last uint16) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

func addr(key string) netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(key))
	return a
}
