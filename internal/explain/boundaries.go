package explain

import (
	"fmt"
	"net/netip"
	"slices"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/cidr"
	"github.com/unmasq/unmasq/internal/ipset"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// starts are the first addresses of the segments of a network within which no
// rule, set, route, address or connection tells addresses apart.
func (e *Explainer) starts(within cidr.Range) ([]netip.Addr, error) {
	b := &boundaries{family: packet.Of(within.First), within: within, all: []netip.Addr{within.First}}
	for _, h := range e.hosts {
		b.host(h)
	}
	b.mapped()
	if b.err != nil {
		return nil, b.err
	}
	b.compact()
	if len(b.all) > mostSegments {
		p, _ := netipx.IPRangeFrom(within.First, within.Last).Prefix()
		return nil, tooMany(p)
	}
	return b.all, nil
}

// boundaries collects the addresses of a network at which something begins, or
// has just ended.
type boundaries struct {
	family packet.Family
	within cidr.Range
	all    []netip.Addr
	// maps are the rules that map a network onto another, ranges what was added,
	// where there are any: a border there is a border here.
	maps   []ruleset.Rule
	ranges []cidr.Range
	err    error
}

// ownRanges are treated apart by the kernel or by the question's checks.
var ownRanges = [...]netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/32"), netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/128"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

func (b *boundaries) add(r cidr.Range) {
	if packet.Of(r.First) != b.family {
		return
	}
	b.ranges = append(b.ranges, r)
	b.cut(r)
	if len(b.all) > 8*mostSegments {
		b.compact()
		if len(b.all) > 4*mostSegments && b.err == nil {
			p, _ := netipx.IPRangeFrom(b.within.First, b.within.Last).Prefix()
			b.err = tooMany(p)
		}
	}
}

func (b *boundaries) cut(r cidr.Range) {
	if b.within.Contains(r.First) {
		b.all = append(b.all, r.First)
	}
	if next := r.Last.Next(); next.IsValid() && b.within.Contains(next) {
		b.all = append(b.all, next)
	}
}

func (b *boundaries) compact() {
	slices.SortFunc(b.all, netip.Addr.Compare)
	b.all = slices.Compact(b.all)
}

func (b *boundaries) prefix(p netip.Prefix) {
	if p.IsValid() {
		b.add(cidr.FromPrefix(p))
	}
}

func (b *boundaries) address(a netip.Addr) {
	if a.IsValid() {
		b.add(cidr.FromAddr(a))
	}
}

func (b *boundaries) host(h *snapshot.Host) {
	for _, p := range ownRanges {
		b.prefix(p)
	}
	b.network(h)
	used := map[string]bool{}
	for _, t := range h.Rules.Tables {
		if !t.Has(b.family) {
			continue
		}
		if t.Native != nil {
			b.native(t.Native)
			continue
		}
		for _, c := range t.Chains {
			for i := range c.Rules {
				b.rule(&c.Rules[i], h.Sets, used)
			}
		}
	}
	for i := range h.Connections {
		for _, t := range []netip.Addr{
			h.Connections[i].Original.Source, h.Connections[i].Original.Destination,
			h.Connections[i].Reply.Source, h.Connections[i].Reply.Destination,
		} {
			b.address(t)
		}
	}
	for _, v := range h.VirtualServers {
		if at, err := netip.ParseAddrPort(v.Address); err == nil {
			b.address(at.Addr())
		}
	}
}

// native adds what the rules and sets of a native table tell apart.
func (b *boundaries) native(t *nftables.Table) {
	masked := t.Addresses(func(first, last netip.Addr) {
		if packet.Of(first) == b.family {
			b.add(cidr.Range{First: first, Last: last})
		}
	})
	if masked && b.err == nil {
		b.err = fmt.Errorf("table %s %s compares addresses under a mask; ask for one address", t.Family, t.Name)
	}
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				if nat, ok := s.(nftables.NAT); ok && nat.Prefix {
					b.nativeMaps(t, nat.Address)
				}
			}
		}
	}
}

