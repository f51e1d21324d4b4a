package flows

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
)

// Summary counts connections by who is seen as whom, and where they go. Addresses
// with a name stand for themselves, others for their network, /24 or /64.
type Summary struct {
	groups map[group]*Group
	// beyond are connections of groups that there was no room for.
	beyond int
}

// Group of connections, as `flows --summary -o json` prints it.
type Group struct {
	Count int `json:"count"`
	// Source, SeenAs and Destination are names, addresses or networks.
	Source          string  `json:"source"`
	SeenAs          string  `json:"seenAs"`
	Protocol        string  `json:"protocol"`
	Destination     string  `json:"destination"`
	DestinationPort *uint16 `json:"destinationPort,omitempty"`
	SourceKind      string  `json:"sourceKind"`
	// By as in the table.
	By string `json:"by"`
}

type group struct {
	source, seen, protocol, destination, by string
	port                                    int
}

// mostGroups bounds what is held: some 50 MB.
const mostGroups = 100000

// Add a connection.
func (s *Summary) Add(f *Flow) {
	if s.groups == nil {
		s.groups = map[group]*Group{}
	}
	g := group{source: network(f.Source, f.SourceName), seen: "itself", protocol: f.Protocol, destination: network(f.Destination, f.DestinationName), by: f.By(), port: -1}
	if f.SeenAs != f.Source {
		g.seen = cmp.Or(f.SeenAsName, f.SeenAs.String())
	}
	if f.DestinationPort != nil {
		g.port = int(*f.DestinationPort)
	}
	known := s.groups[g]
	switch {
	case known != nil:
		known.Count++
	case len(s.groups) >= mostGroups:
		s.beyond++
	default:
		s.groups[g] = &Group{1, g.source, g.seen, g.protocol, g.destination, f.DestinationPort, f.SourceKind, g.by}
	}
}

// network that an address without a name is counted in.
func network(a netip.Addr, name string) string {
	if name != "" {
		return name
	}
	bits := 24
	if a.Is6() {
		bits = 64
	}
	p, _ := a.Prefix(bits)
	return p.String()
}

// Groups, the largest first, at most that many where limit isn't 0; more is how many
// connections the others have.
func (s *Summary) Groups(limit int) (all []Group, more int) {
	for _, g := range s.groups {
		all = append(all, *g)
	}
	slices.SortFunc(all, func(a, b Group) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), strings.Compare(a.text(), b.text()))
	})
	more = s.beyond
	if limit > 0 && len(all) > limit {
		for _, g := range all[limit:] {
			more += g.Count
		}
		all = all[:limit]
	}
	return all, more
}

// text orders groups of one size.
func (g *Group) text() string {
	return strings.Join([]string{g.Source, g.Protocol, g.Destination, g.port(), g.SeenAs, g.By}, " ")
}

func (g *Group) port() string {
	if g.DestinationPort == nil {
		return ""
	}
	return fmt.Sprintf(" port %d", *g.DestinationPort)
}

// Text writes groups in columns.
func Text(out io.Writer, groups []Group, more int) error {
	t := Table{Out: out, held: [][]string{{"FLOWS", "PROTO", "SOURCE", "SEEN AS", "DESTINATION", "BY"}}}
	for _, g := range groups {
		t.held = append(t.held, []string{fmt.Sprint(g.Count), g.Protocol, g.Source, g.SeenAs, g.Destination + g.port(), g.By})
	}
	if more > 0 {
		t.held = append(t.held, []string{fmt.Sprint(more), "…"})
	}
	return t.Flush()
}
