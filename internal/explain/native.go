package explain

import "github.com/unmasq/unmasq/internal/ruleset/nftables"

// nativeConditions are what a native rule asks for, as nft writes it.
func nativeConditions(rule *nftables.Rule) []string {
	var all []string
	for _, s := range rule.Statements {
		switch s := s.(type) {
		case nftables.Match, nftables.VerdictMap:
			all = append(all, nftables.StatementText(s))
		}
	}
	return all
}
