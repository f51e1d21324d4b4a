package iptables

import (
	"math/bits"
	"strings"

	"github.com/unmasq/unmasq/internal/ruleset"
)

// tableSet is a set of tables that lines may belong to.
type tableSet uint8

const (
	raw tableSet = 1 << iota
	mangle
	nat
	filter
	security

	everyTable = raw | mangle | nat | filter | security
)

var tableNames = [...]string{"raw", "mangle", "nat", "filter", "security"}

// named returns the table of that name, 0 where there is none.
func named(name string) tableSet {
	for i, n := range tableNames {
		if n == name {
			return 1 << i
		}
	}
	return 0
}

// name of the set's only table.
func (t tableSet) name() string { return tableNames[bits.TrailingZeros8(uint8(t))] }

// hook is a built-in chain.
type hook uint8

const (
	prerouting hook = 1 << iota
	input
	forward
	output
	postrouting
)

// hookOf returns the built-in chain of that name, 0 for others.
func hookOf(chain string) hook {
	switch chain {
	case "PREROUTING":
		return prerouting
	case "INPUT":
		return input
	case "FORWARD":
		return forward
	case "OUTPUT":
		return output
	case "POSTROUTING":
		return postrouting
	}
	return 0
}

// tables that have the built-in chain.
func (h hook) tables() tableSet {
	switch h {
	case prerouting:
		return raw | mangle | nat
	case input:
		return mangle | nat | filter | security
	case forward:
		return mangle | filter | security
	case postrouting:
		return mangle | nat
	}
	return everyTable
}

// exactly are the tables whose built-in chains are these: nat has had INPUT
// since Linux 2.6.36.
func exactly(hooks hook) tableSet {
	switch hooks {
	case prerouting | output:
		return raw
	case prerouting | input | forward | output | postrouting:
		return mangle
	case prerouting | output | postrouting, prerouting | input | output | postrouting:
		return nat
	case input | forward | output:
		return filter | security
	}
	return 0
}

// tablesOf are the tables in which the kernel takes such a rule: struct
// xt_target.table of net/netfilter, and iptables itself refuses DROP in nat.
func tablesOf(chain string, rule *ruleset.Rule) tableSet {
	set := everyTable
	if h := hookOf(chain); h != 0 {
		set = h.tables()
	}
	switch t := rule.Target.(type) {
	case ruleset.Masquerade, ruleset.SNAT, ruleset.DNAT, ruleset.Redirect, ruleset.NetMap:
		set &= nat
	case ruleset.Reject:
		set &= filter
	case ruleset.Drop:
		set &^= nat
	case ruleset.NoTrack:
		set &= raw
	case ruleset.Inert:
		set &= tablesOfTarget(t.Name)
	case ruleset.UnknownTarget:
		set &= tablesOfTarget(t.Name)
	}
	for _, m := range rule.Matches {
		if _, ok := m.(ruleset.RPFilter); ok {
			set &= raw | mangle
		}
	}
	return set
}

func tablesOfTarget(name string) tableSet {
	switch name {
	case "CT", "NOTRACK", "TRACE":
		return raw
	case "TPROXY", "CHECKSUM", "DSCP", "TOS", "TTL", "HL", "ECN", "TCPOPTSTRIP":
		return mangle
	case "SNAT", "DNAT", "MASQUERADE", "REDIRECT", "NETMAP":
		return nat
	case "SECMARK", "CONNSECMARK":
		return mangle | security
	}
	return everyTable
}

// likely picks one of the tables. hooks are the built-in chains that occur,
// declared those with a policy; names are all chains.
func likely(can tableSet, hooks, declared hook, chains []*ruleset.Chain) tableSet {
	if exact := exactly(declared) & can; exact != 0 {
		return first(exact, filter, exact)
	}
	if hooks&(prerouting|postrouting) != 0 {
		return first(can, nat, mangle, raw)
	}
	if hooks == 0 {
		for _, c := range chains {
			if natName(c.Name) {
				return first(can, nat)
			}
		}
	}
	return first(can, filter)
}

// first returns the first wish that is possible, else any that is.
func first(can tableSet, wishes ...tableSet) tableSet {
	for _, w := range append(wishes, filter, nat, mangle, raw, security) {
		if w &= can; w != 0 {
			return w & -w
		}
	}
	return filter
}

// natName says whether a chain's name speaks of translation: KUBE-MARK-MASQ,
// KUBE-SVC-…, KUBE-SEP-…, FLANNEL-POSTRTG, AWS-SNAT-CHAIN-0, CNI-HOSTPORT-DNAT.
func natName(chain string) bool {
	for _, part := range [...]string{"POSTROUTING", "PREROUTING", "POSTRTG", "MASQ", "SNAT", "DNAT", "-SVC-", "-SEP-", "HOSTPORT"} {
		if strings.Contains(chain, part) {
			return true
		}
	}
	return strings.HasPrefix(chain, "cali-nat")
}
