package doctor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/route"
)

// Entering is what comes from outside the cluster to ClusterIPs by one node. It is
// there where tracked connections were given, none of them too.
type Entering struct {
	Node string `json:"node,omitempty"`
	// Family as people write it: IPv4, IPv6.
	Family string `json:"family"`
	// Address of the node that a route to it names.
	Address string `json:"address"`
	// Services is the smallest network with all ClusterIPs.
	Services string `json:"services"`
	// Connections, and how many pairs of a client and a service they are of.
	Connections int `json:"connections"`
	Pairs       int `json:"pairs"`
	// Example of a connection; empty without one.
	Example string `json:"example,omitempty"`
}

// enters counts for the check of all nodes together; of one alone nothing is known.
func enters(p *patient) []Finding {
	if !p.host.ConnectionsGiven {
		return nil
	}
	services := p.clusterIPs()
	for _, f := range packet.Families {
		link, known := p.host.Network.InterfaceFor(outside(f))
		at, ok := p.addressOn(link, f)
		if span := spanOf(services, f); known && ok && span.IsValid() {
			e := Entering{Node: p.name, Family: f.String(), Address: at.String(), Services: span.String()}
			p.countEntering(&e, f, services)
			p.entering = append(p.entering, e)
		}
	}
	return nil
}

func (p *patient) countEntering(e *Entering, f packet.Family, services []service) {
	type pair struct {
		client netip.Addr
		to     netip.AddrPort
	}
	type port struct {
		protocol uint8
		at       netip.AddrPort
	}
	known, seen, seenInside := map[port]bool{}, map[pair]bool{}, map[netip.Addr]bool{}
	pods, nodes := p.fromInside()
	for _, s := range services {
		known[port{s.protocol, netip.AddrPortFrom(s.address, uint16(s.port))}] = true
	}
	for i := range p.host.Connections {
		c := &p.host.Connections[i]
		to := netip.AddrPortFrom(c.Original.Destination, c.Original.DestinationPort)
		if !known[port{c.Protocol, to}] || packet.Of(to.Addr()) != f {
			continue
		}
		from := c.Original.Source
		inside, asked := seenInside[from]
		if !asked {
			inside = p.isLocal(from) || nodes[from] || slices.ContainsFunc(pods, func(n netip.Prefix) bool { return n.Contains(from) })
			seenInside[from] = inside
		}
		if inside {
			continue
		}
		e.Connections++
		if e.Example == "" {
			e.Example = c.Text
		}
		seen[pair{c.Original.Source, to}] = true
	}
	e.Pairs = len(seen)
}

// ways of a network lead to pods of other nodes.
func (p *patient) ways(n *network) []*route.Route { return append(p.others(n), p.tunnelRoutes(n)...) }

// fromInside are networks of pods, here and on other nodes, and those nodes.
func (p *patient) fromInside() (pods []netip.Prefix, nodes map[netip.Addr]bool) {
	nodes = map[netip.Addr]bool{}
	for i := range p.networks {
		pods = append(pods, p.networks[i].prefix)
		for _, rt := range p.ways(&p.networks[i]) {
			if !slices.Contains(pods, rt.Destination) {
				pods = append(pods, rt.Destination)
			}
			nodes[rt.Nexthops[0].Via] = true
		}
	}
	return pods, nodes
}

// enough pairs, of which each comes to a node of its own where routes lead to several,
// that it is no chance when all come to one.
const enough = 8

// singleEntry looks at all nodes together: of several that know services, one has all
// connections from outside.
func singleEntry(all []Entering) []Finding {
	var found []Finding
	for _, f := range packet.Families {
		var by *Entering
		var others []Entering
		for i := range all {
			switch e := &all[i]; {
			case e.Family != f.String():
			case e.Connections == 0:
				others = append(others, *e)
			case by != nil:
				by = &Entering{} // it isn't the only one
			default:
				by = e
			}
		}
		if by != nil && len(others) > 0 && by.Pairs >= enough {
			found = append(found, oneCarriesAll(by, others))
		}
	}
	return found
}

func oneCarriesAll(by *Entering, others []Entering) Finding {
	hops := " nexthop via " + by.Address
	var names []string
	for i, e := range others {
		const most = 8
		names = append(names, e.Node)
		if i < most {
			hops += " nexthop via " + e.Address
		}
	}
	severity, _ := About("single-entry")
	return Finding{
		Code: "single-entry", Severity: severity, Node: by.Node,
		Summary: fmt.Sprintf("all that comes from outside to %s ClusterIPs comes by this node", by.Family),
		Evidence: []string{
			fmt.Sprintf("%d connections of %d pairs of a client and a service here, such as %s", by.Connections, by.Pairs, by.Example),
			"none on " + strings.Join(names, ", "),
		},
		Consequence: "Without this node none of these clients reaches a service; and what goes to backends on other nodes is answered past it, unless it masquerades such clients.",
		Mend: []string{
			"# on the routers that lead here, each connection by one way (sysctl -w net.ipv4.fib_multipath_hash_policy=1), or by BGP from each node:",
			fmt.Sprintf("# ip route replace %s%s", by.Services, hops),
		},
	}
}
