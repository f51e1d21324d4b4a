package explain_test

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

const flannel = `*nat
:POSTROUTING ACCEPT [0:0]
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
COMMIT
`

func ask(t *testing.T, dump, source, destination string) explain.Answer {
	t.Helper()
	host, err := snapshot.Read([]string{"-"}, strings.NewReader(dump))
	if err != nil {
		t.Fatal(err)
	}
	return explain.New(explain.Node{Host: host}).Explain(sim.Question{
		Source: netip.MustParseAddr(source), Destination: netip.MustParseAddr(destination),
		Protocol: packet.TCP, SourcePort: sim.UnknownPort, DestinationPort: 443,
	}, sim.Options{})
}

func decoded(t *testing.T, value any) map[string]any {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFieldNames: scripts read these names; a field that goes is a break.
func TestFieldNames(t *testing.T) {
	a := decoded(t, ask(t, flannel, "10.244.1.7", "192.168.200.253"))
	outcome := a["outcomes"].([]any)[0].(map[string]any)
	for _, c := range []struct {
		name  string
		value any
		want  string
	}{
		{"answer", a, "flow outcomes version warnings"},
		{"flow", a["flow"], "destination destinationPort family protocol source"},
		{"outcome", outcome, "decidedBy dependsOn destination destinationPort probability protocol source sourceKind sourcePort steps verdict"},
		{"decidedBy", outcome["decidedBy"], "because chain change family file index kind line owner ownerVersion policy rule setting table trap why"},
		{"dependsOn", outcome["dependsOn"].([]any)[0], "what why"},
		{"step", outcome["steps"].([]any)[0], "chain effect hook matched owner rule table"},
	} {
		got := strings.Join(slices.Sorted(maps.Keys(c.value.(map[string]any))), " ")
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", c.name, diff)
		}
	}
}

func TestNoNullLists(t *testing.T) {
	for _, dump := range []string{flannel, "*nat\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n"} {
		a := decoded(t, ask(t, dump, "10.244.1.7", "192.168.200.253"))
		outcome := a["outcomes"].([]any)[0].(map[string]any)
		for _, list := range []any{a["warnings"], a["outcomes"], outcome["dependsOn"], outcome["steps"]} {
			if _, ok := list.([]any); !ok {
				t.Errorf("%v in %v; want a list", list, a)
			}
		}
		decider, has := outcome["decidedBy"]
		if !has || (decider == nil) != (outcome["sourceKind"] == "kept") {
			t.Errorf("decided by %v; the source is %v", decider, outcome["sourceKind"])
		}
	}
}

// strange is an answer whose words would end strings, tags and lines.
func strange() explain.Answer {
	const name = "a\"b\\c<&>\n\x01'"
	return explain.Answer{
		Flow: explain.Flow{Source: netip.MustParseAddr("10.0.0.1")},
		Outcomes: []explain.Outcome{{
			Verdict: "accepted", SourceKind: "masqueraded", Destination: netip.MustParseAddr("10.0.0.2"),
			Steps: []explain.Step{{Hook: "forward", Chain: name, Effect: name, Owner: name, Matched: true}},
		}},
	}
}

func TestSVGIsXML(t *testing.T) {
	real := ask(t, flannel, "10.244.1.7", "192.168.200.253")
	odd := strange()
	for _, svg := range []string{real.SVG(), odd.SVG()} {
		d := xml.NewDecoder(strings.NewReader(svg))
		for {
			_, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%v in\n%s", err, svg)
			}
		}
	}
}

func TestDOTQuotes(t *testing.T) {
	a := strange()
	dot := a.DOT()
	if want := `forward\na\"b\\c<&>\n`; !strings.Contains(dot, want) {
		t.Errorf("no %s in\n%s", want, dot)
	}
	for line := range strings.Lines(dot) {
		if strings.Count(strings.NewReplacer(`\\`, "", `\"`, "").Replace(line), `"`)%2 != 0 {
			t.Errorf("a string is open in %s", line)
		}
	}
}
