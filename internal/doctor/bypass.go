package doctor

import "strings"

// bypassed: a policy is in force, or wanted, and eBPF programs take pods' packets past it.
func bypassed(p *patient) []Finding {
	if p.host.Bypass == "" || p.unmasqTable(tableName) == nil && p.want == nil {
		return nil
	}
	seen, advice, _ := strings.Cut(p.host.Bypass, ": ")
	return []Finding{{
		Summary:     "eBPF programs take pods' packets past netfilter",
		Evidence:    []string{seen},
		Consequence: "No rule of table inet " + tableName + " is asked about them: the policy is without effect.",
		Mend:        []string{"# " + advice},
	}}
}
