package matrix

import (
	"fmt"
	"html"
	"strings"
)

// Sizes of the drawing, in pixels.
const (
	leading = 22.0
	margin  = 16.0
	inset   = 10.0
)

const svgStyle = `
svg { font: 12px system-ui, sans-serif; }
text { fill: #1f2328; }
.dim { fill: #59636e; font-size: 11px; }
.head { font-weight: bold; }
.band { fill: #f6f8fa; }
.back { fill: #ffffff; }
path, .frame { stroke: #d1d9e0; fill: none; }
.s text { font-weight: 600; }
.before text { font-weight: normal; }
`

const svgDark = `text { fill: #e6edf3; }
.dim { fill: #9198a1; }
.band { fill: #151b23; }
.back { fill: #0d1117; }
path, .frame { stroke: #30363d; }
`

// drawingColours are the colours as a drawing's style.
func drawingColours() string {
	var light, night strings.Builder
	for _, c := range colours {
		fmt.Fprintf(&light, ".%s rect { fill: %s; }\n.%[1]s text { fill: %[3]s; }\n", c.class, c.fill, c.ink)
		fmt.Fprintf(&night, ".%s rect { fill: %s; }\n.%[1]s text { fill: %[3]s; }\n", c.class, c.darkFill, c.darkInk)
	}
	return light.String() + dark + svgDark + night.String() + "}\n"
}

// SVG is the matrix as a drawing, with its footnotes. It takes the colours of light and
// dark pages.
func (m *Matrix) SVG() string {
	grids, notes := m.grids()
	var body strings.Builder
	top, right := margin+14, 0.0
	fmt.Fprintf(&body, "<text class=\"head\" x=\"%.0f\" y=\"%.0f\">Who is seen as whom, %s: %s</text>\n", margin, top, m.protocol(), html.EscapeString(m.subject()))
	top += margin
	for i := range grids {
		height, width := grids[i].svg(&body, top)
		top += height + margin
		right = max(right, width)
	}
	top = m.svgLegend(&body, grids, top, right)
	for i, n := range notes {
		for j, line := range wrap(fmt.Sprintf("%d  %s", i+1, n), int((right-2*margin)/6)) {
			if j > 0 {
				line = "    " + line
			}
			fmt.Fprintf(&body, "<text class=\"dim\" xml:space=\"preserve\" x=\"%.0f\" y=\"%.0f\">%s</text>\n", margin, top+8, html.EscapeString(line))
			top += 16
		}
	}
	return fmt.Sprintf("<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %.0f %.0f\" width=\"%.0f\" height=\"%.0f\" role=\"img\">\n<style>%s%s</style>\n<rect class=\"back\" width=\"100%%\" height=\"100%%\"/>\n%s</svg>\n",
		right+margin, top+margin, right+margin, top+margin, svgStyle, drawingColours(), body.String())
}

// svg draws a grid and returns its height and right edge.
func (g *grid) svg(b *strings.Builder, top float64) (height, right float64) {
	widths := g.widths()
	right = margin
	for _, w := range widths {
		right += w
	}
	y := top
	head := 2*leading + inset
	fmt.Fprintf(b, "<rect class=\"band\" x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\"/>\n", margin, y, right-margin, head)
	fmt.Fprintf(b, "<text class=\"dim\" x=\"%.0f\" y=\"%.0f\">%s</text>\n<text class=\"dim\" x=\"%.0f\" y=\"%.0f\">to ↓ from →</text>\n", margin+inset, y+inset+12, g.title, margin+inset, y+inset+29)
	x := margin + widths[0]
	for i, h := range g.heads {
		h.svg(b, x+inset, y+inset+12)
		x += widths[i+1]
	}
	y += head
	for i := range g.rows {
		r := &g.rows[i]
		lines := 2
		for _, c := range r.cells {
			lines = max(lines, len(c.lines))
		}
		rowHeight := float64(lines)*leading + inset
		fmt.Fprintf(b, "<rect class=\"band\" x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\"/>\n<path d=\"M%.0f %.0f H%.0f\"/>\n", margin, y, widths[0], rowHeight, margin, y, right)
		r.label.svg(b, margin+inset, y+inset+10)
		x := margin + widths[0]
		for j, c := range r.cells {
			c.svg(b, x+inset, y+inset/2)
			x += widths[j+1]
		}
		y += rowHeight
	}
	fmt.Fprintf(b, "<rect class=\"frame\" x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\"/>\n", margin, top, right-margin, y-top)
	return y - top, right
}

