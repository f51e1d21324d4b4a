package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/packet"
)

// mostLost findings of lost replies; each of them is a rule of the policy in the mend of all.
const mostLost = 32

// repliesLost: clients from outside come through this node to a service whose backend is on
// another, with their own addresses; the backend answers others, and not by this way.
func repliesLost(p *patient) []Finding {
	type backend struct {
		address netip.Addr
		port    uint16
	}
	alive := map[backend]*conntrack.Entry{}
	for i := range p.host.Connections {
		e := &p.host.Connections[i]
		if e.SeenReply && e.Protocol == packet.TCP {
			alive[backend{e.Reply.Source, e.Reply.SourcePort}] = e
		}
	}
	var all []Finding
	var seen []backend
	for i := range p.host.Connections {
		e := &p.host.Connections[i]
		b := backend{e.Reply.Source, e.Reply.SourcePort}
		if alive[b] == nil || slices.Contains(seen, b) || !p.waits(e) {
			continue
		}
		if len(all) == mostLost {
			all[mostLost-1].Evidence = append(all[mostLost-1].Evidence, "and so it is with others: no more are told")
			break
		}
		seen = append(seen, b)
		client, service := e.Original.Source, e.Original.Destination
		f := Finding{
			Summary:  fmt.Sprintf("%s gets no answer from service %s:%d with backend %s", client, service, e.Original.DestinationPort, b.address),
			Evidence: []string{"no reply: " + e.Text, "it answers others: " + alive[b].Text},
			Consequence: fmt.Sprintf("The backend's answers to %s don't come back through this node, which alone could translate them: by the network's routes they go another way.",
				client),
			Mend: []string{fmt.Sprintf("conntrack -D -p tcp --orig-src %s --orig-dst %s", client, service)},
		}
		p.masqueradeRemote(&f, client, service)
		all = append(all, f)
	}
	return all
}

// waits: a connection from outside, kept as it is, to another node's backend of a service
// has had no reply.
func (p *patient) waits(e *conntrack.Entry) bool {
	from, to := e.Original.Source, e.Reply.Source
	return e.Protocol == packet.TCP && !e.SeenReply && e.Original.Destination != to && from == e.Reply.Destination &&
		!p.isLocal(from) && !p.isLocal(to) && !p.isLocal(e.Original.Destination) && !p.isMember(from) && !p.isMember(to)
}

func (p *patient) isMember(a netip.Addr) bool {
	return slices.ContainsFunc(p.networks, func(n network) bool { return n.prefix.Contains(a) })
}

// masqueradeRemote asks for a rule that hides such a client from remote backends alone.
func (p *patient) masqueradeRemote(f *Finding, client, service netip.Addr) {
	p.masqueradeRemoteOf(f, netip.PrefixFrom(client, client.BitLen()), nil, netip.PrefixFrom(service, service.BitLen()))
}

// masqueradeRemoteOf asks for a rule that hides clients of a network, but for parts of
// it, from remote backends of services alone.
func (p *patient) masqueradeRemoteOf(f *Finding, clients netip.Prefix, except []string, services netip.Prefix) {
	f.keeps = true
	but := ""
	if len(except) > 0 {
		but = fmt.Sprintf(`, except: ["%s"]`, strings.Join(except, `", "`))
	}
	p.remote = append(p.remote, fmt.Sprintf(`{name: remote-backends-%d, from: {cidrs: ["%s"]%s}, to: {services: {backends: Remote}}, action: Masquerade}`, len(p.remote)+1, clients, but))
	if cidr := services.String(); !slices.Contains(p.serviceCIDRs, cidr) {
		p.serviceCIDRs = append(p.serviceCIDRs, cidr)
	}
}
