package owner_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/owner"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/iptables"
)

// large is a node with 10,000 services of 3 endpoints: 40,000 chains, 110,000 rules.
func large(b *testing.B) *ruleset.Ruleset {
	b.Helper()
	var text strings.Builder
	text.WriteString("*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:KUBE-SERVICES - [0:0]\n:KUBE-POSTROUTING - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n")
	for i := range 10_000 {
		fmt.Fprintf(&text, ":KUBE-SVC-%016d - [0:0]\n", i)
		for e := range 3 {
			fmt.Fprintf(&text, ":KUBE-SEP-%016d - [0:0]\n", 3*i+e)
		}
	}
	text.WriteString("-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n")
	for i := range 10_000 {
		svc := fmt.Sprintf("KUBE-SVC-%016d", i)
		fmt.Fprintf(&text, "-A KUBE-SERVICES -d 10.96.%d.%d/32 -p tcp -m comment --comment \"ns/s%d:http cluster IP\" -m tcp --dport 80 -j %s\n", i/250, i%250, i, svc)
		fmt.Fprintf(&text, "-A %s ! -s 10.244.0.0/16 -d 10.96.%d.%d/32 -p tcp -m comment --comment \"ns/s%d:http cluster IP\" -m tcp --dport 80 -j KUBE-MARK-MASQ\n", svc, i/250, i%250, i)
		for e := range 3 {
			sep := fmt.Sprintf("KUBE-SEP-%016d", 3*i+e)
			fmt.Fprintf(&text, "-A %s -m comment --comment \"ns/s%d:http\" -m statistic --mode random --probability 0.33333333349 -j %s\n", svc, i, sep)
			fmt.Fprintf(&text, "-A %s -s 10.244.1.%d/32 -m comment --comment \"ns/s%d:http\" -j KUBE-MARK-MASQ\n", sep, e+1, i)
			fmt.Fprintf(&text, "-A %s -p tcp -m comment --comment \"ns/s%d:http\" -m tcp -j DNAT --to-destination 10.244.1.%d:8080\n", sep, i, e+1)
		}
	}
	text.WriteString("COMMIT\n")
	tables, problems := iptables.ReadSave(text.String(), iptables.Options{FirstLine: 1})
	if len(problems) > 0 {
		b.Fatal(problems[0])
	}
	return &ruleset.Ruleset{Tables: tables}
}

func BenchmarkNew(b *testing.B) {
	rules := large(b)
	b.ReportAllocs()
	for b.Loop() {
		owner.New(rules, nil)
	}
}

func BenchmarkOf(b *testing.B) {
	rules := large(b)
	index := owner.New(rules, nil)
	t := rules.Tables[0]
	c := t.Chain("KUBE-SVC-0000000000005000")
	b.ReportAllocs()
	for b.Loop() {
		index.Of(t, c, &c.Rules[0])
	}
}
