package replay

import (
	"cmp"

	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/sim"
)

// describe a packet's fate in the words of an answer.
func (s *shot) describe() tally {
	f := explain.Fate{Times: 1, Protocol: explain.ProtocolName(s.flow.Protocol), Tracked: s.tracked, Predicted: s.result != Wrong}
	seen := cmp.Or(s.fate.In, s.fate.Out)
	switch {
	case seen != nil:
		f.Verdict, f.ToNode, f.OutInterface = string(sim.Accepted), s.fate.In != nil, seen.Interface
		f.Source, f.Destination = &seen.Source, &seen.Destination
		if s.flow.HasPorts() {
			port := int(seen.DestinationPort)
			f.DestinationPort = &port
		}
	case s.fate.Error != "":
		f.Verdict, f.RejectWith = string(sim.Rejected), s.fate.Error
	case s.fate.Refused != nil: // by the system call
		f.Verdict, f.RejectWith = string(sim.Rejected), s.fate.Refused.Error()
	default:
		f.Verdict = string(sim.Dropped)
	}
	t := tally{Fate: f}
	if seen != nil && s.flow.HasPorts() {
		t.hasPort, t.first, t.last = true, seen.SourcePort, seen.SourcePort
	}
	return t
}

// tally is a fate that several packets had.
type tally struct {
	explain.Fate
	hasPort     bool
	first, last uint16
}

func (t *tally) join(more tally) {
	t.Times += more.Times
	t.first, t.last = min(t.first, more.first), max(t.last, more.last)
	if more.Tracked != nil && (t.Tracked == nil || *t.Tracked) {
		t.Tracked = more.Tracked
	}
}

// fate with the source ports that were seen.
func (t *tally) fate() explain.Fate {
	switch {
	case !t.hasPort:
	case t.first == t.last:
		t.SourcePort = t.first
	default:
		t.SourcePort = [2]uint16{t.first, t.last}
	}
	return t.Fate
}

// key of those fates that are counted together.
type key struct {
	protocol, verdict, out, reject string
	source, destination            string
	port                           int
	toNode, predicted              bool
}

func keyOf(t tally) key {
	k := key{protocol: t.Protocol, verdict: t.Verdict, out: t.OutInterface, reject: t.RejectWith, toNode: t.ToNode, predicted: t.Predicted}
	if t.Source != nil {
		k.source, k.destination = t.Source.String(), t.Destination.String()
	}
	if t.DestinationPort != nil {
		k.port = *t.DestinationPort
	}
	return k
}

// fates counts the packets with the same one, whatever their source ports.
func (r *replay) fates() []explain.Fate {
	var all []tally
	at := map[key]int{}
	for i := range r.shots {
		t := r.shots[i].describe()
		k := keyOf(t)
		if j, known := at[k]; known {
			all[j].join(t)
			continue
		}
		at[k] = len(all)
		all = append(all, t)
	}
	out := make([]explain.Fate, len(all))
	for i := range all {
		out[i] = all[i].fate()
	}
	return out
}
