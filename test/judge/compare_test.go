package judge_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/rig"
	"github.com/unmasq/unmasq/internal/sim"
)

// question that a packet is.
func question(f packet.Flow) sim.Question {
	q := sim.Question{Source: f.Source, Destination: f.Destination, Protocol: f.Protocol, Local: f.Local, InInterface: f.InInterface,
		SourcePort: sim.UnknownPort, DestinationPort: sim.UnknownPort}
	if f.HasPorts() {
		q.SourcePort, q.DestinationPort = int(f.SourcePort), int(f.DestinationPort)
	}
	return q
}

// result of comparing one packet's fate with a prediction.
type result uint8

const (
	right result = iota
	// unknown: the prediction says that it can't tell.
	unknown
	wrong
)

// errors that a rejected packet's sender gets: always, or unless a rule drops
// the error itself.
type errorsSeen bool

const (
	always    errorsSeen = true
	mayBeLost errorsSeen = false
)

// compare says whether the fate is among the outcomes.
func compare(f packet.Flow, fate rig.Fate, outcomes []sim.Outcome, e errorsSeen) result {
	if slices.ContainsFunc(outcomes, func(o sim.Outcome) bool { return agrees(f, fate, o, e) }) {
		return right
	}
	if slices.ContainsFunc(outcomes, uncertain) {
		return unknown
	}
	return wrong
}

// uncertain outcomes say that the verdict or the address isn't known.
func uncertain(o sim.Outcome) bool {
	return o.Verdict == sim.VerdictUnknown || o.SourceKind == sim.SourceUnknown
}

func agrees(f packet.Flow, fate rig.Fate, o sim.Outcome, e errorsSeen) bool {
	if o.Protocol != 0 && o.Protocol != f.Protocol {
		return false
	}
	if fate.In == nil && fate.Out == nil {
		return o.Verdict == sim.Dropped && fate.Error == "" || o.Verdict == sim.Rejected && errorAgrees(f, fate, o, e)
	}
	if o.Verdict != sim.Accepted {
		return fate.Out == nil && f.Local && droppedLeaving(o)
	}
	// A broadcast of the node's own is seen at both ends.
	return o.ToNode && packetAgrees(f, fate.In, o) || !o.ToNode && packetAgrees(f, fate.Out, o) && o.OutInterface == fate.Out.Interface
}

// droppedLeaving: POSTROUTING drops one copy of a broadcast of the node's own, and
// by chance not the other, which the node itself gets.
func droppedLeaving(o sim.Outcome) bool {
	return o.Verdict == sim.Dropped && o.Probability < 1 && len(o.Steps) > 0 && o.Steps[len(o.Steps)-1].Hook == "postrouting"
}

func errorAgrees(f packet.Flow, fate rig.Fate, o sim.Outcome, e errorsSeen) bool {
	switch {
	case o.DecidedBy != nil && o.DecidedBy.Rule == nil: // a route did: a program gets it from the system call
		return fate.Error != "" || fate.Refused != nil || e == mayBeLost
	case fate.Error == "":
		return e == mayBeLost
	}
	return fate.Error == errorName(f, o.RejectWith)
}

func packetAgrees(f packet.Flow, seen *rig.Seen, o sim.Outcome) bool {
	return seen != nil && o.Source == seen.Source && o.Destination == seen.Destination && portsAgree(f, seen, o)
}

func portsAgree(f packet.Flow, seen *rig.Seen, o sim.Outcome) bool {
	if !f.HasPorts() {
		return true
	}
	if o.DestinationPort != sim.UnknownPort && o.DestinationPort != int(seen.DestinationPort) {
		return false
	}
	p := o.SourcePort
	return p.Random && p.Last == 0 || p.First <= seen.SourcePort && seen.SourcePort <= p.Last
}

// errorName is a --reject-with in its long form.
func errorName(f packet.Flow, with string) string {
	short := map[string]string{
		"net-unreach": "icmp-net-unreachable", "host-unreach": "icmp-host-unreachable", "proto-unreach": "icmp-proto-unreachable", "port-unreach": "icmp-port-unreachable",
		"net-prohib": "icmp-net-prohibited", "host-prohib": "icmp-host-prohibited", "admin-prohib": "icmp-admin-prohibited", "tcp-rst": "tcp-reset",
		"no-route": "icmp6-no-route", "adm-prohibited": "icmp6-adm-prohibited", "addr-unreach": "icmp6-addr-unreachable", "policy-fail": "icmp6-policy-fail", "reject-route": "icmp6-reject-route",
	}
	switch {
	case short[with] != "":
		return short[with]
	case with == "" && f.Source.Is4():
		return "icmp-port-unreachable"
	case with == "" || with == "icmp6-port-unreach":
		return "icmp6-port-unreachable"
	}
	return with
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
