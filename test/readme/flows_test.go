package readme_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/flows"
)

// TestFlowsAreDocumented: each flag and each field stands in the document, and
// nothing else is said to be a field.
func TestFlowsAreDocumented(t *testing.T) {
	const document = "docs/flows.md"
	all, json := read(t, document), section(t, document, "## JSON")
	fields := jsonFields([]any{flows.Flow{}, flows.Decider{}, flows.Group{}})
	for name := range fields {
		if !strings.Contains(json, "`"+name+"`") {
			t.Errorf("%s: field %s isn't there", document, name)
		}
	}
	for _, name := range firstColumn(json) {
		if _, ok := fields[name]; !ok && name != "event" && name != "time" && name != "text" {
			t.Errorf("%s: %s is no field", document, name)
		}
	}
	flags := regexp.MustCompile(`--[a-z0-9-]+`).FindAllString(helpOf(t, []string{"flows"}), -1)
	for _, flag := range flags {
		if flag != "--help" && flag != "--ipv4" && flag != "--ipv6" && !strings.Contains(all, flag) { // -4 and -6 are there
			t.Errorf("%s: flag %s isn't there", document, flag)
		}
	}
	if len(fields) < 40 || len(flags) < 18 {
		t.Errorf("%d fields, %d flags found", len(fields), len(flags))
	}
}
