package matrix

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
)

// grid is a matrix as it is shown: destinations down, of which there are many, sources
// across. Families that read alike are one grid.
type grid struct {
	title string
	heads []label
	rows  []gridRow
}

// label of a row or column: its name, as expectations have it; what it is in words;
// what it is called there; its addresses.
type label struct{ name, title, about, where string }

type gridRow struct {
	label
	cells []gridCell
}

// gridCell has a line for each sight; none where it wasn't asked, why then says why.
type gridCell struct {
	lines []gridLine
	why   string
}

// gridLine is a sight in words.
type gridLine struct {
	text string
	// class is the verdict, for colours; "differs" and "before" for other lines.
	class string
	// note is the number of its footnote, 0 without.
	note int
}

// footnotes are numbered from 1 in the order in which they come up.
type footnotes struct{ all []string }

func (f *footnotes) number(text string) int {
	if text == "" {
		return 0
	}
	i := slices.Index(f.all, text)
	if i < 0 {
		f.all = append(f.all, text)
		i = len(f.all) - 1
	}
	return i + 1
}

// grids of a matrix with their footnotes.
func (m *Matrix) grids() ([]grid, []string) {
	var families []string
	for _, f := range packet.Families {
		name := strings.ToLower(f.String())
		if slices.ContainsFunc(m.Cells, func(c Cell) bool { return c.Family == name }) {
			families = append(families, name)
		}
	}
	var notes footnotes
	if len(families) == 2 && m.alike() {
		g := m.grid("ipv4", "", &notes)
		g.title = "IPv4, IPv6"
		return []grid{g}, notes.all
	}
	var all []grid
	for _, f := range families {
		all = append(all, m.grid(f, f, &notes))
	}
	return all, notes.all
}

// alike says whether both families read the same.
func (m *Matrix) alike() bool {
	text := map[string]string{}
	for _, c := range m.Cells {
		line := ""
		for _, l := range c.shown(&footnotes{}) {
			line += l.text + "\n"
		}
		key := c.Row + "\n" + c.Column
		if before, known := text[key]; known && before != line {
			return false
		}
		text[key] = line
	}
	return true
}

// grid of a family's cells, with the addresses of one family, or of both.
func (m *Matrix) grid(family, addresses string, notes *footnotes) grid {
	g := grid{title: strings.Replace(strings.ToUpper(family), "IPV", "IPv", 1)}
	cells := map[[2]string]*Cell{}
	for i := range m.Cells {
		if c := &m.Cells[i]; c.Family == family {
			cells[[2]string{c.Row, c.Column}] = c
		}
	}
	for _, r := range m.Rows {
		g.heads = append(g.heads, label{r.Name, titles[r.Role], r.Place.Name, r.Place.addresses(addresses)})
	}
	for _, c := range m.Columns {
		if c.address(addresses) == "" {
			continue // said of the other family
		}
		about := c.Service
		if c.Place != nil {
			about = c.Place.Name
		}
		row := gridRow{label: label{c.Name, titles[c.Role], about, c.address(addresses)}}
		for _, r := range m.Rows {
			cell := gridCell{why: "not in the table"}
			if found := cells[[2]string{r.Name, c.Name}]; found != nil {
				cell = gridCell{lines: found.shown(notes), why: found.Why}
			}
			row.cells = append(row.cells, cell)
		}
		g.rows = append(g.rows, row)
	}
	return g
}

// titles of roles, for people.
var titles = map[Role]string{
	PodHere: "Pod here", PodThere: "Pod there", ThisNode: "This node", OtherNode: "Other node", OutsideOne: "Outside", KeptNetwork: "Network",
	ClusterIPHere: "ClusterIP, backend here", ClusterIPThere: "ClusterIP, backend there", ClusterIPBoth: "ClusterIP, backends on both sides",
	ClusterIPNone: "ClusterIP, no backend", Hairpin: "Itself, through a service", NodePortCluster: "NodePort, policy Cluster",
	NodePortLocal: "NodePort, policy Local", ExternalIP: "External IP", Published: "Published port",
}

// addresses of the families of a grid.
func (p *Place) addresses(family string) string {
	var all []string
	for _, a := range p.Addresses {
		if family == "" || strings.ToLower(packet.Of(a).String()) == family {
			all = append(all, a.String())
		}
	}
	return strings.Join(all, ", ")
}

// address that connections of a grid's families go to.
func (c *Column) address(family string) string {
	var all []string
	for _, t := range c.Targets {
		if family == "" || strings.ToLower(packet.Of(t.Address).String()) == family {
			all = append(all, netip.AddrPortFrom(t.Address, t.Port).String())
		}
	}
	return strings.Join(all, ", ")
}

