package explain

import (
	"encoding/xml"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Unknown says whether part of the answer is unknown.
func (a *Answer) Unknown() bool { return anyUnknown(a.Outcomes) }

func anyUnknown(outcomes []Outcome) bool {
	for i := range outcomes {
		o := &outcomes[i]
		if o.Verdict == "unknown" || o.SourceKind == "unknown" || o.Next != nil && anyUnknown(o.Next.Outcomes) {
			return true
		}
	}
	return false
}

// box is a station of a packet: where it starts, a hook with what happened
// there, where it ends.
type box struct {
	title string
	lines []string
	// decides: what decided is in it.
	decides bool
}

// way is the boxes of one outcome in the order of the packet, and its share.
func (a *Answer) way(o *Outcome) (boxes []box, label string) {
	start := box{title: a.Flow.Source.String(), lines: []string{"source"}}
	if o.InInterface != "" {
		start.lines = append(start.lines, "in by "+o.InInterface)
	}
	for _, when := range o.conditions() {
		start.lines = append(start.lines, "if "+shorten(when))
	}
	boxes = append(boxes, start)
	for _, s := range o.Steps {
		if !s.Matched {
			continue
		}
		last := &boxes[len(boxes)-1]
		if last.title != s.Hook {
			boxes = append(boxes, box{title: s.Hook})
			last = &boxes[len(boxes)-1]
		}
		text := s.Effect
		if s.Chain != "" {
			text = s.Chain + ": " + s.Effect
		}
		if s.Owner != "" && s.Owner != "unknown" {
			text += " (" + s.Owner + ")"
		}
		last.lines = append(last.lines, text)
		last.decides = last.decides || o.DecidedBy != nil && o.DecidedBy.Rule == s.Rule && o.DecidedBy.Chain == s.Chain
	}
	end := box{title: o.Destination.String()}
	if o.DestinationPort != nil {
		end.title = fmt.Sprintf("%s port %d", end.title, *o.DestinationPort)
	}
	switch {
	case o.Verdict != "accepted":
		end.title = o.Verdict
		if o.RejectWith != "" {
			end.lines = []string{"with " + o.RejectWith}
		}
	case o.Source == nil:
		end.lines = []string{"sees an address that isn't known"}
	default:
		end.lines = []string{"sees " + o.Source.String()}
	}
	if o.Verdict == "accepted" {
		end.lines = append(end.lines, o.SourceKind)
	}
	if o.OutInterface != "" {
		end.lines = append(end.lines, "out by "+o.OutInterface)
	}
	return append(boxes, end), o.share()
}

// shorten what is as long as a rule can be.
func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		return string(r[:most]) + "…"
	}
	return s
}

// DOT is the answer as a graph in Graphviz's language, one path an outcome.
func (a *Answer) DOT() string {
	a = writer{}.joined(a)
	var b strings.Builder
	b.WriteString("digraph explain {\n\trankdir=LR\n\tnode [shape=box fontname=\"sans-serif\"]\n")
	for i := range a.Outcomes {
		boxes, label := a.way(&a.Outcomes[i])
		for j, x := range boxes {
			text := strings.Join(append([]string{x.title}, x.lines...), "\n")
			style := ""
			if x.decides {
				style = " penwidth=3"
			}
			fmt.Fprintf(&b, "\to%d_%d [label=%s%s]\n", i, j, quoteDOT(text), style)
			if j == 1 {
				fmt.Fprintf(&b, "\to%d_0 -> o%d_1 [label=%s]\n", i, i, quoteDOT(label))
			} else if j > 1 {
				fmt.Fprintf(&b, "\to%d_%d -> o%d_%d\n", i, j-1, i, j)
			}
		}
	}
	b.WriteString("}\n")
	return b.String()
}

// quoteDOT makes a string of the DOT language; its lines are centred.
func quoteDOT(s string) string {
	s = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s)
	return `"` + s + `"`
}

// Sizes of the drawing, in pixels.
const (
	glyph   = 7.2
	leading = 18
	padding = 12
	gap     = 60
)

// SVG is the answer as a drawing: a row of boxes for each outcome. It takes the
// colours of light and dark pages.
func (a *Answer) SVG() string {
	a = writer{}.joined(a)
	var body strings.Builder
	top, widest := 20.0, 0.0
	for i := range a.Outcomes {
		boxes, label := a.way(&a.Outcomes[i])
		height, width := row(&body, boxes, label, top)
		top += height + 24
		widest = max(widest, width)
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" role="img">
<style>
svg { color-scheme: light dark; font: 12px ui-monospace, monospace; }
text { fill: light-dark(#1f2328, #e6edf3); }
rect { fill: light-dark(#f6f8fa, #161b22); stroke: light-dark(#59636e, #9198a1); }
.decides { fill: light-dark(#fff1d6, #3d2c00); stroke: light-dark(#9a6700, #d29922); stroke-width: 2; }
.title { font-weight: bold; }
path { stroke: light-dark(#59636e, #9198a1); fill: none; }
</style>
%s</svg>
`, widest+20, top, widest+20, top, body.String())
}

// row draws one outcome and returns its height and right edge.
func row(b *strings.Builder, boxes []box, label string, top float64) (height, right float64) {
	for _, x := range boxes {
		height = max(height, float64(len(x.lines)+1)*leading+2*padding)
	}
	left := 20.0
	for i, x := range boxes {
		if i > 0 {
			middle := top + height/2
			fmt.Fprintf(b, "<path d=\"M%.0f %.0f h%d m-6 -4 l6 4 l-6 4\"/>\n", left-gap+4, middle, gap-8)
			if i == 1 {
				fmt.Fprintf(b, "<text x=\"%.0f\" y=\"%.0f\" text-anchor=\"middle\">%s</text>\n", left-gap/2, middle-8, escape(label))
			}
		}
		width := float64(utf8.RuneCountInString(x.title))
		for _, line := range x.lines {
			width = max(width, float64(utf8.RuneCountInString(line)))
		}
		width = width*glyph + 2*padding
		class := ""
		if x.decides {
			class = ` class="decides"`
		}
		fmt.Fprintf(b, "<rect%s x=\"%.0f\" y=\"%.0f\" width=\"%.0f\" height=\"%.0f\" rx=\"6\"/>\n", class, left, top, width, height)
		fmt.Fprintf(b, "<text class=\"title\" x=\"%.0f\" y=\"%.0f\">%s</text>\n", left+padding, top+padding+12, escape(x.title))
		for j, line := range x.lines {
			fmt.Fprintf(b, "<text x=\"%.0f\" y=\"%.0f\">%s</text>\n", left+padding, top+padding+12+float64(j+1)*leading, escape(line))
		}
		left += width + gap
	}
	return height, left - gap
}

func escape(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a strings.Builder doesn't fail
	return b.String()
}
