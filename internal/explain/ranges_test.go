package explain_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
)

// TestRangesAgreeWithSingleAnswers: ranges part the network without gaps, and
// whichever address is asked for, alone it fares as its range says.
func TestRangesAgreeWithSingleAnswers(t *testing.T) {
	for _, n := range networks() {
		for _, sources := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/sources=%t", n.name, sources), rapid.MakeCheck(func(t *rapid.T) { agree(t, n, sources) }))
		}
	}
}

func agree(t *rapid.T, n network, sources bool) {
	e := explain.New(explain.Node{Host: drawHost(t, n)})
	q := explain.Asked{Question: sim.Question{
		Source: draw(t, n.inside, "source"), Destination: draw(t, n.elsewhere, "destination"), OutInterface: "eth0",
		Protocol: packet.TCP, SourcePort: 40000, DestinationPort: 443,
	}}
	asked := n.elsewhere
	if sources {
		q.Sources, asked = n.inside, n.inside
		q.Source = n.inside.Addr()
	} else {
		q.Destinations = n.elsewhere
		q.Destination = n.elsewhere.Addr()
	}
	all, err := e.Ranges(q, "")
	if err != nil {
		t.Fatal(err)
	}
	next := asked.Addr()
	for i := range all.Ranges {
		r := &all.Ranges[i]
		if r.From != next {
			t.Fatalf("range %d begins with %s; want %s", i, r.From, next)
		}
		for a := r.From; ; a = a.Next() {
			single := q.Question
			if sources {
				single.Source = a
			} else {
				single.Destination = a
			}
			fares(t, r, e.Explain(single, sim.Options{}).Outcomes, a, sources)
			if a == r.To {
				break
			}
		}
		next = r.To.Next()
	}
	if asked.Contains(next) {
		t.Fatalf("ranges end before %s", next)
	}
}

// failing is what a test and a property have in common.
type failing interface {
	Helper()
	Fatalf(format string, args ...any)
}

// fares holds the outcomes for one address against those of its range.
func fares(t failing, r *explain.Range, alone []explain.Outcome, a netip.Addr, sources bool) {
	t.Helper()
	if len(alone) != len(r.Outcomes) {
		t.Fatalf("%s: %d outcomes, in its range %d", a, len(alone), len(r.Outcomes))
	}
	for i := range alone {
		got, want := kind(&r.Outcomes[i], r.From, sources), kind(&alone[i], a, sources)
		if got != want {
			t.Fatalf("%s: %s, in its range %s-%s: %s", a, want, r.From, r.To, got)
		}
		source := r.Outcomes[i].Source
		switch {
		case source == nil: // one of several
		case sources && *source == r.From && *alone[i].Source == a: // its own
		case alone[i].Source == nil || *source != *alone[i].Source:
			t.Fatalf("%s: the source is %v, in its range %s-%s %s", a, alone[i].Source, r.From, r.To, source)
		}
	}
}

// kind is an outcome without what differs from address to address.
func kind(o *explain.Outcome, own netip.Addr, sources bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%v %s %s %v %s", o.Probability != nil, o.Verdict, o.SourceKind, o.SourcePort, o.OutInterface)
	if to := o.Destination; sources || to != own {
		fmt.Fprintf(&b, " to %s", to)
	}
	if d := o.DecidedBy; d != nil {
		fmt.Fprintf(&b, " by %s:%d", d.Chain, d.Index)
	}
	return b.String()
}
