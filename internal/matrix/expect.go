package matrix

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Expected is what a matrix is to show.
type Expected struct {
	File  string
	Cells []Expectation
}

// Expectation of a cell, or of all families of one.
type Expectation struct {
	// Line of the file; 0 where it isn't known.
	Line        int
	Row, Column string
	// Family is ipv4, ipv6, or empty for each that the cell is answered for.
	Family string
	// Sees are all that may come about, and each of them must.
	Sees []Sees
}

// Sees is one sight as it is expected.
type Sees struct {
	Verdict Verdict
	// As is the name or address that the source is to be seen as; with it, masqueraded
	// and snat are the same. Empty: whatever it is.
	As string
}

var verdicts = []Verdict{Kept, Pinned, Masqueraded, SNAT, Lost, Refused, Unknown, None}

// ReadExpected reads YAML written by hand, or what `unmasq matrix -o json` printed.
//
//	cells:
//	- {row: pod-here, column: outside, sees: as node-a}
//	- {row: outside, column: cluster-ip-both, family: ipv4, sees: [kept, lost]}
func ReadExpected(file, text string) (Expected, error) {
	r, e := reader{file}, Expected{File: file}
	root, err := r.root(text, "cells:")
	if err != nil {
		return e, err
	}
	top, err := r.fields(root, "", "version", "nodes", "policies", "rows", "columns", "cells", "notes", "measured")
	if err != nil {
		return e, err
	}
	if v := top["version"]; v != nil && v.Value != fmt.Sprint(Version) {
		return e, r.errorf(v, "version", "%s; expected %d", what(v), Version)
	}
	items, err := r.list(top["cells"], "cells")
	if err != nil {
		return e, err
	}
	for i, n := range items {
		x, err := r.expectation(n, fmt.Sprintf("cells[%d]", i))
		if err != nil {
			return e, err
		}
		if len(x.Sees) > 0 { // of a matrix' own cells some have no sights
			e.Cells = append(e.Cells, x)
		}
	}
	if len(e.Cells) == 0 {
		return e, r.errorf(root, "cells", "nothing is expected there; expected a list of row, column and sees")
	}
	return e, nil
}

func (r reader) expectation(n *yaml.Node, path string) (Expectation, error) {
	fields, err := r.fields(n, path, "row", "column", "family", "sees", "source", "destination", "predicted", "before", "measured", "differs", "why")
	if err != nil {
		return Expectation{}, err
	}
	texts, err := r.texts(fields, path, "row", "column", "family")
	if err != nil {
		return Expectation{}, err
	}
	x := Expectation{Line: n.Line, Row: texts["row"], Column: texts["column"], Family: texts["family"]}
	switch {
	case x.Row == "" || x.Column == "":
		return x, r.errorf(n, path, "expected row and column, as the table names them")
	case x.Family != "" && x.Family != "ipv4" && x.Family != "ipv6":
		return x, r.errorf(fields["family"], path+".family", "%q; expected ipv4 or ipv6, or leave it out", x.Family)
	case fields["sees"] != nil && fields["predicted"] != nil:
		return x, r.errorf(n, path, "has sees and predicted; expected one of them")
	case fields["sees"] != nil:
		return x, r.sees(fields["sees"], path+".sees", &x)
	case fields["predicted"] != nil:
		return x, r.predicted(fields["predicted"], path+".predicted", &x)
	}
	return x, r.errorf(n, path+".sees", "missing; expected %s", seesForms)
}

const seesForms = "kept, pinned, masqueraded, snat, lost, refused, unknown, none, or as NAME, or a list of these"

func (r reader) sees(n *yaml.Node, path string, x *Expectation) error {
	items := []*yaml.Node{n}
	if n.Kind == yaml.SequenceNode {
		items = n.Content
	}
	for _, item := range items {
		text, err := r.text(item, path)
		if err != nil {
			return err
		}
		s, ok := parseSees(text)
		if !ok {
			return r.errorf(item, path, "%q; expected %s", text, seesForms)
		}
		x.Sees = append(x.Sees, s)
	}
	if len(x.Sees) == 0 {
		return r.errorf(n, path, "is empty; expected %s", seesForms)
	}
	return nil
}

// parseSees reads kept, lost, …, as node-a, as node-a's eth0, as 192.0.2.11.
func parseSees(text string) (Sees, bool) {
	if as, ok := strings.CutPrefix(text, "as "); ok && strings.TrimSpace(as) != "" {
		return Sees{Verdict: Masqueraded, As: strings.TrimSpace(as)}, true
	}
	return Sees{Verdict: Verdict(text)}, slices.Contains(verdicts, Verdict(text))
}

// predicted are the sights of a matrix.
func (r reader) predicted(n *yaml.Node, path string, x *Expectation) error {
	items, err := r.list(n, path)
	if err != nil {
		return err
	}
	for i, item := range items {
		at := fmt.Sprintf("%s[%d]", path, i)
		fields, err := r.fields(item, at, "verdict", "share", "source", "as", "at", "atName", "by", "why", "dependsOn")
		if err != nil {
			return err
		}
		texts, err := r.texts(fields, at, "verdict", "source", "as")
		if err != nil {
			return err
		}
		s := Sees{Verdict: Verdict(texts["verdict"]), As: texts["as"]}
		if !slices.Contains(verdicts, s.Verdict) {
			return r.errorf(item, at+".verdict", "%q; expected one of %v", s.Verdict, verdicts)
		}
		if s.As == "" {
			s.As = texts["source"]
		}
		if s.Verdict == Lost || s.Verdict == Refused || s.Verdict == Unknown || s.As == Itself {
			s.As = "" // as whom doesn't matter, or is said
		}
		x.Sees = append(x.Sees, s)
	}
	return nil
}

