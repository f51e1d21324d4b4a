package matrix_test

import (
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/matrix"
)

// TestDrawnMarks: cells that aren't as predicted, and those that a policy changes, stand
// out, and the legend has the words that are there, and no others.
func TestDrawnMarks(t *testing.T) {
	m := matrix.Predict(matrix.Situation{Nodes: example(t, nil)})
	if page := m.HTML(); strings.Contains(page, ">measured: X<") || strings.Contains(page, `class="changed"`) || strings.Contains(page, ">lost<") {
		t.Error("the page says what isn't there")
	}
	m.Measured = true
	m.Cells[0].Measured, m.Cells[0].Differs = []matrix.Sight{{Verdict: matrix.Lost}}, true
	m.Cells[1].Before = []matrix.Sight{{Verdict: matrix.Refused}}
	for text, parts := range map[string][]string{
		m.HTML(): {`<td class="wrong">`, `<td class="changed">`, ">measured: X</span>and not as predicted (1)<", ">now: X</span>as it is without the policy (1)<", "✓ measured"},
		m.SVG():  {">measured: lost<", ">measured: X<", ">now: X<", ">✓<"},
	} {
		for _, want := range parts {
			if !strings.Contains(text, want) {
				t.Errorf("%s isn't in\n%s", want, text)
			}
		}
	}
}
