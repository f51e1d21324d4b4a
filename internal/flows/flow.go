package flows

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/explain"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/sim"
)

// Flow is an entry with what its addresses are called and who did it. names may be nil.
func (j *Judge) Flow(e *conntrack.Entry, names Names) Flow {
	v := j.verdict(e)
	seen, seenPort := e.SeenAs()
	f := Flow{
		Family: strings.ToLower(packet.Of(e.Original.Source).String()), Protocol: explain.ProtocolName(e.Protocol),
		Source: e.Original.Source, SeenAs: seen, Destination: e.Original.Destination,
		State: e.State, Replied: e.SeenReply, Assured: e.Assured, Offloaded: e.Offloaded,
		Direction: j.direction(e), SourceKind: v.kind, ByRules: v.byRules, Now: v.now, DecidedBy: v.by, DestinationBy: v.destinationBy,
		ID: e.ID, Zone: e.Zone, Mark: e.Mark,
	}
	ports := explain.HasPorts(e.Protocol)
	if ports {
		from, to := e.Original.SourcePort, e.Original.DestinationPort
		f.SourcePort, f.DestinationPort, f.SeenAsPort = &from, &to, &seenPort
	}
	if e.DestinationTranslated() {
		backend, port := e.Backend()
		if f.Backend = &backend; ports {
			f.BackendPort = &port
		}
	}
	if e.Counted {
		f.Packets, f.Bytes = &[2]uint64{e.Packets[0], e.Packets[1]}, &[2]uint64{e.Bytes[0], e.Bytes[1]}
	}
	f.name(names)
	return f
}

func (f *Flow) name(names Names) {
	if names != nil {
		f.SourceName, f.SeenAsName, f.DestinationName = names.Of(f.Source), names.Of(f.SeenAs), names.Of(f.Destination)
		if f.Backend != nil {
			f.BackendName = names.Of(*f.Backend)
		}
	}
	if f.DestinationName == "" && f.DestinationBy != nil {
		f.DestinationName = f.DestinationBy.Service
	}
}

// direction of a connection as the node sees it.
func (j *Judge) direction(e *conntrack.Entry) string {
	if j.host == nil {
		return ""
	}
	backend, _ := e.Backend()
	from, known := j.host.Network.IsLocal(e.Original.Source)
	to, alsoKnown := j.host.Network.IsLocal(backend)
	switch {
	case !known || !alsoKnown:
		return ""
	case from && to:
		return "local"
	case from:
		return "out"
	case to:
		return "in"
	}
	return "forwarded"
}

// By is who did it, in a few words.
//
//	masqueraded by flannel: FLANNEL-POSTRTG:5
//	kept; dnat by kube-proxy
//	kept; dnat in PREROUTING
//	translated; the rules now: kept
func (f *Flow) By() string {
	text := f.SourceKind
	if text == string(sim.SourceUnknown) {
		text = "translated"
	}
	switch f.ByRules {
	case Same:
		text += by(f.DecidedBy)
	case Other:
		return text + "; the rules now: " + f.Now
	default:
		if text == "translated" {
			text += "; " + f.Now
		}
		return text
	}
	if d := f.DestinationBy; d != nil && d.Owner != "" && d.Owner != "unknown" {
		text += "; dnat by " + d.Owner
	} else if d != nil {
		text += "; dnat in " + d.Chain
	}
	return text
}

// Filter of connections. The zero value takes all.
type Filter struct {
	Family   packet.Family
	Protocol uint8
	// Any end: source, destination, backend or the address seen; Source and
	// Destination (before or after translation); SeenAs.
	Any, Source, Destination, SeenAs []netip.Prefix
	// Port of the destination, before or after translation, and of the source; 0: all.
	Port, SourcePort uint16
	State            string
	// Kept and Translated ask whether the peer sees the sender's own address.
	Kept, Translated bool
	// Kinds of source, Rule POLICY/RULE or POLICY, and Owner are asked of the rules.
	Kinds       []string
	Rule, Owner string
}

// Entry says whether the filter may take an entry, before the rules are asked.
func (f *Filter) Entry(e *conntrack.Entry) bool {
	seen, _ := e.SeenAs()
	backend, port := e.Backend()
	o := &e.Original
	switch {
	case f.Family != 0 && packet.Of(o.Source) != f.Family,
		f.Protocol != 0 && f.Protocol != e.Protocol,
		f.Port != 0 && f.Port != o.DestinationPort && f.Port != port,
		f.SourcePort != 0 && f.SourcePort != o.SourcePort,
		f.State != "" && !strings.EqualFold(f.State, e.State),
		f.Kept && e.SourceTranslated(),
		f.Translated && !e.SourceTranslated(),
		f.Any != nil && !within(f.Any, o.Source, o.Destination, seen, backend),
		f.Source != nil && !within(f.Source, o.Source),
		f.Destination != nil && !within(f.Destination, o.Destination, backend),
		f.SeenAs != nil && !within(f.SeenAs, seen):
		return false
	}
	return true
}

func within(all []netip.Prefix, addresses ...netip.Addr) bool {
	for _, p := range all {
		for _, a := range addresses {
			if p.Contains(a) {
				return true
			}
		}
	}
	return false
}

// Flow says whether the filter takes a flow whose entry it took.
func (f *Filter) Flow(x *Flow) bool {
	if len(f.Kinds) > 0 && !slices.Contains(f.Kinds, x.SourceKind) {
		return false
	}
	if f.Rule != "" {
		if x.DecidedBy == nil || x.DecidedBy.PolicyRule != f.Rule && !strings.HasPrefix(x.DecidedBy.PolicyRule, f.Rule+"/") {
			return false
		}
	}
	return f.Owner == "" || x.DecidedBy != nil && x.DecidedBy.Owner == f.Owner
}
