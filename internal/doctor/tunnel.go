package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/sim"
)

// tunnelTranslated: the outer packet of a tunnel leaves with another source than the
// tunnel's end.
func tunnelTranslated(p *patient) []Finding {
	var all []Finding
	var seen []string
	for i := range p.networks {
		n := &p.networks[i]
		for _, rt := range p.tunnelRoutes(n) {
			link := rt.Nexthops[0].Interface
			if slices.Contains(seen, link) {
				continue
			}
			if f, found := p.outer(n, rt); found {
				seen = append(seen, link)
				all = append(all, f)
			}
		}
	}
	return all
}

// tunnelRoutes are those of a network's family that leave by a tunnel.
func (p *patient) tunnelRoutes(n *network) []*route.Route {
	var all []*route.Route
	for i := range p.host.Network.Routes {
		rt := &p.host.Network.Routes[i]
		if rt.Family != n.family() || rt.Type != route.Unicast || rt.Destination.Bits() == 0 || len(rt.Nexthops) != 1 {
			continue
		}
		if link := p.host.Network.Link(rt.Nexthops[0].Interface); link != nil && isTunnel(link.Kind) {
			all = append(all, rt)
		}
	}
	return all
}

func isTunnel(kind string) bool {
	switch kind {
	case "vxlan", "geneve", "ipip", "ip6tnl", "gre", "sit", "wireguard":
		return true
	}
	return false
}

// outer asks what becomes of the tunnel's packet.
func (p *patient) outer(n *network, rt *route.Route) (Finding, bool) {
	to := p.stranger(rt.Destination, n.prefix)
	if !to.IsValid() {
		return Finding{}, false
	}
	answers := p.ask(tcp(n.member, to, https, n.link))
	if !answers.every(func(o *sim.Outcome) bool { return accepted(o) && o.Encapsulated != nil }) {
		return Finding{}, false
	}
	own := answers[0].Encapsulated
	outer := outcomes(own.Outcomes)
	at, one := outer.rule()
	changed := func(o *sim.Outcome) bool {
		return translated(o) && o.Source.IsValid() && o.Source != own.Question.Source
	}
	if !one || !outer.every(changed) {
		return Finding{}, false
	}
	return Finding{
		Summary:     fmt.Sprintf("packets of tunnel %s leave as %s, not as %s", own.Interface, outer[0].Source, own.Question.Source),
		Evidence:    []string{p.place(at), "route " + strings.TrimSpace(rt.Text), fmt.Sprintf("outer packet from %s to %s", own.Question.Source, own.Question.Destination)},
		Consequence: "Tunnels that know their peer's address, and firewalls between the nodes, drop them; the others take two ways for one connection.",
		Mend:        append([]string{p.exemptTunnel(at, own)}, p.changes(at)...),
	}, true
}

// exemptTunnel lets the tunnel's packets pass before any rule of the chain.
func (p *patient) exemptTunnel(at sim.RuleRef, own *sim.Encapsulated) string {
	q := &own.Question
	base := at
	if c := at.Table.Chain("POSTROUTING"); at.Table.Native == nil && at.Chain.Policy == "" && c != nil {
		base.Chain = c
	}
	rule, native := fmt.Sprintf("-s %s -d %s -p %d -j ACCEPT", q.Source, q.Destination, q.Protocol), fmt.Sprintf("%[1]s saddr %[2]s %[1]s daddr %[3]s meta l4proto %[4]d accept", ipWord(q.Source), q.Source, q.Destination, q.Protocol)
	if q.DestinationPort != sim.UnknownPort && q.DestinationPort != 0 {
		rule = fmt.Sprintf("-s %s -p udp -m udp --dport %d -j ACCEPT", q.Source, q.DestinationPort)
		native = fmt.Sprintf("%s saddr %s udp dport %d accept", ipWord(q.Source), q.Source, q.DestinationPort)
	}
	return insert(base, rule, native)
}

// tunnelBlocked: the node's own firewall stops what a tunnel's peers send.
func tunnelBlocked(p *patient) []Finding {
	var all []Finding
	for i := range p.host.Network.Links {
		l := &p.host.Network.Links[i]
		if !isTunnel(l.Kind) || l.Port == 0 || !l.Up {
			continue
		}
		for _, peer := range p.peers(l) {
			if f, found := p.deaf(l, peer); found {
				all = append(all, f)
				break
			}
		}
	}
	return all
}

// peers of a tunnel: its fixed end, and those in the forwarding table.
func (p *patient) peers(l *route.Link) []netip.Addr {
	var all []netip.Addr
	if l.Remote.IsValid() && !l.Remote.IsUnspecified() && !l.Remote.IsMulticast() {
		all = append(all, l.Remote)
	}
	for _, f := range p.host.Network.Forwarding {
		if f.Interface == l.Name && f.Remote.IsValid() && !f.Remote.IsUnspecified() && !f.Remote.IsMulticast() && !slices.Contains(all, f.Remote) {
			all = append(all, f.Remote)
		}
	}
	return all[:min(len(all), mostNetworks)]
}

// deaf: the node doesn't hear the peer, and would if INPUT didn't stop all the rest.
func (p *patient) deaf(l *route.Link, peer netip.Addr) (Finding, bool) {
	in, known := p.host.Network.InterfaceFor(peer)
	to := l.Local
	if known && !to.IsValid() {
		to, known = p.addressOn(in, packet.Of(peer))
	}
	if !known || in == "" || packet.Of(to) != packet.Of(peer) {
		return Finding{}, false
	}
	q := tcp(peer, to, int(l.Port), in)
	q.Protocol = packet.UDP
	answers := p.ask(q)
	at, one := answers.rule()
	if !one || !answers.every(stopped) || !takesTheRest(at, "INPUT") {
		return Finding{}, false
	}
	if !p.without(at).ask(q).every(func(o *sim.Outcome) bool { return accepted(o) && o.ToNode }) {
		return Finding{}, false
	}
	return Finding{
		Summary:     fmt.Sprintf("what peers of tunnel %s send is stopped in %s", l.Name, at.Chain.Name),
		Evidence:    []string{p.place(at), fmt.Sprintf("a packet of %s from %s to %s, UDP port %d", l.Name, peer, to, l.Port)},
		Consequence: "Pods of other nodes don't reach this node's, and get no answers from them.",
		Mend: []string{
			insert(at, fmt.Sprintf("-p udp -m udp --dport %d -j ACCEPT", l.Port), fmt.Sprintf("udp dport %d accept", l.Port)),
			"# better with -s and the nodes' network; and in what loads the firewall's rules at boot",
		},
	}, true
}
