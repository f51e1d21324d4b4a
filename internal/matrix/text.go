package matrix

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// legend of the words in cells.
const legend = `kept: the server sees the client's own address; (eth0): which one of a node's. pinned: kept by a rule, whatever rules
come behind. as X: it sees X instead. lost: no answer comes back. refused: an error does. ?: not known. ·: not asked.`

// Text is the matrix for a terminal: destinations down, sources across.
func (m *Matrix) Text() string {
	var b strings.Builder
	grids, notes := m.grids()
	fmt.Fprintf(&b, "who is seen as whom, %s: %s\n", m.protocol(), m.subject())
	for i := range grids {
		b.WriteString("\n")
		grids[i].text(&b)
	}
	b.WriteString("\n")
	for i, n := range notes {
		hang(&b, fmt.Sprintf("[%d] ", i+1), n)
	}
	m.ends(&b)
	for _, n := range m.Notes {
		hang(&b, "note: ", n)
	}
	b.WriteString("\n" + legend + "\n")
	return b.String()
}

// protocol of all cells.
func (m *Matrix) protocol() string {
	for _, c := range m.Columns {
		for _, t := range c.Targets {
			return t.Protocol
		}
	}
	return "tcp"
}

// subject is which nodes it is about, and what is supposed.
func (m *Matrix) subject() string {
	text := strings.Join(m.Nodes, ", ")
	if len(m.Nodes) > 1 {
		text = m.Nodes[0] + " (here), " + strings.Join(m.Nodes[1:], ", ")
	}
	if len(m.Policies) > 0 {
		text += ", with " + strings.Join(m.Policies, ", ") + " in force"
	}
	return text
}

// ends are the addresses of rows and columns.
func (m *Matrix) ends(b *strings.Builder) {
	wide := 0
	for _, r := range m.Rows {
		wide = max(wide, width(r.Name))
	}
	for _, c := range m.Columns {
		wide = max(wide, width(c.Name))
	}
	wide = min(wide, 30)
	b.WriteString("from\n")
	for _, r := range m.Rows {
		hang(b, "  "+pad(r.Name, wide)+"  ", r.Place.where(r.Name))
	}
	b.WriteString("to\n")
	for _, c := range m.Columns {
		hang(b, "  "+pad(c.Name, wide)+"  ", c.where())
	}
}

// mostWidth of a line that words are broken to.
const mostWidth = 118

// hang writes a text behind a mark, its further lines below its first.
func hang(b *strings.Builder, mark, text string) {
	indent, line := strings.Repeat(" ", width(mark)), mark
	for _, word := range strings.Fields(text) {
		if width(line)+1+width(word) > mostWidth && width(line) > width(mark) {
			b.WriteString(strings.TrimRight(line, " ") + "\n")
			line = indent
		}
		if line != mark && line != indent {
			line += " "
		}
		line += word
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}

func width(s string) int { return utf8.RuneCountInString(s) }

func pad(s string, n int) string { return s + strings.Repeat(" ", max(0, n-width(s))) }

// text of a grid, with what doesn't fit in a cell on more lines: cells as wide as the
// page lets them be.
func (g *grid) text(b *strings.Builder) {
	var lines [][]block
	var widths []int
	for most := widest; most >= narrowest; most-- {
		if lines, widths = g.laidOut(most); total(widths) <= mostWidth {
			break
		}
	}
	for i, row := range lines {
		writeRow(b, row, widths)
		if i == 0 {
			b.WriteString(strings.Repeat("─", total(widths)) + "\n")
		}
	}
}

// Widths of cells.
const widest, narrowest = 36, 14

// laidOut in cells of a width.
func (g *grid) laidOut(most int) (lines [][]block, widths []int) {
	lines, widths = [][]block{g.headBlocks(most)}, make([]int, len(g.heads)+1)
	for i := range g.rows {
		lines = append(lines, g.rows[i].blocks(most))
	}
	for _, row := range lines {
		for i, cell := range row {
			for _, line := range cell {
				widths[i] = max(widths[i], width(line))
			}
		}
	}
	return lines, widths
}

func total(widths []int) int {
	sum := 2 * (len(widths) - 1)
	for _, w := range widths {
		sum += w
	}
	return sum
}

// block is the lines of a cell.
type block []string

func (g *grid) headBlocks(most int) []block {
	all := []block{{g.title, "to ↓  from →"}}
	for _, h := range g.heads {
		all = append(all, wrap(h.name, most))
	}
	return all
}

// longestName of a row that isn't broken: those of roles are shorter.
const longestName = 26

// marked is the line with its footnote, which isn't parted from the last words.
func (l *gridLine) marked() string {
	text := strings.Replace(l.text, " %", hardSpace+"%", 1)
	if l.note > 0 {
		text += fmt.Sprintf("%s[%d]", hardSpace, l.note)
	}
	return text
}

// hardSpace is one that lines aren't broken at.
const hardSpace = "\u00a0"

func (r *gridRow) blocks(most int) []block {
	all := []block{wrap(r.name, max(most, longestName))}
	for _, c := range r.cells {
		var lines block
		for _, l := range c.lines {
			lines = append(lines, wrap(l.marked(), most)...)
		}
		if len(c.lines) == 0 {
			lines = block{"·"}
		}
		all = append(all, lines)
	}
	return all
}

// wrap breaks a text at spaces.
func wrap(text string, most int) block {
	var lines block
	line := ""
	for _, word := range strings.Split(text, " ") {
		word = strings.ReplaceAll(word, hardSpace, " ")
		switch {
		case line == "":
			line = word
		case width(line)+1+width(word) > most:
			lines = append(lines, line)
			line = " " + word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

func writeRow(b *strings.Builder, row []block, widths []int) {
	height := 0
	for _, cell := range row {
		height = max(height, len(cell))
	}
	for i := range height {
		line := ""
		for j, cell := range row {
			text := ""
			if i < len(cell) {
				text = cell[i]
			}
			line += pad(text, widths[j]+2)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}
