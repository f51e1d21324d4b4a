package explain

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unmasq/unmasq/internal/snapshot"
)

// Outcomes that read the same are one row, under the conditions that all of them
// have; each has what it depends on said once.
func TestTextJoins(t *testing.T) {
	pod, peer := netip.MustParseAddr("10.244.1.7"), netip.MustParseAddr("8.8.8.8")
	open := func(what, reason, when string) Dependency {
		return Dependency{what, reason + "; if " + when, when, reason}
	}
	missing := func(reason string) Dependency { return Dependency{"rules", reason, "", reason} }
	seen := func(out string, all ...Dependency) Outcome {
		return Outcome{Verdict: "accepted", Source: &pod, SourceKind: "kept", Destination: peer, OutInterface: out, DependsOn: all}
	}
	drop := seen("", open("set web", "its members weren't given", "8.8.8.8 is in it"), missing("not in the dump, taken as empty: table raw"))
	drop.Verdict, drop.DecidedBy = "dropped", &Decider{Kind: "rule", Table: "filter", Chain: "FORWARD", Rule: "-A FORWARD -j DROP", Index: 1}
	outside := open("set web", "its members weren't given", "8.8.8.8 isn't in it")
	a := Answer{Flow: Flow{Source: pod, Destination: peer}, Outcomes: []Outcome{
		seen("eth0", outside, open("out-interface", "no routes", "it is eth0"), missing("not in the dump, taken as empty: table raw")),
		seen("eth1", outside, open("out-interface", "no routes", "it isn't eth0"), missing("not in the dump, taken as empty: table raw, table mangle")),
		drop,
	}}
	var b strings.Builder
	a.Text(&b, TextOptions{})
	want := `10.244.1.7 to 8.8.8.8: 2 outcomes
1  depends  8.8.8.8 sees 10.244.1.7 itself (kept)
            if 8.8.8.8 isn't in set web
2  depends  8.8.8.8 sees nothing of 10.244.1.7: dropped by rule 1 of chain FORWARD
            if 8.8.8.8 is in set web

outcome 2 decided by
  -A FORWARD -j DROP
  where  filter, chain FORWARD, rule 1
  owner

depends on
  set web        its members weren't given
  out-interface  no routes (outcome 1)
  rules          not in the dump, taken as empty: table raw, table mangle
`
	trimmed := strings.ReplaceAll(b.String(), "owner  \n", "owner\n")
	if diff := cmp.Diff(want, trimmed); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if len(a.Outcomes) != 3 {
		t.Errorf("the answer itself has %d outcomes now; want 3", len(a.Outcomes))
	}
}

// The first line says where rules that could change it weren't read.
func TestTextSaysWhatWasNotRead(t *testing.T) {
	for reason, want := range map[string]bool{
		"not in the dump, taken as empty: table raw, table nat":                                               true,
		"not in the dump, taken as empty: table raw, the tables of iptables-nft":                              true,
		"not in the dump, taken as empty: table raw, chain PREROUTING of table nat, chain INPUT of table nat": false,
	} {
		o := Outcome{DependsOn: []Dependency{{"rules", reason, "", reason}}}
		if hidden := o.unread(); hidden != want {
			t.Errorf("%s: %t, want %t", reason, hidden, want)
		}
	}
}

// A node whose programs failed is told from one that has no rules.
func TestWarnsOfWhatCouldNotBeRead(t *testing.T) {
	host := &snapshot.Host{Meta: &snapshot.Meta{Missing: map[string]string{
		snapshot.FileIPTables:  "permission denied: iptables-nft-save needs CAP_NET_ADMIN (root, or sudo)",
		snapshot.FileNFT:       "permission denied: nft needs CAP_NET_ADMIN (root, or sudo)",
		snapshot.FileIPSet:     "ipset is not installed",
		snapshot.FileIP6Tables: "ip6tables-save: table incompatible",
	}}}
	want := []string{
		"ip6tables-save.txt couldn't be taken: ip6tables-save: table incompatible",
		"permission denied: rules and sets can't be read without CAP_NET_ADMIN; run unmasq as root (sudo). Missing: iptables-save.txt, nft.json",
	}
	if diff := cmp.Diff(want, New(Node{Host: host}).Warnings()); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
}
