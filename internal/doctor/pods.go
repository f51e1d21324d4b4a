package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/vicinity"
)

func packetOf(p netip.Prefix) packet.Family { return packet.Of(p.Addr()) }

func lastOf(p netip.Prefix) netip.Addr { return netipx.PrefixLastIP(p) }

// podToPod: packets to pods of another node are translated.
func podToPod(p *patient) []Finding {
	var all []Finding
	for i := range p.networks {
		n := &p.networks[i]
		at, routes := p.maskedRoutes(n)
		if routes == nil || p.ownerOf(at) == owner.IPMasqAgent { // of whose list another check speaks
			continue
		}
		f := Finding{
			Summary:     fmt.Sprintf("%s masquerades %s on its way to other nodes' pods", called(p.ownerOf(at)), n.prefix),
			Evidence:    []string{p.place(at)},
			Consequence: "Pods elsewhere see this node in place of its pods, and network policies that name pods don't fit.",
			Mend:        p.changes(at),
		}
		for _, rt := range routes {
			f.Evidence = append(f.Evidence, "route "+strings.TrimSpace(rt.Text))
			p.keep(&f, "pods-see-pods", n.prefix.String(), rt.Destination.String())
		}
		all = append(all, f)
	}
	return all
}

// maskedRoutes are those to pods of other nodes to whom a network's packets are translated,
// with the first rule that does it.
func (p *patient) maskedRoutes(n *network) (first sim.RuleRef, routes []*route.Route) {
	for _, rt := range p.others(n) {
		answers := p.ask(tcp(n.member, rt.Destination.Addr().Next().Next(), https, n.link))
		at, one := answers.rule()
		if !one || !answers.every(translated) || forService(p.ownerOf(at)) || p.ownerOf(at) == owner.Unmasq {
			continue
		}
		if routes == nil {
			first = at
		}
		routes = append(routes, rt)
	}
	return first, routes
}

// others are routes to networks that look like those of other nodes' pods.
func (p *patient) others(n *network) []*route.Route {
	found := vicinity.Remotes(p.host, &vicinity.Network{Prefix: n.prefix, Link: n.link})
	const most = 8
	return found[:min(len(found), most)]
}

// block of addresses that the network is of.
func (p *patient) block(n *network) netip.Prefix { return vicinity.Block(p.host, n.prefix) }

// familiesDiffer: what leaves by IPv4 is translated, and by IPv6 it leaves with an
// address that nobody outside can answer to.
func familiesDiffer(p *patient) []Finding {
	local := netip.MustParsePrefix("fc00::/7")
	var all []Finding
	for i := range p.networks {
		n := &p.networks[i]
		if n.family() != packet.IPv6Family || !local.Contains(n.member) {
			continue
		}
		four := slices.IndexFunc(p.networks, func(o network) bool { return o.link == n.link && o.link != "" && o.family() == packet.IPv4Family })
		if four < 0 {
			continue
		}
		m := &p.networks[four]
		by4 := p.ask(tcp(m.member, outside(packet.IPv4Family), https, m.link))
		at, one := by4.rule()
		if !one || !by4.every(translated) || !p.ask(tcp(n.member, outside(packet.IPv6Family), https, n.link)).every(kept) {
			continue
		}
		all = append(all, Finding{
			Summary:     fmt.Sprintf("%s leaves translated, %s of the same pods doesn't", m.prefix, n.prefix),
			Evidence:    []string{p.place(at), fmt.Sprintf("no rule translates %s to %s", n.member, outside(packet.IPv6Family)), n.why},
			Consequence: fmt.Sprintf("Nobody outside has a route to %s, so that connections by IPv6 hang until they fall back to IPv4.", n.prefix),
			Mend: []string{
				fmt.Sprintf("ip6tables -t nat -A POSTROUTING -s %s ! -o %s -j MASQUERADE", n.prefix, n.link),
				"# or the setting of what translates IPv4: docker's ip6tables, a CNI plugin's ipMasq, flannel's EnableIPv6, ip-masq-agent's --enable-ipv6",
			},
		})
	}
	return all
}
