package matrix

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/vicinity"
)

// sourcePort that connections come from: of an open one rules about tunnels' ports
// would be told apart.
const sourcePort = 40000

// Check says what of a situation can't be asked: a service that no rule knows, a node
// that no state was given of, a place that has no address.
func (s Situation) Check() error {
	w := newWorld(s)
	w.findServices()
	for _, name := range s.Services {
		if !slices.ContainsFunc(w.services, func(x *service) bool { return x.is(name) }) {
			return fmt.Errorf("service %q isn't in the rules of %s (headless services and ExternalName have none); expected NAMESPACE/NAME, NAMESPACE/NAME:PORT or an address%s",
				name, w.here().Name, w.someServices())
		}
	}
	for _, p := range s.Places {
		switch {
		case p.Node != "" && len(s.Nodes) > 1 && w.named(p.Node) < 0 && p.Kind == Outside:
			return fmt.Errorf("place %q comes in at node %q, whose state wasn't given; expected one of %s", p.Name, p.Node, strings.Join(w.nodeNames(), ", "))
		case len(p.Addresses) == 0:
			return fmt.Errorf("place %q has no address", p.Name)
		case p.Interface != "" && w.nodes[max(w.home(&p), 0)].lacks(p.Interface):
			return fmt.Errorf("place %q comes in by interface %q, which %s doesn't have", p.Name, p.Interface, w.nodes[max(w.home(&p), 0)].Name)
		}
	}
	return nil
}

