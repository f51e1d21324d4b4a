// Package takeover finds the rules by which another component hides a node's
// networks behind the node's address, and says how to take exactly those away
// and how to put them back where they stood. It runs nothing: what it returns is
// the input of iptables-restore and of nft.
//
// A component's other rules stay: ports that it publishes, hairpin traffic,
// marks, filters.
//
//	parts := takeover.Find(host, owner.Flannel)
//	scripts := takeover.Remove(parts)
//	…
//	scripts, err := takeover.Restore(host, parts)
package takeover

import (
	"fmt"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/packet"
	"github.com/unmasq/unmasq/internal/ruleset"
)

// Part is what is taken out of one table. It is what a record on disk holds, so
// fields are only ever added.
type Part struct {
	Owner string `json:"owner"`
	// Variant is the kernel interface: iptables-legacy, iptables-nft or nftables.
	Variant string `json:"variant"`
	// Family is nft's word: ip, ip6, inet.
	Family string `json:"family"`
	Table  string `json:"table"`
	// Rules that are taken singly, in the order of their chain.
	Rules []Rule `json:"rules,omitempty"`
	// Chains that are taken whole, none of which any other rule jumps to.
	Chains []Chain `json:"chains,omitempty"`
	// Around are the chains of Rules as they stood, with what had been taken of them
	// before in its place.
	Around []Chain `json:"around,omitempty"`
}

// Rule of a chain that stays.
type Rule struct {
	Chain string `json:"chain"`
	// Text as iptables-save prints it ("-A POSTROUTING …"), or as nft does.
	Text string `json:"text"`

	// handle of a native rule, as it was found.
	handle uint64
}

// Chain with the texts of its rules.
type Chain struct {
	Name  string   `json:"name"`
	Rules []string `json:"rules,omitempty"`
}

// Count of the rules in a part.
func (p *Part) Count() int {
	n := len(p.Rules)
	for _, c := range p.Chains {
		n += len(c.Rules)
	}
	return n
}

// Script is the input of a program that changes all of it or nothing.
type Script struct {
	Program string
	Args    []string
	Input   string
}

// String is the script as typed into a shell.
func (s Script) String() string {
	return s.Program + " " + strings.Join(s.Args, " ") + " <<'EOF'\n" + s.Input + "EOF\n"
}

// owners whose rules can be taken over: of each, what hides its networks stands apart
// from what its services need.
var owners = []string{
	owner.IPMasqAgent, owner.GKE, owner.Kubenet, owner.Flannel, owner.Docker, owner.KubeRouter, owner.CNIBridge, owner.Kindnet,
}

// Owners whose rules can be taken over.
func Owners() []string { return slices.Clone(owners) }

// CheckOwner refuses names that aren't among [Owners], and says why.
func CheckOwner(name string) error {
	if slices.Contains(owners, name) {
		return nil
	}
	if slices.Contains(owner.Names(), name) && name != owner.Unknown {
		return fmt.Errorf("owner %q: its rules serve more than hiding a network, and stay; expected one of %s", name, strings.Join(owners, ", "))
	}
	return fmt.Errorf("owner %q: expected one of %s", name, strings.Join(owners, ", "))
}

// familyOf is nft's word for a table's family.
func familyOf(t *ruleset.Table) string {
	if t.Native != nil {
		return t.Native.Family
	}
	if t.Family == packet.IPv6Family {
		return "ip6"
	}
	return "ip"
}
