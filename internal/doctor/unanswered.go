package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/sim"
)

const (
	// fewUnanswered connections to one port of a host may be on their way.
	fewUnanswered = 3
	// fewHosts without an answer may be down.
	fewHosts = 2
)

// keptGroup are TCP connections of a network, with its own addresses, to places beyond a
// gateway, as far as one rule of a policy, or nothing at all, has kept them.
type keptGroup struct {
	pods netip.Prefix
	// by is the policy's rule; zero without one.
	by         sim.RuleRef
	unanswered map[netip.AddrPort][]*conntrack.Entry
	order      []netip.AddrPort
	// answered by a host.
	answered map[netip.Addr]int
}

// keptUnanswered: what leaves with addresses of pods gets no answer, and the same port answers
// this node's own address: the way back is what is missing. Or nobody at all has answered.
func keptUnanswered(p *patient) []Finding {
	alive := p.answersNode()
	groups, others := p.keptGroups()
	var all []Finding
	for _, g := range groups {
		for a := range others {
			g.answered[a]++
		}
		if f, found := p.noWayBack(g, alive); found {
			all = append(all, f)
		} else if f, found := p.nobodyAnswers(g); found {
			all = append(all, f)
		}
	}
	return all
}

// answersNode are the ports that have answered an address of the node's, with a connection
// each.
func (p *patient) answersNode() map[netip.AddrPort]*conntrack.Entry {
	alive := map[netip.AddrPort]*conntrack.Entry{}
	for i := range p.host.Connections {
		e := &p.host.Connections[i]
		if seen, _ := e.SeenAs(); e.Protocol == packet.TCP && e.SeenReply && p.isLocal(seen) {
			alive[backendOf(e)] = e
		}
	}
	return alive
}

func backendOf(e *conntrack.Entry) netip.AddrPort { return netip.AddrPortFrom(e.Backend()) }

// mostAsked pairs of a network and a host are asked about.
const mostAsked = 1024

// keptGroups of the tracked connections, in the order in which they come; and hosts that have
// answered others, about which nothing was asked any more.
func (p *patient) keptGroups() (all []*keptGroup, others map[netip.Addr]bool) {
	others = map[netip.Addr]bool{}
	type end struct {
		network int
		to      netip.Addr
	}
	asked := map[end]*keptGroup{}
	for i := range p.host.Connections {
		e := &p.host.Connections[i]
		if e.Protocol != packet.TCP || e.SourceTranslated() || !e.SeenReply && e.State != "SYN_SENT" {
			continue
		}
		to, _ := e.Backend()
		from := slices.IndexFunc(p.networks, func(n network) bool { return n.prefix.Contains(e.Original.Source) })
		if from < 0 || p.isLocal(e.Original.Source) {
			continue
		}
		x := end{from, to}
		g, known := asked[x]
		switch {
		case !known && len(asked) < mostAsked:
			g = p.groupOf(&all, &p.networks[from], backendOf(e))
			asked[x] = g
		case !known && e.SeenReply:
			others[to] = true
		}
		if g != nil {
			g.add(e)
		}
	}
	return all, others
}

func (g *keptGroup) add(e *conntrack.Entry) {
	to := backendOf(e)
	if e.SeenReply {
		g.answered[to.Addr()]++
		return
	}
	if g.unanswered[to] == nil {
		g.order = append(g.order, to)
	}
	g.unanswered[to] = append(g.unanswered[to], e)
}

// groupOf a connection; nil where it isn't one that leaves with its own address, today, for
// a place beyond a gateway that isn't a pod's of another node.
func (p *patient) groupOf(all *[]*keptGroup, n *network, to netip.AddrPort) *keptGroup {
	if p.isLocal(to.Addr()) || p.isMember(to.Addr()) || slices.ContainsFunc(p.others(n), func(rt *route.Route) bool { return rt.Destination.Contains(to.Addr()) }) {
		return nil
	}
	answers := p.ask(tcp(n.member, to.Addr(), int(to.Port()), n.link))
	if !answers.every(func(o *sim.Outcome) bool {
		return accepted(o) && (o.SourceKind == sim.Kept || o.SourceKind == sim.Pinned) && o.NextHop.IsValid() && o.Encapsulated == nil
	}) {
		return nil
	}
	by, _ := answers.rule()
	for _, g := range *all {
		if g.pods == p.block(n) && g.by == by {
			return g
		}
	}
	g := &keptGroup{pods: p.block(n), by: by, unanswered: map[netip.AddrPort][]*conntrack.Entry{}, answered: map[netip.Addr]int{}}
	*all = append(*all, g)
	return g
}

// noWayBack: the same ports answer this node.
func (p *patient) noWayBack(g *keptGroup, alive map[netip.AddrPort]*conntrack.Entry) (Finding, bool) {
	var evidence []string
	var to []netip.Addr
	for _, at := range g.order {
		waiting := g.unanswered[at]
		if len(waiting) < fewUnanswered || g.answered[at.Addr()] > 0 || alive[at] == nil {
			continue
		}
		evidence = append(evidence,
			fmt.Sprintf("%d connections of %s to %s have no reply, and none has one: %s", len(waiting), g.pods, at, waiting[0].Text),
			"it answers this node: "+alive[at].Text)
		if !slices.Contains(to, at.Addr()) {
			to = append(to, at.Addr())
		}
	}
	if to == nil {
		return Finding{}, false
	}
	return p.unanswered(g, to, Finding{
		Summary:     fmt.Sprintf("%s gets no answers from %s, which answers this node", g.pods, to[0]),
		Evidence:    evidence,
		Consequence: fmt.Sprintf("Whoever is there, or on the way, has no route back to %s: connections with its addresses hang.", g.pods),
	}), true
}

// nobodyAnswers: of several hosts none has answered a connection of the group.
func (p *patient) nobodyAnswers(g *keptGroup) (Finding, bool) {
	var to []netip.Addr
	var evidence []string
	n := 0
	for _, at := range g.order {
		n += len(g.unanswered[at])
		if !slices.Contains(to, at.Addr()) {
			to = append(to, at.Addr())
			evidence = append(evidence, "no reply: "+g.unanswered[at][0].Text)
		}
	}
	if len(g.answered) > 0 || len(to) < fewHosts || n <= fewUnanswered {
		return Finding{}, false
	}
	const most = 4
	return p.unanswered(g, to, Finding{
		Severity:    Info,
		Summary:     fmt.Sprintf("none of %d connections of %s to %d hosts has an answer", n, g.pods, len(to)),
		Evidence:    evidence[:min(len(evidence), most)],
		Consequence: fmt.Sprintf("Either these hosts are down, or nobody there has a route back to %s, whose addresses are kept.", g.pods),
	}), true
}

// unanswered adds what both have: the policy's rule, and the mend.
func (p *patient) unanswered(g *keptGroup, to []netip.Addr, f Finding) Finding {
	if g.by.Rule != nil {
		f.Evidence = append(f.Evidence, p.place(g.by))
	}
	const most = 32
	for _, a := range to[:min(len(to), most)] {
		p.hide(&f, "no-way-back", g.pods.String(), fmt.Sprintf("%s/%d", a, a.BitLen()))
		f.Mend = append(f.Mend, fmt.Sprintf("conntrack -D -p tcp --state SYN_SENT --orig-src %s --reply-src %s", g.pods, a))
	}
	f.Mend = append(f.Mend, fmt.Sprintf("# or, at the router there, a route to %s by this node", g.pods))
	return f
}
