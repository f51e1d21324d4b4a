package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// overlaps: two of the networks of pods, of services, of the node and beyond it have the same
// addresses.
func overlaps(p *patient) []Finding { return append(p.shadowed(), p.servicesOverlap()...) }

// shadowed: a host or pod that the node knows at a link can't be reached, since a route for
// some of that link's addresses leads elsewhere.
func (p *patient) shadowed() []Finding {
	var all []Finding
	var done []*route.Route
	for _, b := range append(p.neighbours(), p.members()...) {
		own, connected := p.subnet(b)
		r := p.host.Network.Lookup(route.Query{Destination: b.address})
		if !connected || !r.Known || !r.Found || r.Type != route.Unicast || r.Route == nil || len(r.Nexthops) != 1 || r.Interface == b.link && !r.Nexthops[0].Via.IsValid() || slices.Contains(done, r.Route) {
			continue
		}
		i := slices.IndexFunc(p.networks, func(n network) bool { return n.link == r.Interface && n.prefix.Contains(b.address) })
		switch {
		case i >= 0 && r.Interface != b.link:
			all = append(all, p.inContainers(b, own, &p.networks[i], r.Route))
		case i < 0 && r.Route.Destination.Bits() > own.Bits() && !r.Route.Destination.IsSingleIP():
			all = append(all, p.routedElsewhere(b, own, r.Route))
		default:
			continue
		}
		done = append(done, r.Route)
	}
	return all
}

// members are pods that the node knows at the links of its networks.
func (p *patient) members() []neighbour {
	var all []neighbour
	for _, b := range p.host.Network.Neighbors {
		if b.MAC != "" && !p.isLocal(b.Address) && slices.ContainsFunc(p.networks, func(n network) bool { return n.link == b.Interface && n.prefix.Contains(b.Address) }) {
			all = append(all, neighbour{b.Address, b.Interface})
		}
	}
	return all
}

func (p *patient) inContainers(b neighbour, own netip.Prefix, n *network, r *route.Route) Finding {
	return Finding{
		Summary:     fmt.Sprintf("%s on %s lies in %s of %s", n.prefix, n.link, own, b.link),
		Evidence:    []string{n.why, fmt.Sprintf("%s at %s is looked for by route %s", b.address, b.link, strings.TrimSpace(r.Text))},
		Consequence: fmt.Sprintf("What goes to %s, and to others with addresses of %s, is sent into %s, where nobody answers.", b.address, n.prefix, n.link),
		Mend: []string{
			fmt.Sprintf("ip route add %s/%d dev %s", b.address, b.address.BitLen(), b.link),
			"# that is for this host alone; give " + n.link + " another network: docker's bip and default-address-pools, the CNI plugin's subnet",
		},
	}
}

func (p *patient) routedElsewhere(b neighbour, own netip.Prefix, r *route.Route) Finding {
	return Finding{
		Summary:     fmt.Sprintf("a route to %s, which lies in %s of %s, leads elsewhere", r.Destination, own, b.link),
		Evidence:    []string{"route " + strings.TrimSpace(r.Text), fmt.Sprintf("%s is at %s", b.address, b.link)},
		Consequence: fmt.Sprintf("What goes to %s, and to others at %s with addresses of %s, leaves by %s.", b.address, b.link, r.Destination, r.Nexthops[0].Interface),
		Mend: []string{
			fmt.Sprintf("ip route add %s/%d dev %s", b.address, b.address.BitLen(), b.link),
			fmt.Sprintf("# that is for this one alone; give %s another network, or leave its addresses out of the route to %s", b.link, r.Destination),
		},
	}
}

// subnet of the neighbour's link that its address is of.
func (p *patient) subnet(b neighbour) (netip.Prefix, bool) {
	for _, a := range p.host.Network.Addresses {
		if a.Interface == b.link && a.Prefix.Contains(b.address) {
			return a.Prefix.Masked(), true
		}
	}
	return netip.Prefix{}, false
}

// servicesOverlap: ClusterIPs lie in a network of pods, of the node's own links, or behind a
// gateway.
func (p *patient) servicesOverlap() []Finding {
	var all []Finding
	var done []netip.Prefix
	services := p.clusterIPs()
	for i := range services {
		in, what, found := p.around(services[i].address, services)
		if !found || slices.Contains(done, in) {
			continue
		}
		done = append(done, in)
		all = append(all, Finding{
			Severity:    Warning,
			Summary:     fmt.Sprintf("ClusterIP %s lies in %s", services[i].address, in),
			Evidence:    []string{what, fmt.Sprintf("kube-proxy translates what goes to %s:%d", services[i].address, services[i].port)},
			Consequence: fmt.Sprintf("Who has that address in %s isn't reached from here: a service answers in its place, or kube-proxy drops what goes there.", in),
			Mend: []string{
				"# give the cluster another service network (--service-cluster-ip-range of kube-apiserver and kube-controller-manager, then each service anew), or " + in.String() + " other addresses",
			},
		})
	}
	return all
}

// around is a network that an address of a service lies in, although others have it.
func (p *patient) around(a netip.Addr, services []service) (in netip.Prefix, what string, found bool) {
	for i := range p.networks {
		n := &p.networks[i]
		if n.prefix.Contains(a) {
			return n.prefix, n.why, true
		}
		for _, rt := range p.others(n) {
			if rt.Destination.Contains(a) {
				return rt.Destination, "route to pods: " + strings.TrimSpace(rt.Text), true
			}
		}
	}
	for _, own := range p.host.Network.Addresses {
		if isNetwork(own.Prefix) && own.Prefix.Contains(a) {
			return own.Prefix.Masked(), fmt.Sprintf("%s has %s", own.Interface, own.Prefix), true
		}
	}
	r := p.host.Network.Lookup(route.Query{Destination: a})
	if r.Known && r.Found && r.Type == route.Unicast && r.Route != nil && p.toOthers(r.Route, spanOf(services, packet.Of(a))) {
		return r.Route.Destination, "route " + strings.TrimSpace(r.Route.Text), true
	}
	return netip.Prefix{}, "", false
}

// toOthers: the route leads to a network of its own behind a gateway. A route for all private
// addresses names none, and one that a routing protocol has for all services is theirs.
func (p *patient) toOthers(r *route.Route, services netip.Prefix) bool {
	to := r.Destination
	if to.IsSingleIP() || len(r.Nexthops) == 0 || !r.Nexthops[0].Via.IsGlobalUnicast() || r.Table != route.TableMain {
		return false
	}
	for _, private := range [...]string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fd00::/8"} {
		if all := netip.MustParsePrefix(private); to.Bits() <= all.Bits() && to.Overlaps(all) {
			return false
		}
	}
	byHand := slices.Contains([]string{"", "boot", "static", "dhcp"}, r.Protocol)
	return byHand || to.Bits() > services.Bits()
}
