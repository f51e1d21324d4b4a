// Package owner says which component wrote a rule, which of its settings
// produces it, and which command or field changes it. It goes by what the
// components write into their rules: chains, comments, sets, marks, interfaces.
package owner

import "github.com/unmasq/unmasq/internal/ruleset"

// Unknown is the owner of a rule that no component is known to write: a person
// or a script did.
const Unknown = "unknown"

// Owner of a rule.
type Owner struct {
	// Name from the list of owners: kube-proxy, docker, flannel, …, unknown.
	Name string
	// Version says what the form of the rule tells, such as "≥ 1.36" or "iptables mode".
	Version string
	// Setting that makes the component write the rule, such as "--ip-masq";
	// empty where there is none.
	Setting string
	// Change lists the commands or fields that change it, first choice first.
	Change []string
}

// Of returns the owner of a rule of a chain of a table; for a chain's policy
// rule is nil.
func Of(t *ruleset.Table, c *ruleset.Chain, rule *ruleset.Rule) Owner {
	return Owner{Name: Unknown}
}
