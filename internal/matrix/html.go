package matrix

import (
	"fmt"
	"html"
	"slices"
	"strings"
)

// colours of the classes of lines: of words and what is behind them, on light and on dark
// pages. They are written out, without light-dark() and, in drawings, without variables:
// older browsers and programs that make pictures of drawings know neither, and paint black.
var colours = [...]struct{ class, ink, fill, darkInk, darkFill string }{
	{"kept", "#116329", "#dafbe1", "#7ee2a0", "#12361f"},
	{"pinned", "#0a5a66", "#d5f3f7", "#7fd8e6", "#0d3640"},
	{"masqueraded", "#7d4e00", "#fff3cd", "#f2cc60", "#3d2e00"},
	{"snat", "#8a3a00", "#ffe5d0", "#ffb77c", "#43260d"},
	{"lost", "#a40e26", "#ffe0e3", "#ff9a9a", "#4a1219"},
	{"refused", "#6e2594", "#f4e5ff", "#dbb4f5", "#351b47"},
	{"unknown", "#57606a", "#eef1f4", "#9ea7b3", "#22272e"},
	{"differs", "#ffffff", "#cf222e", "#ffffff", "#b62324"},
	{"before", "#57606a", "none", "#9ea7b3", "none"},
}

// dark begins the style of dark pages.
const dark = "@media (prefers-color-scheme: dark) {\n"

// pageColours are the colours as a page's style.
func pageColours() string {
	var light, night strings.Builder
	for _, c := range colours {
		fmt.Fprintf(&light, ".s.%s { color: %s; background: %s; }\n", c.class, c.ink, c.fill)
		fmt.Fprintf(&night, ".s.%s { color: %s; background: %s; }\n", c.class, c.darkInk, c.darkFill)
	}
	return light.String() + dark + night.String() + "}\n"
}

const pageStyle = `
:root { color-scheme: light dark; --back: #ffffff; --text: #1f2328; --dim: #59636e; --line: #d1d9e0; --band: #f6f8fa; --aim: #fff8c5; --mark: #0a7ea4; --wrong: #cf222e; }
@media (prefers-color-scheme: dark) {
 :root { --back: #0d1117; --text: #e6edf3; --dim: #9198a1; --line: #30363d; --band: #151b23; --aim: #3a3000; --mark: #39c5e0; --wrong: #f85149; }
}
body { margin: 0 auto; padding: 2rem 1.5rem; max-width: 100rem; background: var(--back); color: var(--text);
 font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.05rem; margin: 2rem 0 .6rem; }
p.sub { color: var(--dim); margin: .2rem 0 1.2rem; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: separate; border-spacing: 0; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .55rem .7rem; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
thead th { background: var(--band); border-bottom: 2px solid var(--line); }
tbody th { background: var(--band); position: sticky; left: 0; border-right: 1px solid var(--line); }
thead th:first-child { position: sticky; left: 0; z-index: 1; border-right: 1px solid var(--line); color: var(--dim); font-weight: normal; }
th b { display: block; }
tbody th { min-width: 13rem; max-width: 17rem; }
th span { display: block; font-weight: normal; font-size: .82rem; color: var(--dim); overflow-wrap: anywhere; }
th code { font-size: .78rem; color: var(--dim); font-weight: normal; }
tbody tr:hover td { background: var(--band); }
td.changed { box-shadow: inset 3px 0 var(--mark); }
td.wrong { box-shadow: inset 3px 0 var(--wrong); }
.s { display: block; width: max-content; max-width: 17rem; margin: 0 0 .25rem; padding: .1rem .5rem; border-radius: 999px;
 font-weight: 600; font-size: .82rem; }
.s.lost, .s.refused, .s.differs { border-radius: 6px; }
.s.before { padding: 0 .55rem; font-weight: normal; font-size: .78rem; }
.s a { color: inherit; font-weight: normal; font-size: .72rem; line-height: 0; vertical-align: super; text-decoration: none; margin-left: .2rem; }
.s a:hover, .s a:focus { text-decoration: underline; }
.nothing { color: var(--dim); cursor: help; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: 1rem 0; color: var(--dim); font-size: .85rem; }
.legend .s { display: inline-block; margin: 0 .3rem 0 0; }
ol, ul { padding-left: 1.6rem; font-size: .9rem; } li { margin: .25rem 0; overflow-wrap: anywhere; }
li:target { background: var(--aim); }
@media (max-width: 45rem) {
 body { padding: 1rem .6rem; } th, td { padding: .45rem .5rem; }
 tbody th { min-width: 7rem; max-width: 9.5rem; font-size: .85rem; } th span, th code { font-size: .72rem; }
}
@media print { body { padding: 0; } .scroll { overflow: visible; } }
`

// legendLines are the words of cells with what they mean.
var legendLines = [...]struct{ class, word, means string }{
	{"kept", "kept", "the server sees the client's own address"},
	{"pinned", "pinned", "kept by a rule, whatever rules come behind"},
	{"masqueraded", "as X", "it sees that address instead"},
	{"snat", "as X", "the same, an address that a rule states"},
	{"lost", "lost", "no answer comes back"},
	{"refused", "refused", "an error does"},
	{"unknown", "?", "not known"},
	{"differs", "measured: X", "and not as predicted"},
	{"before", "now: X", "as it is without the policy"},
}

