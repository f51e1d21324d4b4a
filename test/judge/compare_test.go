package judge_test

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/replay"
	"github.com/unmasq/unmasq/internal/rig"
	"github.com/unmasq/unmasq/internal/sim"
)

// How a fate is compared with a prediction: explain --replay does it the same way.
const (
	right     = replay.Right
	unknown   = replay.Unknown
	wrong     = replay.Wrong
	always    = replay.Always
	mayBeLost = replay.MayBeLost
)

func question(f packet.Flow) sim.Question { return replay.Question(f) }

func compare(f packet.Flow, fate rig.Fate, outcomes []sim.Outcome, e replay.Errors) replay.Result {
	return replay.Compare(f, fate, outcomes, e)
}

func uncertain(o sim.Outcome) bool { return replay.Uncertain(o) }

func agrees(f packet.Flow, fate rig.Fate, o sim.Outcome, e replay.Errors) bool {
	return replay.Agrees(f, fate, o, e)
}

// key names an outcome, so that those of repeated packets can be counted: all of
// it but the source port.
func key(o sim.Outcome) string {
	return fmt.Sprint(o.Verdict, o.Source, o.Destination, o.DestinationPort, o.OutInterface, o.ToNode, o.RejectWith)
}

func fateText(f rig.Fate) string {
	text := func(verb string, s *rig.Seen) string {
		return fmt.Sprintf("%s %s → %s", verb, netip.AddrPortFrom(s.Source, s.SourcePort), netip.AddrPortFrom(s.Destination, s.DestinationPort))
	}
	switch {
	case f.In != nil:
		return text("delivered to the node", f.In)
	case f.Out != nil:
		return text("left by "+f.Out.Interface, f.Out)
	case f.Error != "":
		return "refused with " + f.Error
	}
	return "vanished"
}

func outcomesText(outcomes []sim.Outcome) string {
	var b strings.Builder
	for _, o := range outcomes {
		fmt.Fprintf(&b, "\n  p=%.2f %s %s %s:%d-%d(random %v) → %s:%d by %q to node %v %s", o.Probability, o.Verdict, o.SourceKind,
			o.Source, o.SourcePort.First, o.SourcePort.Last, o.SourcePort.Random, o.Destination, o.DestinationPort, o.OutInterface, o.ToNode, o.RejectWith)
		for _, d := range o.DependsOn {
			fmt.Fprintf(&b, "\n    depends on %s: %s", d.What, d.Text())
		}
		for _, s := range o.Steps {
			rule := ""
			if s.At.Rule != nil {
				rule = s.At.Table.Name + " " + s.At.Rule.Text
			}
			fmt.Fprintf(&b, "\n    %s: %s: %s", s.Hook, rule, s.Effect)
		}
	}
	return b.String()
}

func flowText(f packet.Flow) string {
	from := "by " + f.InInterface
	if f.Local {
		from = "sent by the node"
	}
	return fmt.Sprintf("protocol %d, %s → %s, %s", f.Protocol, netip.AddrPortFrom(f.Source, f.SourcePort), netip.AddrPortFrom(f.Destination, f.DestinationPort), from)
}