// shown are the lines of a cell.
func (c *Cell) shown(notes *footnotes) []gridLine {
	var lines []gridLine
	add := func(sights []Sight, before string, class string) {
		for i := range sights {
			s := &sights[i]
			l := gridLine{text: before + s.words(len(sights) > 1), class: cmp.Or(class, string(s.Verdict)), note: notes.number(s.note())}
			lines = append(lines, l)
		}
	}
	add(c.Predicted, "", "")
	switch {
	case c.Differs:
		add(c.Measured, "measured: ", "differs")
	case c.Measured != nil && len(lines) > 0:
		lines[0].text += " ✓"
	}
	add(c.Before, "now: ", "before")
	return lines
}

// Words are what sights come to, in a line: "kept 50 %, as node-a's eth0 50 %". Those
// that differ only in why are one.
func Words(sights []Sight) string {
	var all []Sight
	for _, s := range sights {
		i := slices.IndexFunc(all, func(o Sight) bool { return o.words(false) == s.words(false) })
		if i < 0 {
			all = append(all, s)
		} else {
			all[i].join(&s)
		}
	}
	var text []string
	for i := range all {
		text = append(text, all[i].words(len(all) > 1))
	}
	return strings.Join(text, ", ")
}

// words of a sight, with its share where it is one of several.
func (s *Sight) words(several bool) string {
	text := string(s.Verdict)
	switch s.Verdict {
	case Kept, Pinned:
		if _, link, own := strings.Cut(s.As, "'s "); own {
			text += " (" + link + ")"
		}
	case Masqueraded, SNAT:
		text = "as " + s.calledAs()
	case Unknown:
		text = "?"
	}
	if several && s.Share != nil {
		text += fmt.Sprintf(" %d %%", int(math.Round(100**s.Share)))
	}
	return text
}

// calledAs is the name of the source, or its address.
func (s *Sight) calledAs() string {
	switch {
	case s.As != "":
		return s.As
	case s.Source.IsValid():
		return s.Source.String()
	}
	return "an address that isn't known"
}

// note of a sight: by whom, why, and on what it depends.
func (s *Sight) note() string {
	var parts []string
	if s.Why != "" {
		parts = append(parts, s.Why)
	}
	if s.By != nil {
		parts = append(parts, s.By.String())
	}
	for _, d := range s.DependsOn {
		parts = append(parts, "depends on "+d)
	}
	return strings.Join(parts, "; ")
}

// String is, for example,
//
//	kube-proxy on node-a: hairpin: the endpoint reaches itself through the service (nat KUBE-POSTROUTING rule 3)
func (b *By) String() string {
	text := cmp.Or(b.Owner, "a rule of unknown origin")
	if b.Place == "route" || b.Place == "conntrack" {
		text = b.Place
	}
	if b.Node != "" {
		text += " on " + b.Node
	}
	if b.Because != "" {
		text += ": " + b.Because
	}
	if b.Place != "" && b.Place != "route" && b.Place != "conntrack" {
		text += " (" + b.Place + ")"
	}
	return text
}

// where says what the source of a row is: its name, where that is another, its
// addresses, and what tells of it.
func (p *Place) where(row string) string {
	text := p.addresses("")
	if p.Name != row {
		text = p.Name + ", " + text
	}
	if p.Found != "" {
		text += " (" + p.Found + ")"
	}
	if p.Node != "" && p.Kind == Outside {
		text += ", comes in at " + p.Node
	}
	if p.CIDR.IsValid() {
		text += " of " + p.CIDR.String()
	}
	return text
}

const mostBackends = 3

// where says what a column's connections go to.
func (c *Column) where() string {
	var all []string
	for _, t := range c.Targets {
		text := netip.AddrPortFrom(t.Address, t.Port).String()
		if c.Place == nil && len(t.Backends) > 0 {
			var backends []string
			for _, b := range t.Backends[:min(len(t.Backends), mostBackends)] {
				backends = append(backends, b.String())
			}
			text += " → " + strings.Join(backends, " | ")
			if more := len(t.Backends) - mostBackends; more > 0 {
				text += fmt.Sprintf(" and %d more", more)
			}
		}
		all = append(all, text)
	}
	text := strings.Join(all, ", ")
	if c.Service != "" {
		text = c.Service + ", " + text
	}
	if c.Place != nil && c.Place.Name != c.Name {
		text = c.Place.Name + ", " + text
	}
	if c.Place != nil && c.Place.Found != "" {
		text += " (" + c.Place.Found + ")"
	}
	if c.Place != nil && c.Place.CIDR.IsValid() {
		text += " of " + c.Place.CIDR.String()
	}
	return text
}
