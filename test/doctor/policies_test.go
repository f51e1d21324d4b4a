package doctor_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/unmasq/unmasq/internal/doctor"
	"github.com/unmasq/unmasq/internal/kernel/capture"
	"github.com/unmasq/unmasq/internal/ruleset"
	"github.com/unmasq/unmasq/internal/ruleset/nftables"
)

// policyLessons are about NetworkPolicies where nodes hide their pods from each other.
var policyLessons = []lesson{
	{
		code: "policies-misled", name: "kube-router",
		provoke: otherPods + letIn,
		with:    []string{"pods-masqueraded"},
		alike: map[string]string{
			"pods are kept":          noIPv4 + otherPods + letIn + "iptables -t nat -A POSTROUTING -s 10.244.1.0/24 ! -d 10.244.0.0/16 -j MASQUERADE",
			"nodes are let in":       otherPods + letIn + "ipset add KUBE-SRC-WEB 192.0.2.2",
			"no pods there":          otherPods + strings.ReplaceAll(letIn, "10.244.2.2", "203.0.113.9"),
			"pods of this node":      otherPods + strings.ReplaceAll(letIn, "10.244.2.2", "10.244.1.3"),
			"a list of no firewall":  otherPods + "ipset create seen hash:ip; ipset add seen 10.244.2.2; iptables -A FORWARD -m set --match-set seen src",
			"a firewall for the far": otherPods + "iptables -A FORWARD -s 203.0.113.0/24 -d 10.244.1.2 -j REJECT",
		},
		before: otherNodesPolicy,
		call:   &call{from: pod1, to: out, address: "10.244.2.2:80", before: lost, after: "10.244.1.2"},
	},
	{
		code: "policies-misled", name: "nftables",
		provoke: otherPods + `nft -f - <<'END'
table ip felix {
	set from-web { type ipv4_addr; elements = { 10.244.2.2 }; }
	chain forward {
		type filter hook forward priority 0;
		ct state established,related accept
		ip daddr 10.244.1.2 ip saddr @from-web accept
		ip daddr 10.244.1.2 drop
	}
}
END`,
		with:   []string{"pods-masqueraded"},
		before: otherNodesPolicy,
		call:   &call{from: pod1, to: out, address: "10.244.2.2:80", before: lost, after: "10.244.1.2"},
	},
}

const (
	// otherPods are those of another node, which the lab's rule masquerades.
	otherPods = "ip route add 10.244.2.0/24 via 192.0.2.2\n"
	// letIn lets one of them come to pod1, as kube-router writes it.
	letIn = `ipset create KUBE-SRC-WEB hash:ip; ipset add KUBE-SRC-WEB 10.244.2.2
ipset create KUBE-DST-WEB hash:ip; ipset add KUBE-DST-WEB 10.244.1.2
iptables-restore --noflush <<'END'
*filter
:KUBE-ROUTER-FORWARD - [0:0]
:KUBE-POD-FW-WEB - [0:0]
:KUBE-NWPLCY-WEB - [0:0]
-A FORWARD -m comment --comment "kube-router netpol - TEMCG2JMHZYE7H7T" -j KUBE-ROUTER-FORWARD
-A KUBE-ROUTER-FORWARD -d 10.244.1.2/32 -m comment --comment "rule to jump traffic destined to POD name:web namespace: default to chain KUBE-POD-FW-WEB" -j KUBE-POD-FW-WEB
-A KUBE-POD-FW-WEB -m comment --comment "rule for stateful firewall for pod" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A KUBE-POD-FW-WEB -m comment --comment "run through nw policy web" -j KUBE-NWPLCY-WEB
-A KUBE-POD-FW-WEB -m mark ! --mark 0x10000/0x10000 -m comment --comment "rule to REJECT traffic destined for POD name:web namespace: default" -j REJECT --reject-with icmp-port-unreachable
-A KUBE-NWPLCY-WEB -p tcp -m set --match-set KUBE-SRC-WEB src -m set --match-set KUBE-DST-WEB dst -m tcp --dport 8080 -m comment --comment "rule to ACCEPT traffic from source pods to dest pods selected by policy name web namespace default" -j MARK --set-xmark 0x10000/0x10000
COMMIT
END
`
)

// otherNodesPolicy lets pod1 in, on the other node, and nobody else.
func otherNodesPolicy(l *lab) {
	l.shell(l.out, "iptables -A INPUT -p tcp --dport 80 ! -s 10.244.1.2 -j REJECT")
}

// TestPoliciesOfAProgram: kube-network-policies judges packets in a program. Its table is read
// as text, since not every kernel has queues.
func TestPoliciesOfAProgram(t *testing.T) {
	t.Parallel()
	l := newLab(t, otherPods)
	for _, c := range []struct {
		elements string
		found    bool
	}{{"elements = { 10.244.1.2 }", true}, {"elements = { 10.244.1.3 }", true}, {"", false}, {"elements = { 10.245.1.2 }", false}} {
		if r := l.judged(c.elements); slices.Contains(codes(&r), "policies-misled") != c.found {
			t.Errorf("%q: expected %t\n%s", c.elements, c.found, text(&r))
		}
	}
	r := l.judged("elements = { 10.244.1.2 }")
	for _, f := range r.Findings {
		l.shell(l.node, strings.Join(f.Mend, "\n"))
	}
	if r = l.judged("elements = { 10.244.1.2 }"); len(r.Findings) > 0 {
		t.Errorf("after the mend there is still:\n%s", text(&r))
	}
}

// judged is the lab with that program's table, and pods that policies are about.
func (l *lab) judged(elements string) doctor.Report {
	l.t.Helper()
	host, err := capture.Live(l.t.Context(), capture.Options{Namespace: l.node})
	must(l.t, err)
	read, problems := nftables.ReadText(`table inet kube-network-policies {
	set podips-v4 {
		type ipv4_addr
		`+elements+`
	}
	chain postrouting {
		type filter hook postrouting priority 95; policy accept;
		ct state established,related accept
		ip saddr @podips-v4 queue flags bypass to 100
		ip daddr @podips-v4 queue flags bypass to 100
	}
}
`, 1)
	if len(read.Tables) != 1 || len(problems) > 0 {
		l.t.Fatal(problems)
	}
	host.Rules.Tables = append(host.Rules.Tables, ruleset.FromNative(read.Tables[0]))
	return doctor.Examine(doctor.Node{Host: host})
}
