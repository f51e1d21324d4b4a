package cli

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/kernel/nft"
)

// What stands in the kernel is said, whatever a killed agent left.
func TestReportOfTable(t *testing.T) {
	stands := nft.State{Exists: true}
	const orphan, owner = 0x4, 0x6 // persist; owner and persist
	tests := []struct {
		name     string
		standing nft.Standing
		table    string
		text     string // part of it
		warning  string // part of it
	}{
		{"nothing", nft.Standing{}, "none", "nothing is in force", ""},
		{"plain", nft.Standing{State: stands}, "plain", "owned by nobody", ""},
		{"orphan", nft.Standing{State: nft.State{Exists: true, Flags: orphan}}, "orphan", "killed", ""},
		{"owned", nft.Standing{State: nft.State{Exists: true, Flags: owner, Owner: 7}, Process: nft.Process{PID: 7, Name: "unmasq"}}, "owned", "process 7 (unmasq)", ""},
		{"the helper alone", nft.Standing{Handover: true}, "helper", "in force is inet unmasq-handover", ""},
		{"both", nft.Standing{State: stands, Handover: true}, "plain", "in force", "inet unmasq-handover stands too"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := reportOf(tt.standing)
			if r.Table != tt.table || !strings.Contains(r.tableText(), tt.text) {
				t.Errorf("table %q, %q; want %q, ...%q", r.Table, r.tableText(), tt.table, tt.text)
			}
			if got := strings.Join(r.Warnings, "\n"); !strings.Contains(got, tt.warning) || tt.warning == "" && got != "" {
				t.Errorf("warnings %q, want %q", got, tt.warning)
			}
		})
	}
}

// Rules are listed in their order, whether their counters are tied to it by numbers
// or by tags.
func TestReportOfRules(t *testing.T) {
	counter := func(chain, name, comment string) nft.Comment {
		return nft.Comment{Chain: chain, Counter: "rule/" + name, Text: comment}
	}
	about := func(texts ...string) (out []nft.Comment) {
		for _, text := range texts {
			out = append(out, nft.Comment{Chain: "about", Text: text})
		}
		return out
	}
	for _, tt := range []struct {
		name     string
		comments []nft.Comment
	}{
		{"numbers", append(about("rule 1: from pods to everywhere: Keep", "rule 2: from this node to everywhere: Leave"),
			counter("rule-ip/a/x", "a/x", "rule 1"), counter("rule-ip6/a/x", "a/x", "rule 1"), counter("rule-ip/b/y", "b/y", "rule 2"))},
		{"tags", append([]nft.Comment{counter("rule-ip/b/y", "b/y", "rule #1"), counter("rule-ip/a/x", "a/x", "rule #17"), counter("rule-ip6/a/x", "a/x", "rule #17")},
			about("rule 1 #17: from pods to everywhere: Keep", "rule 2 #1: from this node to everywhere: Leave")...)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := reportOf(nft.Standing{State: nft.State{Exists: true}, Comments: tt.comments, Counts: map[string]nft.Count{"rule/a/x": {Packets: 7}}})
			want := []ruleReport{{Number: 1, Policy: "a", Rule: "x", Does: "from pods to everywhere: Keep", Hits: 7},
				{Number: 2, Policy: "b", Rule: "y", Does: "from this node to everywhere: Leave"}}
			if diff := cmp.Diff(want, r.Rules); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
