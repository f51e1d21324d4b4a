package doctor

import (
	"cmp"
	"slices"
	"strings"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/sim"
	"github.com/unmasq/unmasq/internal/snapshot"
)

// check is one thing to look for.
type check struct {
	code     string
	severity Severity
	// title of its page.
	title string
	needs []need
	// run returns findings without code, severity (where it is the check's own) and node.
	run func(*patient) []Finding
}

// checks in the order of their codes.
var checks = []check{
	{"bridge-nf-call-off", Error, "services don't answer pods on the same bridge", []need{links, rules, sysctls}, bridgeCalls},
	{"bypassed-by-ebpf", Error, "a policy that eBPF programs bypass", []need{rules}, bypassed},
	{"clients-hidden", Warning, "pods see the node in place of their clients", []need{links, routes, rules}, clientsHidden},
	{"cluster-cidr-missing", Warning, "kube-proxy doesn't know which clients are the cluster's", []need{links, routes, rules}, clusterCIDRMissing},
	{"conntrack-full", Error, "the table of connections is nearly full", []need{tracked}, conntrackFull},
	{"duplicate-rules", Info, "rules that stand there twice", []need{rules}, duplicates},
	{"exemption-overridden", Warning, "what one component leaves alone another translates", []need{rules}, exemptionOverridden},
	{"families-differ", Warning, "IPv4 is translated, IPv6 is not", []need{links, routes, rules}, familiesDiffer},
	{"forward-blocked", Error, "the firewall drops what pods send", []need{rules}, forwardBlocked},
	{"forwarding-off", Error, "the kernel doesn't forward", []need{links, routes, sysctls}, forwardingOff},
	{"ipsec-translated", Error, "what IPsec should encrypt is translated first", []need{links, rules}, ipsecTranslated},
	{"kept-unanswered", Warning, "what leaves with pods' addresses gets no answers", []need{links, routes, rules}, keptUnanswered},
	{"leftover-rules", Warning, "rules of something that is gone", []need{rules}, leftovers},
	{"localnet-exposed", Error, "neighbours reach the node's loopback addresses", []need{links, routes, rules, sysctls}, localnetExposed},
	{"networks-overlap", Error, "two networks have the same addresses", []need{links, routes}, overlaps},
	{"never-matches", Warning, "rules that another one never lets a packet come to", []need{rules}, neverMatches},
	{"notrack", Error, "no translation of what isn't tracked", []need{links, rules}, untracked},
	{"offloaded", Warning, "connections that a flowtable takes past the rules", []need{links, rules}, offloaded},
	{"pods-masqueraded", Warning, "other nodes' pods see the node in place of its pods", []need{links, routes, rules}, podToPod},
	{"pods-not-listed", Warning, "ip-masq-agent's list lacks the pods", []need{links, routes, rules}, unlistedPods},
	{"policies-misled", Warning, "network policies meet nodes in place of pods", []need{links, routes, rules}, policiesMisled},
	{"ports-collide", Warning, "translated connections are given the same port", []need{links, routes, rules, counters}, portsCollide},
	{"ports-taken", Error, "a translated address runs out of ports", []need{rules}, portsTaken},
	{"replies-lost", Error, "clients of a routed ClusterIP get no answers", []need{links, routes}, repliesLost},
	{"rp-filter-strict", Error, "the reverse path filter drops what comes in", []need{links, routes, rules, sysctls}, strictFilter},
	{"rules-misread", Warning, "rules that the node's programs can't read", nil, rulesMisread},
	{"rules-returned", Warning, "what was taken over stands again", []need{rules}, rulesReturned},
	{"saved-table", Warning, "a file that is loaded at boot holds unmasq's table", nil, savedUnmasq},
	{"single-entry", Warning, "one node carries all that comes to ClusterIPs", []need{links, routes, rules}, enters},
	{"table-altered", Error, "unmasq's table isn't what its policy says", []need{rules}, tableAltered},
	{"table-missing", Error, "a policy that isn't in force", []need{rules}, tableMissing},
	{"tunnel-blocked", Error, "the firewall drops a tunnel's packets", []need{links, routes, rules}, tunnelBlocked},
	{"tunnel-bypassed", Warning, "pods keep their addresses towards nodes, past the tunnel", []need{links, routes, rules}, tunnelBypassed},
	{"tunnel-translated", Warning, "a tunnel's own packets are translated", []need{links, routes, rules}, tunnelTranslated},
	{"two-iptables-variants", Warning, "rules of iptables-legacy and of iptables-nft at once", []need{rules}, twoVariants},
	{"two-masqueraders", Warning, "two components masquerade the same packets", []need{rules}, twoMasqueraders},
}

// need is what a check can't do without. It says why it isn't there; empty: it is.
type need func(*snapshot.Host) string

