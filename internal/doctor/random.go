package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
)

// few failures since the node started are what any busy node has.
const few = 100

// portsCollide: the kernel has dropped packets since two connections were given one
// port, and rules that translate the node's networks keep the ports that come.
func portsCollide(p *patient) []Finding {
	failed := p.host.Counters["insert_failed"]
	if failed == 0 {
		return nil
	}
	var all []Finding
	var seen []sim.RuleRef
	for i := range p.networks {
		n := &p.networks[i]
		answers := p.ask(tcp(n.member, outside(n.family()), https, n.link))
		at, one := answers.rule()
		if !one || !answers.every(translated) || slices.Contains(seen, at) || random(answers.translation(at)) {
			continue
		}
		seen = append(seen, at)
		severity := Warning
		if failed < few {
			severity = Info
		}
		all = append(all, Finding{
			Severity:    severity,
			Summary:     fmt.Sprintf("connections have failed for a port that another one took; %s's rule for %s doesn't draw them at random", called(p.ownerOf(at)), n.prefix),
			Evidence:    []string{p.counted("insert_failed"), p.place(at)},
			Consequence: "Of two pods' connections to one peer that begin at the same moment with the same port the later one's first packet is dropped: a second's wait of TCP, five of DNS.",
			Mend:        append([]string{p.anew(at, randomly(at), "with random ports")}, p.changes(at)...),
		})
	}
	return all
}

// random ports: since Linux 5.0 both flags mean that.
func random(t ruleset.Target) bool {
	switch t := t.(type) {
	case ruleset.Masquerade:
		return t.Random || t.RandomFully
	case ruleset.SNAT:
		return t.Random || t.RandomFully
	}
	return true // another form: not judged
}

// nftTranslation is where nft's translation ends, and its flags begin.
var nftTranslation = regexp.MustCompile(`\b(masquerade(?: to :[0-9-]+)?|snat(?: ip6?)?(?: prefix)? to [^ ]+)`)

// randomly is the rule with the flag.
func randomly(at sim.RuleRef) string {
	if at.Table.Native != nil {
		return nftTranslation.ReplaceAllString(strings.TrimSpace(at.Rule.Text), "$1 fully-random")
	}
	return specification(at.Rule) + " --random-fully"
}