// nativeMaps are the networks that "prefix to" maps onto, of maps too.
func (b *boundaries) nativeMaps(t *nftables.Table, to nftables.Expr) {
	switch e := to.(type) {
	case nftables.Prefix:
		if p, err := netip.ParsePrefix(nftables.ExprText(e)); err == nil {
			b.maps = append(b.maps, ruleset.Rule{Target: ruleset.NetMap{To: p}})
		}
	case nftables.Literal:
		if p, err := netip.ParsePrefix(e.Text); err == nil {
			b.maps = append(b.maps, ruleset.Rule{Target: ruleset.NetMap{To: p}})
		}
	case nftables.Lookup:
		for _, element := range elementsOf(t, e.Map) {
			b.nativeMaps(t, element.Data)
		}
	}
}

func elementsOf(t *nftables.Table, e nftables.Expr) []nftables.Element {
	switch e := e.(type) {
	case nftables.SetLiteral:
		return e.Elements
	case nftables.SetRef:
		if s := t.Set(e.Name); s != nil {
			return s.Elements
		}
	}
	return nil
}

// network adds what routing tells apart, for destinations and for sources.
func (b *boundaries) network(h *snapshot.Host) {
	n := &h.Network
	for _, r := range n.Boundaries(b.family) {
		b.add(r)
	}
	for i := range n.Routes {
		b.prefix(n.Routes[i].From)
	}
	for i := range n.Rules {
		b.prefix(n.Rules[i].From)
	}
	for i := range n.Neighbors { // a tunnel's outer packet goes by them
		b.address(n.Neighbors[i].Address)
	}
}

func (b *boundaries) rule(rule *ruleset.Rule, sets ipset.Sets, used map[string]bool) {
	b.prefix(rule.Destination.Prefix)
	b.prefix(rule.Source.Prefix)
	for _, m := range rule.Matches {
		switch m := m.(type) {
		case ruleset.IPRange:
			b.add(cidr.Range{First: m.First, Last: m.Last})
		case ruleset.Conntrack:
			for _, a := range []ruleset.Address{m.OriginalDestination, m.ReplySource, m.OriginalSource, m.ReplyDestination} {
				b.prefix(a.Prefix)
			}
		case ruleset.Set:
			b.set(m.Name, sets, used)
		case ruleset.MaskedAddress:
			b.masked(m)
		}
	}
	switch t := rule.Target.(type) {
	case ruleset.SNAT: // a source within the range is kept
		if t.First.IsValid() && t.First != t.Last {
			b.add(cidr.Range{First: t.First, Last: t.Last})
		}
	case ruleset.NetMap:
		b.maps = append(b.maps, *rule)
		b.prefix(t.To)
	}
}

// set adds a set's elements, once.
func (b *boundaries) set(name string, sets ipset.Sets, used map[string]bool) {
	s := sets[name]
	if s == nil || used[name] {
		return
	}
	used[name] = true
	for ; s != nil; s = s.Before() {
		b.elements(s, sets, used)
	}
}

func (b *boundaries) elements(s *ipset.Set, sets ipset.Sets, used map[string]bool) {
	for _, member := range s.Members {
		b.set(member, sets, used)
	}
	if mask := s.Options.Mask; mask.IsValid() && !isPrefixMask(mask) && b.err == nil {
		b.err = fmt.Errorf("set %s compares addresses under mask %s: about such a set only single addresses can be asked", s.Name, mask)
	}
	for dimension := range 3 {
		for _, r := range s.Addresses(dimension) {
			b.add(r)
		}
	}
}

func isPrefixMask(mask netip.Addr) bool {
	ended := false
	for _, x := range mask.AsSlice() {
		for bit := byte(0x80); bit != 0; bit >>= 1 {
			if x&bit == 0 {
				ended = true
			} else if ended {
				return false
			}
		}
	}
	return true
}