func links(h *snapshot.Host) string {
	return unless(h.Network.KnownLinks && h.Network.KnownAddresses, "no links and addresses were given")
}

func routes(h *snapshot.Host) string {
	return unless(h.Network.IPv4.Main || h.Network.IPv6.Main, "no routes were given")
}

// rules that could not all be read are as good as none: what isn't seen may decide.
func rules(h *snapshot.Host) string {
	if h.Meta != nil {
		switch _, why := h.Meta.UnreadRules(); {
		case strings.HasPrefix(why, "permission denied"):
			return "rules can't be read without CAP_NET_ADMIN: run it as root (sudo)"
		case why != "":
			return "not all rules could be read: " + why
		}
	}
	return unless(len(h.Rules.Tables) > 0 || h.NFTGiven || len(h.IPTables) > 0, "no rules were given")
}

// sysctls of forwarding stand for all of them.
func sysctls(h *snapshot.Host) string {
	return unless(h.Sysctls["net.ipv4.ip_forward"] != "", "no sysctls were given")
}

func unless(given bool, why string) string {
	if given {
		return ""
	}
	return why
}

// Codes of all checks, sorted.
func Codes() []string {
	all := make([]string, len(checks))
	for i := range checks {
		all[i] = checks[i].code
	}
	return all
}

// About a code: its severity and title, empty for codes that don't exist.
func About(code string) (Severity, string) {
	for i := range checks {
		if checks[i].code == code {
			return checks[i].severity, checks[i].title
		}
	}
	return "", ""
}

// Examine looks at each node by itself, and at what several say together.
func Examine(nodes ...Node) Report {
	r := Report{Version: 1, Findings: []Finding{}, NotLookedAt: []Unmade{}}
	for _, n := range nodes {
		p := newPatient(n)
		before := len(r.Findings)
		for i := range checks {
			r.make(&checks[i], p)
		}
		policy := p.policy() // when all have asked
		for i := before; i < len(r.Findings); i++ {
			if f := &r.Findings[i]; f.keeps {
				f.Mend = append([]string{policy}, f.Mend...)
			}
		}
		r.Entering = append(r.Entering, p.entering...)
	}
	r.Findings = append(r.Findings, singleEntry(r.Entering)...)
	r.sort()
	return r
}

// Join reports of several nodes, each of one.
func Join(reports ...Report) Report {
	all := Report{Version: 1, Findings: []Finding{}, NotLookedAt: []Unmade{}}
	for _, r := range reports {
		all.Findings = append(all.Findings, r.Findings...)
		all.NotLookedAt = append(all.NotLookedAt, r.NotLookedAt...)
		all.Entering = append(all.Entering, r.Entering...)
	}
	all.Findings = append(all.Findings, singleEntry(all.Entering)...)
	all.sort()
	return all
}

// sort puts errors first.
func (r *Report) sort() {
	rank := map[Severity]int{Error: 0, Warning: 1, Info: 2}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return cmp.Compare(rank[a.Severity], rank[b.Severity]) })
}

func (r *Report) make(c *check, p *patient) {
	for _, n := range c.needs {
		if why := n(p.host); why != "" {
			r.unmade(c.code, why, p.name)
			return
		}
	}
	for _, f := range c.run(p) {
		f.Code, f.Node = c.code, p.name
		if f.Severity == "" {
			f.Severity = c.severity
		}
		r.Findings = append(r.Findings, f)
	}
}

// unmade joins the checks that lack the same.
func (r *Report) unmade(code, why, node string) {
	for i := range r.NotLookedAt {
		if u := &r.NotLookedAt[i]; u.Why == why && u.Node == node {
			u.Codes = append(u.Codes, code)
			return
		}
	}
	r.NotLookedAt = append(r.NotLookedAt, Unmade{Codes: []string{code}, Why: why, Node: node})
}

// patient is a node made ready for all checks.
type patient struct {
	name   string
	host   *snapshot.Host
	saved  map[string]string
	want   *Wanted
	taken  *Taken
	node   *sim.Node
	owners *owner.Index
	// networks whose packets the node forwards.
	networks []network
	// less is the same node without a rule, once it was asked for.
	less map[sim.RuleRef]*patient
	// keeps are rules that checks have asked for, hides those that come before them.
	keeps, hides []askedRule
	// remote are rules for clients of remote backends, serviceCIDRs of their services.
	remote, serviceCIDRs []string
	entering             []Entering
}

func newPatient(n Node) *patient {
	p := &patient{name: n.Name, host: n.Host, saved: n.Saved, want: n.Want, taken: n.Taken, less: map[sim.RuleRef]*patient{}, node: sim.New(n.Host), owners: owner.New(&n.Host.Rules, n.Host.Sets)}
	p.networks = p.findNetworks()
	return p
}
