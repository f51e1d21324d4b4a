package conflict

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/policy"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// Of says which rules work against policies about the pods of these facts: those
// that translate pods' sources before unmasq is asked, and those that switch tracking
// off for packets of pods. What a rule asks for that isn't read makes the first kind
// a doubt; of the second kind such rules are everywhere (proxies, tunnels, DNS
// caches), and are left out.
func Of(r *Rules, f *policy.Facts) (out []Finding) {
	if r == nil {
		return nil
	}
	for i := range r.Rules {
		rule := &r.Rules[i]
		if !rule.concerns(f) {
			continue
		}
		who := rule.owner()
		switch {
		case rule.Effect == Translates:
			out = append(out, Finding{Reason: Earlier, Owner: who, Maybe: rule.More, Message: rule.text() +
				" is at unmasq's own priority: of two such chains the one that was registered last is asked first, and decides. Give it a priority above -199"})
		case !rule.More && who != owner.NodeLocalDNS:
			out = append(out, Finding{Reason: Untracked, Owner: who, Message: rule.text() +
				" for packets of pods, so that no NAT rule is asked about them, unmasq's neither: take pods out of it"})
		}
	}
	slices.SortFunc(out, func(a, b Finding) int { return strings.Compare(a.Message, b.Message) })
	return slices.Compact(out)
}

// concerns packets that pods send and that leave the node.
func (r *Rule) concerns(f *policy.Facts) bool {
	if r.Protocol == packet.ICMPv6 || r.Protocol == packet.UDP && tunnelPort(r.Port, f) {
		return false // neighbour discovery; a tunnel's outer packets
	}
	if d := r.Destination; d.IsValid() && stays(d, f) {
		return false
	}
	overlaps := func(p netip.Prefix) bool {
		if r.Source.IsValid() && r.Source.Bits() > p.Bits() && r.Source.Overlaps(p) {
			p = r.Source // what both have
		}
		gone := slices.ContainsFunc(r.Except, func(e netip.Prefix) bool { return e.Bits() <= p.Bits() && e.Overlaps(p) })
		return !gone && (!r.Source.IsValid() || r.Source.Overlaps(p))
	}
	return slices.ContainsFunc(f.PodCIDRs, overlaps) || slices.ContainsFunc(f.LocalPodCIDRs, overlaps) ||
		slices.ContainsFunc(f.Pods, func(p policy.Pod) bool {
			return slices.ContainsFunc(p.Addresses, func(a netip.Addr) bool { return overlaps(netip.PrefixFrom(a, a.BitLen())) })
		})
}

func tunnelPort(port uint16, f *policy.Facts) bool {
	return port != 0 && (slices.Contains(f.TunnelPorts, port) || slices.Contains(policy.WellKnownTunnelPorts, port))
}

// stays: such a destination is the node's, a service's, or nobody's beyond the link.
func stays(d netip.Prefix, f *policy.Facts) bool {
	a := d.Addr()
	if d.Bits() > 0 && (a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast()) {
		return true
	}
	within := func(p netip.Prefix) bool { return p.Bits() <= d.Bits() && p.Contains(a) }
	return slices.ContainsFunc(f.ServiceCIDRs, within) || d.IsSingleIP() && slices.Contains(f.NodeAddresses, a)
}

// owner by the names of table and chain, and the comment.
func (r *Rule) owner() string {
	t := &ruleset.Table{Name: r.Table, Variant: ruleset.NFT}
	c := &ruleset.Chain{Name: r.Chain}
	rule := &ruleset.Rule{Comment: r.Comment, Target: ruleset.Masquerade{}}
	if r.Effect == Untracks {
		rule.Target = ruleset.NoTrack{}
	}
	if !slices.Contains([]string{"raw", "mangle", "nat", "filter", "security"}, r.Table) {
		t.Native, rule.Native = &nftables.Table{Family: r.Family, Name: r.Table}, &nftables.Rule{Comment: r.Comment}
	}
	return owner.Of(t, c, rule).Name
}

// text names the rule and where it stands.
func (r *Rule) text() string {
	comment, which, table := "", "", r.Family+" "+r.Table
	if r.Legacy {
		table += " of iptables-legacy"
	}
	if r.Comment != "" {
		comment = fmt.Sprintf(" (%q)", r.Comment)
	}
	if r.Source.IsValid() && r.Source.Bits() > 0 {
		which = " from " + r.Source.String()
	}
	if r.Destination.IsValid() {
		which += " to " + r.Destination.String()
	}
	return fmt.Sprintf("a rule%s%s in table %s, chain %s (%s, priority %d) %s", comment, which, table, r.Chain, r.Hook, r.Priority, r.Effect)
}
