package doctor

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// rulesMisread: rules that stand there, and that programs of the node can't read.
func rulesMisread(p *patient) []Finding {
	return slices.Concat(p.brokenListing(), p.mixedTables(), p.hiddenParameters(), p.unknownFlags())
}

// breakdowns are words of nft and iptables about what they don't know: newer rules
// than the program, or a newer kernel.
var breakdowns = []string{"BUG: ", "Assertion `", "unknown expression", "netlink: Error: ", "signal: aborted", "signal: segmentation fault", "it printed no valid JSON"}

// brokenListing: the program that lists the rules breaks down over them.
func (p *patient) brokenListing() []Finding {
	if p.host.Meta == nil {
		return nil
	}
	var all []Finding
	for _, c := range [...]struct{ file, program string }{
		{snapshot.FileNFT, "nft"}, {snapshot.FileIPTables, "iptables-nft-save"}, {snapshot.FileIP6Tables, "ip6tables-nft-save"},
	} {
		why := p.host.Meta.Missing[c.file]
		if !slices.ContainsFunc(breakdowns, func(word string) bool { return strings.Contains(why, word) }) || strings.HasPrefix(why, "permission denied") {
			continue
		}
		all = append(all, Finding{
			Severity:    Error,
			Summary:     c.program + " breaks down over rules that are newer than it is",
			Evidence:    []string{why, p.versions(c.program)},
			Consequence: "Nobody on this node can see the rules, save them or look what they do, people as little as unmasq: what else is said of this node is said without them.",
			Mend:        []string{"# a newer " + c.program + ": of the image of the component that writes such rules, or of a newer release of the system"},
		})
	}
	return all
}

// versions of a program and the kernel, as evidence.
func (p *patient) versions(program string) string {
	version := p.host.Meta.Programs[program]
	if version == "" {
		version = program + " of unknown version"
	}
	return version + ", kernel " + p.host.Meta.Kernel
}

// mixedTables: nft rules stand in tables of iptables-nft, which then shows none of them.
//
//	# Table `nat' is incompatible, use 'nft' tool.
func (p *patient) mixedTables() []Finding {
	var all []Finding
	for i := range p.host.Notes {
		n := &p.host.Notes[i]
		before, found := strings.CutSuffix(n.Text, "' is incompatible, use 'nft' tool.")
		_, name, quoted := strings.Cut(before, "`")
		if !found || !quoted {
			continue
		}
		family, programs := packet.IPv4Family, "iptables"
		if strings.Contains(path.Base(n.File), "ip6tables") {
			family, programs = packet.IPv6Family, "ip6tables"
		}
		f := Finding{
			Summary:  fmt.Sprintf("%s can't show table %s: nft's rules stand in it", programs, name),
			Evidence: []string{fmt.Sprintf("%s: %s", programs+"-save", n.Text)},
			Consequence: fmt.Sprintf("%s-save and %[1]s -S show none of the table's rules, those of kube-proxy, docker and CNI plugins included; what looks for its rules doesn't find them, and what saves and restores the table loses them.",
				programs),
		}
		const most = 4
		for _, at := range p.nftOwn(family, name) {
			if len(f.Mend) < most {
				f.Evidence = append(f.Evidence, p.place(at))
			}
			f.Mend = append(f.Mend, remove(at))
		}
		f.Mend = append(f.Mend, "# what nft is to do belongs into a table of another name: nft add table "+nftFamily(family)+" own; the rules and their chains as they were, there")
		all = append(all, f)
	}
	return all
}

func nftFamily(f packet.Family) string {
	if f == packet.IPv6Family {
		return "ip6"
	}
	return "ip"
}

