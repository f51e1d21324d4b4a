package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
)

// strictFilter: what a neighbour sends to the node, or to a port that the node
// publishes, or what answers pods, is dropped because the way back leaves by another
// interface.
func strictFilter(p *patient) []Finding {
	var all []Finding
	var done []string
	for i := range p.networks {
		if f, link, ok := p.answersFiltered(&p.networks[i]); ok && !slices.Contains(done, link) {
			all, done = append(all, f), append(done, link)
		}
	}
	for _, b := range p.neighbours() {
		if !b.address.Is4() || slices.Contains(done, b.link) {
			continue
		}
		if f, ok := p.filtered(b); ok {
			all, done = append(all, f), append(done, b.link)
		}
	}
	return all
}

func (p *patient) filtered(b neighbour) (Finding, bool) {
	at, ok := p.addressOn(b.link, packet.IPv4Family)
	if !ok {
		return Finding{}, false
	}
	for _, s := range append([]service{{address: at, protocol: packet.TCP, port: https}}, p.services()...) {
		if s.address.IsValid() && s.address != at {
			continue // a ClusterIP: who sends those to this node isn't known
		}
		q := tcp(b.address, at, s.port, b.link)
		q.Protocol = s.protocol
		answers := p.ask(q)
		if !answers.every(saidBy("rp_filter on ")) {
			continue
		}
		return p.strict(q, answers[0].DecidedBy.Text), true
	}
	return Finding{}, false
}

// answersFiltered: pods' packets leave by a link for a mark of theirs, and the answers there are
// dropped: they haven't it, and without it the way back is another.
func (p *patient) answersFiltered(n *network) (f Finding, link string, found bool) {
	if n.family() != packet.IPv4Family || n.link == "" || p.restoresMarks() {
		return Finding{}, "", false
	}
	there := p.ask(tcp(n.member, outside(packet.IPv4Family), https, n.link))
	if len(there) == 0 || !there.every(func(o *sim.Outcome) bool {
		return accepted(o) && o.OutInterface != "" && o.OutInterface == there[0].OutInterface
	}) {
		return Finding{}, "", false
	}
	link = there[0].OutInterface
	q := tcp(outside(packet.IPv4Family), n.member, https, link)
	back := p.ask(q)
	if !back.every(saidBy("rp_filter on ")) {
		return Finding{}, "", false
	}
	f = p.strict(q, back[0].DecidedBy.Text)
	f.Summary = fmt.Sprintf("rp_filter on %s drops the answers to %s", link, n.prefix)
	f.Consequence = fmt.Sprintf("What %s sends leaves by %s, and connections hang: the node drops the answers without a word.", n.prefix, link)
	return f, link, true
}

// restoresMarks: packets of known connections may have a mark, and with it another route, that
// those of new ones haven't.
func (p *patient) restoresMarks() bool {
	for _, t := range p.host.Rules.Tables {
		for _, c := range t.Chains {
			if slices.ContainsFunc(c.Rules, func(r ruleset.Rule) bool {
				return strings.Contains(r.Text, "restore-mark") || strings.Contains(r.Text, "mark set ct mark")
			}) {
				return true
			}
		}
	}
	return false
}

func (p *patient) strict(q sim.Question, why string) Finding {
	key := sysctlName(packet.IPv4Family, q.InInterface, "rp_filter")
	evidence := []string{fmt.Sprintf("a packet from %s to %s:%d that comes in by %s: %s", q.Source, q.Destination, q.DestinationPort, q.InInterface, why)}
	for _, k := range []string{"net.ipv4.conf.all.rp_filter", key} {
		if p.host.Sysctls[k] != "" {
			evidence = append(evidence, p.setting(k))
		}
	}
	return Finding{
		Summary:     "rp_filter on " + q.InInterface + " drops what neighbours send there",
		Evidence:    evidence,
		Consequence: fmt.Sprintf("Connections from hosts at %s to port %d hang: the node drops their first packet without a word.", q.InInterface, q.DestinationPort),
		Mend:        []string{"sysctl -w " + key + "=2", "# and in a file of /etc/sysctl.d, so that it is so after a boot"},
	}
}
