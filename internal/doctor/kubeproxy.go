package doctor

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"go4.org/netipx"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
)

// clusterIPs are the services that kube-proxy's rules have inside the cluster's service
// network, all of them: not external addresses, nor those of load balancers.
func (p *patient) clusterIPs() []service {
	return slices.DeleteFunc(p.firstServices(math.MaxInt), func(s service) bool { return !s.clusterIP })
}

// proxyTables are those of kube-proxy's nftables mode.
func (p *patient) proxyTables() []*ruleset.Table {
	return slices.DeleteFunc(slices.Clone(p.host.Rules.Tables), func(t *ruleset.Table) bool { return t.Native == nil || t.Name != "kube-proxy" })
}

// clusterCIDRMissing: kube-proxy marks no client of a ClusterIP for being from outside
// the cluster, so that such a client's packets go on to another node as they came.
func clusterCIDRMissing(p *patient) []Finding {
	all := p.clusterIPs()
	var found []Finding
	for _, f := range packet.Families {
		if p.marksClients(f) {
			continue
		}
		asked := 0
		for _, s := range all {
			if packet.Of(s.address) != f || asked == mostServices {
				continue
			}
			asked++
			if o, ok := p.keptToRemote(s); ok {
				found = append(found, p.withoutCIDR(s, &o, all))
				break
			}
		}
	}
	return found
}

// marksClients: a rule of kube-proxy's marks clients of a ClusterIP by where they come
// from, or all of them (masqueradeAll).
//
//	-A KUBE-SVC-X ! -s 10.244.0.0/16 -d 10.96.0.10/32 … -j KUBE-MARK-MASQ
//	ip daddr @cluster-ips ip saddr != 10.244.0.0/16 meta mark set mark | 0x4000
func (p *patient) marksClients(f packet.Family) bool {
	for at := range p.natRules() {
		jump, ok := at.Rule.Target.(ruleset.Jump)
		if ok && jump.Chain == "KUBE-MARK-MASQ" && at.Rule.Destination.Prefix.IsValid() && at.Table.Family == f && hasPrefix(at.Chain.Name, "KUBE-SVC-", "KUBE-SVL-", "KUBE-SERVICES") {
			return true
		}
	}
	for _, t := range p.proxyTables() {
		for _, c := range t.Chains {
			for i := range c.Rules {
				text := c.Rules[i].Text
				if hasPrefix(c.Name, "services", "service-", "local-") && strings.Contains(text, "daddr") && strings.Contains(text, "mark") && (t.Native.Family == "ip6") == (f == packet.IPv6Family) {
					return true
				}
			}
		}
	}
	return false
}

func hasPrefix(s string, any ...string) bool {
	return slices.ContainsFunc(any, func(prefix string) bool { return strings.HasPrefix(s, prefix) })
}

// keptToRemote is what becomes of a client's packet from outside that goes on to a
// backend on another node with the client's address.
func (p *patient) keptToRemote(s service) (sim.Outcome, bool) {
	far := outside(packet.Of(s.address))
	in, known := p.host.Network.InterfaceFor(far)
	if !known || in == "" {
		return sim.Outcome{}, false
	}
	q := tcp(far, s.address, s.port, in)
	q.Protocol = s.protocol
	answers := p.ask(q)
	i := slices.IndexFunc(answers, func(o sim.Outcome) bool {
		return kept(&o) && o.Probability > 0 && !o.ToNode && o.Destination != s.address && p.remoteWay(&o, in)
	})
	if i < 0 {
		return sim.Outcome{}, false
	}
	return answers[i], true
}

// remoteWay: the packet leaves for another node: by a gateway, a tunnel, or the link
// that it came in by.
func (p *patient) remoteWay(o *sim.Outcome, in string) bool {
	if slices.ContainsFunc(p.networks, func(n network) bool { return n.link == o.OutInterface }) {
		return false
	}
	return o.NextHop.IsValid() || o.Encapsulated != nil || o.OutInterface == in
}

func (p *patient) withoutCIDR(s service, o *sim.Outcome, all []service) Finding {
	f := Finding{
		Summary:     fmt.Sprintf("kube-proxy isn't told which %s addresses are the cluster's", s.family()),
		Evidence:    []string{fmt.Sprintf("%s from outside to ClusterIP %s:%d goes to %s by %s, with its own address", outside(s.family()), s.address, s.port, o.Destination, o.OutInterface), "no rule of kube-proxy marks clients of ClusterIPs by where they come from"},
		Consequence: "Clients outside the cluster to whom a ClusterIP is routed get no answers from backends on other nodes: those answer past this node, which alone could translate them.",
		Mend:        []string{"# or, which hides all clients from outside: kube-proxy's clusterCIDR, the network of all pods: kubectl -n kube-system edit configmap kube-proxy, and restart it"},
	}
	// It is a cluster's choice as long as nobody outside uses ClusterIPs.
	entering := Entering{}
	if p.countEntering(&entering, s.family(), all); entering.Connections == 0 {
		f.Severity = Info
	} else {
		f.Evidence = append(f.Evidence, fmt.Sprintf("%d connections come from outside, such as %s", entering.Connections, entering.Example))
	}
	var from []string
	for i := range p.networks {
		if n := &p.networks[i]; n.family() == s.family() {
			from = append(from, p.block(n).String())
		}
	}
	p.masqueradeRemoteOf(&f, s.family().Everywhere(), slices.Compact(from), spanOf(all, s.family()))
	return f
}

func (s *service) family() packet.Family { return packet.Of(s.address) }

// spanOf services of a family is the smallest network that holds them all. It lies in
// the cluster's service network, as each of them does.
func spanOf(all []service, f packet.Family) netip.Prefix {
	var first, last netip.Addr
	for i := range all {
		a := all[i].address
		if packet.Of(a) != f {
			continue
		}
		if !first.IsValid() || a.Less(first) {
			first = a
		}
		if !last.IsValid() || last.Less(a) {
			last = a
		}
	}
	for bits := first.BitLen(); bits >= 0; bits-- {
		if span, err := first.Prefix(bits); err == nil && netipx.PrefixLastIP(span).Compare(last) >= 0 {
			return span
		}
	}
	return netip.Prefix{}
}
