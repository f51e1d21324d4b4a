package sim

import (
	"net/netip"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// conntrack is -m conntrack and -m state: net/netfilter/xt_conntrack.c.
func (r *run) conntrack(m ruleset.Conntrack) bool {
	if m.States != 0 && (m.States&r.states() != 0) == m.NotStates {
		return false
	}
	if !r.tracked || r.noTrack {
		return m.States != 0 // no connection: only the state can be asked
	}
	if m.Expire {
		return false
	}
	if m.Direction != "" && (m.Direction == "REPLY") != r.reply {
		return false
	}
	if m.Protocol.Is && (m.Protocol.Number == r.protocol) == m.Protocol.Not {
		return false
	}
	if m.Status != 0 && (m.Status&r.statuses() != 0) == m.NotStatus {
		return false
	}
	return r.tuples(m)
}

// states of the packet as rules see them now.
func (r *run) states() ruleset.States {
	switch {
	case r.noTrack && r.tracked:
		return ruleset.StateUntracked
	case r.noTrack:
		return ruleset.StateUntracked
	case !r.tracked:
		return ruleset.StateInvalid
	}
	s := ruleset.StateNew
	if r.connection != nil && (r.reply || r.connection.SeenReply) {
		s = ruleset.StateEstablished
	}
	if r.snated || r.connection != nil && r.connection.Reply.Destination != r.connection.Original.Source {
		s |= ruleset.StateSNAT
	}
	if r.dnated || r.connection != nil && r.connection.Reply.Source != r.connection.Original.Destination {
		s |= ruleset.StateDNAT
	}
	return s
}

func (r *run) statuses() ruleset.Statuses {
	if r.connection == nil {
		if r.boundSource && r.in.known && r.in.name == "lo" && r.local {
			return ruleset.StatusConfirmed
		}
		return 0
	}
	s := ruleset.StatusConfirmed
	if r.connection.SeenReply {
		s |= ruleset.StatusSeenReply
	}
	if r.connection.Assured {
		s |= ruleset.StatusAssured
	}
	return s
}

// tuples compares the addresses and ports of both directions.
func (r *run) tuples(m ruleset.Conntrack) bool {
	original, reply := r.original(), r.replyTuple()
	return fits(m.OriginalSource, original.src) && fits(m.OriginalDestination, original.dst) &&
		fits(m.ReplySource, reply.src) && fits(m.ReplyDestination, reply.dst) &&
		r.portsFit(m.OriginalSourcePorts, original.sport) && r.portsFit(m.OriginalDestinationPorts, original.dport) &&
		r.portsFit(m.ReplySourcePorts, reply.sport) && r.portsFit(m.ReplyDestinationPorts, reply.dport)
}

func fits(a ruleset.Address, ip netip.Addr) bool { return matchesAddress(a, ip) }

// portsFit: a port that the question leaves open is taken as it was asked, so
// that only a known one can fail.
func (r *run) portsFit(m *ruleset.Ports, port int) bool {
	if m == nil {
		return true
	}
	if port < 0 {
		r.lacks("ports", "a rule asks for the connection's port, which isn't given; it is taken as not matching")
		return m.Not
	}
	return inRanges(uint16(port), m.Ranges) != m.Not
}

type tuple struct {
	src, dst     netip.Addr
	sport, dport int
}

func (r *run) original() tuple {
	if c := r.connection; c != nil {
		return tuple{c.Original.Source, c.Original.Destination, int(c.Original.SourcePort), int(c.Original.DestinationPort)}
	}
	return tuple{r.question.Source, r.question.Destination, r.question.SourcePort, r.question.DestinationPort}
}

// replyTuple is what an answer would have, as far as the connection is bound.
func (r *run) replyTuple() tuple {
	if c := r.connection; c != nil {
		return tuple{c.Reply.Source, c.Reply.Destination, int(c.Reply.SourcePort), int(c.Reply.DestinationPort)}
	}
	return tuple{r.dst, r.src, r.dport.number(), r.sport.number()}
}