func (w *world) someServices() string {
	var names []string
	for _, s := range w.services {
		if !slices.Contains(names, s.String()) {
			names = append(names, s.String())
		}
	}
	const most = 5
	switch {
	case len(names) == 0:
		return "; it knows none"
	case len(names) > most:
		return fmt.Sprintf("; it knows %s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return "; it knows " + strings.Join(names, ", ")
}

func (w *world) nodeNames() (names []string) {
	for _, n := range w.nodes {
		names = append(names, n.Name)
	}
	return names
}

// Predict makes the matrix of a situation. It reads nothing but its argument.
func Predict(s Situation) Matrix {
	w := newWorld(s)
	w.findServices()
	w.choosePort()
	columns := w.chosen()
	for _, c := range columns {
		for _, t := range c.targets {
			for _, b := range t.Backends {
				w.backends[b.Addr()] = true
			}
		}
	}
	w.prefer()
	m := Matrix{Version: Version, Nodes: w.nodeNames(), Rows: []Row{}, Columns: []Column{}, Cells: []Cell{}}
	for _, e := range w.ends(Source, w.findPlaces(Source, columns)) {
		m.Rows = append(m.Rows, Row{Name: e.name, Role: e.role, Place: e.place})
	}
	m.Columns = w.columns(columns)
	for i := range m.Rows {
		for j := range m.Columns {
			for _, f := range w.families {
				m.Cells = append(m.Cells, w.cell(&m.Rows[i], &m.Columns[j], f))
			}
		}
	}
	w.aboutAll(&m)
	w.aboutNodes()
	m.Notes = append([]string{}, append(w.notes, w.explain.Warnings()...)...)
	return m
}

// aboutAll makes notes of what all cells depend on: said in each it would say nothing.
func (w *world) aboutAll(m *Matrix) {
	count, sights := map[string]int{}, 0
	for _, c := range m.Cells {
		for _, s := range c.Predicted {
			sights++
			for _, d := range s.DependsOn {
				count[d]++
			}
		}
	}
	for _, d := range slices.Sorted(maps.Keys(count)) {
		if count[d] < sights || sights == 1 {
			continue
		}
		w.note("all of it depends on %s", d)
		for i := range m.Cells {
			for j := range m.Cells[i].Predicted {
				s := &m.Cells[i].Predicted[j]
				s.DependsOn = slices.DeleteFunc(slices.Clone(s.DependsOn), func(x string) bool { return x == d })
			}
		}
	}
}

func (w *world) aboutNodes() {
	if len(w.nodes) == 1 {
		w.note("of %s alone the state is known: what another node does to packets of its own, and whether answers come back by here, isn't", w.here().Name)
	}
	if len(w.services) == 0 {
		w.note("no services are in the table: the rules of %s have none for %s", w.here().Name, protocolName(w.Protocol))
	}
	for _, s := range w.services {
		if len(s.targets) == 1 && len(w.families) == 2 && len(w.Services) > 0 && slices.ContainsFunc(w.Services, s.is) {
			w.note("service %s has an %s address alone", s, packet.Of(s.targets[0].Address))
		}
	}
}

// columns of places, then services, then what lies outside.
func (w *world) columns(services []*service) []Column {
	var inside, outside []Column
	for _, e := range w.ends(Destination, w.findPlaces(Destination, services)) {
		place := e.place
		c := Column{Name: e.name, Role: e.role, Place: &place}
		for _, a := range place.Addresses {
			c.Targets = append(c.Targets, Target{Address: a, Port: cmp.Or(place.Port, w.Port), Protocol: protocolName(w.Protocol)})
		}
		if e.role == OutsideOne || e.role == KeptNetwork {
			if slices.ContainsFunc(outside, func(o Column) bool { return o.Name == c.Name }) || e.role == KeptNetwork {
				c.Name = cmp.Or(place.Name, place.CIDR.String())
			}
			outside = append(outside, c)
		} else {
			inside = append(inside, c)
		}
	}
	return slices.Concat(inside, w.serviceColumns(services), outside)
}

func (w *world) serviceColumns(services []*service) []Column {
	var all []Column
	taken := map[string]bool{}
	add := func(s *service, role Role) {
		name := string(role)
		if taken[name] || len(w.Services) > 0 || w.AllServices {
			name = s.String() + " " + name
		}
		for n, bare := 2, name; taken[name]; n++ {
			name = fmt.Sprint(bare, " ", n)
		}
		taken[name] = true
		all = append(all, Column{Name: name, Role: role, Service: s.name, Targets: s.targets})
	}
	for _, s := range services {
		add(s, w.role(s))
	}
	if s := w.hairpinService(services); s != nil {
		add(s, Hairpin)
	}
	slices.SortStableFunc(all, func(a, b Column) int { return rank(a.Role) - rank(b.Role) })
	return all
}

func rank(r Role) int {
	if r == Hairpin {
		return 4 // behind those by ClusterIP
	}
	if i := slices.Index(serviceRoles[:], r); i > 3 {
		return i + 1
	} else {
		return i
	}
}

// hairpinService is one with a backend here, best the only one.
func (w *world) hairpinService(services []*service) *service {
	for _, alone := range [...]bool{true, false} {
		for _, s := range services {
			here, there := w.spread(s)
			if s.kind == vicinity.ClusterIP && here > 0 && (!alone || there == 0) && w.backendAt([]*service{s}, packet.Of(s.targets[0].Address), 0).IsValid() {
				return s
			}
		}
	}
	return nil
}

// cell asks one question, or says why there is none.
func (w *world) cell(r *Row, c *Column, f packet.Family) Cell {
	cell := Cell{Row: r.Name, Column: c.Name, Family: strings.ToLower(f.String()), Predicted: []Sight{}}
	q, why := w.question(r, c, f)
	if why != "" {
		cell.Why = why
		return cell
	}
	cell.Source, cell.Destination = q.Source, netip.AddrPortFrom(q.Destination, uint16(q.DestinationPort))
	cell.Predicted = w.sights(q, c)
	if len(cell.Predicted) == 0 {
		cell.Why = "no connection leads to itself"
	}
	return cell
}

// question of a cell; why says why there is none.
func (w *world) question(r *Row, c *Column, f packet.Family) (q sim.Question, why string) {
	t := c.Target(f)
	if t == nil {
		return q, "the destination has no " + f.String() + " address"
	}
	q = sim.Question{
		Source: r.Place.Address(f), Destination: t.Address, DestinationPort: int(t.Port), Protocol: w.Protocol, SourcePort: sourcePort,
		InInterface: r.Place.Interface,
	}
	if c.Role == Hairpin {
		if r.Role != PodHere || r.Name != string(PodHere) {
			return q, "only a backend reaches itself"
		}
		q.Source = w.backendAt([]*service{{targets: c.Targets}}, f, 0).Addr()
	}
	if !q.Source.IsValid() && r.Place.Kind != Host {
		return q, "the source has no " + f.String() + " address"
	}
	return w.enter(q, r, c)
}

// enter says at which node the question's packet is first.
func (w *world) enter(q sim.Question, r *Row, c *Column) (sim.Question, string) {
	home := w.home(&r.Place)
	switch {
	case r.Place.Kind == Outside:
		return w.fromOutside(q, r, c)
	case home == nobody:
		return w.fromUnknown(q, c)
	case r.Place.Kind == Host:
		n := w.nodes[home]
		if slices.Contains(r.Place.Addresses, q.Destination) && c.Place != nil {
			return q, "it is the same node"
		}
		q.Source, q.Local, q.InInterface, q.At = n.speaksAs(q.Destination), true, "", n.Name
		if !q.Source.IsValid() {
			return q, n.Name + " has no " + packet.Of(q.Destination).String() + " address to send from"
		}
		return q, ""
	case q.Source == q.Destination:
		return q, "it is the same pod"
	}
	q.At = w.nodes[home].Name
	return q, ""
}

// fromOutside: at the node that was stated; else to nodes and their pods at these, and
// to services here.
func (w *world) fromOutside(q sim.Question, r *Row, c *Column) (sim.Question, string) {
	at := w.named(r.Place.Node)
	switch {
	case c.Role == OutsideOne || c.Role == KeptNetwork:
		return q, "both are outside"
	case at >= 0:
	case c.Place == nil:
		at = 0
	default:
		if at = w.home(c.Place); at == nobody {
			return q, "the state of its node isn't known"
		}
	}
	q.At = w.nodes[at].Name
	return q, ""
}

// fromUnknown: of a source on a node that isn't known, only what is meant for a node
// that is comes to be seen, with the source that it has by itself.
func (w *world) fromUnknown(q sim.Question, c *Column) (sim.Question, string) {
	at := 0
	switch c.Role {
	case NodePortCluster, NodePortLocal, Published:
	case PodHere, PodThere, ThisNode, OtherNode:
		if at = w.home(c.Place); at == nobody {
			return q, "neither node's state is known"
		}
	default:
		return q, "the state of the source's node isn't known"
	}
	q.At = w.nodes[at].Name
	return q, ""
}
