package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// Wanted is a policy that shall be in force.
type Wanted struct {
	// Text is the table as nft would write it.
	Text string
	// Files that it was read from.
	Files []string
}

const (
	tableName    = "unmasq"
	handoverName = "unmasq-handover"
	aboutChain   = "about"
)

// unmasqTable of the node, nil without.
func (p *patient) unmasqTable(name string) *nftables.Table {
	for _, t := range p.host.Rules.Tables {
		if t.Native != nil && t.Native.Family == "inet" && t.Name == name {
			return t.Native
		}
	}
	return nil
}

// tableMissing: a policy is stated, and nothing of it is in force.
func tableMissing(p *patient) []Finding {
	if p.want == nil || !p.host.NFTWhole || p.unmasqTable(tableName) != nil || p.unmasqTable(handoverName) != nil {
		return nil
	}
	return []Finding{{
		Summary:     "the policy isn't in force",
		Evidence:    []string{"nft lists no table inet " + tableName},
		Consequence: "Other components' rules decide which source addresses leave this host.",
		Mend:        p.applied(),
	}}
}

func (p *patient) applied() []string {
	var files []string
	for _, f := range p.want.Files {
		files = append(files, "-f "+quoted(f))
	}
	return []string{"unmasq apply " + strings.Join(files, " "), "# where an agent runs it is to do so by itself: unmasq status tells why it doesn't"}
}

// tableAltered: the table has other rules than the policy compiles to, or its chains and
// sets hold more or less than they should. Texts of statements aren't compared: nft
// writes the same in several ways.
func tableAltered(p *patient) []Finding {
	t := p.unmasqTable(tableName)
	if p.want == nil || t == nil || t.Excerpt || p.unmasqTable(handoverName) != nil {
		return nil
	}
	read, problems := nftables.ReadText(p.want.Text, 1)
	if len(read.Tables) != 1 || len(problems) > 0 {
		return nil
	}
	have, want := contents(t), contents(read.Tables[0])
	var evidence []string
	for _, line := range want {
		if !slices.Contains(have, line) {
			evidence = append(evidence, "the policy has, the table hasn't: "+line)
		}
	}
	for _, line := range have {
		if !slices.Contains(want, line) {
			evidence = append(evidence, "the table has, the policy hasn't: "+line)
		}
	}
	if evidence == nil {
		return nil
	}
	const most = 8
	return []Finding{{
		Summary:     "table inet " + tableName + " isn't what the policy compiles to on this host today",
		Evidence:    evidence[:min(len(evidence), most)],
		Consequence: "New connections are decided by an older policy, by facts of this host that have changed since, or by what somebody has done to the table.",
		Mend:        p.applied(),
	}}
}

// generation is what the kernel's names have behind those of the plan.
var generation = regexp.MustCompile(`\.g[0-9]+$`)

// contents of a table in words that don't hang on how nft writes them.
func contents(t *nftables.Table) []string {
	var all []string
	for _, c := range t.Chains {
		name := generation.ReplaceAllString(c.Name, "")
		if c.Base != nil {
			all = append(all, fmt.Sprintf("chain %s at %s, priority %d", name, c.Base.Hook, c.Base.Priority))
		}
		if name == aboutChain {
			for _, r := range c.Rules {
				if strings.HasPrefix(r.Comment, "rule ") {
					all = append(all, r.Comment)
				}
			}
			continue
		}
		all = append(all, fmt.Sprintf("chain %s with %d rules", name, len(c.Rules)))
	}
	for _, s := range t.Sets {
		all = append(all, fmt.Sprintf("set %s with %d elements", generation.ReplaceAllString(s.Name, ""), len(s.Elements)))
	}
	if t.IsDormant() {
		all = append(all, "flag dormant: none of its chains is asked")
	}
	return all
}

// savedTable begins one of unmasq's tables in a file.
//
//	table inet unmasq {
//	add table inet unmasq-handover
var savedTable = regexp.MustCompile(`(?m)^[ \t]*(?:(?:add|create)[ \t]+)?table[ \t]+inet[ \t]+(unmasq(?:-handover)?)(?:[ \t{;]|$)`)

// savedUnmasq: a file that is loaded at boot holds a copy of the table.
func savedUnmasq(p *patient) []Finding {
	var all []Finding
	for _, path := range sortedKeys(p.saved) {
		found := savedTable.FindStringSubmatch(p.saved[path])
		if found == nil {
			continue
		}
		all = append(all, Finding{
			Summary:     path + " holds a copy of table inet " + found[1],
			Evidence:    []string{path + ": " + strings.TrimSpace(found[0])},
			Consequence: "At each boot the policy of the day on which the file was saved is in force, until the agent has replaced it; where there is no agent, for good.",
			Mend: []string{
				fmt.Sprintf("sed -i -E '/^table inet unmasq(-handover)?( |$)/,/^}/d' '%s'", path),
				"# nft list ruleset > FILE saves all tables: save those that are yours, nft list table FAMILY NAME",
			},
		})
	}
	return all
}

func sortedKeys(m map[string]string) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}
