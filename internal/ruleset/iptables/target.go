package iptables

import (
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// targetKind says what a name behind -j is.
type targetKind uint8

const (
	// chainName: no target that is known, so a chain's name.
	chainName targetKind = iota
	// understood targets have a type of their own.
	understood
	// inert ones let the next rule be asked.
	inert
	// foreign ones may do anything.
	foreign
)

func targetKindOf(name string) targetKind {
	switch name {
	case "ACCEPT", "DROP", "RETURN", "REJECT", "MASQUERADE", "SNAT", "DNAT", "REDIRECT", "NETMAP", "MARK", "CONNMARK", "NOTRACK",
		"CT", "SET":
		return understood
	case "LOG", "NFLOG", "ULOG", "TRACE", "TCPMSS", "TCPOPTSTRIP", "CHECKSUM", "CLASSIFY", "DSCP", "TOS", "TTL", "HL", "ECN",
		"AUDIT", "CONNSECMARK", "SECMARK", "IDLETIMER", "LED", "RATEEST", "TEE", "NFACCT":
		return inert
	case "QUEUE", "NFQUEUE", "SYNPROXY", "TPROXY", "HMARK", "SNPT", "DNPT", "CLUSTERIP", "MIRROR", "SAME", "BALANCE", "ROUTE",
		"IPMARK", "DNETMAP", "RAWSNAT", "RAWDNAT", "TARPIT", "DELUDE", "CHAOS", "STEAL", "ECHO", "SYSRQ", "LOGMARK", "ACCOUNT",
		"FULLCONENAT", "FLOWOFFLOAD":
		return foreign
	}
	return chainName
}

// takeTarget makes the rule's target of what was read behind -j. isChain: the
// name is that of a declared chain. It returns false where the name is neither a
// chain nor a target: the caller decides when it has seen all chains.
func (s *spec) takeTarget(isChain bool) (decided bool) {
	if s.target == "" && !s.hidden {
		return true
	}
	text := s.words.text[s.targetStart:max(s.targetStart, s.targetEnd)]
	unknown := func(why string) { s.rule.Target = ruleset.UnknownTarget{Name: s.target, Text: text, Why: why} }
	kind := targetKindOf(s.target)
	switch {
	case s.hidden && s.problem != "" && !strings.Contains(s.problem, whyHidden):
		unknown(whyUnknown)
	case s.hidden:
		unknown(whyHidden)
	case isChain || s.goTo || kind == chainName && len(s.targetOptions) == 0:
		s.rule.Target = ruleset.Jump{Chain: s.target, Goto: s.goTo}
		if len(s.targetOptions) > 0 {
			s.wrong("options behind the name of a chain")
			unknown(whyUnknown)
		}
		return isChain
	case kind == inert:
		s.rule.Target = ruleset.Inert{Name: s.target, Text: text}
	case kind == understood:
		target, why := s.build(text)
		if why != "" {
			unknown(why)
			s.complain(why)
			break
		}
		s.rule.Target = target
	default:
		unknown(whyUnknown)
	}
	return true
}

// build makes the target of its options.
func (s *spec) build(text string) (t ruleset.Target, why string) {
	switch s.target {
	case "ACCEPT":
		t = ruleset.Accept{}
	case "DROP":
		t = ruleset.Drop{}
	case "RETURN":
		t = ruleset.Return{}
	case "NOTRACK":
		t = ruleset.NoTrack{}
	case "REJECT":
		return s.reject()
	case "MASQUERADE":
		return s.masquerade()
	case "REDIRECT":
		return s.redirect()
	case "SNAT":
		r, flags, why := s.translation("--to-source", "--to")
		return ruleset.SNAT{NATRange: r, NATFlags: flags}, why
	case "DNAT":
		r, flags, why := s.translation("--to-destination", "--to")
		return ruleset.DNAT{NATRange: r, NATFlags: flags}, why
	case "NETMAP":
		return s.netmap()
	case "MARK":
		return s.setMark()
	case "CONNMARK":
		return s.connMark()
	case "CT":
		return s.ct(text)
	case "SET":
		return s.setTarget(text)
	}
	if len(s.targetOptions) > 0 {
		return nil, whyMalformed
	}
	return t, ""
}

func (s *spec) reject() (ruleset.Target, string) {
	var t ruleset.Reject
	for _, o := range s.targetOptions {
		if o.name != "--reject-with" || o.n != 1 {
			return nil, whyMalformed
		}
		t.With = o.value
		s.families.v6 = s.families.v6 || strings.HasPrefix(t.With, "icmp6-")
		s.families.v4 = s.families.v4 || strings.HasPrefix(t.With, "icmp-")
	}
	return t, ""
}

// flag reads --random, --random-fully and --persistent.
func flag(flags *ruleset.NATFlags, o option) bool {
	if o.n != 0 || o.not {
		return false
	}
	switch o.name {
	case "--random":
		flags.Random = true
	case "--random-fully":
		flags.RandomFully = true
	case "--persistent":
		flags.Persistent = true
	default:
		return false
	}
	return true
}

func (s *spec) masquerade() (ruleset.Target, string) {
	var t ruleset.Masquerade
	for _, o := range s.targetOptions {
		if !flag(&t.NATFlags, o) && !toPorts(&t.Ports, o) {
			return nil, whyMalformed
		}
	}
	return t, ""
}

func (s *spec) redirect() (ruleset.Target, string) {
	var t ruleset.Redirect
	for _, o := range s.targetOptions {
		if !flag(&t.NATFlags, o) && !toPorts(&t.Ports, o) {
			return nil, whyMalformed
		}
	}
	return t, ""
}

// toPorts reads --to-ports 1024[-2000].
func toPorts(field **ruleset.PortRange, o option) bool {
	r, ok := portRange(o.value, '-')
	if o.name != "--to-ports" && o.name != "--to-port" || !ok || o.n != 1 || *field != nil {
		return false
	}
	*field = &r
	return true
}

// translation reads --to-source and --to-destination.
func (s *spec) translation(names ...string) (r ruleset.NATRange, flags ruleset.NATFlags, why string) {
	found := false
	for _, o := range s.targetOptions {
		switch {
		case flag(&flags, o):
		case o.name != names[0] && o.name != names[1]:
			return r, flags, whyMalformed
		case found:
			return r, flags, "several ranges"
		case o.n == 0:
			return r, flags, whyHidden
		default:
			found = true
			var why string
			if r, why = natRange(o.value); why != "" || o.n > 1 {
				if why == "" && strings.HasPrefix(o.second, "[") {
					why = whyHidden
				} else if why == "" {
					why = whyMalformed
				}
				return r, flags, why
			}
			if r.First.IsValid() {
				s.families.add(r.First.Is6())
			}
		}
	}
	if !found {
		return r, flags, whyHidden
	}
	return r, flags, ""
}

// natRange reads 10.0.0.1, 10.0.0.1-10.0.0.9:80-90, [fd00::1]:80, :80, and
// 10.0.0.1:1000-2000/3000.
func natRange(text string) (r ruleset.NATRange, why string) {
	addresses, ports := text, ""
	if inside, rest, ok := strings.Cut(strings.TrimPrefix(text, "["), "]"); ok && strings.HasPrefix(text, "[") {
		addresses, ports = inside, strings.TrimPrefix(rest, ":")
		if rest != "" && (ports == rest || ports == "") {
			return r, whyMalformed
		}
	} else if before, after, ok := strings.Cut(text, ":"); ok && !strings.Contains(after, ":") {
		addresses, ports = before, after
		if ports == "" {
			return r, whyMalformed
		}
	}
	if addresses != "" {
		var ok bool
		if r.First, r.Last, ok = addressRange(addresses); !ok {
			return r, whyNoRange(addresses)
		}
	}
	if ports == "" {
		if addresses == "" {
			return r, whyHidden
		}
		return r, ""
	}
	span, base, shifted := strings.Cut(ports, "/")
	p, ok := portRange(span, '-')
	if shifted && ok {
		r.BasePort, ok = port(base)
	}
	if !ok {
		return r, whyMalformed
	}
	if r.Ports = &p; p.Last == 0 && addresses == "" {
		return r, whyHidden // ":0" is what an older program prints for what it doesn't know
	}
	return r, ""
}

func (s *spec) netmap() (ruleset.Target, string) {
	if len(s.targetOptions) != 1 || s.targetOptions[0].name != "--to" || s.targetOptions[0].n != 1 {
		return nil, whyMalformed
	}
	a := parseAddress(s.targetOptions[0].value)
	if a.why != "" {
		return nil, a.why
	}
	if a.net.IsValid() {
		return nil, whyUnknown
	}
	s.families.add(a.prefix.Addr().Is6())
	return ruleset.NetMap{To: a.prefix}, ""
}

// ct reads -j CT: --notrack switches conntrack off; a zone makes other
// connections of the same packets; the rest only adds to a connection.
func (s *spec) ct(text string) (ruleset.Target, string) {
	for _, o := range s.targetOptions {
		switch o.name {
		case "--notrack":
			return ruleset.NoTrack{}, ""
		case "--zone", "--zone-orig", "--zone-reply":
			return ruleset.UnknownTarget{Name: "CT", Text: text, Why: "a conntrack zone"}, ""
		case "--helper", "--ctevents", "--expevents", "--timeout":
		default:
			return nil, whyMalformed
		}
	}
	return ruleset.Inert{Name: "CT", Text: text}, ""
}

// setTarget reads -j SET: adding to and deleting from sets is for later packets;
// --map-set changes this one's mark.
func (s *spec) setTarget(text string) (ruleset.Target, string) {
	for _, o := range s.targetOptions {
		if strings.HasPrefix(o.name, "--map-") {
			return ruleset.UnknownTarget{Name: "SET", Text: text, Why: "takes the mark from a set"}, ""
		}
	}
	return ruleset.Inert{Name: "SET", Text: text}, ""
}
