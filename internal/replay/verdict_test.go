package replay

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/kernel/wires"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// Only a node that is the snapshot's can disagree.
func TestVerdict(t *testing.T) {
	source, peer, other := netip.MustParseAddr("10.244.1.7"), netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("8.8.4.4")
	outcome := func(to netip.Addr, p float64) sim.Outcome {
		return sim.Outcome{Probability: p, Verdict: sim.Accepted, Source: source, SourceKind: sim.Kept, Destination: to, DestinationPort: 53, OutInterface: "eth0"}
	}
	flow := packet.Flow{Source: source, Destination: peer, Protocol: packet.UDP, SourcePort: 40000, DestinationPort: 53}
	left := wires.Fate{Out: &wires.Seen{Interface: "eth0", Source: source, Destination: peer, Protocol: packet.UDP, SourcePort: 40000, DestinationPort: 53}}
	yes, no := true, false
	both := []sim.Outcome{outcome(peer, 0.5), outcome(other, 0.5)}
	for _, c := range []struct {
		name      string
		predicted []sim.Outcome
		result    Result
		missing   []string
		different string
		want      *bool
		why       string
	}{
		{"as predicted", []sim.Outcome{outcome(peer, 1)}, Right, nil, "", &yes, ""},
		{"as predicted, although something is missing", []sim.Outcome{outcome(peer, 1)}, Right, []string{"IPVS"}, "", &yes, ""},
		{"otherwise", []sim.Outcome{outcome(other, 1)}, Wrong, nil, "", &no, "wasn't predicted"},
		{"otherwise, and something is missing", []sim.Outcome{outcome(other, 1)}, Wrong, []string{"IPVS"}, "", nil, "isn't quite"},
		{"otherwise, and it reads back differently", []sim.Outcome{outcome(other, 1)}, Wrong, nil, "that", nil, "reads back"},
		{"an open prediction", []sim.Outcome{outcome(other, 1)}, Unknown, nil, "", nil, "can't tell"},
		{"one of two outcomes never comes", both, Right, nil, "", &no, "never seen in 60 packets: 10.244.1.7 → 8.8.4.4:53"},
	} {
		r := &replay{Node: Node{Host: &snapshot.Host{}}, predicted: c.predicted, scratch: &scratch{missing: c.missing, different: c.different}}
		for range repeats {
			r.shots = append(r.shots, shot{flow: flow, fate: left, predicted: c.predicted, result: c.result})
		}
		got := r.verdict()
		if (got.Agrees == nil) != (c.want == nil) || got.Agrees != nil && *got.Agrees != *c.want || !strings.Contains(got.Why, c.why) {
			t.Errorf("%s: %+v", c.name, got)
		}
		if len(got.Seen) != 1 || got.Seen[0].Times != repeats || got.Seen[0].Predicted != (c.result != Wrong) {
			t.Errorf("%s: seen %+v", c.name, got.Seen)
		}
	}
}
