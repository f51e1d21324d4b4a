package doctor

import (
	"fmt"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
)

// strictFilter: what a neighbour sends to the node, or to a port that the node
// publishes, is dropped because the way back leaves by another interface.
func strictFilter(p *patient) []Finding {
	var all []Finding
	var done []string
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
