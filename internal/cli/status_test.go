package cli

import (
	"strings"
	"testing"

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