// nftOwn are rules of a table that no iptables program writes, as far as nft's JSON tells:
// an extension of iptables is named there as such.
func (p *patient) nftOwn(f packet.Family, table string) []sim.RuleRef {
	var all []sim.RuleRef
	for _, t := range p.host.Rules.Tables {
		if t.Native == nil || t.Native.Family != nftFamily(f) || t.Name != table || path.Base(t.Native.File) != snapshot.FileNFT {
			continue
		}
		for _, c := range t.Chains {
			for i := range c.Rules {
				if slices.ContainsFunc(c.Rules[i].Native.Statements, notOfIPTables) {
					all = append(all, sim.RuleRef{Table: t, Chain: c, Rule: &c.Rules[i]})
				}
			}
		}
	}
	return all
}

func notOfIPTables(s nftables.Statement) bool {
	switch s := s.(type) {
	case nftables.NAT, nftables.Reject, nftables.Assign, nftables.VerdictMap, nftables.NoTrack, nftables.SetUpdate, nftables.UnknownStatement:
		return true
	case nftables.Match:
		_, set := s.Right.(nftables.SetRef)
		switch s.Left.(type) {
		case nftables.CT, nftables.FIB, nftables.RT:
			return true
		}
		return set
	}
	return false
}

// hidden marks of rules that a program shows without what they do.
//
//	-A KUBE-SEP-XYZ -p tcp -m tcp -j DNAT [unsupported revision]
//	meta l4proto tcp "# Unknown features used (old nft version?)"
var hidden = []string{"[unsupported revision]", "# Unknown features used"}

// hiddenParameters: a program shows rules without what they do.
func (p *patient) hiddenParameters() []Finding {
	const most = 3
	var all []Finding
	for _, t := range p.host.Rules.Tables {
		var f Finding
		count := 0
		for _, c := range t.Chains {
			for i := range c.Rules {
				if !slices.ContainsFunc(hidden, func(mark string) bool { return strings.Contains(c.Rules[i].Text, mark) }) {
					continue
				}
				if count++; count <= most {
					f.Evidence = append(f.Evidence, p.place(sim.RuleRef{Table: t, Chain: c, Rule: &c.Rules[i]}))
				}
			}
		}
		if count == 0 {
			continue
		}
		by := program(t)
		if t.Native != nil {
			by = "nft"
		}
		f.Summary = fmt.Sprintf("%s is older than what wrote %d rules of table %s, and doesn't show all that they do", by, count, t.Name)
		f.Consequence = "The kernel does what the rules say; who saves them with this program and restores them loses them, and what they do can't be told here."
		f.Mend = []string{"# look with the program that wrote them, or a newer one: that of the component's own image (kube-proxy's, a CNI plugin's), in the node's network namespace"}
		all = append(all, f)
	}
	return all
}

// unknownFlags: nft doesn't know a flag of a table that nobody owns, and what it
// prints in its place can't be loaded: `flags ` without a word.
func (p *patient) unknownFlags() []Finding {
	var all []Finding
	for _, t := range p.host.Rules.Tables {
		if t.Native == nil || !slices.ContainsFunc(t.Native.Flags, strangeFlag) || slices.Contains(t.Native.Flags, "owner") {
			continue
		}
		n := t.Native
		f := Finding{
			Summary:     fmt.Sprintf("nft doesn't know a flag of table %s %s, which nobody owns", n.Family, n.Name),
			Evidence:    []string{"nft list ruleset: flags " + strings.Join(n.Flags, ", ")},
			Consequence: "A file that `nft list ruleset` is saved to is refused as a whole when it is loaded, at the next boot: no table of it is there then.",
			Mend:        []string{"# let the program that made the table run again, or delete the table; nft 1.1 knows the flag"},
		}
		if p.host.Meta != nil {
			f.Evidence = append(f.Evidence, p.versions("nft"))
		}
		if n.Family == "inet" && n.Name == tableName {
			f.Mend = []string{"# start the agent again; or, for a table that stays without one: unmasq apply -f POLICY"}
		}
		all = append(all, f)
	}
	return all
}

// strangeFlag is one that nft 1.0.6 doesn't know: "unknown", or some other word that its
// JSON has from memory it has freed.
func strangeFlag(flag string) bool {
	return flag != "dormant" && flag != "owner" && flag != "persist"
}