// meets says whether a sight is the one expected.
func (e Sees) meets(s *Sight) bool {
	sameKind := e.Verdict == s.Verdict || e.Verdict == Kept && s.Verdict == Pinned
	if e.As == "" {
		return sameKind
	}
	seen := s.Verdict == Kept || s.Verdict == Pinned || s.Verdict == Masqueraded || s.Verdict == SNAT
	if e.Verdict == Kept || e.Verdict == Pinned {
		seen = s.Verdict == Kept || s.Verdict == Pinned
	}
	return seen && isCalled(s, e.As)
}

// isCalled says whether the sight's source has that name: an interface's, its node's,
// or its address.
func isCalled(s *Sight, name string) bool {
	if a, err := netip.ParseAddr(name); err == nil {
		return a == s.Source
	}
	return s.As == name || strings.HasPrefix(s.As, name+"'s ")
}

// String is as it is written.
func (e Sees) String() string {
	switch {
	case e.As == "":
		return string(e.Verdict)
	case e.Verdict == Kept || e.Verdict == Pinned:
		return string(e.Verdict) + " as " + e.As
	}
	return "as " + e.As
}

// Difference between what is expected and what there is.
type Difference struct {
	// Line of the file.
	Line   int    `json:"line"`
	Row    string `json:"row"`
	Column string `json:"column"`
	// Family, empty where none of the cell's is answered.
	Family string `json:"family,omitempty"`
	Want   string `json:"want"`
	Got    string `json:"got,omitempty"`
	// Unanswered says why there is nothing to compare with; else it is empty.
	Unanswered string `json:"unanswered,omitempty"`
}

// Comparison of a matrix with what is expected.
type Comparison struct {
	Version int    `json:"version"`
	File    string `json:"file"`
	// Compared cells; a family each.
	Compared    int          `json:"compared"`
	Differences []Difference `json:"differences"`
}

// Compare each expectation with what was measured, or else predicted.
func (m *Matrix) Compare(e Expected) Comparison {
	c := Comparison{Version: Version, File: e.File, Differences: []Difference{}}
	for _, x := range e.Cells {
		row, column, why := m.find(x.Row, x.Column)
		answered := false
		for i := range m.Cells {
			cell := &m.Cells[i]
			if why != "" || cell.Row != row || cell.Column != column || x.Family != "" && cell.Family != x.Family {
				continue
			}
			sights := cell.Sights()
			if len(sights) == 0 && !x.expectsNone() {
				why = orNothing(cell.Why)
				continue
			}
			answered = true
			c.Compared++
			if !x.fits(sights) {
				c.Differences = append(c.Differences, Difference{x.Line, x.Row, x.Column, cell.Family, x.want(), Words(sights), ""})
			}
		}
		if !answered {
			c.Differences = append(c.Differences, Difference{x.Line, x.Row, x.Column, x.Family, x.want(), "", orNothing(why)})
		}
	}
	return c
}

func orNothing(why string) string {
	if why == "" {
		return "nothing is known"
	}
	return why
}

// Sights that count: those that were measured, else those predicted.
func (c *Cell) Sights() []Sight {
	if c.Measured != nil {
		return c.Measured
	}
	return c.Predicted
}

// find a row and a column by the names that the table has for them, or that their
// places or services have.
func (m *Matrix) find(row, column string) (r, c, why string) {
	for _, x := range m.Rows {
		if x.Name == row || x.Place.Name == row && r == "" {
			r = x.Name
		}
	}
	for _, x := range m.Columns {
		if x.Name == column || c == "" && (x.Service == column || x.Place != nil && x.Place.Name == column) {
			c = x.Name
		}
	}
	switch {
	case r == "":
		why = fmt.Sprintf("the table has no row %q", row)
	case c == "":
		why = fmt.Sprintf("the table has no column %q", column)
	}
	return r, c, why
}

func (x *Expectation) expectsNone() bool {
	return len(x.Sees) == 1 && x.Sees[0].Verdict == None
}

// fits: each sight is expected, and each that is expected comes about.
func (x *Expectation) fits(sights []Sight) bool {
	if x.expectsNone() {
		return len(sights) == 0
	}
	for i := range sights {
		if !slices.ContainsFunc(x.Sees, func(e Sees) bool { return e.meets(&sights[i]) }) {
			return false
		}
	}
	for _, e := range x.Sees {
		if !slices.ContainsFunc(sights, func(s Sight) bool { return e.meets(&s) }) {
			return false
		}
	}
	return true
}

func (x *Expectation) want() string {
	var all []string
	for _, e := range x.Sees {
		if s := e.String(); !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return strings.Join(all, ", ")
}

// Text of a comparison: a line for each difference, and how many cells are as expected.
func (c *Comparison) Text() string {
	var b strings.Builder
	for _, d := range c.Differences {
		family := ""
		if d.Family != "" {
			family = " (" + d.Family + ")"
		}
		fmt.Fprintf(&b, "%s:%d: %s to %s%s: expected %s, ", c.File, d.Line, d.Row, d.Column, family, d.Want)
		if d.Unanswered != "" {
			fmt.Fprintf(&b, "can't be answered: %s\n", d.Unanswered)
		} else {
			fmt.Fprintf(&b, "is %s\n", d.Got)
		}
	}
	unanswered := 0
	for _, d := range c.Differences {
		if d.Unanswered != "" {
			unanswered++
		}
	}
	differ := len(c.Differences) - unanswered
	fmt.Fprintf(&b, "%d cells compared, %d differ", c.Compared, differ)
	if unanswered > 0 {
		fmt.Fprintf(&b, ", %d can't be answered", unanswered)
	}
	b.WriteString("\n")
	return b.String()
}
