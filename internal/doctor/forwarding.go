package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
)

// forwardingOff: packets of a network, or those for it, are dropped because the
// interface that they come in by doesn't forward.
func forwardingOff(p *patient) []Finding {
	var all []Finding
	for i := range p.networks {
		n := &p.networks[i]
		far := outside(n.family())
		there := p.host.Network.Lookup(route.Query{Source: n.member, Destination: far, InInterface: n.link})
		if !there.Known || !there.Found || there.Interface == "" {
			continue // there is nowhere to go
		}
		link := ""
		switch off := saidBy("forwarding is off"); {
		case p.ask(tcp(n.member, far, https, n.link)).every(off):
			link = n.link
		case p.ask(tcp(far, n.member, https, there.Interface)).every(off):
			link = there.Interface
		default:
			continue
		}
		f := p.notForwarding(n, link)
		if !slices.ContainsFunc(all, func(g Finding) bool { return slices.Equal(f.Mend, g.Mend) }) {
			all = append(all, f)
		}
	}
	return all
}

func (p *patient) notForwarding(n *network, link string) Finding {
	key, own := "net.ipv4.ip_forward", sysctlName(n.family(), link, "forwarding")
	if n.family() == packet.IPv6Family {
		key = "net.ipv6.conf.all.forwarding"
	}
	if p.host.Sysctls[key] == "1" {
		key = own
	}
	return Finding{
		Summary:     fmt.Sprintf("%s packets that come in by %s aren't forwarded", n.family(), link),
		Evidence:    []string{p.setting(key), n.why},
		Consequence: fmt.Sprintf("%s and the world beyond this node lose each other's packets.", n.prefix),
		Mend:        []string{"sysctl -w " + key + "=1", "# and in a file of /etc/sysctl.d, so that it is so after a boot"},
	}
}

// forwardBlocked: a policy DROP of FORWARD, or a REJECT for all the rest there,
// stops a network for which somebody has set up translation, or which is a
// cluster's.
func forwardBlocked(p *patient) []Finding {
	var all []Finding
	type stop struct {
		at     sim.RuleRef
		family packet.Family
	}
	var seen []stop
	for i := range p.networks {
		n := &p.networks[i]
		q := tcp(n.member, outside(n.family()), https, n.link)
		answers := p.ask(q)
		at, one := answers.rule()
		if !one || !answers.every(stopped) || !takesTheRest(at, "FORWARD") || slices.Contains(seen, stop{at, n.family()}) {
			continue
		}
		if !p.without(at).ask(q).every(translated) {
			continue // another rule stops it too, or nobody means it to get out
		}
		seen = append(seen, stop{at, n.family()})
		all = append(all, p.blocked(n, at))
	}
	return all
}

func (p *patient) blocked(n *network, at sim.RuleRef) Finding {
	word := ipWord(n.prefix.Addr())
	return Finding{
		Summary:     fmt.Sprintf("what %s sends is stopped in %s", n.prefix, at.Chain.Name),
		Evidence:    []string{p.place(at), n.why},
		Consequence: fmt.Sprintf("%s reaches nothing beyond this node, although its addresses would be translated there.", n.prefix),
		Mend: []string{
			insert(at, "-d "+n.prefix.String()+" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
				word+" daddr "+n.prefix.String()+" ct state related,established accept"),
			insert(at, "-s "+n.prefix.String()+" -j ACCEPT", word+" saddr "+n.prefix.String()+" accept"),
			"# and in what loads the firewall's rules at boot",
		},
	}
}

// takesTheRest: a policy, or a rule without a condition that rejects, in a chain
// that all packets of a hook come to. Rules with conditions are somebody's will.
func takesTheRest(at sim.RuleRef, chain string) bool {
	if n := at.Chain.Native; n != nil {
		if n.Base == nil || n.Base.Hook != strings.ToLower(chain) {
			return false
		}
		return at.Rule == nil || len(at.Rule.Native.Statements) > 0 && onlyRejects(at.Rule.Native.Statements)
	}
	if !builtIn(at, chain) {
		return false
	}
	if at.Rule == nil {
		return true
	}
	_, rejects := at.Rule.Target.(ruleset.Reject)
	return rejects && unconditional(at.Rule)
}

func onlyRejects(all []nftables.Statement) bool {
	return !slices.ContainsFunc(all, func(s nftables.Statement) bool {
		switch s.(type) {
		case nftables.Reject, nftables.Inert:
			return false
		}
		return true
	})
}

// unconditional: every packet matches.
func unconditional(rule *ruleset.Rule) bool {
	return rule.Source == (ruleset.Address{}) && rule.Destination == (ruleset.Address{}) && rule.In == (ruleset.Interface{}) &&
		rule.Out == (ruleset.Interface{}) && rule.Protocol == (ruleset.Protocol{}) && len(rule.Matches) == 0 && !rule.NoInterfaces
}

// localnetExposed: a neighbour's packet for 127.0.0.1 is delivered.
func localnetExposed(p *patient) []Finding {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	for _, b := range p.neighbours() {
		const port = 10249 // of kube-proxy's own pages; any other meets the same rules
		if !b.address.Is4() || !p.ask(tcp(b.address, loopback, port, b.link)).every(func(o *sim.Outcome) bool { return accepted(o) && o.ToNode }) {
			continue
		}
		key := "net.ipv4.conf.all.route_localnet"
		if p.host.Sysctls[key] != "1" {
			key = sysctlName(packet.IPv4Family, b.link, "route_localnet")
		}
		if p.host.Sysctls[key] != "1" {
			continue // not given: the answer took it for granted
		}
		return []Finding{{
			Summary:     "hosts at " + b.link + " reach what listens on 127.0.0.1",
			Evidence:    []string{p.setting(key), fmt.Sprintf("no rule stops a packet from %s to 127.0.0.1", b.address)},
			Consequence: "Services that take loopback addresses for their protection, such as a kubelet's or a database's, answer to the neighbours.",
			Mend: []string{
				"iptables -I INPUT 1 ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
				"# kube-proxy in iptables mode writes this rule by itself; or, where no node port is needed on 127.0.0.1: sysctl -w " + key + "=0",
			},
		}}
	}
	return nil
}
