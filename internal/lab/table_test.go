package lab

import (
	"net/netip"
	"slices"
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

// serviceCall is one of client 192.168.200.10 by service far.
func serviceCall(protocol string, f packet.Family, to, node string, sight Sight) Sighting {
	s := Sighting{Call: Call{From: "client", To: to, Service: "far", Node: node}, Family: f, Protocol: protocol, Replied: sight != NoReply, Sight: sight, Expected: sight,
		Source: netip.MustParseAddrPort("192.168.200.10:20001"), Target: netip.MustParseAddrPort("10.96.0.9:80")}
	if f == packet.IPv6Family {
		s.Source, s.Target = netip.MustParseAddrPort("[fd00:192:168:200::10]:20001"), netip.MustParseAddrPort("[fd00:96::9]:80")
	}
	if node != "" {
		s.Target = netip.MustParseAddrPort("10.0.10.11:30080")
	}
	switch sight {
	case NoReply:
		s.Note = "lost"
	case Itself:
		s.Seen = s.Source
	default:
		s.Seen = netip.MustParseAddrPort("[fd00:10:0:10::11]:4000")
	}
	return s
}

func TestWriteGrid(t *testing.T) {
	mixed := []Sighting{
		serviceCall(probe.TCP, packet.IPv4Family, "web2", "", Itself), serviceCall(probe.TCP, packet.IPv6Family, "web2", "", Itself),
		serviceCall(probe.TCP, packet.IPv4Family, "web2", "node1", Itself), serviceCall(probe.TCP, packet.IPv6Family, "web2", "node1", "node1"),
	}
	wrong := slices.Clone(mixed)
	wrong[1].Expected = "node1"
	far := Call{From: "client", To: "web2", Service: "far"}
	for _, c := range []struct {
		name, want string
		stage      StageResult
	}{
		{"before: a star where the end is another", `
  SEEN AS  far    far node1:30080
  client   own *  own/node1
  * not so with the policy, see below
  By TCP, IPv4 and IPv6: 4 calls.
`, StageResult{Sightings: mixed, Wanted: map[Call]Expect{far: Both("node1")}}},
		{"after, and one call is wrong", `
  SEEN AS  far    far node1:30080
  client   ✗ own  ✓ own/node1
  By TCP, IPv4 and IPv6: 4 calls.
  FROM                         TO                           PROTOCOL  SEEN AS               VERDICT
  client fd00:192:168:200::10  web2 by far [fd00:96::9]:80  tcp6      fd00:192:168:200::10  ✗ its own address; expected: hidden behind node1
`, StageResult{Sightings: wrong, Policy: "policy.yaml"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			c.stage.Grid = true
			if err := WriteTable(&out, &c.stage, false); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(strings.TrimPrefix(c.want, "\n"), out.String()); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
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
			name: "services: families that were seen alike are one line, pings have no backend",
			stage: StageResult{Sightings: []Sighting{
				serviceCall(probe.TCP, packet.IPv4Family, "web2", "", NoReply), serviceCall(probe.TCP, packet.IPv6Family, "web2", "", NoReply),
				serviceCall(probe.UDP, packet.IPv4Family, "web2", "node1", Itself), serviceCall(probe.UDP, packet.IPv6Family, "web2", "node1", "node1"),
				serviceCall(probe.ICMP, packet.IPv4Family, "", "", NoReply), serviceCall(probe.ICMP, packet.IPv6Family, "", "", NoReply)}},
			want: `
  FROM                         TO                        PROTOCOL    SEEN AS                   VERDICT
  client 192.168.200.10        web2 by far 10.96.0.9:80  tcp tcp6    -                         no reply: lost
  client 192.168.200.10        web2 by far node1:30080   udp         192.168.200.10            its own address
  client fd00:192:168:200::10  web2 by far node1:30080   udp6        fd00:10:0:10::11 (node1)  hidden behind node1
  client 192.168.200.10        ping far 10.96.0.9        icmp icmp6  -                         no reply: lost
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