// masked adds the runs of addresses that a mask with holes picks out.
func (b *boundaries) masked(m ruleset.MaskedAddress) {
	mask, want := m.Mask.AsSlice(), m.Address.AsSlice()
	if len(mask) != len(want) || packet.Of(m.Address) != b.family {
		return
	}
	for at, ok := nextMasked(b.within.First, mask, want); ok && !b.within.Last.Less(at) && b.err == nil; {
		run := at.AsSlice()
		for i := len(run) - 1; i >= 0 && b.err == nil; i-- { // the bits behind the mask's last one
			free := ^mask[i]
			if mask[i] != 0 {
				free &= mask[i]&-mask[i] - 1
			}
			run[i] |= free
			if mask[i] != 0 {
				break
			}
		}
		last, _ := netip.AddrFromSlice(run)
		b.add(cidr.Range{First: at, Last: last})
		next := last.Next()
		if !next.IsValid() {
			return
		}
		at, ok = nextMasked(next, mask, want)
	}
}

// nextMasked is the first address from a on whose bits under the mask are want.
func nextMasked(a netip.Addr, mask, want []byte) (netip.Addr, bool) {
	have := a.AsSlice()
	n := 8 * len(have)
	bit := func(s []byte, i int) byte { return s[i/8] >> (7 - i%8) & 1 }
	set := func(s []byte, i int, v byte) {
		s[i/8] = s[i/8]&^(1<<(7-i%8)) | v<<(7-i%8)
	}
	// From the first bit on that differs, all is smaller or larger than a.
	grow := -1 // the last free bit that can become 1
	for i := range n {
		if bit(mask, i) == 0 {
			if bit(have, i) == 0 {
				grow = i
			}
			continue
		}
		if bit(have, i) == bit(want, i) {
			continue
		}
		if bit(have, i) == 1 { // too large here: a free bit before has to grow
			if grow < 0 {
				return netip.Addr{}, false
			}
			set(have, grow, 1)
			i = grow
		} else {
			set(have, i, 1)
		}
		for j := i + 1; j < n; j++ {
			set(have, j, bit(want, j)&bit(mask, j))
		}
		break
	}
	out, ok := netip.AddrFromSlice(have)
	return out, ok
}

// mapped adds, for each rule that maps networks of this size onto one, the
// borders there as borders here.
func (b *boundaries) mapped() {
	ranges := b.ranges
	for i := range b.maps {
		to := b.maps[i].Target.(ruleset.NetMap).To.Masked()
		if packet.Of(to.Addr()) != b.family {
			continue
		}
		var inside []cidr.Range
		there := cidr.FromPrefix(to)
		for _, r := range ranges {
			if r.Last.Less(there.First) || there.Last.Less(r.First) {
				continue
			}
			inside = append(inside, cidr.Range{First: later(r.First, there.First), Last: earlier(r.Last, there.Last)})
		}
		b.pullBack(to, inside)
	}
}

// pullBack adds the ranges of a network to every network of its size in within.
func (b *boundaries) pullBack(to netip.Prefix, inside []cidr.Range) {
	block, err := b.within.First.Prefix(to.Bits())
	if err != nil {
		return
	}
	for b.err == nil {
		here := cidr.FromPrefix(block)
		b.add(here)
		for _, r := range inside {
			b.add(cidr.Range{First: moved(r.First, block), Last: moved(r.Last, block)})
		}
		next := here.Last.Next()
		if !next.IsValid() || b.within.Last.Less(next) {
			return
		}
		block = netip.PrefixFrom(next, to.Bits())
	}
}

// moved is the address with the network part of another prefix.
func moved(a netip.Addr, to netip.Prefix) netip.Addr {
	host, network := a.AsSlice(), to.Addr().AsSlice()
	for i := range host {
		mask := byte(0xff)
		if left := to.Bits() - 8*i; left >= 8 {
			mask = 0
		} else if left > 0 {
			mask >>= left
		}
		host[i] = host[i]&mask | network[i]&^mask
	}
	out, _ := netip.AddrFromSlice(host)
	return out
}

func later(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return b
	}
	return a
}

func earlier(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return a
	}
	return b
}
