package cli

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMatrix: each file of testdata/matrix holds nodes' dumps, and command lines with
// what they print.
func TestMatrix(t *testing.T) { sessions(t, "testdata/matrix") }

var exampleNodes = []string{"matrix", "--snapshot", "node-a=../../docs/example/node-a", "--snapshot", "node-b=../../docs/example/node-b"}

// TestMatrixExpectsItself: what was printed today is what is expected tomorrow, however
// it is changed.
func TestMatrixExpectsItself(t *testing.T) {
	file := filepath.Join(t.TempDir(), "expected.json")
	text := transcript(append(exampleNodes, "-o", "json"))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := transcript(append(exampleNodes, "--expect", file)); !regexp.MustCompile(`^\d+ cells compared, 0 differ\n$`).MatchString(got) {
		t.Error(got)
	}
	changed := strings.Replace(text, `"verdict": "kept"`, `"verdict": "lost"`, 1)
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	got := transcript(append(exampleNodes, "--expect", file))
	if want := "expected lost, is kept\n"; !strings.Contains(got, want) || !strings.HasSuffix(got, ", 1 differ\nexit status 1\n") {
		t.Error(got)
	}
}

// TestMatrixIsDrawn: drawing and page are whole, and bring all that they need.
func TestMatrixIsDrawn(t *testing.T) {
	svg, page := transcript(append(exampleNodes, "-o", "svg")), transcript(append(exampleNodes, "-o", "html"))
	decoder := xml.NewDecoder(strings.NewReader(svg))
	for {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("the drawing isn't XML: %v", err)
		}
	}
	if n := strings.Count(page, "<td>"); n != 35 || strings.Count(page, "</td>") != n || strings.Count(page, "<tr>") != strings.Count(page, "</tr>") {
		t.Errorf("%d cells in the page", n)
	}
	if strings.Contains(svg, "var(") || strings.Contains(svg+page, "light-dark(") {
		t.Error("older programs paint black what they don't know")
	}
	for name, text := range map[string]string{"svg": svg, "html": page} {
		if strings.Contains(text, "<script") || strings.Contains(text, "src=") || strings.Contains(text, "@import") || strings.Count(text, "http") > strings.Count(text, "http://www.w3.org/2000/svg")+strings.Count(text, "default/web:http") {
			t.Errorf("the %s asks for more than it has", name)
		}
		for _, want := range []string{"default/web:http", "as node-a&#39;s eth0", "prefers-color-scheme: dark", "kube-proxy on node-a", ">as X<"} {
			if !strings.Contains(text, want) {
				t.Errorf("the %s doesn't have %s", name, want)
			}
		}
	}
}
