package masqagent_test

import (
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/masqagent"
	"github.com/unmasq/unmasq/internal/policy"
)

// FuzzParse: whatever the text, Parse doesn't panic; an error comes without a result
// and names the file in each line; without one, what it comes to is a policy, and the
// agent itself would have read the same.
func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", "null", "{}", "*", "{*", "- 10.0.0.0/8", "nonMasqueradeCIDRs:\n- 172.16.0.0/12\n-\ncidrLimit: 64\nmasqLinkLocal: yes\nresyncInterval: 5s\n",
		`{"nonMasqueradeCIDRs": ["10.0.0.1/8", null, "", "fc00::/7"], "resyncInterval": "\u0035\u006d"}`, "NONMASQUERADECIDRS: &a [*a]\nx: &b 1\ny: *b",
		"nonMasqueradeCIDRs: [::ffff:10.0.0.0/104, 0.0.0.0/0, '::/0']", "resyncInterval: 60\n---\nmasqLinkLocalIPv6: on", "<<: {masqLinkLocal: true}",
	} {
		for dialect := range masqagent.Dialects {
			f.Add([]byte(text), byte(dialect), true)
			f.Add([]byte(text), byte(dialect), false)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, dialect byte, ipv6 bool) {
		s := masqagent.Settings{Dialect: masqagent.Dialects[int(dialect)%len(masqagent.Dialects)], EnableIPv6: ipv6}
		c, warnings, err := masqagent.Parse([]masqagent.File{{Name: "fuzz", Data: text}}, s)
		checkOracle(t, s, text)
		for _, w := range warnings {
			if !strings.HasPrefix(w.String(), "fuzz:") || strings.Contains(w.String(), "\n") {
				t.Errorf("not a place and one line: %q", w)
			}
		}
		if err != nil {
			if c.Destinations != nil || warnings != nil {
				t.Error("an error and a result")
			}
			for line := range strings.Lines(err.Error()) {
				if !strings.HasPrefix(line, "fuzz:") {
					t.Errorf("not a place and one line: %q in %q", line, err)
				}
			}
			return
		}
		d := c.Document()
		source, err := d.Source("fuzz")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := policy.Load([]policy.Source{source}, policy.Options{}); err != nil {
			t.Errorf("%s\nis no policy: %v", source.Content, err)
		}
	})
}
