package matrix

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/vicinity"
)

// Roles of rows are those of columns that are places.
var placeRoles = [...]Role{PodHere, PodThere, ThisNode, OtherNode, OutsideOne}

// mostNodes are shown of those that aren't here.
const mostNodes = 3

// roleOf a place.
func (w *world) roleOf(p *Place) Role {
	switch p.Kind {
	case Network:
		return KeptNetwork
	case Outside:
		return OutsideOne
	}
	here := w.home(p) == 0
	switch {
	case p.Kind == Pod && here:
		return PodHere
	case p.Kind == Pod:
		return PodThere
	case here:
		return ThisNode
	}
	return OtherNode
}

// home is the index of the node that a place is on: as it says, or by its addresses.
func (w *world) home(p *Place) int {
	if p.Node != "" {
		return w.named(p.Node)
	}
	for _, a := range p.Addresses {
		if at := w.whereIs(a); at != nobody {
			return at
		}
	}
	return nobody
}

// ends are the places that rows, or columns, are made of, with their roles.
type end struct {
	name  string
	role  Role
	place Place
}

// ends for sources or destinations: what was stated, and what is found for the roles
// that nothing was stated for.
func (w *world) ends(side string, found map[Role][]Place) []end {
	var all []end
	for _, role := range append(placeRoles[:], KeptNetwork) {
		if role == KeptNetwork && side == Source {
			continue
		}
		var places []Place
		for _, p := range w.Places {
			if w.roleOf(&p) == role && (p.Only == "" || p.Only == side) {
				places = append(places, p)
			}
		}
		if len(places) == 0 {
			places = found[role]
		}
		for i, p := range places {
			name := string(role)
			if i > 0 {
				name = cmp.Or(p.Name, fmt.Sprint(role, " ", i+1))
			}
			for slices.ContainsFunc(all, func(e end) bool { return e.name == name }) {
				name += "'"
			}
			all = append(all, end{name, role, p})
		}
	}
	return all
}

// findPlaces for sources or destinations. Pods that are destinations are backends of
// services, of which the port is known; those that are sources aren't.
func (w *world) findPlaces(side string, columns []*service) map[Role][]Place {
	found := map[Role][]Place{}
	for _, n := range w.nodes[:min(len(w.nodes), 1+mostNodes)] {
		pod, self := PodThere, OtherNode
		if n.index == 0 {
			pod, self = PodHere, ThisNode
		}
		found[self] = appendPlace(found[self], w.nodePlace(n))
		p := w.podOf(n, side, columns)
		found[pod] = appendPlace(found[pod], p)
		if len(p.Addresses) == 0 {
			w.note("no pod of %s is in the table: its links and routes show no network of containers", n.Name)
		}
	}
	if left := len(w.nodes) - 1 - mostNodes; left > 0 {
		w.note("%d more nodes aren't in the table by themselves; their state is used", left)
	}
	if len(w.nodes) == 1 {
		found[PodThere] = appendPlace(nil, w.remotePod(side, columns))
		found[OtherNode] = appendPlace(nil, w.remoteNode(columns))
		if found[PodThere] == nil {
			w.note("no pod of another node is in the table: no route leads to one's pods")
		}
	}
	found[OutsideOne], found[KeptNetwork] = appendPlace(nil, w.outside()), w.keptNetworks()
	return found
}

// mostKept networks that others' rules leave alone are asked about.
const mostKept = 4

// keptNetworks are those that an exemption of here's rules names, by a host of each
// that is far away.
func (w *world) keptNetworks() (all []Place) {
	for _, cidr := range vicinity.Kept(w.here().Host) {
		p, err := ParseNetwork(cidr.String())
		if err != nil || !slices.Contains(w.families, packet.Of(cidr.Addr())) || w.whereIs(p.Addresses[0]) != nobody || cidr.Bits() == 0 {
			continue
		}
		p.Found = "ip-masq-agent leaves it alone"
		all = append(all, p)
	}
	if len(all) > mostKept {
		w.note("%d more networks that ip-masq-agent leaves alone: --network CIDR", len(all)-mostKept)
	}
	return all[:min(len(all), mostKept)]
}

func appendPlace(all []Place, p Place) []Place {
	if len(p.Addresses) == 0 {
		return all
	}
	return append(all, p)
}

func (w *world) nodePlace(n *node) Place {
	p := Place{Kind: Host, Name: n.Name, Node: n.Name, Found: "its own address"}
	for _, f := range w.families {
		if a := n.primary(f); a.IsValid() {
			p.Addresses = append(p.Addresses, a)
		}
	}
	return p
}

// podOf a node whose state is known.
func (w *world) podOf(n *node, side string, columns []*service) Place {
	p := Place{Kind: Pod, Node: n.Name}
	for _, f := range w.families {
		if side == Destination {
			if b := w.backendAt(columns, f, n.index); b.IsValid() {
				p.add(b.Addr(), "a backend", b.Port())
				continue
			}
		}
		if a, why := n.member(f, w.backends, side == Destination); a.IsValid() {
			p.add(a, why, 0)
		}
	}
	p.Name = "pod on " + n.Name
	return p
}

func (p *Place) add(a netip.Addr, why string, port uint16) {
	p.Addresses, p.Found = append(p.Addresses, a), cmp.Or(p.Found, why)
	p.Port = cmp.Or(p.Port, port)
}

