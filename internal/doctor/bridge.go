package doctor

import (
	"fmt"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
)

// bridgeCalls: a service's backend answers its client on the same bridge straight
// away, by its own address, since nobody shows the bridge's packets to the rules
// that would translate it back.
func bridgeCalls(p *patient) []Finding {
	var all []Finding
	for _, f := range packet.Families {
		key := "net.bridge.bridge-nf-call-iptables"
		if f == packet.IPv6Family {
			key = "net.bridge.bridge-nf-call-ip6tables"
		}
		value, loaded := p.host.Sysctls[key]
		if value == "1" || !loaded && !p.host.AllSysctls {
			continue
		}
		if found, ok := p.answeredDirectly(f); ok {
			found.Mend = []string{"sysctl -w " + key + "=1", "# and in a file of /etc/sysctl.d, so that it is so after a boot"}
			if loaded {
				found.Evidence = append(found.Evidence, p.setting(key))
			} else {
				found.Evidence = append(found.Evidence, key+" isn't there: br_netfilter isn't loaded")
				found.Mend = append([]string{"modprobe br_netfilter"}, found.Mend...)
			}
			all = append(all, found)
		}
	}
	return all
}

// answeredDirectly finds a service whose backend may be on its client's bridge.
func (p *patient) answeredDirectly(f packet.Family) (Finding, bool) {
	for i := range p.networks {
		n := &p.networks[i]
		link := p.host.Network.Link(n.link)
		if n.family() != f || link == nil || link.Kind != "bridge" {
			continue
		}
		for _, s := range p.services() {
			if !s.address.IsValid() || packet.Of(s.address) != f {
				continue
			}
			q := tcp(n.member, s.address, s.port, n.link)
			q.Protocol = s.protocol
			for _, o := range p.ask(q) {
				if direct(&o, n) {
					return Finding{
						Summary:  fmt.Sprintf("pods on %s get no answer from services whose backend is on %s too", n.link, n.link),
						Evidence: []string{fmt.Sprintf("%s to %s:%d goes to %s, back through %s", n.member, s.address, s.port, o.Destination, n.link)},
						Consequence: fmt.Sprintf("The backend's answer crosses the bridge untranslated, from %s in place of %s, and the client refuses it.",
							o.Destination, s.address),
					}, true
				}
			}
		}
	}
	return Finding{}, false
}

func direct(o *sim.Outcome, n *network) bool {
	return kept(o) && o.Probability > 0 && o.OutInterface == n.link && o.Destination != n.member && n.prefix.Contains(o.Destination) && !o.ToNode
}
