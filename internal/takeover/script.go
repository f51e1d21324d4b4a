package takeover

import (
	"fmt"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// Remove returns the scripts that delete what was found, one for each table. A
// script fails as a whole where a rule is gone by then, or a chain has others.
func Remove(parts []Part) []Script {
	var all []Script
	for i := range parts {
		p := &parts[i]
		var b strings.Builder
		if p.native() {
			for _, r := range p.Rules {
				fmt.Fprintf(&b, "delete rule %s %s %s handle %d\n", p.Family, p.Table, r.Chain, r.handle)
			}
		} else {
			fmt.Fprintf(&b, "*%s\n", p.Table)
			for _, r := range p.Rules {
				fmt.Fprintf(&b, "-D%s\n", strings.TrimPrefix(r.Text, "-A"))
			}
			for _, c := range p.Chains { // not flushed: what came into it meanwhile isn't the owner's
				for _, r := range c.Rules {
					fmt.Fprintf(&b, "-D%s\n", strings.TrimPrefix(r, "-A"))
				}
				fmt.Fprintf(&b, "-X %s\n", c.Name)
			}
			b.WriteString("COMMIT\n")
		}
		all = append(all, p.script(b.String()))
	}
	return all
}

func (p *Part) native() bool { return p.Variant == ruleset.Native.String() }

// script for the program that writes such a table.
func (p *Part) script(input string) Script {
	if p.native() {
		return Script{Program: "nft", Args: []string{"-f", "-"}, Input: input}
	}
	program := strings.Replace(p.Variant, "iptables", map[string]string{"ip": "iptables", "ip6": "ip6tables"}[p.Family], 1) + "-restore"
	args := []string{"--noflush"}
	if p.Variant == ruleset.Legacy.String() {
		args = append(args, "-w", "10") // others hold the lock for a moment
	}
	return Script{Program: program, Args: args, Input: input}
}
