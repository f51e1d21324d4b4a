package replay

import (
	"slices"

	"github.com/unmasq/unmasq/internal/kernel/wires"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
)

// Question that a packet is.
func Question(f packet.Flow) sim.Question {
	q := sim.Question{Source: f.Source, Destination: f.Destination, Protocol: f.Protocol, Local: f.Local, InInterface: f.InInterface,
		SourcePort: sim.UnknownPort, DestinationPort: sim.UnknownPort}
	if f.HasPorts() {
		q.SourcePort, q.DestinationPort = int(f.SourcePort), int(f.DestinationPort)
	}
	return q
}

// Result of comparing one packet's fate with a prediction.
type Result uint8

const (
	Right Result = iota
	// Unknown: the prediction says that it can't tell.
	Unknown
	Wrong
)

// Errors that a rejected packet's sender gets.
type Errors bool

const (
	// Always: nothing is in their way.
	Always Errors = true
	// MayBeLost: a rule may drop the error itself.
	MayBeLost Errors = false
)

// Compare says whether the fate is among the outcomes.
func Compare(f packet.Flow, fate wires.Fate, outcomes []sim.Outcome, e Errors) Result {
	if slices.ContainsFunc(outcomes, func(o sim.Outcome) bool { return Agrees(f, fate, o, e) }) {
		return Right
	}
	if slices.ContainsFunc(outcomes, Uncertain) {
		return Unknown
	}
	return Wrong
}

// Uncertain outcomes say that the verdict or the address isn't known.
func Uncertain(o sim.Outcome) bool {
	return o.Verdict == sim.VerdictUnknown || o.SourceKind == sim.SourceUnknown
}

// Agrees says whether the fate is the outcome.
func Agrees(f packet.Flow, fate wires.Fate, o sim.Outcome, e Errors) bool {
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
// by chance not the other, which the node itself gets. Chains at devices and on
// bridges never see that one.
func droppedLeaving(o sim.Outcome) bool {
	if o.Verdict != sim.Dropped || len(o.Steps) == 0 {
		return false
	}
	s := o.Steps[len(o.Steps)-1]
	onBridge := s.At.Table != nil && s.At.Table.Native != nil && s.At.Table.Native.Family == "bridge"
	return s.Hook == "egress" || onBridge || s.Hook == "postrouting" && o.Probability < 1
}

func errorAgrees(f packet.Flow, fate wires.Fate, o sim.Outcome, e Errors) bool {
	switch {
	case o.DecidedBy != nil && o.DecidedBy.Rule == nil: // a route did: a program gets it from the system call
		return fate.Error != "" || fate.Refused != nil || e == MayBeLost
	case fate.Error == "":
		return e == MayBeLost
	}
	return fate.Error == errorName(f, o.RejectWith)
}

func packetAgrees(f packet.Flow, seen *wires.Seen, o sim.Outcome) bool {
	return seen != nil && o.Source == seen.Source && o.Destination == seen.Destination && portsAgree(f, seen, o)
}

func portsAgree(f packet.Flow, seen *wires.Seen, o sim.Outcome) bool {
	if !f.HasPorts() {
		return true
	}
	if o.DestinationPort != sim.UnknownPort && o.DestinationPort != int(seen.DestinationPort) {
		return false
	}
	p := o.SourcePort
	if !p.Known && !p.Random && p.Last == 0 { // the question left it open, and nothing changed it
		return seen.SourcePort == f.SourcePort
	}
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
