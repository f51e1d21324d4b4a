package conntrack_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/conntrack"
)

const procCounters = `entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error  expect_new expect_create expect_delete search_restart
00000007  00000000 00000001 00000000 00000002 00000000 00000000 00000000 00000000 00000003 0000000b 00000000 00000000  00000000 00000000 00000000 00000000
00000007  00000000 00000000 00000000 000000ff 00000000 00000000 00000000 00000000 00000001 00000001 00000005 00000000  00000000 00000000 00000000 00000000
`

const toolCounters = "cpu=0   \tfound=1 invalid=2 insert=0 insert_failed=3 drop=11 early_drop=0 error=0 search_restart=0 clash_resolve=0 chaintoolong=0 \n" +
	"cpu=1   \tfound=0 invalid=255 insert=0 insert_failed=1 drop=1 early_drop=5 error=0 search_restart=0 clash_resolve=0 chaintoolong=0 \n"

func TestReadCounters(t *testing.T) {
	for name, text := range map[string]string{"/proc": procCounters, "conntrack -S": toolCounters} {
		got, problems := conntrack.ReadCounters(text, 1)
		if len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
		for counter, want := range map[string]uint64{"found": 1, "invalid": 257, "insert_failed": 4, "drop": 12, "early_drop": 5} {
			if got[counter] != want {
				t.Errorf("%s: %s is %d, expected %d", name, counter, got[counter], want)
			}
		}
		for line := range strings.Lines(text) {
			if !conntrack.IsCounters(strings.TrimSpace(line)) {
				t.Errorf("%s: not taken for counters: %s", name, line)
			}
		}
	}
	if got, _ := conntrack.ReadCounters(procCounters, 1); got["entries"] != 7 {
		t.Errorf("%d entries; each processor's row has the sum, 7", got["entries"])
	}
}

func TestReadCountersOfNothing(t *testing.T) {
	header, rows, _ := strings.Cut(procCounters, "\n")
	for _, c := range []struct {
		text string
		// lines that are no counters.
		lines []int
	}{
		{"", nil},
		{"# connection tracking isn't loaded\n", nil},
		{header + "\n", nil},
		{rows, []int{1, 2}},
		{header + "\n00000001 00000002\n", []int{2}},
		{"cpu=0 found=one\n", []int{1}},
		{"insert_failed 7\n", []int{1}},
	} {
		got, problems := conntrack.ReadCounters(c.text, 1)
		if got != nil {
			t.Errorf("%q: %v", c.text, got)
		}
		var lines []int
		for _, p := range problems {
			lines = append(lines, p.Line)
		}
		if diff := cmp.Diff(c.lines, lines); diff != "" {
			t.Errorf("%q: %s", c.text, diff)
		}
	}
}

// FuzzReadCounters: what is counted is counted by name, and each line that isn't read is
// named with its number.
func FuzzReadCounters(f *testing.F) {
	f.Add(procCounters)
	f.Add(toolCounters)
	f.Add("cpu=0 found=18446744073709551615 found=1\n")
	f.Add("entries x insert_failed \n00000001 00000002 00000003\n")
	f.Fuzz(func(t *testing.T, text string) {
		counters, problems := conntrack.ReadCounters(text, 1)
		if counters != nil && len(counters) == 0 {
			t.Error("counters without one")
		}
		number, last := strings.Count(strings.ReplaceAll(text, "\r", "\n"), "\n")+1, 0
		for _, p := range problems {
			if p.Line <= last || p.Line > number || p.Why == "" {
				t.Errorf("problem of line %d after %d, of %d lines: %q", p.Line, last, number, p.Why)
			}
			last = p.Line
		}
	})
}
