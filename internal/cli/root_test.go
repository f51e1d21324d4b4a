package cli

import (
	"bytes"
	"strings"
	"testing"
)

// TestCompletion: what a shell offers for kinds and for values of flags.
func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"import ":                  "kube-router\t",
		"export c":                 "cilium\t",
		"import -o ":               "yaml\n",
		"import --masquerade-all ": "where-needed\n",
		"matrix -o ":               "svg\n",
		"matrix --protocol ":       "udp\n",
	} {
		var stdout, stderr bytes.Buffer
		status := Main("v0-test", append([]string{"__complete"}, strings.Split(line, " ")...), strings.NewReader(""), &stdout, &stderr)
		if status != statusOK || !strings.Contains(stdout.String(), want) {
			t.Errorf("%s: exit status %d, want %q\n%s%s", line, status, want, stdout.String(), stderr.String())
		}
	}
}