// svgLegend draws what words mean that are in the grids, and returns where it ends.
func (m *Matrix) svgLegend(b *strings.Builder, grids []grid, top, right float64) float64 {
	entries := drawnLegend(grids)
	if m.Measured {
		entries = append(entries, legendEntry{class: "unknown", word: "✓", means: "measured, as predicted"})
	}
	x := margin
	for _, l := range entries {
		word := gridCell{lines: []gridLine{{text: l.word, class: l.class}}}
		wide := drawn(l.word) + 22
		next := x + wide + float64(width(l.means))*6 + margin
		if next > right && x > margin {
			next, x, top = next-x+margin, margin, top+leading
		}
		word.svg(b, x, top-8)
		fmt.Fprintf(b, "<text class=\"dim\" x=\"%.0f\" y=\"%.0f\">%s</text>\n", x+wide, top+7, html.EscapeString(l.means))
		x = next
	}
	return top + leading + inset
}

// widths of the columns, the first of which has the names of rows.
func (g *grid) widths() []float64 {
	widths := make([]float64, len(g.heads)+1)
	wide := func(i int, text string) { widths[i] = max(widths[i], drawn(text)+2*inset+8) }
	for i, h := range g.heads {
		wide(i+1, h.title)
		wide(i+1, h.second())
	}
	for i := range g.rows {
		wide(0, g.rows[i].title)
		wide(0, g.rows[i].second())
		for j, c := range g.rows[i].cells {
			for _, l := range c.lines {
				wide(j+1, l.text+" 12")
			}
		}
	}
	return widths
}

// drawn is how wide a bold text may be in the widest fonts that systems have, in pixels.
func drawn(text string) (wide float64) {
	for _, c := range text {
		switch {
		case strings.ContainsRune("mwMW%", c):
			wide += 12
		case strings.ContainsRune("fijlrt.,:;'()[]-/ ", c):
			wide += 5
		default:
			wide += 8.3
		}
	}
	return wide
}

// second line of a label: what it is called, or its addresses.
func (l *label) second() string {
	if l.about != "" && !strings.EqualFold(l.about, l.title) {
		return l.about
	}
	return l.where
}

func (l *label) svg(b *strings.Builder, x, y float64) {
	fmt.Fprintf(b, "<text class=\"head\" x=\"%.0f\" y=\"%.0f\">%s</text>\n<text class=\"dim\" x=\"%.0f\" y=\"%.0f\">%s</text>\n",
		x, y, html.EscapeString(l.title), x, y+17, html.EscapeString(l.second()))
}

func (c *gridCell) svg(b *strings.Builder, x, y float64) {
	if len(c.lines) == 0 {
		fmt.Fprintf(b, "<text class=\"dim\" x=\"%.0f\" y=\"%.0f\">·<title>%s</title></text>\n", x+6, y+16, html.EscapeString(c.why))
	}
	for _, l := range c.lines {
		text, note, wide := html.EscapeString(l.text), "", drawn(l.text)+16
		if l.note > 0 {
			wide += 10
			note = fmt.Sprintf("<tspan font-size=\"9\" dy=\"-4\" dx=\"3\">%d</tspan>", l.note)
		}
		fmt.Fprintf(b, "<g class=\"s %s\"><rect x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"18\" rx=\"9\"/><text x=\"%.0f\" y=\"%.0f\">%s%s</text></g>\n",
			l.class, x, y+2, wide, x+7, y+15, text, note)
		y += leading
	}
}
