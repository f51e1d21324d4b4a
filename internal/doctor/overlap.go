package doctor

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/route"
)

// overlaps: a host at one of the node's links can't be reached, since a network of
// containers has its address.
func overlaps(p *patient) []Finding {
	var all []Finding
	var done []string
	for _, b := range p.neighbours() {
		own, connected := p.subnet(b)
		r := p.host.Network.Lookup(route.Query{Destination: b.address})
		if !connected || !r.Known || !r.Found || r.Type != route.Unicast || r.Interface == b.link || slices.Contains(done, r.Interface) {
			continue
		}
		i := slices.IndexFunc(p.networks, func(n network) bool { return n.link == r.Interface && n.prefix.Contains(b.address) })
		if i < 0 || r.Route == nil {
			continue
		}
		done = append(done, r.Interface)
		all = append(all, Finding{
			Summary:     fmt.Sprintf("%s on %s lies in %s of %s", p.networks[i].prefix, r.Interface, own, b.link),
			Evidence:    []string{p.networks[i].why, fmt.Sprintf("%s at %s is looked for by route %s", b.address, b.link, r.Route.Text)},
			Consequence: fmt.Sprintf("What goes to %s, and to others with addresses of %s, is sent into %s, where nobody answers.", b.address, p.networks[i].prefix, r.Interface),
			Mend: []string{
				fmt.Sprintf("ip route add %s/%d dev %s", b.address, b.address.BitLen(), b.link),
				"# that is for this host alone; give " + r.Interface + " another network: docker's bip and default-address-pools, the CNI plugin's subnet",
			},
		})
	}
	return all
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
