package doctor

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/unmasq/unmasq/internal/conntrack"
	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
)

// crowd are the translated connections between two ends of which only the source
// port tells one from another.
type crowd struct {
	protocol uint8
	source   netip.Addr
	to       netip.AddrPort
}

// nearlyFull is a port range of which so much is taken.
const nearlyFull = 0.8

// portsTaken: the ports of one translated address towards one peer are nearly all taken.
func portsTaken(p *patient) []Finding {
	taken, one := map[crowd]map[uint16]bool{}, map[crowd]*conntrack.Entry{}
	var crowds []crowd
	for i := range p.host.Connections {
		e := &p.host.Connections[i]
		if e.Original.Source == e.Reply.Destination || e.Protocol != packet.TCP && e.Protocol != packet.UDP {
			continue
		}
		c := crowd{e.Protocol, e.Reply.Destination, netip.AddrPortFrom(e.Reply.Source, e.Reply.SourcePort)}
		if taken[c] == nil {
			taken[c], one[c] = map[uint16]bool{}, e
			crowds = append(crowds, c)
		}
		taken[c][e.Reply.DestinationPort] = true
	}
	var all []Finding
	for _, c := range crowds {
		if f, full := p.full(c, one[c], len(taken[c])); full {
			all = append(all, f)
		}
	}
	return all
}

// full says whether the range of the rule that translates the connection is.
func (p *patient) full(c crowd, e *conntrack.Entry, taken int) (Finding, bool) {
	const free = 65536 - 1024 // what the kernel chooses from for ports above 1023
	q := tcp(e.Original.Source, e.Original.Destination, int(e.Original.DestinationPort), "")
	q.Protocol = c.protocol
	answers := p.ask(q)
	at, is := answers.rule()
	room := free
	if is {
		room = portsOf(answers.translation(at), free)
	}
	if float64(taken) < nearlyFull*float64(room) {
		return Finding{}, false
	}
	f := Finding{
		Summary:     fmt.Sprintf("%d of %d ports of %s towards %s are taken", taken, room, c.source, c.to),
		Evidence:    []string{fmt.Sprintf("conntrack: %d connections like %s", taken, e.Text)},
		Consequence: "When all are taken, the first packet of a new connection there is dropped, without a word to its sender.",
		Mend:        []string{"# more addresses to leave with (a SourcePolicy with action SNAT and several), more peers, or fewer connections: keep them open, close them sooner"},
	}
	if is {
		f.Evidence = append(f.Evidence, p.place(at))
		if room < free {
			f.Mend = append([]string{p.anew(at, withoutPorts(at.Rule), "without its ports")}, f.Mend...)
		}
		if p.host.Counters != nil {
			f.Evidence = append(f.Evidence, p.counted("insert_failed"))
		}
	}
	return f, true
}

// translation that a rule came to, an iptables rule's target or what a native one says;
// nil where the rule isn't one.
func (all outcomes) translation(at sim.RuleRef) ruleset.Target {
	if at.Table.Native == nil {
		return target(at)
	}
	for i := range all {
		for _, s := range all[i].Steps {
			if s.At == at && s.Translation != nil {
				return s.Translation
			}
		}
	}
	return nil
}

// portsOf is how many ports a translation may take.
func portsOf(t ruleset.Target, free int) int {
	var ports *ruleset.PortRange
	switch t := t.(type) {
	case ruleset.Masquerade:
		ports = t.Ports
	case ruleset.SNAT:
		if t.First == t.Last {
			ports = t.NATRange.Ports
		}
	}
	if ports == nil {
		return free
	}
	return int(ports.Last) - int(ports.First) + 1
}

// anew is a command that puts a rule in another's place; words where the dump doesn't
// have the rule as a command takes it (iptables -L), or its handle (nft without -a).
func (p *patient) anew(at sim.RuleRef, rule, how string) string {
	switch n := at.Table.Native; {
	case n == nil && !strings.HasPrefix(strings.TrimSpace(at.Rule.Text), "-A "), n != nil && at.Rule.Native.Handle == 0:
		return "# write the rule anew " + how + ": " + p.place(at)
	case n == nil:
		return fmt.Sprintf("%s -t %s -R %s %d %s", program(at.Table), at.Table.Name, at.Chain.Name, at.Rule.Index, rule)
	case p.ownerOf(at) == owner.Unmasq:
		return "# write the policy's rule " + how + ": ports and fullyRandom of its masquerade or snat say that"
	default:
		return fmt.Sprintf("nft replace rule %s %s %s handle %d %s", n.Family, n.Name, at.Chain.Name, at.Rule.Native.Handle, quoted(rule))
	}
}

// quoted for a shell.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// nftPorts is the range of ports of nft's masquerade and snat.
//
//	masquerade to :1024-2047 random     snat ip to 192.0.2.7:1024-2047
var nftPorts = regexp.MustCompile(`(?:( to (?:\[[0-9a-f:.]+\]|[0-9.]+))| to ):[0-9]+(?:-[0-9]+)?\b`)

// withoutPorts is the rule with the kernel's own choice of ports.
func withoutPorts(rule *ruleset.Rule) string {
	if rule.Native != nil {
		return nftPorts.ReplaceAllString(strings.TrimSpace(rule.Text), "$1")
	}
	before, after, found := strings.Cut(specification(rule), " --to-ports ")
	if !found {
		return before
	}
	_, rest, more := strings.Cut(after, " ")
	if more {
		before += " " + rest
	}
	return before
}
