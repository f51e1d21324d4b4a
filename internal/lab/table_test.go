package lab

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/probe"
)

// sighting is a call from pod1 172.5.138.2 to pod2 172.5.139.2.
func sighting(protocol, seen string, sight, expected Sight, note string) Sighting {
	s := Sighting{Call: Call{From: "pod1", To: "pod2"}, Family: packet.IPv4Family, Protocol: protocol,
		Source: netip.MustParseAddrPort("172.5.138.2:20001"), Target: netip.MustParseAddrPort("172.5.139.2:7007"),
		Replied: sight != NoReply, Sight: sight, Expected: expected, Note: note}
	if seen != "" {
		s.Seen = netip.MustParseAddrPort(seen)
	}
	return s
}

func TestWriteTable(t *testing.T) {
	const host, self = "192.168.5.138:30000", "172.5.138.2:20001"
	wanted := map[Call]Expect{{From: "pod1", To: "pod2"}: Both(Itself)}
	for _, c := range []struct {
		name, want string
		stage      StageResult
		colour     bool
	}{
		{
			name: "before: what is wanted is said, protocols seen alike are one line",
			stage: StageResult{Wanted: wanted, Sightings: []Sighting{
				sighting(probe.TCP, host, "host1", "host1", ""), sighting(probe.UDP, host, "host1", "host1", ""),
				sighting(probe.ICMP, "172.5.138.2:0", Itself, Itself, "")}},
			want: `
  FROM              TO                PROTOCOL  SEEN AS                VERDICT
  pod1 172.5.138.2  pod2 172.5.139.2  tcp udp   192.168.5.138 (host1)  hidden behind host1; wanted: its own address
  pod1 172.5.138.2  pod2 172.5.139.2  icmp      172.5.138.2            its own address
`},
		{
			name:  "before, and the foreign rules don't do what they should",
			stage: StageResult{Wanted: wanted, Sightings: []Sighting{sighting(probe.TCP, self, Itself, "host1", "")}},
			want: `
  FROM              TO                PROTOCOL  SEEN AS      VERDICT
  pod1 172.5.138.2  pod2 172.5.139.2  tcp       172.5.138.2  ✗ its own address; expected: hidden behind host1
`},
		{
			name: "after",
			stage: StageResult{Policy: "policy.yaml", Sightings: []Sighting{
				sighting(probe.TCP, self, Itself, Itself, ""), sighting(probe.UDP, host, "host1", Itself, ""),
				sighting(probe.ICMP, "203.0.113.9:0", Stranger, Itself, "")}},
			want: `
  FROM              TO                PROTOCOL  SEEN AS                VERDICT
  pod1 172.5.138.2  pod2 172.5.139.2  tcp       172.5.138.2            ✓ its own address
  pod1 172.5.138.2  pod2 172.5.139.2  udp       192.168.5.138 (host1)  ✗ hidden behind host1; expected: its own address
  pod1 172.5.138.2  pod2 172.5.139.2  icmp      203.0.113.9            ✗ unknown address; expected: its own address
`},
		{
			name: "no reply, expected or not",
			stage: StageResult{Policy: "policy.yaml", Sightings: []Sighting{
				sighting(probe.TCP, self, NoReply, NoReply, "it reached pod2 as 172.5.138.2, and there is no route back to that"),
				sighting(probe.UDP, "", NoReply, Itself, "nothing was seen at pod2")}},
			want: `
  FROM              TO                PROTOCOL  SEEN AS      VERDICT
  pod1 172.5.138.2  pod2 172.5.139.2  tcp       172.5.138.2  ✓ no reply: it reached pod2 as 172.5.138.2, and there is no route back to that
  pod1 172.5.138.2  pod2 172.5.139.2  udp       -            ✗ no reply: nothing was seen at pod2; expected: its own address
`},
		{
			name:   "colour leaves the columns alone",
			colour: true,
			stage: StageResult{Policy: "policy.yaml", Sightings: []Sighting{
				sighting(probe.TCP, self, Itself, Itself, ""), sighting(probe.UDP, host, "host1", Itself, "")}},
			want: `
  FROM              TO                PROTOCOL  SEEN AS                VERDICT
  pod1 172.5.138.2  pod2 172.5.139.2  tcp       172.5.138.2            ` + green + `✓ its own address` + plain + `
  pod1 172.5.138.2  pod2 172.5.139.2  udp       192.168.5.138 (host1)  ` + red + `✗ hidden behind host1; expected: its own address` + plain + `
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			if err := WriteTable(&out, &c.stage, c.colour); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n"), out.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func TestResultCounts(t *testing.T) {
	r := Result{Scenario: "flannel", Form: "old", Variant: "nft", Stages: []StageResult{
		{Sightings: []Sighting{sighting(probe.TCP, "", NoReply, NoReply, ""), sighting(probe.UDP, "", NoReply, Itself, "")}},
		{Sightings: []Sighting{sighting(probe.TCP, "", NoReply, "", "")}},
	}}
	if calls, wrong := r.Counts(); calls != 3 || wrong != 1 || r.OK() {
		t.Errorf("%d calls, %d wrong, ok %v; want 3, 1, false", calls, wrong, r.OK())
	}
	if got := r.Title(); got != "flannel/old (iptables-nft)" {
		t.Errorf("title %q", got)
	}
	out := r.JSON()
	if out.OK || out.Stages[0].OK || !out.Stages[1].OK || out.Stages[0].Calls[1].Family != "ipv4" {
		t.Errorf("JSON: %+v", out)
	}
}

func TestJoinWords(t *testing.T) {
	for want, words := range map[string][]string{"": nil, "a": {"a"}, "a and b": {"a", "b"}, "a, b and c": {"a", "b", "c"}} {
		if got := joinWords(words); got != want {
			t.Errorf("%v: got %q, want %q", words, got, want)
		}
	}
}
