package nftables

import "strings"

// nat reads
//
//	dnat ip to 10.0.0.1:80-90 random,persistent
//	snat ip6 to [fd00::1]:80
//	snat ip prefix to ip saddr map { … }
//	dnat ip addr . port to ip daddr . th dport map @m
//	masquerade to :1024-65535 fully-random
//	redirect to :80
func (p *textReader) nat() Statement {
	n := NAT{}
	for k := SNAT; k <= Redirect; k++ {
		if p.tok.text == k.String() {
			n.Kind = k
		}
	}
	p.next()
	if p.isWord("ip", "ip6") {
		n.Family, _ = p.value()
	}
	for {
		switch {
		case p.skipWord("prefix"):
			n.Prefix = true
			continue
		case p.skipWord("interval"):
			n.Interval = true
			continue
		case p.skipWord("addr"):
			if !p.skipPunct(".") || !p.skipWord("port") {
				return nil
			}
			continue
		}
		break
	}
	if p.skipWord("to") && !p.translation(&n) {
		return nil
	}
	if (n.Kind == SNAT || n.Kind == DNAT) && n.Address == nil && n.Port == nil {
		p.expected("to")
		return nil
	}
	if !p.natFlags(&n) {
		return nil
	}
	return n
}

// translation reads what follows "to": ADDRESS, ADDRESS:PORT, :PORT.
func (p *textReader) translation(n *NAT) bool {
	if !p.isPunct(":") {
		n.Address = p.concat(anything)
		if n.Address == nil {
			return false
		}
		if n.Kind == Redirect && !isLookup(n.Address) || n.Kind == Masquerade {
			n.Address, n.Port = nil, n.Address // redirect to 80, of nft 0.7
		}
	}
	if p.skipPunct(":") {
		n.Port = p.concat(anything)
		return n.Port != nil
	}
	return true
}

func isLookup(e Expr) bool { _, ok := e.(Lookup); return ok }

func (p *textReader) natFlags(n *NAT) bool {
	for p.tok.kind == tokWord {
		switch p.tok.text {
		case "random":
			n.Random = true
		case "fully-random":
			n.FullyRandom = true
		case "persistent":
			n.Persistent = true
		default:
			return true
		}
		p.next()
		if p.skipPunct(",") && !p.isWord("random", "fully-random", "persistent") {
			p.expected("a flag of NAT")
			return false
		}
	}
	return true
}

// reject reads reject [with tcp reset | with icmp [type] port-unreachable].
func (p *textReader) reject() Statement {
	p.next()
	r := Reject{}
	if !p.skipWord("with") {
		return r
	}
	if p.skipWord("tcp") {
		if !p.skipWord("reset") {
			return nil
		}
		r.Type = "tcp reset"
		return r
	}
	if !p.isWord("icmp", "icmpv6", "icmpx") {
		p.expected("tcp, icmp, icmpv6 or icmpx")
		return nil
	}
	r.Type, _ = p.value()
	p.skipWord("type")
	var ok bool
	if r.Code, ok = p.value(); !ok {
		return nil
	}
	return r
}

// queue reads queue [flags bypass,fanout] [num|to 1-4] [bypass,fanout].
func (p *textReader) queue() Statement {
	p.next()
	var flags []string
	to := "0"
	for {
		switch {
		case p.skipWord("flags"), p.isWord("bypass", "fanout"):
			read := p.flags()
			if len(read) == 0 {
				return nil
			}
			flags = append(flags, read...)
		case p.isWord("num", "to"):
			p.next()
			start := p.tok.start
			if p.concat(anything) == nil {
				return nil
			}
			to = p.since(start)
		default:
			text := "queue"
			if len(flags) > 0 {
				text += " flags " + strings.Join(flags, ",")
			}
			return Verdict{Kind: Queue, Text: text + " to " + to}
		}
	}
}

// elsewhere reads the statements that send the packet somewhere else: whether
// they do isn't told.
func (p *textReader) elsewhere() Statement {
	start, name := p.tok.start, p.tok.text
	p.next()
	ok, why := true, ""
	switch name {
	case "tproxy":
		ok, why = p.tproxy(), "whether a program listens isn't known"
	case "synproxy":
		ok, why = p.synproxy(), "the node answers connections itself"
	case "fwd":
		p.skipWord("ip", "ip6")
		ok = p.skipWord("to") && p.concat(anything) != nil
		if ok && p.skipWord("device") {
			ok = p.concat(anything) != nil
		}
		why = "the packet leaves at once, by another interface"
	case "flow":
		name = "flow add"
		ok = p.skipWord("add", "offload") && p.skipPunct("@")
		if ok {
			_, ok = p.name()
		}
		why = "later packets of the connection pass by the rules"
	}
	if !ok {
		return nil
	}
	return UnknownStatement{Name: name, Text: p.since(start), Why: why}
}

func (p *textReader) tproxy() bool {
	p.skipWord("ip", "ip6")
	return p.skipWord("to") && p.translation(&NAT{Kind: DNAT})
}

func (p *textReader) synproxy() bool {
	if p.skipWord("name") {
		return p.objectName()
	}
	for {
		switch {
		case p.isWord("mss", "wscale"):
			p.next()
			if _, ok := p.value(); !ok {
				return false
			}
		case p.isWord("timestamp", "sack-perm"):
			p.next()
		default:
			return true
		}
	}
}
