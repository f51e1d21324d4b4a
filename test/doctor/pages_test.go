package doctor_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	pages "github.com/unmasq/unmasq/docs/doctor"
	"github.com/unmasq/unmasq/internal/doctor"
)

// TestPages: each code has a page with its title and severity, and the reference
// lists it; pages of codes that don't exist are none.
func TestPages(t *testing.T) {
	reference, err := os.ReadFile("../../docs/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	if !slices.IsSorted(doctor.Codes()) {
		t.Errorf("not in order: %v", doctor.Codes())
	}
	for _, code := range doctor.Codes() {
		page, ok := pages.Of(code)
		severity, title := doctor.About(code)
		if want := "# " + code + ": " + title + "\n\n**" + string(severity) + ".** "; !ok || !strings.HasPrefix(page, want) {
			t.Errorf("docs/doctor/%s.md doesn't begin with %q", code, want)
		}
		if !strings.Contains(page, "\nFound where ") || !strings.Contains(page, "\n**Mend.** ") {
			t.Errorf("docs/doctor/%s.md doesn't say where it is found, and what mends it", code)
		}
		if row := "| [" + code + "](doctor/" + code + ".md) | " + string(severity) + " | " + title + " |"; !strings.Contains(string(reference), row) {
			t.Errorf("docs/doctor.md lacks %s", row)
		}
	}
	files, err := os.ReadDir("../../docs/doctor")
	if err != nil {
		t.Fatal(err)
	}
	if want := len(doctor.Codes()) + 1; len(files) != want {
		t.Errorf("%d files in docs/doctor; expected a page for each of the codes and pages.go: %d", len(files), want)
	}
}