// backendAt a node, of the services that are asked about.
func (w *world) backendAt(columns []*service, f packet.Family, at int) netip.AddrPort {
	for _, s := range columns {
		t := s.target(f)
		if t == nil {
			continue
		}
		for _, b := range t.Backends {
			if w.whereIs(b.Addr()) == at && !w.isNode(b.Addr()) {
				return b
			}
		}
	}
	return netip.AddrPort{}
}

// isNode: the address is one of a node itself, as far as is known.
func (w *world) isNode(a netip.Addr) bool {
	return slices.ContainsFunc(w.nodes, func(n *node) bool { return n.holds(a) })
}

// member of the node's networks: one that is known, else the first that is free; the
// last known one for a destination, so that it isn't the source.
func (n *node) member(f packet.Family, taken map[netip.Addr]bool, last bool) (a netip.Addr, why string) {
	var known []netip.Addr
	for i := range n.networks {
		x := &n.networks[i]
		if x.Family() != f {
			continue
		}
		for _, m := range x.Members {
			if !taken[m] {
				known = append(known, m)
			}
		}
	}
	if len(known) > 1 && last {
		return known[len(known)-1], "a neighbour"
	}
	if len(known) > 0 && !last {
		return known[0], "a neighbour"
	}
	for i := range n.networks {
		x := &n.networks[i]
		if x.Family() != f || x.Prefix.IsSingleIP() {
			continue
		}
		free := vicinity.Free(n.Host, x.Prefix, func(a netip.Addr) bool { return taken[a] || slices.Contains(known, a) })
		if last && free.IsValid() {
			free = vicinity.Free(n.Host, x.Prefix, func(a netip.Addr) bool { return taken[a] || a == free || slices.Contains(known, a) })
		}
		if free.IsValid() {
			return free, "any address of " + x.Prefix.String()
		}
	}
	return netip.Addr{}, ""
}

// remotePod is one of a node whose state isn't known: a backend, or any address that a
// route leads to as to another node's pods.
func (w *world) remotePod(side string, columns []*service) Place {
	p := Place{Kind: Pod, Name: "pod on another node"}
	for _, f := range w.families {
		backend := w.backendAt(columns, f, nobody)
		if side == Destination && backend.IsValid() {
			p.add(backend.Addr(), "a backend", backend.Port())
			continue
		}
		prefix := w.remotePrefix(f, backend.Addr())
		if !prefix.IsValid() {
			continue
		}
		a := vicinity.Free(w.here().Host, prefix, func(a netip.Addr) bool { return w.backends[a] })
		if a.IsValid() {
			p.add(a, "any address of "+prefix.String(), 0)
		}
	}
	return p
}

// remotePrefix of another node's pods: where a backend is, or what looks like it.
func (w *world) remotePrefix(f packet.Family, backend netip.Addr) netip.Prefix {
	for i := range w.here().networks {
		n := &w.here().networks[i]
		if n.Family() != f {
			continue
		}
		remotes := vicinity.Remotes(w.here().Host, n)
		for _, r := range remotes {
			if backend.IsValid() && r.Destination.Contains(backend) {
				return r.Destination
			}
		}
		if len(remotes) > 0 {
			return remotes[0].Destination
		}
	}
	if !backend.IsValid() {
		return netip.Prefix{}
	}
	if r := w.here().way(backend); r.Known && r.Found && r.Route != nil && r.Route.Destination.Bits() > 8 {
		return r.Route.Destination
	}
	return netip.Prefix{}
}

// remoteNode is the node that has the remote pod, whose state isn't known: the end of
// the tunnel to it, or the gateway.
func (w *world) remoteNode(columns []*service) Place {
	p := Place{Kind: Host, Name: "another node"}
	for _, f := range w.families {
		prefix := w.remotePrefix(f, w.backendAt(columns, f, nobody).Addr())
		from, _ := w.here().member(f, w.backends, false)
		if !prefix.IsValid() || !from.IsValid() {
			continue
		}
		to := vicinity.Free(w.here().Host, prefix, func(netip.Addr) bool { return false })
		hops := w.explain.Path(sim.Question{Source: from, Destination: to, SourcePort: sourcePort, DestinationPort: int(w.Port), Protocol: w.Protocol, At: w.here().Name})
		if len(hops) == 0 {
			continue
		}
		o := &hops[0].Outcome
		switch {
		case o.Encapsulated != nil && packet.Of(o.Encapsulated.Question.Destination) == f:
			p.add(o.Encapsulated.Question.Destination, "the other end of "+o.Encapsulated.Interface, 0)
		case o.Encapsulated == nil && o.NextHop.IsValid() && packet.Of(o.NextHop) == f && !o.NextHop.IsLinkLocalUnicast() && !w.isDefaultGateway(o.NextHop):
			p.add(o.NextHop, "the gateway to "+prefix.String(), 0)
		}
	}
	return p
}

// isDefaultGateway: packets to everywhere go there; then it is no node.
func (w *world) isDefaultGateway(a netip.Addr) bool {
	r := w.here().way(vicinity.Outside(packet.Of(a)))
	return len(r.Nexthops) == 1 && r.Nexthops[0].Via == a
}

// outside is an address that is far away.
func (w *world) outside() Place {
	p := Place{Kind: Outside, Name: "outside", Found: "any address far away"}
	for _, f := range w.families {
		a := vicinity.Outside(f)
		if r := w.here().way(a); r.Known && !r.Found {
			w.note("nobody outside is in the table for %s: %s has no route there", f, w.here().Name)
			continue
		}
		p.Addresses = append(p.Addresses, a)
	}
	return p
}
