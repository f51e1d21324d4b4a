package lab

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
)

// cell is whom the calls of one pair are seen as, in both families and all protocols.
type cell struct {
	sights []Sight
	ok     bool
	// wanted: another one, at the end.
	wanted bool
}

// grid is a stage with a row for each caller and a column for each way.
type grid struct {
	rows, columns []string
	protocols     []string
	cells         map[[2]string]cell
}

func newGrid(stage *StageResult) grid {
	g := grid{cells: map[[2]string]cell{}}
	for _, s := range stage.Sightings {
		place := [2]string{s.From, column(&s)}
		g.rows, g.columns = withWord(g.rows, place[0]), withWord(g.columns, place[1])
		g.protocols = withWord(g.protocols, strings.ToUpper(s.Protocol))
		c, known := g.cells[place]
		c.ok = s.OK() && (c.ok || !known)
		if !slices.Contains(c.sights, s.Sight) {
			c.sights = append(c.sights, s.Sight)
		}
		wanted := stage.Wanted[s.Call].Of(s.Family)
		c.wanted = c.wanted || wanted != "" && wanted != s.Sight
		g.cells[place] = c
	}
	return g
}

// withWord adds one that isn't there yet.
func withWord(words []string, word string) []string {
	if slices.Contains(words, word) {
		return words
	}
	return append(words, word)
}

// column is "near" for the service's own address, "near node1:30081" for a node port.
func column(s *Sighting) string {
	switch {
	case s.Node != "":
		return fmt.Sprintf("%s %s:%d", s.Service, s.Node, s.Target.Port())
	case s.Service != "":
		return s.Service
	}
	return s.To
}

// text is "own", "node1 *", "✓ own", "✗ own/node1".
func (c cell) text(enforced bool) string {
	var words []string
	for _, s := range c.sights {
		if s == Itself {
			s = "own"
		}
		words = append(words, string(s))
	}
	text := strings.Join(words, "/")
	switch {
	case text == "":
		return ""
	case !c.ok:
		return "✗ " + text
	case enforced:
		return "✓ " + text
	case c.wanted:
		return text + " *"
	}
	return text
}

// writeGrid writes the grid, and a line for each call that was not seen as expected.
//
//	SEEN AS  near     far    near node1:30081
//	pod1     own      own    node1 *
func writeGrid(w io.Writer, stage *StageResult, colour bool) error {
	g := newGrid(stage)
	starred := false
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "  SEEN AS\t%s\n", strings.Join(g.columns, "\t")) //nolint:errcheck // Flush tells
	for _, from := range g.rows {
		row := []string{"  " + from}
		for _, to := range g.columns {
			c := g.cells[[2]string{from, to}]
			starred = starred || c.wanted
			row = append(row, c.text(stage.Policy != ""))
		}
		fmt.Fprintln(table, strings.TrimRight(strings.Join(row, "\t"), "\t")) //nolint:errcheck // Flush tells
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if starred {
		fmt.Fprintln(w, "  * not so with the policy, see below") //nolint:errcheck // the next write tells
	}
	_, err := fmt.Fprintf(w, "  By %s, IPv4 and IPv6: %d calls.\n", joinWords(g.protocols), len(stage.Sightings))
	wrong := *stage
	wrong.Sightings = slices.DeleteFunc(slices.Clone(stage.Sightings), func(s Sighting) bool { return s.OK() })
	if err != nil || len(wrong.Sightings) == 0 {
		return err
	}
	return writeLines(w, &wrong, colour)
}
