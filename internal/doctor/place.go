package doctor

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/sim"
)

// ownerOf a rule, or of a chain's policy.
func (p *patient) ownerOf(at sim.RuleRef) string {
	return p.owners.Of(at.Table, at.Chain, at.Rule).Name
}

// place is a rule with where it stands and whose it is, as evidence.
//
//	iptables nat POSTROUTING rule 2 (docker): -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
func (p *patient) place(at sim.RuleRef) string {
	name := p.ownerOf(at)
	if name == owner.Unknown {
		name = "of unknown origin"
	}
	if at.Table.Native != nil {
		where := "nft " + at.Table.Native.Family + " " + at.Table.Name + " " + at.Chain.Name
		if at.Rule == nil {
			return fmt.Sprintf("%s (%s): policy %s", where, name, strings.ToLower(at.Chain.Policy))
		}
		if h := at.Rule.Native.Handle; h != 0 {
			where += fmt.Sprintf(" handle %d", h)
		}
		return fmt.Sprintf("%s (%s): %s", where, name, strings.TrimSpace(at.Rule.Text))
	}
	where := program(at.Table) + " " + at.Table.Name + " " + at.Chain.Name
	if at.Rule == nil {
		return fmt.Sprintf("%s: -P %s %s", where, at.Chain.Name, at.Chain.Policy)
	}
	return fmt.Sprintf("%s rule %d (%s): %s", where, at.Rule.Index, name, strings.TrimSpace(at.Rule.Text))
}

// program that changes an iptables table.
func program(t *ruleset.Table) string {
	name := "iptables"
	if t.Family == packet.IPv6Family {
		name = "ip6tables"
	}
	switch t.Variant {
	case ruleset.Legacy:
		return name + "-legacy"
	case ruleset.NFT:
		return name + "-nft"
	}
	return name
}

// builtIn: the rule stands in a built-in chain of iptables under that name.
func builtIn(at sim.RuleRef, chain string) bool {
	return at.Table.Native == nil && at.Chain.Name == chain
}

// insert is a command that puts a rule before all others of a chain.
func insert(at sim.RuleRef, iptables, nft string) string {
	if n := at.Table.Native; n != nil {
		return fmt.Sprintf("nft insert rule %s %s %s %s", n.Family, n.Name, at.Chain.Name, nft)
	}
	table := ""
	if at.Table.Name != "filter" {
		table = " -t " + at.Table.Name
	}
	return fmt.Sprintf("%s%s -I %s 1 %s", program(at.Table), table, at.Chain.Name, iptables)
}

// ipWord is nft's word for a family's header.
func ipWord(a netip.Addr) string {
	if a.Is4() {
		return "ip"
	}
	return "ip6"
}

func (p *patient) setting(name string) string { return name + " = " + p.host.Sysctls[name] }

// sysctlName of a setting of an interface, as sysctl(8) writes it: a dot in the
// interface's name is a slash.
func sysctlName(f packet.Family, link, key string) string {
	return fmt.Sprintf("net.%s.conf.%s.%s", strings.ToLower(f.String()), strings.ReplaceAll(link, ".", "/"), key)
}

// changes of a rule that its owner's settings make, as remarks for people.
func (p *patient) changes(at sim.RuleRef) []string {
	o := p.owners.Of(at.Table, at.Chain, at.Rule)
	var all []string
	by := o.Name
	if by == owner.Unknown {
		by = "or"
	}
	for _, c := range o.Change {
		all = append(all, "# "+by+": "+c)
	}
	return all
}

// remove is a command that takes a rule away.
func remove(at sim.RuleRef) string {
	if n := at.Table.Native; n != nil {
		if at.Rule.Native.Handle == 0 {
			return fmt.Sprintf("# delete the rule by its handle, which nft -a list chain %s %s %s tells: %s", n.Family, n.Name, at.Chain.Name, strings.TrimSpace(at.Rule.Text))
		}
		return fmt.Sprintf("nft delete rule %s %s %s handle %d", n.Family, n.Name, at.Chain.Name, at.Rule.Native.Handle)
	}
	if !strings.HasPrefix(strings.TrimSpace(at.Rule.Text), "-A ") { // a row of iptables -L
		return fmt.Sprintf("%s -t %s -D %s %d", program(at.Table), at.Table.Name, at.Chain.Name, at.Rule.Index)
	}
	return fmt.Sprintf("%s -t %s -D %s", program(at.Table), at.Table.Name, strings.TrimPrefix(strings.TrimSpace(at.Rule.Text), "-A "))
}