// legendEntry is a word with in how many cells it stands.
type legendEntry struct {
	class, word, means string
	cells              int
}

// drawnLegend is of the words that are in the grids, those of text alone left out.
func drawnLegend(grids []grid) (all []legendEntry) {
	for _, l := range legendLines {
		e := legendEntry{class: l.class, word: l.word, means: l.means}
		for i := range grids {
			for _, r := range grids[i].rows {
				for j := range r.cells {
					if r.cells[j].has(l.class) {
						e.cells++
					}
				}
			}
		}
		if e.cells > 0 {
			all = append(all, e)
		}
	}
	return all
}

// has a line of a class.
func (c *gridCell) has(class string) bool {
	return slices.ContainsFunc(c.lines, func(l gridLine) bool { return l.class == class })
}

// HTML is a page of its own: no scripts, nothing from elsewhere.
func (m *Matrix) HTML() string {
	grids, notes := m.grids()
	var b strings.Builder
	fmt.Fprintf(&b, "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n<title>Who is seen as whom: %s</title>\n",
		html.EscapeString(strings.Join(m.Nodes, ", ")))
	b.WriteString("<style>" + pageStyle + pageColours() + "</style>\n<h1>Who is seen as whom</h1>\n")
	fmt.Fprintf(&b, "<p class=\"sub\">%s, %s. In each cell: what the server sees of the client.</p>\n", html.EscapeString(m.subject()), m.protocol())
	b.WriteString("<p class=\"legend\">\n")
	for _, l := range drawnLegend(grids) {
		fmt.Fprintf(&b, "<span><span class=\"s %s\">%s</span>%s (%d)</span>\n", l.class, l.word, l.means, l.cells)
	}
	if m.Measured {
		b.WriteString("<span>✓ measured, as predicted</span>\n")
	}
	b.WriteString("</p>\n")
	for i := range grids {
		grids[i].html(&b, notes, len(grids) > 1)
	}
	if len(notes) > 0 {
		b.WriteString("<h2>By whom, and why</h2>\n<ol>\n")
		for i, n := range notes {
			fmt.Fprintf(&b, "<li id=\"n%d\">%s</li>\n", i+1, html.EscapeString(n))
		}
		b.WriteString("</ol>\n")
	}
	if len(m.Notes) > 0 {
		b.WriteString("<h2>Notes</h2>\n<ul>\n")
		for _, n := range m.Notes {
			fmt.Fprintf(&b, "<li>%s</li>\n", html.EscapeString(n))
		}
		b.WriteString("</ul>\n")
	}
	b.WriteString("</html>\n")
	return b.String()
}

func (g *grid) html(b *strings.Builder, notes []string, several bool) {
	if several {
		fmt.Fprintf(b, "<h2>%s</h2>\n", g.title)
	}
	fmt.Fprintf(b, "<div class=\"scroll\"><table>\n<thead><tr><th>%s<br>to ↓ from →</th>", g.title)
	for _, h := range g.heads {
		h.html(b, "col")
	}
	b.WriteString("</tr></thead>\n<tbody>\n")
	for i := range g.rows {
		b.WriteString("<tr>")
		g.rows[i].label.html(b, "row")
		for _, c := range g.rows[i].cells {
			c.html(b, notes)
		}
		b.WriteString("</tr>\n")
	}
	b.WriteString("</tbody></table></div>\n")
}

func (l *label) html(b *strings.Builder, scope string) {
	fmt.Fprintf(b, "<th scope=\"%s\"><b>%s</b>", scope, html.EscapeString(l.title))
	for _, line := range [...]string{l.about, l.where} {
		if line != "" && !strings.EqualFold(line, l.title) {
			fmt.Fprintf(b, "<span>%s</span>", html.EscapeString(line))
		}
	}
	if name := strings.ReplaceAll(l.name, "-", " "); !strings.EqualFold(name, l.title) && l.name != l.about {
		fmt.Fprintf(b, "<code>%s</code>", html.EscapeString(l.name)) // as an expectation has it
	}
	b.WriteString("</th>")
}

func (c *gridCell) html(b *strings.Builder, notes []string) {
	switch {
	case c.has("differs"):
		b.WriteString("<td class=\"wrong\">")
	case c.has("before"):
		b.WriteString("<td class=\"changed\">")
	default:
		b.WriteString("<td>")
	}
	if len(c.lines) == 0 {
		fmt.Fprintf(b, "<span class=\"nothing\" title=\"%s\">·</span>", html.EscapeString(c.why))
	}
	for _, l := range c.lines {
		title, link := "", ""
		if l.note > 0 {
			title = fmt.Sprintf(" title=\"%s\"", html.EscapeString(notes[l.note-1]))
			link = fmt.Sprintf("<a href=\"#n%d\">%[1]d</a>", l.note)
		}
		fmt.Fprintf(b, "<span class=\"s %s\"%s>%s%s</span>", l.class, title, html.EscapeString(l.text), link)
	}
	b.WriteString("</td>")
}
