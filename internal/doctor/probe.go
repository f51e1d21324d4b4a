package doctor

import (
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
)

// tcp is the first packet of a TCP connection to a port.
func tcp(from, to netip.Addr, port int, in string) sim.Question {
	return sim.Question{Source: from, Destination: to, Protocol: packet.TCP, SourcePort: sim.UnknownPort, DestinationPort: port, InInterface: in}
}

const https = 443

// ask what becomes of a packet.
func (p *patient) ask(q sim.Question) outcomes { return p.node.Run(q, sim.Options{}) }

// outcomes of one question. A claim must hold for each of them: then it holds
// however what is open turns out.
type outcomes []sim.Outcome

func (all outcomes) every(holds func(*sim.Outcome) bool) bool {
	for i := range all {
		if !holds(&all[i]) {
			return false
		}
	}
	return len(all) > 0
}

// rule that decides all outcomes; false where there are several, or none.
func (all outcomes) rule() (sim.RuleRef, bool) {
	var at sim.RuleRef
	for i := range all {
		d := all[i].DecidedBy
		if d == nil || d.Rule == nil || i > 0 && *d.Rule != at {
			return sim.RuleRef{}, false
		}
		at = *d.Rule
	}
	return at, len(all) > 0
}

func stopped(o *sim.Outcome) bool  { return o.Verdict == sim.Dropped || o.Verdict == sim.Rejected }
func accepted(o *sim.Outcome) bool { return o.Verdict == sim.Accepted }
func kept(o *sim.Outcome) bool     { return accepted(o) && o.SourceKind == sim.Kept }
func translated(o *sim.Outcome) bool {
	return accepted(o) && (o.SourceKind == sim.Masqueraded || o.SourceKind == sim.SNATed)
}

// saidBy: the kernel itself drops it, with words that begin so.
func saidBy(words string) func(*sim.Outcome) bool {
	return func(o *sim.Outcome) bool {
		return stopped(o) && o.DecidedBy != nil && o.DecidedBy.Rule == nil && strings.HasPrefix(o.DecidedBy.Text, words)
	}
}

// without is the node as it would be if a rule weren't there, or if the chain's
// policy, where the rule is nil, were to accept.
func (p *patient) without(at sim.RuleRef) *patient {
	if less := p.less[at]; less != nil {
		return less
	}
	host := *p.host
	host.Rules.Tables = nil
	for _, t := range p.host.Rules.Tables {
		if t == at.Table {
			t = tableWithout(at)
		}
		host.Rules.Tables = append(host.Rules.Tables, t)
	}
	less := newPatient(Node{Host: &host})
	p.less[at] = less
	return less
}

func tableWithout(at sim.RuleRef) *ruleset.Table {
	if at.Table.Native != nil {
		return ruleset.FromNative(nativeWithout(at))
	}
	from := at.Table
	t := &ruleset.Table{Family: from.Family, Variant: from.Variant, Name: from.Name, Excerpt: from.Excerpt, Unread: from.Unread, File: from.File}
	for _, c := range from.Chains {
		if c == at.Chain {
			changed := &ruleset.Chain{Name: c.Name, Policy: c.Policy}
			if at.Rule == nil {
				changed.Policy = "ACCEPT"
			}
			for i := range c.Rules {
				if &c.Rules[i] != at.Rule {
					changed.Rules = append(changed.Rules, c.Rules[i])
				}
			}
			c = changed
		}
		t.Add(c)
	}
	return t
}

func nativeWithout(at sim.RuleRef) *nftables.Table {
	from := at.Table.Native
	t := &nftables.Table{
		Family: from.Family, Name: from.Name, Handle: from.Handle, Flags: from.Flags, Objects: from.Objects, IPTables: from.IPTables,
		Excerpt: from.Excerpt, File: from.File, Line: from.Line,
	}
	for _, s := range from.Sets {
		*t.AddSet(s.Name) = *s
	}
	for _, c := range from.Chains {
		changed := t.AddChain(c.Name)
		*changed = *c
		if c != at.Chain.Native {
			continue
		}
		if at.Rule == nil {
			base := *c.Base
			base.Drop = false
			changed.Base = &base
			continue
		}
		changed.Rules = nil
		for _, rule := range c.Rules {
			if rule != at.Rule.Native {
				changed.Rules = append(changed.Rules, rule)
			}
		}
	}
	return t
}
