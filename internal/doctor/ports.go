package doctor

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
)

// crowd are the translated connections between two ends of which only the source
// port tells one from another.
type crowd struct {
	protocol uint8
	source   netip.Addr
	to       netip.AddrPort
}

// nearlyFull is a port range of which so much is taken.
const nearlyFull = 0.8

// portsTaken: the ports of one translated address towards one peer are nearly all taken.
func portsTaken(p *patient) []Finding {
	taken, one := map[crowd]map[uint16]bool{}, map[crowd]*conntrack.Entry{}
	var crowds []crowd
	for i := range p.host.Connections {
		e := &p.host.Connections[i]
		if e.Original.Source == e.Reply.Destination || e.Protocol != packet.TCP && e.Protocol != packet.UDP {
			continue
		}
		c := crowd{e.Protocol, e.Reply.Destination, netip.AddrPortFrom(e.Reply.Source, e.Reply.SourcePort)}
		if taken[c] == nil {
			taken[c], one[c] = map[uint16]bool{}, e
			crowds = append(crowds, c)
		}
		taken[c][e.Reply.DestinationPort] = true
	}
	var all []Finding
	for _, c := range crowds {
		if f, full := p.full(c, one[c], len(taken[c])); full {
			all = append(all, f)
		}
	}
	return all
}

// full says whether the range of the rule that translates the connection is.
func (p *patient) full(c crowd, e *conntrack.Entry, taken int) (Finding, bool) {
	const free = 65536 - 1024 // what the kernel chooses from for ports above 1023
	q := tcp(e.Original.Source, e.Original.Destination, int(e.Original.DestinationPort), "")
	q.Protocol = c.protocol
	at, is := p.ask(q).rule()
	room := free
	if is {
		room = portsOf(at, free)
	}
	if float64(taken) < nearlyFull*float64(room) {
		return Finding{}, false
	}
	f := Finding{
		Summary:     fmt.Sprintf("%d of %d ports of %s towards %s are taken", taken, room, c.source, c.to),
		Evidence:    []string{fmt.Sprintf("conntrack: %d connections like %s", taken, e.Text)},
		Consequence: "When all are taken, the first packet of a new connection there is dropped, without a word to its sender.",
		Mend:        []string{"# more addresses to leave with (a SourcePolicy with action SNAT and several), more peers, or fewer connections: keep them open, close them sooner"},
	}
	if is {
		f.Evidence = append(f.Evidence, p.place(at))
		if room < free && at.Table.Native == nil {
			f.Mend = append([]string{fmt.Sprintf("%s -t %s -R %s %d %s", program(at.Table), at.Table.Name, at.Chain.Name, at.Rule.Index, withoutPorts(at.Rule))}, f.Mend...)
		}
	}
	return f, true
}

// portsOf is how many ports the rule may take.
func portsOf(at sim.RuleRef, free int) int {
	if m, ok := target(at).(ruleset.Masquerade); ok && m.Ports != nil {
		return int(m.Ports.Last) - int(m.Ports.First) + 1
	}
	if m, ok := target(at).(ruleset.SNAT); ok && m.NATRange.Ports != nil && m.First == m.Last {
		return int(m.NATRange.Ports.Last) - int(m.NATRange.Ports.First) + 1
	}
	return free
}

// withoutPorts is the rule with the kernel's own choice of ports.
func withoutPorts(rule *ruleset.Rule) string {
	before, after, found := strings.Cut(specification(rule), " --to-ports ")
	if !found {
		return before
	}
	_, rest, more := strings.Cut(after, " ")
	if more {
		before += " " + rest
	}
	return before
}
