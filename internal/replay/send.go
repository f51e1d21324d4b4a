package replay

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/unmasq/unmasq/internal/kernel/wires"
	"github.com/unmasq/unmasq/internal/packet"
	model "github.com/unmasq/unmasq/internal/route"
	"github.com/unmasq/unmasq/internal/sim"
)

type route = model.Route

// shot is a packet that was sent.
type shot struct {
	flow packet.Flow
	fate wires.Fate
	// predicted for this very packet.
	predicted []sim.Outcome
	result    Result
	// tracked: see [explain.Fate].
	tracked *bool
}

// repeats of a packet: an outcome of a fifth is missed once in 600,000 times.
const repeats = 60

// firstPort of those that packets are sent from where the question leaves it open.
const firstPort = 40000

// openPorts are destination ports where the question leaves them open.
var openPorts = [...]uint16{80, 9, 65000}

// flows to send.
func (r *replay) flows(in string) []packet.Flow {
	var all []packet.Flow
	for _, protocol := range protocols(r.question) {
		for i := range repeats {
			f := packet.Flow{Source: r.question.Source, Destination: r.question.Destination, Protocol: protocol, Local: r.question.Local, InInterface: in}
			switch {
			case f.HasPorts():
				f.SourcePort, f.DestinationPort = firstPort+uint16(i), openPorts[i%len(openPorts)]
				if p := r.question.SourcePort; p != sim.UnknownPort {
					f.SourcePort = uint16(p)
				}
				if p := r.question.DestinationPort; p != sim.UnknownPort {
					f.DestinationPort = uint16(p)
				}
			case protocol == packet.ICMP || protocol == packet.ICMPv6:
				f.SourcePort = firstPort + uint16(i)
			}
			all = append(all, f)
		}
	}
	return all
}

// send sends all packets, each as the first of its connection.
func (r *replay) send(ctx context.Context, in string) error {
	for flows := r.flows(in); len(flows) > 0; {
		k := wires.Apart(flows)
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.volley(flows[:k]); err != nil {
			return err
		}
		flows = flows[k:]
	}
	return nil
}

// volley sends packets that can't come in each other's way.
func (r *replay) volley(flows []packet.Flow) error {
	if err := wires.Forget(r.node); err != nil {
		return err
	}
	fates, err := r.wires.Send(flows)
	if err != nil {
		return cannot("the packet can't be sent: %v", err)
	}
	connections, err := wires.Connections(r.node, r.question.Family())
	if err != nil {
		return err
	}
	for i, f := range flows {
		s := shot{flow: f, fate: fates[i], predicted: r.model.Run(Question(f), sim.Options{}), tracked: tracked(f, fates[i], connections)}
		s.result = Compare(f, s.fate, s.predicted, MayBeLost)
		if s.result == Right { // the answer that was shown has to have it too
			s.result = Compare(f, s.fate, r.predicted, MayBeLost)
		}
		if s.result == Right && s.tracked != nil && !*s.tracked {
			s.result = Wrong
		}
		r.shots = append(r.shots, s)
	}
	return nil
}

// tracked says whether connection tracking, which saw the packet too, expects
// the inverse of what came out. Nil where there is no entry: it may have been
// ended by a reset, or the packet isn't tracked.
func tracked(f packet.Flow, fate wires.Fate, connections []wires.Connection) *bool {
	seen := cmp.Or(fate.In, fate.Out)
	if seen == nil || f.Protocol != packet.TCP && f.Protocol != packet.UDP {
		return nil
	}
	from, to := netip.AddrPortFrom(f.Source, f.SourcePort), netip.AddrPortFrom(f.Destination, f.DestinationPort)
	for _, c := range connections {
		if c.Protocol == f.Protocol && c.Source == from && c.Destination == to {
			same := c.ReplyDestination == netip.AddrPortFrom(seen.Source, seen.SourcePort) && c.ReplySource == netip.AddrPortFrom(seen.Destination, seen.DestinationPort)
			return &same
		}
	}
	return nil
}

func shares(outcomes []sim.Outcome) map[string]float64 {
	all := map[string]float64{}
	for _, o := range outcomes {
		all[outcomeKey(o)] += o.Probability
	}
	return all
}

func sameShares(a, b map[string]float64) bool { return maps.Equal(a, b) }

func sortedKeys(m map[string]float64) []string { return slices.Sorted(maps.Keys(m)) }

// outcomeKey names an outcome in all but the source port.
func outcomeKey(o sim.Outcome) string {
	switch {
	case o.Verdict != sim.Accepted:
		return string(o.Verdict)
	case o.ToNode:
		return fmt.Sprintf("%s → %s on the node", o.Source, end(o))
	}
	return fmt.Sprintf("%s → %s by %s", o.Source, end(o), o.OutInterface)
}

func end(o sim.Outcome) string {
	if o.DestinationPort == sim.UnknownPort {
		return o.Destination.String()
	}
	return netip.AddrPortFrom(o.Destination, uint16(o.DestinationPort)).String()
}
