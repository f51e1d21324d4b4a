package iptables

import (
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// conntrack reads -m conntrack, and -m state, which is part of it.
func (s *spec) conntrack(options []option) string {
	var m ruleset.Conntrack
	for _, o := range options {
		if why := s.conntrackOption(&m, o); why != "" {
			return why
		}
	}
	s.add(m)
	return ""
}

func (s *spec) conntrackOption(m *ruleset.Conntrack, o option) string {
	if o.n != 1 {
		return whyMalformed
	}
	ok := true
	switch o.name {
	case "--ctstate", "--state":
		m.States, ok = states(o.value)
		m.NotStates = o.not
	case "--ctstatus":
		m.Status, ok = statuses(o.value)
		m.NotStatus = o.not
	case "--ctproto":
		m.Protocol, ok = protocol(o.value)
		m.Protocol.Is, m.Protocol.Not = true, o.not
	case "--ctorigsrc":
		return s.ctAddress(&m.OriginalSource, o)
	case "--ctorigdst":
		return s.ctAddress(&m.OriginalDestination, o)
	case "--ctreplsrc":
		return s.ctAddress(&m.ReplySource, o)
	case "--ctrepldst":
		return s.ctAddress(&m.ReplyDestination, o)
	case "--ctorigsrcport":
		ok = ctPorts(&m.OriginalSourcePorts, ruleset.Source, o)
	case "--ctorigdstport":
		ok = ctPorts(&m.OriginalDestinationPorts, ruleset.Destination, o)
	case "--ctreplsrcport":
		ok = ctPorts(&m.ReplySourcePorts, ruleset.Source, o)
	case "--ctrepldstport":
		ok = ctPorts(&m.ReplyDestinationPorts, ruleset.Destination, o)
	case "--ctdir":
		m.Direction = strings.ToUpper(o.value)
		ok = !o.not && (m.Direction == "ORIGINAL" || m.Direction == "REPLY")
	case "--ctexpire":
		m.Expire = true
	default:
		ok = false
	}
	if !ok {
		return whyMalformed
	}
	return ""
}

func (s *spec) ctAddress(field *ruleset.Address, o option) string {
	a := parseAddress(o.value)
	switch {
	case a.why != "":
		return a.why
	case a.net.IsValid():
		return whyUnknown // a mask that is no prefix length has no place in the model
	}
	s.families.add(a.prefix.Addr().Is6())
	*field = ruleset.Address{Prefix: a.prefix, Not: o.not}
	return ""
}

func ctPorts(field **ruleset.Ports, side ruleset.Side, o option) bool {
	r, ok := portRange(o.value, ':')
	*field = &ruleset.Ports{Side: side, Ranges: []ruleset.PortRange{r}, Not: o.not}
	return ok
}

func (s *spec) physdev(options []option) string {
	var m ruleset.PhysDev
	for _, o := range options {
		ok := o.n == 0
		asked := ruleset.AskedYes
		if o.not {
			asked = ruleset.AskedNo
		}
		switch o.name {
		case "--physdev-in":
			m.In, ok = interfaceName(o.value, o.not), o.n == 1
		case "--physdev-out":
			m.Out, ok = interfaceName(o.value, o.not), o.n == 1
		case "--physdev-is-in":
			m.IsIn = asked
		case "--physdev-is-out":
			m.IsOut = asked
		case "--physdev-is-bridged":
			m.IsBridged = asked
		default:
			ok = false
		}
		if !ok {
			return whyMalformed
		}
	}
	s.add(m)
	return ""
}

func (s *spec) owner(options []option) string {
	var m ruleset.Owner
	for _, o := range options {
		why := ""
		switch o.name {
		case "--uid-owner":
			m.UID, why = ids(o)
			m.NotUID = o.not
		case "--gid-owner":
			m.GID, why = ids(o)
			m.NotGID = o.not
		case "--socket-exists":
			m.SocketExists = ruleset.AskedYes
			if o.not {
				m.SocketExists = ruleset.AskedNo
			}
		case "--suppl-groups":
			m.SupplementaryGroups = true
		default:
			why = whyUnknown
		}
		if why != "" {
			return why
		}
	}
	s.add(m)
	return ""
}

// ids reads a user or group number or a range of them. Of names only root's
// number is the same everywhere.
func ids(o option) (*[2]uint32, string) {
	if o.n == 1 && o.value == "root" {
		return &[2]uint32{}, ""
	}
	first, last, both := strings.Cut(o.value, "-")
	a, ok := number(first)
	b := a
	if both && ok {
		b, ok = number(last)
	}
	if o.n != 1 || !ok || b < a {
		return nil, whyName
	}
	return &[2]uint32{a, b}, ""
}
